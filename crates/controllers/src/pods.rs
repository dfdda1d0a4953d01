//! Properties of pods that controllers need.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use nave_client::{Lister, Object, ObjectName, SharedInformer};
use serde::Deserialize;

/// Decodes the parts of a pod that controllers use: the metadata, the status, and the node name in the spec. A sync
/// decodes all pods of its workload, and this costs a fraction of decoding whole pods.
///
/// # Errors
/// The JSON is not a pod.
pub fn read(pod: &Object<Pod>) -> Result<Pod, serde_json::Error> {
    #[derive(Deserialize)]
    struct PodFields {
        metadata: ObjectMeta,
        #[serde(default)]
        spec: PodSpecFields,
        status: Option<PodStatus>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct PodSpecFields {
        node_name: Option<String>,
    }
    let PodFields { metadata, spec, status } = serde_json::from_slice(pod.json())?;
    Ok(Pod { metadata, spec: Some(PodSpec { node_name: spec.node_name, ..PodSpec::default() }), status })
}

/// Returns a pod's phase; empty if it is not set.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Returns whether the pod has reached a terminal phase: `Succeeded` or `Failed`.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Returns whether a pod is neither terminal nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Returns whether a pod is being deleted and not yet terminal.
pub fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_some()
}

/// Returns the condition of a type.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Returns the time since which a pod is ready. `None` if it is not ready, `Some(None)` if the time is unknown.
pub fn ready_since(pod: &Pod) -> Option<Option<Timestamp>> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    Some(ready.last_transition_time.as_ref().map(|time| time.0))
}

/// Returns whether a pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Returns whether a pod has been ready for at least `min_ready_seconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_in(pod, min_ready_seconds, now) == Some(Duration::ZERO)
}

/// Returns the time until a ready pod becomes available: zero if it is available, `None` if it is not ready.
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let since = ready_since(pod)?;
    if min_ready_seconds <= 0 {
        return Some(Duration::ZERO);
    }
    let ready_for = since?.duration_until(now);
    let left = SignedDuration::from_secs(min_ready_seconds.into()) - ready_for;
    Some(left.try_into().unwrap_or(Duration::ZERO))
}

/// Returns the shortest time until another of these pods becomes available.
pub fn next_available_in<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Duration> {
    let waits = pods.into_iter().filter_map(|pod| available_in(pod, min_ready_seconds, now));
    waits.filter(|wait| !wait.is_zero()).min()
}

/// Returns the node that a pod is bound to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Index of pods by the volume claims they mount.
const BY_VOLUME_CLAIM: &str = "pod-pvc-index";

/// Adds the index that [`mounting`] uses.
pub fn index_by_volume_claim(pods: &SharedInformer<Pod>) {
    pods.add_index(BY_VOLUME_CLAIM, |pod| {
        claims_of(pod)
            .iter()
            .map(|claim| ObjectName::new(pod.namespace(), claim).as_str().to_owned())
            .collect()
    });
}

/// Returns the pods that mount a volume claim.
pub fn mounting(pods: &Lister<Pod>, claim: &ObjectName) -> Vec<Object<Pod>> {
    pods.by_index(BY_VOLUME_CLAIM, claim.as_str()).unwrap_or_default()
}

/// Returns the names of a pod's volume claims, including claims for ephemeral volumes.
pub fn claims_of(pod: &Object<Pod>) -> Vec<String> {
    let volumes = pod.json_at(&["spec", "volumes"]).unwrap_or(b"[]");
    claims(pod.name(), serde_json::from_slice(volumes).unwrap_or_default())
}

/// Returns the names of the claims of a pod's volumes.
pub fn claims(pod: &str, volumes: Vec<Volume>) -> Vec<String> {
    volumes
        .into_iter()
        .filter_map(|volume: Volume| match (volume.persistent_volume_claim, volume.ephemeral) {
            (Some(source), _) => Some(source.claim_name),
            (None, Some(_)) => Some(format!("{pod}-{}", volume.name)),
            (None, None) => None,
        })
        .collect()
}

/// Creates a pod from a template for an owner in `namespace`. The pod has a name prefix, to which the API server
/// adds a suffix.
pub fn from_template(
    template: &PodTemplateSpec,
    namespace: &str,
    owner_name: &str,
    reference: OwnerReference,
) -> Pod {
    let written = template.metadata.as_ref();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            generate_name: Some(format!("{owner_name}-")),
            labels: written.and_then(|meta| meta.labels.clone()),
            annotations: written.and_then(|meta| meta.annotations.clone()),
            finalizers: written.and_then(|meta| meta.finalizers.clone()),
            owner_references: Some(vec![reference]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Pods for the tests of this crate.

    use serde_json::json;

    use super::{Pod, Timestamp};

    /// The current time in tests.
    pub(crate) fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    /// Creates a pod with a phase. It has a node unless it is pending, and has been ready for `ready_for` seconds
    /// if given.
    pub(crate) fn pod(name: &str, phase: &str, ready_for: Option<i64>) -> Pod {
        let since = |seconds: i64| (now() - jiff::SignedDuration::from_secs(seconds)).to_string();
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"),
                "creationTimestamp": since(3600)},
            "spec": {"containers": [{"name": "c"}]},
            "status": {"phase": phase}
        });
        if phase != "Pending" {
            pod["spec"]["nodeName"] = json!("node");
        }
        if let Some(seconds) = ready_for {
            pod["status"]["conditions"] =
                json!([{"type": "Ready", "status": "True", "lastTransitionTime": since(seconds)}]);
        }
        serde_json::from_value(pod).unwrap()
    }

    /// Returns the pod with a deletion timestamp.
    pub(crate) fn deleting(mut pod: Pod) -> Pod {
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
        pod
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::{deleting, now, pod};
    use super::*;

    #[test]
    fn pod_is_active_until_it_is_terminal_or_deleted() {
        for (phase, active) in [("", true), ("Pending", true), ("Running", true), ("Succeeded", false)] {
            assert_eq!(is_active(&pod("a", phase, None)), active, "{phase}");
        }
        assert!(!is_active(&deleting(pod("a", "Running", None))));
        assert!(is_terminating(&deleting(pod("a", "Running", None))));
        assert!(!is_terminating(&deleting(pod("a", "Failed", None))));
    }

    #[test]
    fn pod_is_available_after_min_ready_seconds() {
        assert_eq!(available_in(&pod("a", "Running", None), 0, now()), None);
        assert!(is_available(&pod("a", "Running", Some(0)), 0, now()));
        let fresh = pod("a", "Running", Some(4));
        assert_eq!(available_in(&fresh, 10, now()), Some(Duration::from_secs(6)));
        assert!(!is_available(&fresh, 10, now()) && is_available(&fresh, 4, now()));
        let pods = [fresh, pod("b", "Running", Some(9)), pod("c", "Running", Some(100))];
        assert_eq!(next_available_in(&pods, 10, now()), Some(Duration::from_secs(1)));
    }

    #[test]
    fn reads_metadata_status_and_node_name() {
        let whole = pod("a", "Running", Some(4));
        let read = read(&Object::from_value(&whole).unwrap()).unwrap();
        assert_eq!((&read.metadata, &read.status), (&whole.metadata, &whole.status));
        assert_eq!((node_name(&read), node_name(&whole)), (Some("node"), Some("node")));
    }

    #[test]
    fn pod_has_labels_annotations_finalizers_and_spec_of_the_template() {
        let template: PodTemplateSpec = serde_json::from_value(serde_json::json!({
            "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["x/y"]},
            "spec": {"containers": [{"name": "c"}]}
        }))
        .unwrap();
        let pod = from_template(&template, "ns", "web", OwnerReference::default());
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-"));
        assert_eq!(pod.metadata.labels.unwrap()["a"], "b");
        assert_eq!(pod.metadata.finalizers.unwrap(), ["x/y"]);
        assert_eq!(pod.spec, template.spec);
    }
}
