//! Removal of the fields whose features are off by default (upstream: `dropDisabledFields` in `pkg/api/pod`).

use nave_machinery::{Map, Value};

use super::{CONTAINERS, each_container};
use crate::defaults::{each, object_at};
use crate::read;

/// The path of the pod spec in a pod.
pub(crate) const IN_POD: &[&str] = &["spec"];
/// The path of the pod spec in a pod template.
pub(crate) const IN_POD_TEMPLATE: &[&str] = &["template", "spec"];
/// The path of the pod spec in a workload.
pub(crate) const IN_WORKLOAD: &[&str] = &["spec", "template", "spec"];
/// The path of the pod spec in a cron job.
pub(crate) const IN_CRON_JOB: &[&str] = &["spec", "jobTemplate", "spec", "template", "spec"];

/// Sources of projected volumes whose features are off.
const SOURCES: [&str; 2] = ["clusterTrustBundle", "podCertificate"];
const STATUSES: [&str; 3] = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
const CLAIM_STATUSES: &str = "nodeAllocatableResourceClaimStatuses";

/// Removes the disabled fields from the pod spec at `path`. A field stays if the stored object uses it anywhere.
pub(crate) fn drop_fields(object: &mut Value, old: Option<&Value>, path: &[&str]) {
    let old = old.and_then(|old| path.iter().try_fold(old, |place, field| place.get(field)));
    let Some(spec) = object.as_object_mut().and_then(|object| object_at(object, path)) else { return };
    if !old.is_some_and(|old| is_set(old, "schedulingGroup")) {
        spec.remove("schedulingGroup");
    }
    let disabled = SOURCES.map(|source| (source, !old.is_some_and(|old| projects(old, source))));
    for volume in each(spec, "volumes") {
        let Some(projected) = object_at(volume, &["projected"]) else { continue };
        for source in each(projected, "sources") {
            for (name, is_disabled) in disabled {
                if is_disabled {
                    source.remove(name);
                }
            }
        }
    }
    if !old.is_some_and(has_stop_signals) {
        each_container(spec, drop_stop_signal);
    }
}

/// Removes the disabled fields from the status of a pod.
pub(crate) fn drop_status_fields(pod: &mut Value, old: &Value) {
    let Some(status) = pod.as_object_mut().and_then(|pod| object_at(pod, &["status"])) else { return };
    if old.get("status").is_none_or(|status| read::list(status, CLAIM_STATUSES).is_empty()) {
        status.remove(CLAIM_STATUSES);
    }
    if has_volume_status(old) {
        return;
    }
    for containers in STATUSES {
        for container in each(status, containers) {
            each(container, "volumeMounts").for_each(|mount| drop(mount.remove("volumeStatus")));
        }
    }
}

fn is_set(object: &Value, field: &str) -> bool {
    object.get(field).is_some_and(|value| !value.is_null())
}

fn projects(spec: &Value, source: &str) -> bool {
    read::list(spec, "volumes")
        .iter()
        .any(|volume| read::list(volume, "projected.sources").iter().any(|it| is_set(it, source)))
}

fn has_stop_signals(spec: &Value) -> bool {
    let mut containers = CONTAINERS.into_iter().flat_map(|field| read::list(spec, field));
    containers.any(|container| container.get("lifecycle").is_some_and(|it| is_set(it, "stopSignal")))
}

/// Removes the stop signal, and a lifecycle that has nothing else.
fn drop_stop_signal(container: &mut Map) {
    let Some(lifecycle) = object_at(container, &["lifecycle"]) else { return };
    if lifecycle.remove("stopSignal").is_some() && lifecycle.values().all(Value::is_null) {
        container.remove("lifecycle");
    }
}

fn has_volume_status(pod: &Value) -> bool {
    let Some(status) = pod.get("status") else { return false };
    let mut mounts = STATUSES
        .into_iter()
        .flat_map(|field| read::list(status, field))
        .flat_map(|container| read::list(container, "volumeMounts"));
    mounts.any(|mount| is_set(mount, "volumeStatus"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dropped(spec: &Value, old: Option<&Value>) -> Value {
        let mut object = json!({"spec": {"template": {"spec": spec}}});
        let old = old.map(|old| json!({"spec": {"template": {"spec": old}}}));
        drop_fields(&mut object, old.as_ref(), IN_WORKLOAD);
        object["spec"]["template"]["spec"].take()
    }

    #[test]
    fn disabled_fields_stay_only_if_the_stored_object_uses_them() {
        let volumes = |source: Value| json!({"volumes": [{"name": "v", "projected": {"sources": [source]}}]});
        let containers = |container: Value| json!({"initContainers": [container]});
        for (used, without) in [
            (json!({"schedulingGroup": {"podGroupName": "g"}}), json!({})),
            (volumes(json!({"clusterTrustBundle": {"path": "p"}})), volumes(json!({}))),
            (volumes(json!({"podCertificate": {"keyType": "ED25519"}})), volumes(json!({}))),
            (containers(json!({"lifecycle": {"stopSignal": "SIGUSR1"}})), containers(json!({}))),
            (
                containers(
                    json!({"lifecycle": {"stopSignal": "SIGUSR1", "preStop": {"sleep": {"seconds": 1}}}}),
                ),
                containers(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}})),
            ),
        ] {
            assert_eq!(dropped(&used, None), without, "{used}");
            assert_eq!(dropped(&used, Some(&json!({}))), without, "{used}");
            assert_eq!(dropped(&used, Some(&used)), used);
        }
        let unaffected = containers(json!({"lifecycle": {}}));
        assert_eq!(dropped(&unaffected, None), unaffected);
    }

    #[test]
    fn disabled_status_fields_stay_only_if_the_stored_pod_has_them() {
        let mount = |mount: Value| json!({"status": {"containerStatuses": [{"volumeMounts": [mount]}]}});
        for (used, without) in [
            (
                mount(json!({"name": "v", "volumeStatus": {"image": {"imageRef": "i"}}})),
                mount(json!({"name": "v"})),
            ),
            (json!({"status": {CLAIM_STATUSES: [{"name": "n"}]}}), json!({"status": {}})),
        ] {
            for (old, expected) in [(json!({}), &without), (used.clone(), &used)] {
                let mut pod = used.clone();
                drop_status_fields(&mut pod, &old);
                assert_eq!(pod, *expected);
            }
        }
    }
}
