//! Legacy service account token cleaner: tokens in secrets that nothing has used for a long time are first marked
//! invalid, and then deleted (upstream: `serviceaccount`, KEP-2799). Only those that a service account refers to, as
//! clusters once made them by themselves.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use nave_client::{Lister, Object};
use serde_json::{Value, json};

use crate::api::gone_is_fine;
use crate::frame::{Context, Descriptor, SyncError, Workers};

/// The controller.
pub(crate) const LEGACY_TOKEN_CLEANER: Descriptor = Descriptor {
    name: "legacy-serviceaccount-token-cleaner-controller",
    alias: "legacy-service-account-token-cleaner",
    service_account: "legacy-service-account-token-cleaner",
    on_by_default: true,
    workers: Workers::fixed(1),
    start,
};

/// How often it looks.
const PERIOD: Duration = Duration::from_hours(24);
/// The config map that says since when the use of tokens is noted.
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

struct Cleaner {
    client: kube::Client,
    secrets: Lister<Secret>,
    accounts: Lister<ServiceAccount>,
    pods: Lister<Pod>,
    period: SignedDuration,
}

/// The action on a token.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// It is marked as invalid. Whoever misses it can remove the mark.
    Mark,
    Delete,
}

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let secrets = context.informers.informer::<Secret>();
    let accounts = context.informers.informer::<ServiceAccount>();
    let pods = context.informers.informer::<Pod>();
    let period = context.options.legacy_token_clean_up_period;
    let cleaner = Cleaner {
        client: context.client.clone(),
        secrets: secrets.lister(),
        accounts: accounts.lister(),
        pods: pods.lister(),
        period: period.try_into().unwrap_or(SignedDuration::MAX),
    };
    let stop = context.stop.clone();
    async move {
        let clean = async {
            secrets.wait_for_sync().await;
            accounts.wait_for_sync().await;
            pods.wait_for_sync().await;
            loop {
                if let Err(error) = cleaner.clean(Timestamp::now()).await {
                    tracing::warn!(%error, "not all unused tokens could be cleaned up");
                }
                tokio::time::sleep(PERIOD).await;
            }
        };
        stop.run_until_cancelled(clean).await;
    }
    .boxed()
}

impl Cleaner {
    async fn clean(&self, now: Timestamp) -> Result<(), SyncError> {
        let Some(oldest) = self.oldest_kept(now).await? else { return Ok(()) };
        let mut mounted = HashMap::new();
        for secret in self.secrets.list() {
            let due = due(&secret, oldest);
            if due == Due::Nothing || !self.is_generated(&secret)? {
                continue;
            }
            let namespace = secret.namespace().to_owned();
            let names = mounted.entry(namespace).or_insert_with(|| self.mounted(secret.namespace()));
            if names.contains(secret.name()) {
                continue;
            }
            self.act(&secret, &due, now).await?;
        }
        Ok(())
    }

    /// Tokens that are younger are kept, and those used since. Nothing is known before the use of tokens has been noted
    /// for long enough.
    async fn oldest_kept(&self, now: Timestamp) -> Result<Option<Timestamp>, SyncError> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kube-system");
        let since = maps.get(TRACKING).await?.data.and_then(|mut data| data.remove("since"));
        let since = since.and_then(|text| text.parse::<Date>().ok());
        let since = since.and_then(|date| date.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok());
        let since = since.ok_or_else(|| {
            SyncError::Invalid(format!("config map {TRACKING} does not say since when tokens are tracked"))
        })?;
        let oldest = now.saturating_sub(self.period).unwrap_or(Timestamp::MIN);
        Ok((since.timestamp() <= oldest).then_some(oldest))
    }

    /// True if a service account refers to the secret of its token.
    fn is_generated(&self, secret: &Object<Secret>) -> Result<bool, SyncError> {
        let Some(name) = secret.annotation("kubernetes.io/service-account.name") else { return Ok(false) };
        let uid = secret.annotation("kubernetes.io/service-account.uid").unwrap_or_default();
        let Some(account) = self.accounts.get(secret.namespace(), &name) else { return Ok(false) };
        if !uid.is_empty() && uid != account.uid() {
            return Ok(false);
        }
        let secrets = account.decode()?.secrets.unwrap_or_default();
        Ok(secrets.iter().any(|reference| reference.name.as_deref() == Some(secret.name())))
    }

    /// All names in the pods of a namespace that may be those of secrets.
    fn mounted(&self, namespace: &str) -> HashSet<String> {
        let mut names = HashSet::new();
        for pod in self.pods.list_namespace(namespace) {
            let spec = pod.json_at(&["spec"]).and_then(|spec| serde_json::from_slice(spec).ok());
            secret_names(&spec.unwrap_or(Value::Null), false, &mut names);
        }
        names
    }

    async fn act(&self, secret: &Object<Secret>, due: &Due, now: Timestamp) -> Result<(), SyncError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), secret.namespace());
        if *due == Due::Mark {
            tracing::info!(secret = %secret.key(), "marking an unused token as invalid");
            let labels = json!({(INVALID_SINCE): date(now)});
            let patch = Patch::Merge(json!({"metadata": {"uid": secret.uid(), "labels": labels}}));
            return gone_is_fine(secrets.patch(secret.name(), &PatchParams::default(), &patch).await);
        }
        tracing::info!(secret = %secret.key(), "deleting an unused token");
        let resource_version = Some(secret.resource_version().to_owned());
        let preconditions = Some(Preconditions { uid: None, resource_version });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        match gone_is_fine(secrets.delete(secret.name(), &parameters).await) {
            Err(error) if error.is_conflict() => Ok(()),
            outcome => outcome,
        }
    }
}

/// The action on a secret, if it is a token that an account refers to and that no pod mounts.
fn due(secret: &Object<Secret>, oldest: Timestamp) -> Due {
    let is_token = secret.json_at(&["type"]) == Some(br#""kubernetes.io/service-account-token""#);
    let created = secret.json_at(&["metadata", "creationTimestamp"]);
    let created = created.and_then(|time| serde_json::from_slice::<Timestamp>(time).ok());
    let is_old = created.is_some_and(|created| created < oldest);
    if !is_token || !is_old || secret.is_being_deleted() {
        return Due::Nothing;
    }
    let oldest = date(oldest);
    let is_recent = |written: &str| match written.parse::<Date>() {
        Ok(_) => written >= oldest.as_str(),
        // A label that cannot be read keeps the token.
        Err(_) => true,
    };
    if secret.label(LAST_USED).is_some_and(is_recent) {
        return Due::Nothing;
    }
    let marked = secret.label(INVALID_SINCE).filter(|since| since.parse::<Date>().is_ok());
    match marked {
        None => Due::Mark,
        Some(since) if since >= oldest.as_str() => Due::Nothing,
        Some(_) => Due::Delete,
    }
}

/// Collects what a pod's spec names as a secret: `secretName`, `secretRef`, `secretKeyRef`, `imagePullSecrets`, and
/// projected secrets.
fn secret_names(value: &Value, is_secret: bool, names: &mut HashSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let of_secret = matches!(
                    key.as_str(),
                    "secret"
                        | "secretRef"
                        | "secretKeyRef"
                        | "imagePullSecrets"
                        | "nodePublishSecretRef"
                        | "nodeStageSecretRef"
                );
                match value {
                    Value::String(name) if key == "secretName" || (is_secret && key == "name") => {
                        names.insert(name.clone());
                    }
                    value => secret_names(value, of_secret, names),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| secret_names(item, is_secret, names)),
        _ => {}
    }
}

fn date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::now;

    #[test]
    fn unused_tokens_are_marked_and_then_deleted() {
        // Now is 2026-01-01, and tokens of the last 30 days are kept.
        let oldest = now() - SignedDuration::from_hours(30 * 24);
        let due = |created: &str, labels: Value| {
            let secret = json!({"metadata": {"name": "s", "creationTimestamp": created, "labels": labels},
                "type": "kubernetes.io/service-account-token"});
            due(&Object::from_value(&secret).unwrap(), oldest)
        };
        let old = "2025-01-01T00:00:00Z";
        assert_eq!(due(old, json!({})), Due::Mark);
        assert_eq!(due("2025-12-20T00:00:00Z", json!({})), Due::Nothing);
        assert_eq!(due(old, json!({LAST_USED: "2025-12-20"})), Due::Nothing);
        assert_eq!(due(old, json!({LAST_USED: "2025-11-01"})), Due::Mark);
        assert_eq!(due(old, json!({LAST_USED: "lately"})), Due::Nothing);
        assert_eq!(due(old, json!({INVALID_SINCE: "2025-12-20"})), Due::Nothing);
        assert_eq!(due(old, json!({INVALID_SINCE: "2025-11-01"})), Due::Delete);
        assert_eq!(due(old, json!({INVALID_SINCE: "once"})), Due::Mark);
    }

    #[test]
    fn secrets_that_a_pod_names_are_found() {
        let spec = json!({"imagePullSecrets": [{"name": "a"}], "containers": [{"name": "c",
                "envFrom": [{"secretRef": {"name": "b"}}, {"configMapRef": {"name": "x"}}],
                "env": [{"name": "e", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}}]}],
            "volumes": [{"name": "v", "secret": {"secretName": "e"}},
                {"name": "w", "projected": {"sources": [{"secret": {"name": "f"}}]}},
                {"name": "y", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "g"}}}]});
        let mut names = HashSet::new();
        secret_names(&spec, false, &mut names);
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort();
        assert_eq!(names, ["a", "b", "d", "e", "f", "g"]);
    }
}
