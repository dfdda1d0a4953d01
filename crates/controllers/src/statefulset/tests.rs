//! Applies plans to pods in memory, with a simulated kubelet.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::fixtures::{revision, running, set};
use super::plan::{self, Step};
use super::{claims, identity, status};
use crate::pods::fixtures::{deleting, now};

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

    fn with_changes(replicas: i32, change: &Value) -> Self {
        let mut value = serde_json::to_value(set(replicas)).unwrap();
        for (key, field) in change.as_object().unwrap() {
            value["spec"][key] = field.clone();
        }
        Self::new(serde_json::from_value(value).unwrap())
    }

    fn scale(&mut self, replicas: i32) {
        self.set.spec.as_mut().unwrap().replicas = Some(replicas);
    }

    /// Runs one sync. Returns `+0` for a creation, `-0` for a deletion, `c0` for claims, and `=0` for a correction.
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
        let steps_taken = steps.into_iter().map(|step| self.apply(step)).collect();
        let status = self.status(plan.replaced);
        if status.current_revision == self.update.metadata.name {
            self.current = self.update.clone();
        }
        self.set.status = Some(status);
        steps_taken
    }

    fn apply(&mut self, step: Step) -> String {
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
        status::stateful_set_status(&self.set, &self.pods.values().collect::<Vec<_>>(), &observed)
    }

    /// Removes pods that are being deleted, and makes the other pods ready.
    fn run_kubelet(&mut self) {
        self.pods.retain(|_, pod| pod.metadata.deletion_timestamp.is_none());
        for (ordinal, pod) in &mut self.pods {
            if !self.stuck.contains(ordinal) {
                *pod = running(pod.clone(), 3600);
            }
        }
    }

    /// Syncs until no steps remain. Returns the steps of each sync.
    fn sync_until_stable(&mut self) -> Vec<String> {
        let mut steps_taken = Vec::new();
        for _ in 0..100 {
            let (before, steps) = (self.pods.clone(), self.sync());
            if steps.is_empty()
                && before == self.pods
                && self.pods.values().all(|pod| pod.metadata.deletion_timestamp.is_none())
            {
                return steps_taken;
            }
            if !steps.is_empty() {
                steps_taken.push(steps.join(" "));
            }
            self.run_kubelet();
        }
        panic!("does not settle: {steps_taken:?}");
    }

    fn images(&self) -> Vec<String> {
        let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        self.pods.values().map(image).collect()
    }
}

#[test]
fn ordered_set_scales_one_by_one() {
    let mut world = World::new(set(3));
    assert_eq!(world.sync_until_stable(), ["+0", "+1", "+2"]);
    world.scale(1);
    assert_eq!(world.sync_until_stable(), ["-2", "-1"]);
    world.scale(2);
    assert_eq!(world.sync_until_stable(), ["+1"]);
    assert_eq!(world.status(0).current_replicas, Some(2));
}

#[test]
fn parallel_set_scales_at_once() {
    let mut world = World::with_changes(3, &json!({"podManagementPolicy": "Parallel"}));
    world.stuck.insert(0);
    assert_eq!(world.sync(), ["+0", "+1", "+2"]);
    world.run_kubelet();
    world.scale(1);
    assert_eq!(world.sync(), ["-2", "-1"]);
}

#[test]
fn parallel_set_creates_limited_number_per_sync() {
    let mut world = World::with_changes(i32::MAX, &json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(world.sync().len(), 500);
    assert_eq!(world.sync().len(), 500);
    world.scale(0);
    assert_eq!(world.sync().len(), 1000);
}

#[test]
fn unready_pod_blocks_ordered_set() {
    let mut world = World::new(set(3));
    world.stuck.insert(1);
    for expected in ["+0", "+1", "", ""] {
        assert_eq!(world.sync().join(" "), expected);
        world.run_kubelet();
    }
    world.stuck.clear();
    world.run_kubelet();
    assert_eq!(world.sync_until_stable(), ["+2"]);
}

#[test]
fn scaling_down_waits_for_unready_pods_except_the_lowest() {
    let mut world = World::new(set(4));
    world.sync_until_stable();
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
    world.run_kubelet();
    assert_eq!(world.sync_until_stable(), ["-3", "-2", "-1"]);
}

#[test]
fn replaces_terminal_pods() {
    for phase in ["Failed", "Succeeded"] {
        let mut world = World::new(set(2));
        world.sync_until_stable();
        world.pods.get_mut(&0).unwrap().status = serde_json::from_value(json!({"phase": phase})).unwrap();
        assert_eq!(world.sync_until_stable(), ["-0", "+0"]);
    }
}

#[test]
fn update_replaces_pods_from_the_highest_to_the_partition() {
    let rolling =
        |partition: i32| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
    let mut world = World::with_changes(3, &json!({"updateStrategy": rolling(1)}));
    world.sync_until_stable();
    world.update = revision("web-b", "y", 2);
    assert_eq!(world.sync_until_stable(), ["-2", "+2", "-1", "+1"]);
    assert_eq!(world.images(), ["x", "y", "y"]);
    let status = world.set.status.clone().unwrap();
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(1), Some(2)));
    assert_eq!(status.current_revision.as_deref(), Some("web-a"));

    // A pod below the partition is recreated at the old revision.
    let deleted = deleting(world.pods[&0].clone());
    world.pods.insert(0, deleted);
    assert_eq!(world.sync_until_stable(), ["+0"]);
    assert_eq!(world.images(), ["x", "y", "y"]);

    world.set.spec.as_mut().unwrap().update_strategy = serde_json::from_value(rolling(0)).unwrap();
    assert_eq!(world.sync_until_stable(), ["-0", "+0"]);
    assert_eq!(world.images(), ["y"; 3]);
    assert_eq!(world.set.status.clone().unwrap().current_revision.as_deref(), Some("web-b"));
}

#[test]
fn update_of_parallel_set_waits_for_unavailable_pods() {
    let mut world = World::with_changes(3, &json!({"podManagementPolicy": "Parallel"}));
    world.sync_until_stable();
    world.update = revision("web-b", "y", 2);
    assert_eq!(world.sync(), ["-2"]);
    assert_eq!(world.sync(), [""; 0], "it is still being deleted");
    world.stuck.insert(2);
    world.run_kubelet();
    assert_eq!(world.sync(), ["+2"]);
    world.run_kubelet();
    assert_eq!(world.sync(), [""; 0], "it is not ready");
    world.stuck.clear();
    world.run_kubelet();
    assert_eq!(world.sync_until_stable(), ["-1", "+1", "-0", "+0"]);
}

#[test]
fn on_delete_strategy_replaces_deleted_pods() {
    let mut world = World::with_changes(2, &json!({"updateStrategy": {"type": "OnDelete"}}));
    world.sync_until_stable();
    world.update = revision("web-b", "y", 2);
    assert_eq!(world.sync_until_stable(), [""; 0]);
    let deleted = deleting(world.pods[&0].clone());
    world.pods.insert(0, deleted);
    assert_eq!(world.sync_until_stable(), ["+0"]);
    assert_eq!(world.images(), ["y", "x"]);
}

#[test]
fn ordinals_start_at_spec_ordinals_start() {
    let mut world = World::with_changes(2, &json!({"ordinals": {"start": 5}}));
    assert_eq!(world.sync_until_stable(), ["+5", "+6"]);
    world.set.spec.as_mut().unwrap().ordinals = serde_json::from_value(json!({"start": 6})).unwrap();
    assert_eq!(world.sync_until_stable(), ["+7", "-5"]);
    world.update = revision("web-b", "y", 2);
    assert_eq!(world.sync_until_stable(), ["-7", "+7", "-6", "+6"]);
}

#[test]
fn pods_are_available_after_min_ready_seconds() {
    let mut world = World::with_changes(2, &json!({"minReadySeconds": 10}));
    assert_eq!(world.sync(), ["+0"]);
    let pod = world.pods[&0].clone();
    world.pods.insert(0, running(pod.clone(), 9));
    assert_eq!(world.sync(), [""; 0]);
    world.pods.insert(0, running(pod, 10));
    assert_eq!(world.sync(), ["+1"]);
}

#[test]
fn corrects_claim_owners_before_scaling_down() {
    let policy = json!({"whenScaled": "Delete", "whenDeleted": "Delete"});
    let mut world = World::with_changes(2, &json!({"persistentVolumeClaimRetentionPolicy": policy}));
    world.sync_until_stable();
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
    assert_eq!(world.sync_until_stable(), ["c1 -1"]);
    assert_eq!(owner(&world, "data-web-1"), ["Pod"]);
    assert_eq!(owner(&world, "data-web-0"), ["StatefulSet"]);
    // The claim is deleted with the pod. A new pod must wait for the deletion.
    world.scale(2);
    assert_eq!(world.sync_until_stable(), [""; 0]);
    world.claims.remove("data-web-1");
    assert_eq!(world.sync_until_stable(), ["+1"]);
}

#[test]
fn recreates_missing_claim_of_pending_pod() {
    let mut world = World::new(set(1));
    world.sync();
    world.claims.clear();
    assert_eq!(world.sync(), ["c0"]);
    assert_eq!(world.claims.len(), 1);
}

#[test]
fn restores_changed_labels() {
    let mut world = World::new(set(1));
    world.sync_until_stable();
    let labels = world.pods.get_mut(&0).unwrap().metadata.labels.as_mut().unwrap();
    labels.remove("statefulset.kubernetes.io/pod-name");
    assert_eq!(world.sync_until_stable(), ["=0"]);
}

#[test]
fn deleted_set_does_nothing() {
    let mut world = World::new(set(3));
    world.sync_until_stable();
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now());
    world.set.metadata.deletion_timestamp = Some(time);
    world.pods.remove(&1);
    assert_eq!(world.sync(), [""; 0]);
}
