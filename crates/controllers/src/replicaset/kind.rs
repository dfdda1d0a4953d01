//! The common interface of replica sets and replication controllers.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerSpec,
    ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::selectors::SelectorForm;

/// A kind that maintains a number of pods from one template. The controller works on replica sets: it converts an
/// object with [`to_replica_set`](Self::to_replica_set), and stores the new status with
/// [`with_status`](Self::with_status).
pub(super) trait ReplicaSetLike:
    k8s_openapi::Resource<Scope = NamespaceResourceScope>
    + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The name of the controller's queue in upstream.
    const QUEUE: &'static str;
    /// The form of the selector.
    const SELECTOR: SelectorForm;
    /// Converts the object to a replica set.
    fn to_replica_set(&self) -> ReplicaSet;
    /// Returns the object with this status.
    fn with_status(self, status: ReplicaSetStatus) -> Self;
}

/// Returns the desired number of pods.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

impl ReplicaSetLike for ReplicaSet {
    const QUEUE: &'static str = "replicaset";
    const SELECTOR: SelectorForm = SelectorForm::Selector;

    fn to_replica_set(&self) -> ReplicaSet {
        self.clone()
    }

    fn with_status(self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(status), ..self }
    }
}

impl ReplicaSetLike for ReplicationController {
    const QUEUE: &'static str = "replicationmanager";
    const SELECTOR: SelectorForm = SelectorForm::Labels;

    fn to_replica_set(&self) -> ReplicaSet {
        ReplicaSet {
            metadata: self.metadata.clone(),
            spec: Some(to_replica_set_spec(self.spec.clone().unwrap_or_default())),
            status: Some(to_replica_set_status(self.status.clone().unwrap_or_default())),
        }
    }

    fn with_status(self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(to_controller_status(status)), ..self }
    }
}

fn to_replica_set_spec(spec: ReplicationControllerSpec) -> ReplicaSetSpec {
    ReplicaSetSpec {
        replicas: spec.replicas,
        min_ready_seconds: spec.min_ready_seconds,
        selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
        template: spec.template,
    }
}

fn to_replica_set_status(status: ReplicationControllerStatus) -> ReplicaSetStatus {
    ReplicaSetStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        observed_generation: status.observed_generation,
        // Replication controllers lack this field. With `None`, the stored status would always differ from the
        // computed one.
        terminating_replicas: Some(0),
        conditions: status
            .conditions
            .map(|conditions| conditions.into_iter().map(to_replica_set_condition).collect()),
    }
}

fn to_controller_status(status: ReplicaSetStatus) -> ReplicationControllerStatus {
    ReplicationControllerStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        observed_generation: status.observed_generation,
        conditions: status
            .conditions
            .map(|conditions| conditions.into_iter().map(to_controller_condition).collect()),
    }
}

fn to_replica_set_condition(condition: ReplicationControllerCondition) -> ReplicaSetCondition {
    let ReplicationControllerCondition { last_transition_time, message, reason, status, type_ } = condition;
    ReplicaSetCondition { last_transition_time, message, reason, status, type_ }
}

fn to_controller_condition(condition: ReplicaSetCondition) -> ReplicationControllerCondition {
    let ReplicaSetCondition { last_transition_time, message, reason, status, type_ } = condition;
    ReplicationControllerCondition { last_transition_time, message, reason, status, type_ }
}
