//! Plans, carried out on pods in memory, with a kubelet that is played.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::fixtures::{revision, running, set};
use super::plan::{self, Step};
use super::{claims, identity, status};
use crate::pods::fixtures::{deleting, now};

/// A set, its pods, and a kubelet.
struct World {
    set: StatefulSet,
    current: ControllerRevision,
    update: ControllerRevision,
    pods: BTreeMap<i32, Pod>,
    claims: BTreeMap<String, ObjectMeta>,
    /// Pods that the kubelet does not make ready.
    stuck: HashSet<i32>,
    created: usize,
}

impl World {
    fn new(set: StatefulSet) -> Self {
        let first = revision("web-a", "x", 1);
        Self {
            set,
            current: first.clone(),
            update: first,
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            stuck: HashSet::new(),
            created: 0,
        }
    }

    fn with(replicas: i32, change: &Value) -> Self {
        let mut value = serde_json::to_value(set(replicas)).unwrap();
        for (key, field) in change.as_object().unwrap() {
            value["spec"][key] = field.clone();
        }
        Self::new(serde_json::from_value(value).unwrap())
    }

    fn scale(&mut self, replicas: i32) {
        self.set.spec.as_mut().unwrap().replicas = Some(replicas);
    }

    /// One sync. Says what was done: `+0` for a creation, `-0` for a deletion, `c0` for claims, `=0` for a correction.
    fn sync(&mut self) -> Vec<String> {
        let known = self.claims.clone();
        let observed = plan::Observed {
            set: &self.set,
            pods: &self.pods,
            claim: &|name| known.get(name).cloned(),
            current: &self.current,
            update: &self.update,
            now: now(),
        };
        let plan = plan::plan(&observed);
        let steps: Vec<Step> = plan.phases.into_iter().flatten().collect();
        let said = steps.into_iter().map(|step| self.carry_out(step)).collect();
        let status = self.status(plan.replaced);
        if status.current_revision == self.update.metadata.name {
            self.current = self.update.clone();
        }
        self.set.status = Some(status);
        said
    }

    fn carry_out(&mut self, step: Step) -> String {
        match step {
            Step::Create(mut pod, ordinal) => {
                self.created += 1;
                self.ensure_claims(&pod, ordinal);
                pod.metadata.uid = Some(format!("uid-{}", self.created));
                pod.status = serde_json::from_value(json!({"phase": "Pending"})).unwrap();
                assert!(self.pods.insert(ordinal, *pod).is_none(), "created twice");
                format!("+{ordinal}")
            }
            Step::Delete(pod) => {
                let ordinal = identity::ordinal(&self.set, &pod).unwrap();
                self.pods.insert(ordinal, deleting(*pod));
                format!("-{ordinal}")
            }
            Step::EnsureClaims(pod, ordinal) | Step::RetainClaims(pod, ordinal) => {
                self.ensure_claims(&pod, ordinal);
                format!("c{ordinal}")
            }
            Step::Conform(mut pod, ordinal) => {
                self.ensure_claims(&pod, ordinal);
                identity::conform(&self.set, &mut pod, ordinal);
                self.pods.insert(ordinal, *pod);
                format!("={ordinal}")
            }
        }
    }

    fn ensure_claims(&mut self, pod: &Pod, ordinal: i32) {
        for claim in claims::new_claims(&self.set, pod, ordinal) {
            let meta = self.claims.entry(claim.metadata.name.clone().unwrap()).or_insert(claim.metadata);
            if let Some(owners) = claims::corrected_owners(meta, &self.set, pod) {
                meta.owner_references = Some(owners);
            }
        }
    }

    fn status(&self, replaced: i32) -> StatefulSetStatus {
        let (current, update) = (&self.current, &self.update);
        let observed = status::Observed { current, update, collisions: 0, replaced, now: now() };
        status::of(&self.set, &self.pods.values().collect::<Vec<_>>(), &observed)
    }

    /// The kubelet lets pods go that are being deleted, and makes others ready.
    fn kubelet(&mut self) {
        self.pods.retain(|_, pod| pod.metadata.deletion_timestamp.is_none());
        for (ordinal, pod) in &mut self.pods {
            if !self.stuck.contains(ordinal) {
                *pod = running(pod.clone(), 3600);
            }
        }
    }

    /// Syncs until there is nothing to do; says what each sync did.
    fn settle(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        for _ in 0..100 {
            let (before, steps) = (self.pods.clone(), self.sync());
            if steps.is_empty()
                && before == self.pods
                && self.pods.values().all(|pod| pod.metadata.deletion_timestamp.is_none())
            {
                return said;
            }
            if !steps.is_empty() {
                said.push(steps.join(" "));
            }
            self.kubelet();
        }
        panic!("does not settle: {said:?}");
    }

    fn images(&self) -> Vec<String> {
        let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        self.pods.values().map(image).collect()
    }
}

#[test]
fn an_ordered_set_comes_up_and_goes_down_one_by_one() {
    let mut world = World::new(set(3));
    assert_eq!(world.settle(), ["+0", "+1", "+2"]);
    world.scale(1);
    assert_eq!(world.settle(), ["-2", "-1"]);
    world.scale(2);
    assert_eq!(world.settle(), ["+1"]);
    assert_eq!(world.status(0).current_replicas, Some(2));
}

#[test]
fn a_parallel_set_comes_up_and_goes_down_at_once() {
    let mut world = World::with(3, &json!({"podManagementPolicy": "Parallel"}));
    world.stuck.insert(0);
    assert_eq!(world.sync(), ["+0", "+1", "+2"]);
    world.kubelet();
    world.scale(1);
    assert_eq!(world.sync(), ["-2", "-1"]);
}

#[test]
fn a_parallel_set_creates_a_bounded_number_of_pods_in_a_sync() {
    let mut world = World::with(i32::MAX, &json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(world.sync().len(), 500);
    assert_eq!(world.sync().len(), 500);
    world.scale(0);
    assert_eq!(world.sync().len(), 1000);
}

#[test]
fn a_pod_that_is_not_ready_holds_up_an_ordered_set() {
    let mut world = World::new(set(3));
    world.stuck.insert(1);
    for expected in ["+0", "+1", "", ""] {
        assert_eq!(world.sync().join(" "), expected);
        world.kubelet();
    }
    world.stuck.clear();
    world.kubelet();
    assert_eq!(world.settle(), ["+2"]);
}

#[test]
fn scaling_down_waits_for_pods_that_are_not_ready_except_the_lowest() {
    let mut world = World::new(set(4));
    world.settle();
    world.scale(1);
    let pending = |world: &mut World, ordinal: i32| {
        world.stuck.insert(ordinal);
        let status = serde_json::from_value(json!({"phase": "Running"})).unwrap();
        world.pods.get_mut(&ordinal).unwrap().status = status;
    };
    pending(&mut world, 2);
    pending(&mut world, 3);
    assert_eq!(world.sync(), [""; 0], "3 waits for 2");
    world.stuck.remove(&3);
    world.kubelet();
    assert_eq!(world.settle(), ["-3", "-2", "-1"]);
}

#[test]
fn pods_that_have_ended_are_replaced() {
    for phase in ["Failed", "Succeeded"] {
        let mut world = World::new(set(2));
        world.settle();
        world.pods.get_mut(&0).unwrap().status = serde_json::from_value(json!({"phase": phase})).unwrap();
        assert_eq!(world.settle(), ["-0", "+0"]);
    }
}

#[test]
fn an_update_replaces_pods_from_the_highest_down_to_the_partition() {
    let rolling =
        |partition: i32| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
    let mut world = World::with(3, &json!({"updateStrategy": rolling(1)}));
    world.settle();
    world.update = revision("web-b", "y", 2);
    assert_eq!(world.settle(), ["-2", "+2", "-1", "+1"]);
    assert_eq!(world.images(), ["x", "y", "y"]);
    let status = world.set.status.clone().unwrap();
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(1), Some(2)));
    assert_eq!(status.current_revision.as_deref(), Some("web-a"));

    // A pod below the partition comes back as it was.
    let deleted = deleting(world.pods[&0].clone());
    world.pods.insert(0, deleted);
    assert_eq!(world.settle(), ["+0"]);
    assert_eq!(world.images(), ["x", "y", "y"]);

    world.set.spec.as_mut().unwrap().update_strategy = serde_json::from_value(rolling(0)).unwrap();
    assert_eq!(world.settle(), ["-0", "+0"]);
    assert_eq!(world.images(), ["y"; 3]);
    assert_eq!(world.set.status.clone().unwrap().current_revision.as_deref(), Some("web-b"));
}

#[test]
fn an_update_of_a_parallel_set_waits_for_pods_that_are_not_available() {
    let mut world = World::with(3, &json!({"podManagementPolicy": "Parallel"}));
    world.settle();
    world.update = revision("web-b", "y", 2);
    assert_eq!(world.sync(), ["-2"]);
    assert_eq!(world.sync(), [""; 0], "it is still being deleted");
    world.stuck.insert(2);
    world.kubelet();
    assert_eq!(world.sync(), ["+2"]);
    world.kubelet();
    assert_eq!(world.sync(), [""; 0], "it is not ready");
    world.stuck.clear();
    world.kubelet();
    assert_eq!(world.settle(), ["-1", "+1", "-0", "+0"]);
}

#[test]
fn pods_are_replaced_when_they_are_deleted_under_on_delete() {
    let mut world = World::with(2, &json!({"updateStrategy": {"type": "OnDelete"}}));
    world.settle();
    world.update = revision("web-b", "y", 2);
    assert_eq!(world.settle(), [""; 0]);
    let deleted = deleting(world.pods[&0].clone());
    world.pods.insert(0, deleted);
    assert_eq!(world.settle(), ["+0"]);
    assert_eq!(world.images(), ["y", "x"]);
}

#[test]
fn ordinals_begin_where_the_set_says() {
    let mut world = World::with(2, &json!({"ordinals": {"start": 5}}));
    assert_eq!(world.settle(), ["+5", "+6"]);
    world.set.spec.as_mut().unwrap().ordinals = serde_json::from_value(json!({"start": 6})).unwrap();
    assert_eq!(world.settle(), ["+7", "-5"]);
    world.update = revision("web-b", "y", 2);
    assert_eq!(world.settle(), ["-7", "+7", "-6", "+6"]);
}

#[test]
fn pods_count_on_being_ready_for_long_enough() {
    let mut world = World::with(2, &json!({"minReadySeconds": 10}));
    assert_eq!(world.sync(), ["+0"]);
    let pod = world.pods[&0].clone();
    world.pods.insert(0, running(pod.clone(), 9));
    assert_eq!(world.sync(), [""; 0]);
    world.pods.insert(0, running(pod, 10));
    assert_eq!(world.sync(), ["+1"]);
}

#[test]
fn claims_change_owners_before_a_pod_is_scaled_down() {
    let policy = json!({"whenScaled": "Delete", "whenDeleted": "Delete"});
    let mut world = World::with(2, &json!({"persistentVolumeClaimRetentionPolicy": policy}));
    world.settle();
    let owner = |world: &World, claim: &str| {
        world.claims[claim]
            .owner_references
            .as_ref()
            .unwrap()
            .iter()
            .map(|it| it.kind.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(owner(&world, "data-web-1"), ["StatefulSet"]);
    world.scale(1);
    assert_eq!(world.settle(), ["c1 -1"]);
    assert_eq!(owner(&world, "data-web-1"), ["Pod"]);
    assert_eq!(owner(&world, "data-web-0"), ["StatefulSet"]);
    // The claim goes with the pod; until it has gone no new pod may take it.
    world.scale(2);
    assert_eq!(world.settle(), [""; 0]);
    world.claims.remove("data-web-1");
    assert_eq!(world.settle(), ["+1"]);
}

#[test]
fn a_claim_that_vanished_is_created_again_for_a_pending_pod() {
    let mut world = World::new(set(1));
    world.sync();
    world.claims.clear();
    assert_eq!(world.sync(), ["c0"]);
    assert_eq!(world.claims.len(), 1);
}

#[test]
fn pods_whose_labels_were_changed_are_corrected() {
    let mut world = World::new(set(1));
    world.settle();
    let labels = world.pods.get_mut(&0).unwrap().metadata.labels.as_mut().unwrap();
    labels.remove("statefulset.kubernetes.io/pod-name");
    assert_eq!(world.settle(), ["=0"]);
}

#[test]
fn a_set_under_deletion_does_nothing() {
    let mut world = World::new(set(3));
    world.settle();
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now());
    world.set.metadata.deletion_timestamp = Some(time);
    world.pods.remove(&1);
    assert_eq!(world.sync(), [""; 0]);
}
