//! Pods run as service accounts that are there, and reach the server with their tokens (upstream:
//! `plugin/pkg/admission/serviceaccount`).

mod references;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nave_cacher::CachedObject;
use nave_machinery::{Map, Status, Value, meta, names};
use nave_resources::{ResourceDef, pod};
use serde_json::json;

use super::{Attributes, Operation, Plugin, is};
use crate::storage::ResourceStorage;

/// The account of pods that name none.
const DEFAULT: &str = "default";
/// Where a container finds its token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What the name of the volume with the token begins with.
const VOLUME: &str = "kube-api-access-";
/// By asking for this many seconds a token is known for one that is renewed.
const TOKEN_SECONDS: u32 = 3607;
/// Marks accounts whose pods may use only the secrets that the account lists.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
/// A controller makes the default account of a new namespace: so often, and so far apart, it is waited for.
const ATTEMPTS: usize = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(150);

/// The plugin.
pub struct ServiceAccount {
    /// The accounts.
    pub accounts: Arc<ResourceStorage>,
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    /// The account may have been created a moment ago, or be about to.
    async fn prepare_for_create(
        &self,
        def: &ResourceDef,
        namespace: &str,
        pod: &Value,
    ) -> Result<(), Status> {
        let name = account_name(pod);
        if !is(def, "pods") || pod::is_mirror(pod) || self.find(namespace, name).is_some() {
            return Ok(());
        }
        self.accounts.wait_until(self.accounts.current_revision().await?).await?;
        let attempts = if name == DEFAULT { ATTEMPTS } else { 0 };
        for _ in 0..attempts {
            if self.find(namespace, name).is_some() {
                break;
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
        Ok(())
    }

    fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Value>) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| is(attributes.def, "pods")) else { return Ok(()) };
        match (attributes.operation, attributes.subresource) {
            (Operation::Create, "") if pod::is_mirror(pod) => {
                references::check_mirror_pod(pod).map_err(|why| forbidden(attributes, &why))
            }
            (Operation::Create, "") => self.create(attributes, pod),
            (Operation::Update(_), "ephemeralcontainers") => {
                let account = self.account(attributes, account_name(pod))?;
                let checked = if enforces(&account) { references::check(pod, &account) } else { Ok(()) };
                checked.map_err(|why| forbidden(attributes, &why))
            }
            _ => Ok(()),
        }
    }
}

impl ServiceAccount {
    fn find(&self, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        self.accounts.find(namespace, name)
    }

    /// The account of a pod.
    fn account(&self, attributes: &Attributes<'_>, name: &str) -> Result<Value, Status> {
        let namespace = attributes.namespace;
        let found = self.find(namespace, name).ok_or_else(|| {
            let why = format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            );
            forbidden(attributes, &why)
        })?;
        self.accounts.codec().parse_cached(&found)
    }

    fn create(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        let account = self.account(attributes, account_name(pod))?;
        give_account(pod, &account);
        if enforces(&account) {
            references::check(pod, &account).map_err(|why| forbidden(attributes, &why))?;
        }
        Ok(())
    }
}

/// Puts into a pod what it has of its account: the name, the token, secrets to pull images with.
fn give_account(pod: &mut Value, account: &Value) {
    let name = account_name(pod).to_owned();
    let automount = |object: Option<&Value>| object?.get("automountServiceAccountToken")?.as_bool();
    let automount = automount(pod.get("spec")).or_else(|| automount(Some(account))).unwrap_or(true);
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.insert("serviceAccountName".to_owned(), json!(name));
    // The older name of the same field.
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

/// Mounts a token into each container that has nothing of its own in the place.
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

/// A token, the authority by which the server is known, and the namespace.
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

fn account_name(pod: &Value) -> &str {
    meta::str_at(pod, &["spec", "serviceAccountName"]).filter(|name| !name.is_empty()).unwrap_or(DEFAULT)
}

/// Whether pods may use only the secrets that the account lists.
fn enforces(account: &Value) -> bool {
    // What Go takes for true.
    let said = meta::annotation(account, ENFORCE);
    said.is_some_and(|said| matches!(said, "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn forbidden(attributes: &Attributes<'_>, why: &str) -> Status {
    Status::forbidden(&attributes.def.group_resource(), attributes.name, why)
}
