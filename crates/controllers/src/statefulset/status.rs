//! The status of a stateful set.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::identity::revision;
use super::{replicas, spec_of};
use crate::counts::omit_zero;
use crate::pods::{is_available, is_ready, phase};

/// The observed state, without the set itself.
pub(super) struct Observed<'a> {
    pub(super) current: &'a ControllerRevision,
    pub(super) update: &'a ControllerRevision,
    pub(super) collisions: i32,
    /// The number of pods at the current revision that the update has deleted.
    pub(super) replaced: i32,
    pub(super) now: Timestamp,
}

pub(super) fn stateful_set_status(
    set: &StatefulSet,
    pods: &[&Pod],
    observed: &Observed<'_>,
) -> StatefulSetStatus {
    let min_ready = spec_of(set).min_ready_seconds.unwrap_or(0);
    let count = |matches: &dyn Fn(&Pod) -> bool| {
        let count = pods.iter().filter(|pod| !phase(pod).is_empty() && matches(pod)).count();
        i32::try_from(count).unwrap_or(i32::MAX)
    };
    let name = |revision: &ControllerRevision| revision.metadata.name.clone().unwrap_or_default();
    let (current, update) = (name(observed.current), name(observed.update));
    let at = |name: &str| count(&|pod| pod.metadata.deletion_timestamp.is_none() && revision(pod) == name);
    let is_running_and_ready = |pod: &Pod| phase(pod) == "Running" && is_ready(pod);
    let all = count(&|_| true);
    let ready = count(&is_running_and_ready);
    let updated = at(&update);
    let mut status = StatefulSetStatus {
        replicas: all,
        ready_replicas: omit_zero(ready),
        available_replicas: Some(count(&|pod| {
            is_running_and_ready(pod) && is_available(pod, min_ready, observed.now)
        })),
        current_replicas: omit_zero(at(&current) - observed.replaced),
        updated_replicas: omit_zero(updated),
        current_revision: Some(current),
        update_revision: Some(update),
        collision_count: Some(observed.collisions),
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    let strategy = spec_of(set).update_strategy.as_ref();
    let on_delete = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete");
    let wanted = replicas(set);
    if !on_delete && [updated, ready, all] == [wanted; 3] {
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
    status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixtures::{pod, revision, running, set};
    use super::*;
    use crate::pods::fixtures::{deleting, now};

    fn status(set: &StatefulSet, pods: &[Pod]) -> serde_json::Value {
        let (current, update) = (revision("web-a", "x", 1), revision("web-b", "y", 2));
        let observed =
            Observed { current: &current, update: &update, collisions: 0, replaced: 0, now: now() };
        serde_json::to_value(stateful_set_status(set, &pods.iter().collect::<Vec<_>>(), &observed)).unwrap()
    }

    #[test]
    fn counts_pods() {
        let mut set = set(4);
        set.spec.as_mut().unwrap().min_ready_seconds = Some(10);
        let pods = [
            running(pod(&set, 0, "web-a"), 60),
            running(pod(&set, 1, "web-a"), 5),
            pod(&set, 2, "web-b"),
            deleting(running(pod(&set, 3, "web-b"), 60)),
        ];
        let expected = json!({"replicas": 4, "readyReplicas": 3, "availableReplicas": 2, "currentReplicas": 2,
            "updatedReplicas": 1, "currentRevision": "web-a", "updateRevision": "web-b", "collisionCount": 0,
            "observedGeneration": 3});
        assert_eq!(status(&set, &pods), expected);
    }

    #[test]
    fn update_completes_when_all_pods_are_updated_and_ready() {
        let mut set = set(2);
        let pods = [running(pod(&set, 0, "web-b"), 60), running(pod(&set, 1, "web-b"), 60)];
        assert_eq!(status(&set, &pods)["currentRevision"], "web-b");
        assert_eq!(status(&set, &pods)["currentReplicas"], 2);
        assert_eq!(status(&set, &pods[..1])["currentRevision"], "web-a");
        let strategy = json!({"type": "OnDelete"});
        set.spec.as_mut().unwrap().update_strategy = serde_json::from_value(strategy).unwrap();
        assert_eq!(status(&set, &pods)["currentRevision"], "web-a");
    }
}
