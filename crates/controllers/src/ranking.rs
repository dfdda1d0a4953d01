//! The order in which surplus pods are deleted (upstream: `ActivePodsWithRanks`).

use std::cmp::Ordering;
use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pods::{self, node_name, phase, ready_since};

/// Annotation set by users: pods with a lower cost are deleted first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Returns the `count` pods to delete. `related` contains the pods of all replica sets with the same
/// controller. Among otherwise equal pods, those on the nodes with the most related pods are deleted first.
pub(crate) fn to_delete(mut pods: Vec<Pod>, related: &[Pod], count: usize, now: Timestamp) -> Vec<Pod> {
    if count < pods.len() {
        let mut on_node: HashMap<&str, usize> = HashMap::new();
        for pod in related.iter().filter(|pod| pods::is_active(pod)) {
            *on_node.entry(node_name(pod).unwrap_or_default()).or_default() += 1;
        }
        let neighbours = |pod: &Pod| on_node.get(node_name(pod).unwrap_or_default()).copied().unwrap_or(0);
        pods.sort_by(|a, b| deletion_order(a, b, neighbours(a), neighbours(b), now));
        pods.truncate(count);
    }
    pods
}

/// Returns the first `count` pods in deletion order, ignoring nodes.
pub(crate) fn first_in_deletion_order(mut pods: Vec<Pod>, count: usize, now: Timestamp) -> Vec<Pod> {
    pods.sort_by(|a, b| deletion_order(a, b, 0, 0, now));
    pods.truncate(count);
    pods
}

/// Compares two pods; the lesser pod is deleted first.
fn deletion_order(a: &Pod, b: &Pod, rank_a: usize, rank_b: usize, now: Timestamp) -> Ordering {
    let ready = (ready_since(a), ready_since(b));
    node_name(a)
        .is_some()
        .cmp(&node_name(b).is_some())
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| ready.0.is_some().cmp(&ready.1.is_some()))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| rank_b.cmp(&rank_a))
        .then_with(|| match ready {
            (Some(since_a), Some(since_b)) => newer_first(since_a, since_b, a, b, now),
            _ => Ordering::Equal,
        })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| {
            let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            newer_first(created(a), created(b), a, b, now)
        })
}

/// Orders newer times first. Compares ages by order of magnitude; within the same order, the UID decides, which is
/// effectively random. An unknown time counts as the newest.
fn newer_first(
    a: Option<Timestamp>,
    b: Option<Timestamp>,
    pod_a: &Pod,
    pod_b: &Pod,
    now: Timestamp,
) -> Ordering {
    match (a, b) {
        (a, b) if a == b => Ordering::Equal,
        (None, _) => Ordering::Less,
        (_, None) => Ordering::Greater,
        (Some(a), Some(b)) => magnitude(a, now)
            .cmp(&magnitude(b, now))
            .then_with(|| pod_a.metadata.uid.cmp(&pod_b.metadata.uid)),
    }
}

/// Returns the binary logarithm of an age in nanoseconds; -1 if the time is not in the past.
fn magnitude(time: Timestamp, now: Timestamp) -> i64 {
    let age = time.duration_until(now).as_nanos();
    u128::try_from(age).ok().and_then(u128::checked_ilog2).map_or(-1, i64::from)
}

fn phase_rank(pod: &Pod) -> u8 {
    match phase(pod) {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

/// Returns the value of the annotation; 0 if it is missing or not a number.
fn deletion_cost(pod: &Pod) -> i32 {
    let annotation = pod.metadata.annotations.as_ref().and_then(|all| all.get(DELETION_COST));
    annotation.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let init = status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
    containers.chain(init).map(|container| container.restart_count).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{now, pod};

    fn first(pods: &[Pod], related: &[Pod]) -> String {
        let mut expected = Vec::new();
        for rotation in 0..pods.len() {
            let mut pods = pods.to_vec();
            pods.rotate_left(rotation);
            expected.extend(to_delete(pods, related, 1, now()).pop().and_then(|pod| pod.metadata.name));
        }
        expected.dedup();
        assert_eq!(expected.len(), 1, "the order of the input must not matter: {expected:?}");
        expected.remove(0)
    }

    fn modified(mut pod: Pod, change: impl FnOnce(&mut Pod)) -> Pod {
        change(&mut pod);
        pod
    }

    #[test]
    fn deletes_unbound_then_pending_then_unready_then_cheap_pods() {
        let unbound = pod("unbound", "Pending", None);
        let pending = modified(pod("pending", "Pending", None), |p| {
            p.spec.as_mut().unwrap().node_name = Some("n".into());
        });
        let unready = pod("unready", "Running", None);
        let cheap = modified(pod("cheap", "Running", Some(60)), |p| {
            p.metadata.annotations = Some([(DELETION_COST.to_owned(), "-1".to_owned())].into());
        });
        let old = pod("old", "Running", Some(6000));
        let mut all = vec![old, cheap, unready, pending, unbound];
        for expected in ["unbound", "pending", "unready", "cheap", "old"] {
            assert_eq!(first(&all, &[]), expected);
            all.pop();
        }
    }

    #[test]
    fn deletes_pods_that_share_a_node_first() {
        let crowded = pod("crowded", "Running", Some(6000));
        let alone = modified(pod("alone", "Running", Some(1)), |p| {
            p.spec.as_mut().unwrap().node_name = Some("x".into());
        });
        let related = [crowded.clone(), alone.clone(), pod("neighbour", "Running", None)];
        assert_eq!(first(&[alone, crowded], &related), "crowded");
    }

    #[test]
    fn compares_ready_time_by_order_of_magnitude() {
        assert_eq!(first(&[pod("a", "Running", Some(1000)), pod("b", "Running", Some(10))], &[]), "b");
        // 1,000 s and 1,001 s are the same order of magnitude: the UID decides.
        assert_eq!(first(&[pod("a", "Running", Some(1001)), pod("b", "Running", Some(1000))], &[]), "a");
    }

    #[test]
    fn deletes_pods_with_more_restarts_first() {
        let restarted = |name: &str, count: i32| {
            modified(pod(name, "Running", Some(60)), |p| {
                p.status.as_mut().unwrap().container_statuses = serde_json::from_value(serde_json::json!(
                    [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": count}]
                ))
                .unwrap();
            })
        };
        assert_eq!(first(&[restarted("a", 0), restarted("b", 3)], &[]), "b");
    }
}
