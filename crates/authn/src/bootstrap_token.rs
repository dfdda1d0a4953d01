//! Bootstrap tokens, with which nodes join a cluster. They are stored in secrets of `kube-system` (upstream:
//! `bootstrap/token`).

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine, prelude::BASE64_STANDARD};
use nave_machinery::time::{self, Timestamp};
use nave_machinery::user::UserInfo;
use nave_machinery::{Value, meta};

use crate::bearer::common;
use crate::{AuthnError, Identity, Objects, TokenAuthenticator};

const NAMESPACE: &str = "kube-system";
const SECRET_PREFIX: &str = "bootstrap-token-";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const USER_PREFIX: &str = "system:bootstrap:";
/// The group of all bootstrap users, and the prefix of their extra groups.
const GROUP: &str = "system:bootstrappers";
const MAX_GROUP_SUFFIX: usize = 256;

/// Authenticates the tokens in secrets of type `bootstrap.kubernetes.io/token`.
pub struct BootstrapTokens {
    objects: Arc<dyn Objects>,
    audiences: Vec<String>,
}

impl BootstrapTokens {
    /// Reads the secrets from `objects`. The tokens are valid for `audiences`.
    pub fn new(objects: Arc<dyn Objects>, audiences: Vec<String>) -> Self {
        Self { objects, audiences }
    }

    fn user(&self, id: &str, secret: &str) -> Option<UserInfo> {
        let object = self.objects.get("secrets", NAMESPACE, &format!("{SECRET_PREFIX}{id}"))?;
        if meta::deletion_timestamp(&object).is_some()
            || meta::str_at(&object, &["type"]) != Some(SECRET_TYPE)
        {
            return None;
        }
        let right = verify_slices_are_equal(&data(&object, "token-secret"), secret.as_bytes()).is_ok()
            && data(&object, "token-id") == id.as_bytes()
            && data(&object, "usage-bootstrap-authentication") == b"true"
            && !is_expired(&data(&object, "expiration"), time::now());
        if !right {
            return None;
        }
        let groups = groups(&data(&object, "auth-extra-groups"))?;
        Some(UserInfo { name: format!("{USER_PREFIX}{id}"), groups, ..UserInfo::default() })
    }
}

#[async_trait]
impl TokenAuthenticator for BootstrapTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identity>, AuthnError> {
        let meant = common(&self.audiences, audiences);
        let Some((id, secret)) = parse(token).filter(|_| !meant.is_empty()) else { return Ok(None) };
        Ok(self.user(id, secret).map(|user| Identity::new(user).for_audiences(meant)))
    }
}

/// Splits a token such as `abcdef.0123456789abcdef` into id and secret.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let fits = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (fits(id, 6) && fits(secret, 16)).then_some((id, secret))
}

/// Returns whether a token has expired. A token without an expiration never expires. A token whose expiration cannot
/// be parsed counts as expired.
fn is_expired(expiration: &[u8], now: Timestamp) -> bool {
    if expiration.is_empty() {
        return false;
    }
    let at = std::str::from_utf8(expiration).ok().and_then(Timestamp::parse);
    at.is_none_or(|at| at.unix_seconds() <= now.unix_seconds())
}

/// Returns the groups of a token, sorted; `None` if bootstrap tokens may not have one of the extra groups.
fn groups(extra: &[u8]) -> Option<Vec<String>> {
    let extra = std::str::from_utf8(extra).ok()?;
    let mut groups = vec![GROUP.to_owned()];
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        let suffix = group.strip_prefix(GROUP)?.strip_prefix(':')?;
        let ends = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let within = |byte| ends(byte) || byte == b':' || byte == b'-';
        let fits = suffix.len() <= MAX_GROUP_SUFFIX && suffix.bytes().all(within);
        if !fits || !suffix.bytes().last().is_some_and(ends) {
            return None;
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Some(groups)
}

fn data(secret: &Value, key: &str) -> Vec<u8> {
    let encoded = meta::value_at(secret, &["data", key]).and_then(Value::as_str).unwrap_or_default();
    BASE64_STANDARD.decode(encoded).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct One(Value);

    impl Objects for One {
        fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
            let found = (resource, namespace, name) == ("secrets", NAMESPACE, "bootstrap-token-abcdef");
            found.then(|| self.0.clone())
        }
    }

    const TOKEN: &str = "abcdef.0123456789abcdef";

    async fn user(token: &str, changes: &[(&str, &str)]) -> Option<Vec<String>> {
        let mut data = json!({
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
        });
        for (key, value) in changes {
            data[*key] = (*value).into();
        }
        for value in data.as_object_mut().unwrap().values_mut() {
            *value = BASE64_STANDARD.encode(value.as_str().unwrap()).into();
        }
        let kind = changes.iter().find(|(key, _)| *key == "type").map_or(SECRET_TYPE, |(_, kind)| *kind);
        let mut secret = json!({"type": kind, "data": data});
        if changes.contains(&("deleted", "true")) {
            secret["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        }
        let audiences = ["api".to_owned()];
        let tokens = BootstrapTokens::new(Arc::new(One(secret)), audiences.to_vec());
        let found = tokens.authenticate_token(token, &audiences).await.unwrap()?;
        assert_eq!(found.user.name, "system:bootstrap:abcdef");
        Some(found.user.groups.clone())
    }

    #[tokio::test]
    async fn accepts_token_of_matching_secret() {
        let own = "system:bootstrappers:kubeadm:default-node-token";
        assert_eq!(user(TOKEN, &[]).await.unwrap(), [GROUP, own, "system:authenticated"]);
        assert!(user(TOKEN, &[("expiration", "2999-01-01T00:00:00Z")]).await.is_some());
        assert_eq!(user(TOKEN, &[("auth-extra-groups", "")]).await.unwrap(), [GROUP, "system:authenticated"]);
    }

    #[tokio::test]
    async fn rejects_malformed_expired_and_unusable_secrets() {
        for token in [
            "abcdef.0123456789abcdeg",
            "abcdeg.0123456789abcdef",
            "abcdef.0123456789abcde",
            "abcdef0123456789abcdef",
            "ABCDEF.0123456789abcdef",
            "abcdef.0123456789abcdef.",
            "",
        ] {
            assert_eq!(user(token, &[]).await, None, "{token}");
        }
        for (key, value) in [
            ("token-id", "abcdeg"),
            ("token-secret", ""),
            ("usage-bootstrap-authentication", "false"),
            ("usage-bootstrap-authentication", ""),
            ("expiration", "2020-01-01T00:00:00Z"),
            ("expiration", "soon"),
            ("type", "Opaque"),
            ("deleted", "true"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers"),
            ("auth-extra-groups", "system:bootstrappers:"),
            ("auth-extra-groups", "system:bootstrappers:a-"),
            ("auth-extra-groups", "system:bootstrappers:a,"),
            ("auth-extra-groups", "system:bootstrappers:A"),
        ] {
            assert_eq!(user(TOKEN, &[(key, value)]).await, None, "{key}: {value}");
        }
    }
}
