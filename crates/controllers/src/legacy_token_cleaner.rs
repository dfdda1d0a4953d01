//! Legacy service account token cleaner: marks unused secret-based tokens as invalid, and deletes them later
//! (upstream: `serviceaccount`, KEP-2799). Only cleans up tokens that a service account refers to: older clusters
//! generated these tokens automatically.

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

use crate::api::ignore_not_found;
use crate::frame::{Context, Descriptor, SyncError, Workers};

pub(crate) const LEGACY_TOKEN_CLEANER: Descriptor = Descriptor {
    name: "legacy-serviceaccount-token-cleaner-controller",
    alias: "legacy-service-account-token-cleaner",
    service_account: "legacy-service-account-token-cleaner",
    on_by_default: true,
    workers: Workers::fixed(1),
    start,
};

/// The interval between runs.
const PERIOD: Duration = Duration::from_hours(24);
/// The config map that records the date on which token tracking started.
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

#[derive(Debug, PartialEq, Eq)]
enum TokenAction {
    Keep,
    /// Label the token as invalid. Users who still need the token can remove the label.
    MarkInvalid,
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
                    tracing::warn!(%error, "token cleanup failed");
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
            let action = token_action(&secret, oldest);
            if action == TokenAction::Keep || !self.is_generated(&secret)? {
                continue;
            }
            let namespace = secret.namespace().to_owned();
            let names = mounted.entry(namespace).or_insert_with(|| self.mounted_secrets(secret.namespace()));
            if names.contains(secret.name()) {
                continue;
            }
            self.apply(&secret, &action, now).await?;
        }
        Ok(())
    }

    /// Returns the cutoff: tokens created or used after it are kept. `None` if token use has been tracked for less
    /// than the cleanup period.
    async fn oldest_kept(&self, now: Timestamp) -> Result<Option<Timestamp>, SyncError> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kube-system");
        let tracking_since = maps
            .get(TRACKING)
            .await?
            .data
            .and_then(|mut data| data.remove("since")?.parse::<Date>().ok())
            .and_then(|date| date.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok());
        let since = tracking_since.ok_or_else(|| {
            SyncError::Invalid(format!("config map {TRACKING} does not say since when tokens are tracked"))
        })?;
        let oldest = now.saturating_sub(self.period).unwrap_or(Timestamp::MIN);
        Ok((since.timestamp() <= oldest).then_some(oldest))
    }

    /// Returns whether the token's service account refers to its secret.
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

    /// Collects all strings in the pods of a namespace that may be names of secrets.
    fn mounted_secrets(&self, namespace: &str) -> HashSet<String> {
        let mut names = HashSet::new();
        for pod in self.pods.list_namespace(namespace) {
            let spec = pod.json_at(&["spec"]).and_then(|spec| serde_json::from_slice(spec).ok());
            secret_names(&spec.unwrap_or(Value::Null), false, &mut names);
        }
        names
    }

    async fn apply(
        &self,
        secret: &Object<Secret>,
        due: &TokenAction,
        now: Timestamp,
    ) -> Result<(), SyncError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), secret.namespace());
        if *due == TokenAction::MarkInvalid {
            tracing::info!(secret = %secret.key(), "marking an unused token as invalid");
            let labels = json!({(INVALID_SINCE): date(now)});
            let patch = Patch::Merge(json!({"metadata": {"uid": secret.uid(), "labels": labels}}));
            return ignore_not_found(secrets.patch(secret.name(), &PatchParams::default(), &patch).await);
        }
        tracing::info!(secret = %secret.key(), "deleting an unused token");
        let resource_version = Some(secret.resource_version().to_owned());
        let preconditions = Some(Preconditions { uid: None, resource_version });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        match ignore_not_found(secrets.delete(secret.name(), &parameters).await) {
            Err(error) if error.is_conflict() => Ok(()),
            outcome => outcome,
        }
    }
}

/// Decides what to do with a secret by its type, age and labels.
fn token_action(secret: &Object<Secret>, oldest: Timestamp) -> TokenAction {
    let is_token = secret.json_at(&["type"]) == Some(br#""kubernetes.io/service-account-token""#);
    let created = secret
        .json_at(&["metadata", "creationTimestamp"])
        .and_then(|time| serde_json::from_slice::<Timestamp>(time).ok());
    let is_old = created.is_some_and(|created| created < oldest);
    if !is_token || !is_old || secret.is_being_deleted() {
        return TokenAction::Keep;
    }
    let oldest_date = date(oldest);
    let is_recent = |written: &str| match written.parse::<Date>() {
        Ok(_) => written >= oldest_date.as_str(),
        // Keeps tokens whose label is not a date.
        Err(_) => true,
    };
    if secret.label(LAST_USED).is_some_and(is_recent) {
        return TokenAction::Keep;
    }
    let marked = secret.label(INVALID_SINCE).filter(|since| since.parse::<Date>().is_ok());
    match marked {
        None => TokenAction::MarkInvalid,
        Some(since) if since >= oldest_date.as_str() => TokenAction::Keep,
        Some(_) => TokenAction::Delete,
    }
}

/// Collects the names of secrets in a pod's spec: `secretName`, `secretRef`, `secretKeyRef`, `imagePullSecrets`,
/// and projected secrets.
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
    fn marks_and_then_deletes_unused_tokens() {
        // The current time is 2026-01-01. Tokens used in the last 30 days are kept.
        let oldest = now() - SignedDuration::from_hours(30 * 24);
        let action = |created: &str, labels: Value| {
            let secret = json!({"metadata": {"name": "s", "creationTimestamp": created, "labels": labels},
                "type": "kubernetes.io/service-account-token"});
            token_action(&Object::from_value(&secret).unwrap(), oldest)
        };
        let old = "2025-01-01T00:00:00Z";
        assert_eq!(action(old, json!({})), TokenAction::MarkInvalid);
        assert_eq!(action("2025-12-20T00:00:00Z", json!({})), TokenAction::Keep);
        assert_eq!(action(old, json!({LAST_USED: "2025-12-20"})), TokenAction::Keep);
        assert_eq!(action(old, json!({LAST_USED: "2025-11-01"})), TokenAction::MarkInvalid);
        assert_eq!(action(old, json!({LAST_USED: "lately"})), TokenAction::Keep);
        assert_eq!(action(old, json!({INVALID_SINCE: "2025-12-20"})), TokenAction::Keep);
        assert_eq!(action(old, json!({INVALID_SINCE: "2025-11-01"})), TokenAction::Delete);
        assert_eq!(action(old, json!({INVALID_SINCE: "once"})), TokenAction::MarkInvalid);
    }

    #[test]
    fn finds_secrets_that_a_pod_refers_to() {
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
