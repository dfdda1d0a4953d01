//! Which secrets a pod may refer to.

use std::collections::BTreeSet;

use nave_machinery::{Value, meta};
use nave_resources::pod;

use super::list;

/// A pod that a kubelet runs by itself has no account and no secrets.
///
/// # Errors
/// What it refers to.
pub(super) fn check_mirror_pod(pod: &Value) -> Result<(), String> {
    if meta::str_at(pod, &["spec", "serviceAccountName"]).is_some_and(|name| !name.is_empty()) {
        return Err("a mirror pod may not reference service accounts".to_owned());
    }
    if pod::refers_to_secrets(pod) {
        return Err("a mirror pod may not reference secrets".to_owned());
    }
    let token = |source: &Value| source.get("serviceAccountToken").is_some_and(|token| !token.is_null());
    let sources = |volume| list(meta::at(volume, &["projected", "sources"]));
    if pod::volumes(pod).iter().flat_map(sources).any(token) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections".to_owned());
    }
    Ok(())
}

/// Pods of an account that says so use only the secrets that the account lists.
///
/// # Errors
/// The first secret that it does not list.
pub(super) fn check(pod: &Value, account: &Value) -> Result<(), String> {
    let Some(spec) = pod.get("spec") else { return Ok(()) };
    let named = |field: &str| -> BTreeSet<&str> {
        list(account.get(field)).iter().filter_map(|reference| reference["name"].as_str()).collect()
    };
    let (mountable, pulling, account) = (named("secrets"), named("imagePullSecrets"), meta::name(account));
    for volume in list(spec.get("volumes")) {
        let Some(name) = meta::str_at(volume, &["secret", "secretName"]) else { continue };
        if !mountable.contains(name) {
            return Err(format!(
                "volume with secret.secretName={name:?} is not allowed because service account {account} does not reference that secret"
            ));
        }
    }
    for (kind, container) in pod::containers(pod) {
        check_container(container, kind.noun(), &mountable, account)?;
    }
    for (at, reference) in list(spec.get("imagePullSecrets")).iter().enumerate() {
        let name = reference["name"].as_str().unwrap_or_default();
        if !pulling.contains(name) {
            return Err(format!(
                "imagePullSecrets[{at}].name={name:?} is not allowed because service account {account} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

fn check_container(
    container: &Value,
    kind: &str,
    mountable: &BTreeSet<&str>,
    account: &str,
) -> Result<(), String> {
    let container_name = container["name"].as_str().unwrap_or_default();
    for variable in list(container.get("env")) {
        let Some(name) = meta::str_at(variable, &["valueFrom", "secretKeyRef", "name"]) else { continue };
        if !mountable.contains(name) {
            return Err(format!(
                "{kind} {container_name} with envVar {} referencing secret.secretName={name:?} is not allowed because service account {account} does not reference that secret",
                variable["name"].as_str().unwrap_or_default()
            ));
        }
    }
    for source in list(container.get("envFrom")) {
        let Some(name) = meta::str_at(source, &["secretRef", "name"]) else { continue };
        if !mountable.contains(name) {
            return Err(format!(
                "{kind} {container_name} with envFrom referencing secret.secretName={name:?} is not allowed because service account {account} does not reference that secret"
            ));
        }
    }
    Ok(())
}
