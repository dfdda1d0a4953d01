//! ServiceAccount sets the service account of pods and mounts its token (upstream:
//! `plugin/pkg/admission/serviceaccount`).

mod references;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nave_machinery::{Map, Object, Status, Value, names};
use nave_resources::pod;
use serde_json::json;

use super::pods::list;
use super::{Parts, plain_error};
use crate::{Attributes, Lister, Mutate, Plugin, Validate};

/// The account of pods that do not name an account.
const DEFAULT: &str = "default";
/// The mount path of the token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The name prefix of the token's volume.
const VOLUME: &str = "kube-api-access-";
/// The requested lifetime in seconds. By this value the issuer recognizes the tokens of these volumes.
const TOKEN_SECONDS: u32 = 3607;
/// The annotation of accounts whose pods may only use the secrets that the account lists.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
/// The number of attempts to find the default account, and the delay between them. A controller creates this account
/// in new namespaces.
const ATTEMPTS: usize = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(150);

/// ServiceAccount.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::both(ServiceAccount { accounts: Arc::clone(&parts.cluster.service_accounts) })
}

struct ServiceAccount {
    accounts: Arc<dyn Lister>,
}

#[async_trait]
impl Mutate for ServiceAccount {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_create() && attributes.is_pods() && attributes.is_object()
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        // Mirror pods are not changed: the kubelet runs them as defined in its file.
        if !pod::is_mirror(pod.as_value()) {
            let account = self.account_of(attributes, pod).await?;
            set_account(pod, &account);
        }
        self.check(attributes, pod).await
    }
}

#[async_trait]
impl Validate for ServiceAccount {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_pods()
            && match attributes.subresource {
                "" => attributes.is_create(),
                "ephemeralcontainers" => attributes.is_update(),
                _ => false,
            }
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        if attributes.is_object() {
            return self.check(attributes, pod).await;
        }
        require_name(attributes, pod)?;
        let account = self.account_of(attributes, pod).await?;
        if !enforces(&account) {
            return Ok(());
        }
        // Upstream returns a plain error here.
        references::check_ephemeral(pod, &account).map_err(plain_error)
    }
}

impl ServiceAccount {
    async fn check(&self, attributes: &Attributes<'_>, pod: &Object) -> Result<(), Status> {
        let forbidden = |why: String| attributes.forbidden(pod, why);
        if pod::is_mirror(pod.as_value()) {
            return references::check_mirror_pod(pod.as_value()).map_err(forbidden);
        }
        require_name(attributes, pod)?;
        let account = self.account_of(attributes, pod).await?;
        if enforces(&account) { references::check(pod, &account).map_err(forbidden) } else { Ok(()) }
    }

    /// Returns the account of a pod. Reads it live if the cache does not have it, and retries for the default account.
    async fn account_of(&self, attributes: &Attributes<'_>, pod: &Object) -> Result<Arc<Object>, Status> {
        let (namespace, name) = (attributes.namespace, account_name(pod));
        if let Some(account) = self.accounts.get(namespace, name)? {
            return Ok(account);
        }
        let attempts = if name == DEFAULT { ATTEMPTS } else { 1 };
        for attempt in 0..attempts {
            if attempt > 0 {
                tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            }
            if let Some(account) = self.accounts.get_live(namespace, name).await? {
                return Ok(account);
            }
        }
        Err(attributes.forbidden(
            pod,
            format_args!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            ),
        ))
    }
}

/// Refuses a pod without an account.
fn require_name(attributes: &Attributes<'_>, pod: &Object) -> Result<(), Status> {
    if pod.str_at(&["spec", "serviceAccountName"]).is_some_and(|name| !name.is_empty()) {
        return Ok(());
    }
    let (namespace, name) = (attributes.namespace, pod.name());
    Err(attributes.forbidden(pod, format_args!("no service account specified for pod {namespace}/{name}")))
}

/// Sets the account of a pod, its token and image pull secrets.
fn set_account(pod: &mut Object, account: &Object) {
    let name = account_name(pod).to_owned();
    let automount = |object: Option<&Value>| object?.get("automountServiceAccountToken")?.as_bool();
    let automount =
        automount(pod.get("spec")).or_else(|| automount(Some(account.as_value()))).unwrap_or(true);
    let spec = pod.map_mut("spec");
    spec.insert("serviceAccountName".to_owned(), json!(name));
    // Also sets the deprecated field `serviceAccount`.
    spec.insert("serviceAccount".to_owned(), json!(name));
    if automount {
        mount_token(spec);
    }
    if list(spec.get("imagePullSecrets")).is_empty() {
        let named: Vec<_> = list(account.get("imagePullSecrets"))
            .iter()
            .map(|secret| json!({"name": secret["name"]}))
            .collect();
        if !named.is_empty() {
            spec.insert("imagePullSecrets".to_owned(), Value::Array(named));
        }
    }
}

/// Mounts a token into each container without another mount at the path.
fn mount_token(spec: &mut Map) {
    let there = list(spec.get("volumes")).iter().find_map(|volume| {
        let name = volume["name"].as_str().filter(|name| name.starts_with(VOLUME))?;
        volume.get("projected").map(|_| name.to_owned())
    });
    let name = there.clone().unwrap_or_else(|| names::generate_name(VOLUME));
    let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
    let mut needed = false;
    for kind in ["initContainers", "containers"] {
        let containers = spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if !mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                mounts.push(mount.clone());
                needed = true;
            }
        }
    }
    if there.is_none() && needed {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(token_volume(&name));
        }
    }
}

/// A projected volume with a token, the CA bundle and the namespace.
fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
                {"configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }},
                {"downwardAPI": {
                    "items": [{
                        "path": "namespace",
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                    }],
                }},
            ],
        },
    })
}

fn account_name(pod: &Object) -> &str {
    pod.str_at(&["spec", "serviceAccountName"]).filter(|name| !name.is_empty()).unwrap_or(DEFAULT)
}

/// Returns whether pods may only use the secrets that the account lists.
fn enforces(account: &Object) -> bool {
    // The values that Go's `strconv.ParseBool` accepts as true.
    let said = account.annotation(ENFORCE);
    said.is_some_and(|said| matches!(said, "1" | "t" | "T" | "true" | "TRUE" | "True"))
}
