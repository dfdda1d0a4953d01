//! Bootstrap signer: signs the kubeconfig in `kube-public/cluster-info` with each bootstrap token. A node verifies the
//! kubeconfig with the token that it joins with (upstream: `bootstrap`).

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, PostParams};
use nave_client::{Action, Lister, ObjectName};
use serde_json::json;

use crate::api::ignore_not_found;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};
use crate::token_cleaner::{NAMESPACE, expires_in, is_token};

pub(crate) const BOOTSTRAP_SIGNER: Descriptor = Descriptor {
    name: "bootstrap-signer-controller",
    alias: "bootstrapsigner",
    service_account: "bootstrap-signer",
    on_by_default: false,
    workers: Workers::fixed(1),
    start,
};

const CLUSTER_INFO: (&str, &str) = ("kube-public", "cluster-info");
const KUBECONFIG: &str = "kubeconfig";
/// Prefix of a data key that holds a signature; the token ID follows.
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

struct Controller {
    client: kube::Client,
    config_maps: Lister<ConfigMap>,
    secrets: Lister<Secret>,
}

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("bootstrap_signer_queue");
    let (config_maps, secrets) = (builder.informer::<ConfigMap>(), builder.informer::<Secret>());
    let (namespace, name) = CLUSTER_INFO;
    builder.enqueue_mapped(&config_maps, move |map| {
        (map.namespace() == namespace && map.name() == name).then(|| map.key())
    });
    builder
        .enqueue_mapped(&secrets, move |secret| is_token(secret).then(|| ObjectName::new(namespace, name)));
    builder.run(Controller {
        client: context.client.clone(),
        config_maps: config_maps.lister(),
        secrets: secrets.lister(),
    })
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cached) = self.config_maps.get_by_key(&key) else { return Ok(Action::Done) };
        let mut map = cached.decode()?;
        let tokens = self
            .secrets
            .list_namespace(NAMESPACE)
            .iter()
            .filter(|secret| is_token(secret))
            .map(nave_client::Object::decode)
            .collect::<Result<Vec<_>, _>>()?;
        let Some(signed) = signed(map.data.as_ref(), &tokens, Timestamp::now()) else {
            return Ok(Action::Done);
        };
        map.data = Some(signed);
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), key.namespace());
        ignore_not_found(maps.replace(key.name(), &PostParams::default(), &map).await)?;
        Ok(Action::Done)
    }
}

/// Returns the config map's data with one signature per signing token; `None` if its signatures are up to date.
fn signed(
    data: Option<&BTreeMap<String, String>>,
    tokens: &[Secret],
    now: Timestamp,
) -> Option<BTreeMap<String, String>> {
    let data = data?;
    let kubeconfig = data.get(KUBECONFIG)?;
    let mut signed = data.clone();
    signed.retain(|key, _| !key.starts_with(SIGNATURE_PREFIX));
    for (id, secret) in tokens.iter().filter_map(|token| signing_token(token, now)) {
        signed.insert(format!("{SIGNATURE_PREFIX}{id}"), signature(kubeconfig, id, secret));
    }
    (&signed != data).then_some(signed)
}

/// The ID and secret of a valid signing token.
fn signing_token(token: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let field = |key: &str| std::str::from_utf8(&token.data.as_ref()?.get(key)?.0).ok();
    let (id, secret) = (field("token-id")?, field("token-secret")?);
    let has_matching_name = token.metadata.name.as_deref()?.strip_prefix("bootstrap-token-") == Some(id);
    let is_expired = expires_in(token, now).is_some_and(|left| left.is_zero());
    let may_sign = field("usage-bootstrap-signing") == Some("true") && !id.is_empty() && !secret.is_empty();
    (has_matching_name && may_sign && !is_expired).then_some((id, secret))
}

/// A detached JWS (RFC 7515, appendix F) of `text`, signed with the token's secret.
fn signature(text: &str, id: &str, secret: &str) -> String {
    let header = BASE64_URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let payload = BASE64_URL_SAFE_NO_PAD.encode(text);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{header}.{payload}").as_bytes());
    format!("{header}..{}", BASE64_URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;
    use crate::pods::fixtures::now;

    fn token(id: &str, signing: &str, expiration: &str) -> Secret {
        let fields = [
            ("token-id", id),
            ("token-secret", "abcdef0123456789"),
            ("usage-bootstrap-signing", signing),
            ("expiration", expiration),
        ];
        let data = fields.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
        let mut secret = Secret { data: Some(data.into()), ..Secret::default() };
        secret.metadata.name = Some(format!("bootstrap-token-{id}"));
        secret
    }

    #[test]
    fn adds_signatures_of_valid_signing_tokens_only() {
        let data: BTreeMap<_, _> =
            [("kubeconfig", "content"), ("jws-kubeconfig-old", "x"), ("other", "stays")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
        let tokens =
            [token("a", "true", ""), token("b", "false", ""), token("c", "true", "2026-01-01T11:00:00Z")];
        let signed = super::signed(Some(&data), &tokens, now()).unwrap();
        let keys: Vec<_> = signed.keys().map(String::as_str).collect();
        assert_eq!(keys, ["jws-kubeconfig-a", "kubeconfig", "other"]);
        assert_eq!(super::signed(Some(&signed), &tokens, now()), None);
        assert_eq!(super::signed(Some(&BTreeMap::new()), &tokens, now()), None);
    }

    #[test]
    fn signature_is_a_detached_jws() {
        let jws = signature("content", "abcdef", "0123456789abcdef");
        let parts: Vec<_> = jws.split('.').collect();
        let header = BASE64_URL_SAFE_NO_PAD.decode(parts[0]).unwrap();
        assert_eq!(header, br#"{"alg":"HS256","kid":"abcdef"}"#);
        assert_eq!((parts.len(), parts[1], parts[2].len()), (3, "", 43));
        assert_ne!(signature("other", "abcdef", "0123456789abcdef"), jws);
    }
}
