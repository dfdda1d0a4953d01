//! The secrets that a pod may refer to.

use std::collections::BTreeSet;

use nave_machinery::{Object, Value, meta};
use nave_resources::pod::{self, ContainerKind};

use crate::plugins::pods::list;

/// Checks that a mirror pod refers to no account and no secrets.
///
/// # Errors
/// The forbidden reference.
pub(super) fn check_mirror_pod(pod: &Value) -> Result<(), String> {
    if meta::str_at(pod, &["spec", "serviceAccountName"]).is_some_and(|name| !name.is_empty()) {
        return Err("a mirror pod may not reference service accounts".to_owned());
    }
    if pod::refers_to_secrets(pod) {
        return Err("a mirror pod may not reference secrets".to_owned());
    }
    let token = |source: &Value| source.get("serviceAccountToken").is_some_and(|token| !token.is_null());
    let sources = |volume| list(meta::value_at(volume, &["projected", "sources"]));
    if pod::volumes(pod).iter().flat_map(sources).any(token) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections".to_owned());
    }
    Ok(())
}

/// Checks that a pod uses only the secrets that its account lists.
///
/// # Errors
/// The first secret that is not listed.
pub(super) fn check(pod: &Object, account: &Object) -> Result<(), String> {
    let (mountable, pulling, account) =
        (listed(account, "secrets"), listed(account, "imagePullSecrets"), account.name());
    for volume in pod.list_at(&["spec", "volumes"]) {
        let Some(name) = meta::str_at(volume, &["secret", "secretName"]) else { continue };
        if !mountable.contains(name) {
            return Err(format!(
                "volume with secret.secretName={name:?} is not allowed because service account {account} does not reference that secret"
            ));
        }
    }
    for (kind, container) in pod::containers(pod.as_value()) {
        check_container(container, kind.noun(), &mountable, account)?;
    }
    for (at, reference) in pod.list_at(&["spec", "imagePullSecrets"]).iter().enumerate() {
        let name = reference["name"].as_str().unwrap_or_default();
        if !pulling.contains(name) {
            return Err(format!(
                "imagePullSecrets[{at}].name={name:?} is not allowed because service account {account} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

/// As [`check`], for ephemeral containers only.
///
/// # Errors
/// The first secret that is not listed.
pub(super) fn check_ephemeral(pod: &Object, account: &Object) -> Result<(), String> {
    let mountable = listed(account, "secrets");
    let ephemeral = pod::containers(pod.as_value()).filter(|(kind, _)| *kind == ContainerKind::Ephemeral);
    for (kind, container) in ephemeral {
        check_container(container, kind.noun(), &mountable, account.name())?;
    }
    Ok(())
}

/// The names in a list of references of an account.
fn listed<'a>(account: &'a Object, field: &str) -> BTreeSet<&'a str> {
    account.list_at(&[field]).iter().filter_map(|reference| reference["name"].as_str()).collect()
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
