//! Token cleaner: deletes expired bootstrap tokens (upstream: `bootstrap`).

use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Preconditions};
use nave_client::{Action, Lister, Object, ObjectName};

use crate::api::ignore_not_found;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};

pub(crate) const TOKEN_CLEANER: Descriptor = Descriptor {
    name: "token-cleaner-controller",
    alias: "tokencleaner",
    service_account: "token-cleaner",
    on_by_default: false,
    workers: Workers::fixed(1),
    start,
};

/// The namespace of bootstrap tokens.
pub(crate) const NAMESPACE: &str = "kube-system";
const TYPE: &[u8] = br#""bootstrap.kubernetes.io/token""#;

struct Controller {
    client: kube::Client,
    secrets: Lister<Secret>,
}

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("token_cleaner");
    let secrets = builder.informer::<Secret>();
    builder.enqueue_mapped(&secrets, |secret| is_token(secret).then(|| secret.key()));
    builder.run(Controller { client: context.client.clone(), secrets: secrets.lister() })
}

pub(crate) fn is_token(secret: &Object<Secret>) -> bool {
    secret.namespace() == NAMESPACE && secret.json_at(&["type"]) == Some(TYPE)
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cached) = self.secrets.get_by_key(&key).filter(is_token) else { return Ok(Action::Done) };
        match expires_in(&cached.decode()?, Timestamp::now()) {
            None => return Ok(Action::Done),
            Some(wait) if !wait.is_zero() => return Ok(Action::RequeueAfter(wait)),
            Some(_) => {}
        }
        let uid = Some(cached.uid().to_owned());
        let preconditions = Some(Preconditions { uid, resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), key.namespace());
        ignore_not_found(secrets.delete(key.name(), &parameters).await)?;
        Ok(Action::Done)
    }
}

/// Returns the time until a token expires: zero if it has expired or its expiration is invalid, `None` if it never
/// expires.
pub(crate) fn expires_in(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let expiration = &secret.data.as_ref()?.get("expiration")?.0;
    if expiration.is_empty() {
        return None;
    }
    let end = std::str::from_utf8(expiration).ok().and_then(|text| text.parse::<Timestamp>().ok());
    Some(end.and_then(|end| now.duration_until(end).try_into().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;
    use crate::pods::fixtures::now;

    #[test]
    fn token_is_valid_until_its_expiration() {
        let wait = |expiration: Option<&str>| {
            let data = expiration.map(|text| ("expiration".to_owned(), ByteString(text.as_bytes().to_vec())));
            let secret = Secret { data: Some(data.into_iter().collect()), ..Secret::default() };
            expires_in(&secret, now())
        };
        assert_eq!(wait(None), None);
        assert_eq!(wait(Some("")), None);
        assert_eq!(wait(Some("2026-01-01T12:01:00Z")), Some(Duration::from_mins(1)));
        assert_eq!(wait(Some("2026-01-01T11:59:00Z")), Some(Duration::ZERO));
        assert_eq!(wait(Some("2026-01-01T13:00:00+02:00")), Some(Duration::ZERO));
        assert_eq!(wait(Some("tomorrow")), Some(Duration::ZERO));
    }
}
