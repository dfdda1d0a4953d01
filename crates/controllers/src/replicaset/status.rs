//! The status of a replica set.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::kind::replicas;
use crate::frame::SyncError;
use crate::pods::{is_available, is_ready};

const FAILURE: &str = "ReplicaFailure";

/// The observed state from which the status is computed.
pub(super) struct Observed<'a> {
    pub(super) active: &'a [Pod],
    pub(super) terminating: usize,
    /// The error from creating or deleting pods.
    pub(super) failure: Option<&'a SyncError>,
}

pub(super) fn replica_set_status(
    set: &ReplicaSet,
    observed: &Observed<'_>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template_labels = spec.template.and_then(|template| template.metadata?.labels).unwrap_or_default();
    let count = |matches: &dyn Fn(&Pod) -> bool| {
        let count = observed.active.iter().filter(|pod| matches(pod)).count();
        i32::try_from(count).ok().filter(|count| *count > 0)
    };
    let old = set.status.clone().unwrap_or_default();
    ReplicaSetStatus {
        replicas: count(&|_| true).unwrap_or(0),
        fully_labeled_replicas: count(&|pod| has_labels(pod, &template_labels)),
        ready_replicas: count(&is_ready),
        available_replicas: count(&|pod| is_available(pod, min_ready, now)),
        terminating_replicas: i32::try_from(observed.terminating).ok(),
        observed_generation: set.metadata.generation,
        conditions: conditions(old.conditions, set, observed, now),
    }
}

/// Computes the conditions. The failure condition is set when the failure starts, stays unchanged while it lasts,
/// and is then removed.
fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    set: &ReplicaSet,
    observed: &Observed<'_>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.unwrap_or_default();
    match observed.failure {
        None => conditions.retain(|condition| condition.type_ != FAILURE),
        Some(_) if conditions.iter().any(|condition| condition.type_ == FAILURE) => {}
        Some(error) => {
            let missing = i32::try_from(observed.active.len()).is_ok_and(|active| active < replicas(set));
            conditions.push(ReplicaSetCondition {
                type_: FAILURE.to_owned(),
                status: "True".to_owned(),
                reason: Some(if missing { "FailedCreate" } else { "FailedDelete" }.to_owned()),
                message: Some(error.to_string()),
                last_transition_time: Some(Time(now)),
            });
        }
    }
    (!conditions.is_empty()).then_some(conditions)
}

fn has_labels(pod: &Pod, wanted: &BTreeMap<String, String>) -> bool {
    let labels = pod.metadata.labels.as_ref();
    wanted.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pods::fixtures::{now, pod};

    fn set() -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u", "generation": 4},
            "spec": {"replicas": 5, "minReadySeconds": 10, "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}}}
        }))
        .unwrap()
    }

    #[test]
    fn counts_pods() {
        let mut labelled = pod("a", "Running", Some(60));
        labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        let active = [labelled, pod("b", "Running", Some(3)), pod("c", "Pending", None)];
        let status =
            replica_set_status(&set(), &Observed { active: &active, terminating: 2, failure: None }, now());
        let expected = json!({"replicas": 3, "fullyLabeledReplicas": 1, "readyReplicas": 2,
            "availableReplicas": 1, "terminatingReplicas": 2, "observedGeneration": 4});
        assert_eq!(serde_json::to_value(&status).unwrap(), expected);
    }

    #[test]
    fn failure_condition_lasts_until_recovery() {
        let (mut set, error) = (set(), SyncError::Invalid("exceeded quota".to_owned()));
        let failing = Observed { active: &[], terminating: 0, failure: Some(&error) };
        let status = replica_set_status(&set, &failing, now());
        let condition = &status.conditions.as_ref().unwrap()[0];
        assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
        assert_eq!(condition.message.as_deref(), Some("exceeded quota"));
        set.status = Some(status.clone());
        let later = now() + jiff::SignedDuration::from_secs(5);
        assert_eq!(replica_set_status(&set, &failing, later), status, "it began when it began");
        assert_eq!(replica_set_status(&set, &Observed { failure: None, ..failing }, later).conditions, None);
    }
}
