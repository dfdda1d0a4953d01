//! The quota usage of pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, ResourceRequirements};
use nave_machinery::quantity::Quantity;
use nave_machinery::time::Timestamp;

use super::{Usage, add, one, raise, read};

/// Resources that quotas count by name, with the prefix `requests.`, and with the prefix `limits.`.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Resources that quotas count by name and with the prefix `requests.`.
const HUGE_PAGES: &str = "hugepages-";

/// Returns the usage of a pod. A pod that is not [`charged`] uses only `count/pods`.
pub fn pod(pod: &Pod, now: Timestamp) -> Usage {
    let mut usage = Usage::from([("count/pods".to_owned(), one())]);
    if !charged(pod, now) {
        return usage;
    }
    usage.insert("pods".to_owned(), one());
    let Some(spec) = &pod.spec else { return usage };
    for (name, amount) in total(pod, spec, |needs| read(needs.requests.as_ref()), true) {
        if COMPUTE.contains(&name.as_str()) || name.starts_with(HUGE_PAGES) {
            usage.insert(format!("requests.{name}"), amount);
            usage.insert(name, amount);
        } else if is_extended(&name) {
            usage.insert(format!("requests.{name}"), amount);
        }
    }
    for (name, amount) in total(pod, spec, |needs| read(needs.limits.as_ref()), false) {
        if COMPUTE.contains(&name.as_str()) {
            usage.insert(format!("limits.{name}"), amount);
        }
    }
    usage
}

/// Returns whether a quota counts pods under this name.
pub fn is_pod_name(name: &str) -> bool {
    let plain = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    let extended = name.strip_prefix("requests.").is_some_and(is_extended);
    matches!(name, "pods" | "count/pods")
        || COMPUTE.contains(&plain)
        || (plain.starts_with(HUGE_PAGES) && !name.starts_with("limits."))
        || extended
}

/// Returns whether a pod uses more than `count/pods`: it is neither terminal nor past its grace period.
pub fn charged(pod: &Pod, now: Timestamp) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return false;
    }
    let meta = &pod.metadata;
    match (&meta.deletion_timestamp, meta.deletion_grace_period_seconds) {
        (Some(time), Some(grace)) => now.unix_seconds() <= time.0.as_second().saturating_add(grace),
        _ => true,
    }
}

/// Returns whether a resource is an extended resource, which does not belong to Kubernetes.
fn is_extended(name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
        && !name.starts_with("requests.")
}

/// Returns the maximum that a pod uses at any time. Containers run concurrently. Init containers run sequentially,
/// alongside sidecars that were started earlier.
fn total(
    pod: &Pod,
    spec: &PodSpec,
    needs: impl Fn(&ResourceRequirements) -> Usage,
    of_requests: bool,
) -> Usage {
    let status = pod.status.as_ref();
    let empty = BTreeMap::new();
    let running = by_name(status.and_then(|status| status.container_statuses.as_deref()));
    let starting = by_name(status.and_then(|status| status.init_container_statuses.as_deref()));
    let container = |container: &Container, statuses: &BTreeMap<&str, &ContainerStatus>| {
        let mut own = container.resources.as_ref().map(&needs).unwrap_or_default();
        // During a resize, the larger of current and desired amount counts.
        if let Some(status) = statuses.get(container.name.as_str()) {
            raise(&mut own, &status.resources.as_ref().map(&needs).unwrap_or_default());
            if of_requests {
                raise(&mut own, &read(status.allocated_resources.as_ref()));
            }
        }
        own
    };
    let mut sum = Usage::new();
    for own in spec.containers.iter().map(|it| container(it, if of_requests { &running } else { &empty })) {
        add(&mut sum, &own);
    }
    let (mut sidecars, mut start) = (Usage::new(), Usage::new());
    for it in spec.init_containers.iter().flatten() {
        let mut own = container(it, if of_requests { &starting } else { &empty });
        if it.restart_policy.as_deref() == Some("Always") {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            own.clone_from(&sidecars);
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut start, &own);
    }
    raise(&mut sum, &start);
    // Pod-level resources take precedence over container resources.
    for (name, amount) in spec.resources.as_ref().map(&needs).unwrap_or_default() {
        sum.insert(name, amount);
    }
    for (name, amount) in read(spec.overhead.as_ref()) {
        // Overhead is added to limits only if they exist.
        if of_requests || sum.get(&name).is_some_and(|limit| !limit.is_zero()) {
            let limit = sum.entry(name).or_insert(Quantity::ZERO);
            *limit = *limit + amount;
        }
    }
    sum
}

fn by_name(statuses: Option<&[ContainerStatus]>) -> BTreeMap<&str, &ContainerStatus> {
    statuses.into_iter().flatten().map(|status| (status.name.as_str(), status)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn used(spec: &Value, status: &Value) -> BTreeMap<String, String> {
        let object = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        let object: Pod = serde_json::from_value(object).unwrap();
        let now = Timestamp::from_unix(1000, 0).unwrap();
        pod(&object, now).into_iter().map(|(name, amount)| (name, amount.to_string())).collect()
    }

    fn expect(found: &BTreeMap<String, String>, wanted: &[(&str, &str)]) {
        let wanted: BTreeMap<_, _> = wanted.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(found, &wanted);
    }

    fn needs(name: &str, cpu: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn adds_requests_and_limits_of_containers() {
        let container = |name: &str| {
            json!({"name": name, "resources": {
                "requests": {"cpu": "100m", "memory": "1Gi", "hugepages-2Mi": "2Mi", "example.com/gpu": "1", "kubernetes.io/x": "1"},
                "limits": {"cpu": "1", "memory": "1Gi", "hugepages-2Mi": "2Mi", "example.com/gpu": "1"}}})
        };
        let found = used(&json!({"containers": [container("a"), container("b")]}), &json!({}));
        expect(
            &found,
            &[
                ("count/pods", "1"),
                ("pods", "1"),
                ("cpu", "200m"),
                ("requests.cpu", "200m"),
                ("limits.cpu", "2"),
                ("memory", "2Gi"),
                ("requests.memory", "2Gi"),
                ("limits.memory", "2Gi"),
                ("hugepages-2Mi", "4Mi"),
                ("requests.hugepages-2Mi", "4Mi"),
                ("requests.example.com/gpu", "2"),
            ],
        );
        assert!(found.keys().all(|name| is_pod_name(name)));
    }

    #[test]
    fn init_containers_count_at_their_peak() {
        let sidecar = |cpu: &str| {
            let mut it = needs("s", cpu);
            it["restartPolicy"] = json!("Always");
            it
        };
        for (init, wanted) in [
            (json!([needs("i", "3")]), "3"),
            (json!([needs("i", "1")]), "2"),
            (json!([sidecar("1"), needs("i", "1500m")]), "3"),
            (json!([sidecar("1"), needs("i", "5")]), "6"),
            (json!([needs("i", "5"), sidecar("1")]), "5"),
        ] {
            let found = used(&json!({"containers": [needs("c", "2")], "initContainers": init}), &json!({}));
            assert_eq!(found["cpu"], wanted, "{init}");
        }
    }

    #[test]
    fn counts_pod_level_resources_overhead_and_resize() {
        let found = used(
            &json!({"containers": [needs("c", "2")], "resources": {"requests": {"cpu": "3"}}, "overhead": {"cpu": "1", "memory": "1Mi"}}),
            &json!({}),
        );
        assert_eq!((found["cpu"].as_str(), found["memory"].as_str()), ("4", "1Mi"));
        assert!(!found.contains_key("limits.memory"));
        let resizing = json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
            "resources": {"requests": {"cpu": "3"}}, "allocatedResources": {"cpu": "4"}}]});
        assert_eq!(used(&json!({"containers": [needs("c", "2")]}), &resizing)["cpu"], "4");
    }

    #[test]
    fn terminal_pod_counts_as_object_only() {
        for phase in ["Succeeded", "Failed"] {
            let found = used(&json!({"containers": [needs("c", "2")]}), &json!({"phase": phase}));
            expect(&found, &[("count/pods", "1")]);
        }
        let mut pod = Pod::default();
        assert!(charged(&pod, Timestamp::from_unix(0, 0).unwrap()));
        pod.metadata = serde_json::from_value(
            json!({"deletionTimestamp": "1970-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30}),
        )
        .unwrap();
        assert!(charged(&pod, Timestamp::from_unix(90, 0).unwrap()));
        assert!(!charged(&pod, Timestamp::from_unix(91, 0).unwrap()));
    }

    #[test]
    fn recognizes_quota_names_of_pods() {
        for name in
            ["pods", "cpu", "requests.memory", "limits.ephemeral-storage", "hugepages-1Gi", "requests.a.b/c"]
        {
            assert!(is_pod_name(name), "{name}");
        }
        for name in
            ["services", "a.b/c", "limits.a.b/c", "limits.hugepages-1Gi", "requests.storage", "count/secrets"]
        {
            assert!(!is_pod_name(name), "{name}");
        }
    }
}
