//! Applies plans to pods in memory, with a simulated scheduler and kubelets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Pod, Taint};
use serde_json::{Value, json};

use super::fixtures::{node, set};
use super::plan::Observed;
use super::{pod, spec_of, status};
use crate::pods::fixtures::{deleting, now};
use crate::scheduling::NodeView;

struct World {
    set: DaemonSet,
    hash: String,
    nodes: BTreeMap<String, NodeView>,
    pods: BTreeMap<String, Vec<Pod>>,
    /// Nodes whose pods do not become ready.
    stuck: BTreeSet<String>,
    pause: Option<Duration>,
    created: usize,
}

impl World {
    fn new(rolling: &Value, nodes: usize) -> Self {
        let mut set = set();
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": rolling});
        set.spec.as_mut().unwrap().update_strategy = serde_json::from_value(strategy).unwrap();
        let nodes = (1..=nodes).map(|number| format!("n{number}")).map(|name| (name.clone(), node(&name)));
        Self {
            set,
            hash: "a".to_owned(),
            nodes: nodes.collect(),
            pods: BTreeMap::new(),
            stuck: BTreeSet::new(),
            pause: None,
            created: 0,
        }
    }

    fn stable(rolling: &Value, nodes: usize) -> Self {
        let mut world = Self::new(rolling, nodes);
        world.sync_until_stable();
        world
    }

    /// Runs one sync. Returns `+n1` for a creation on a node and `-n1` for a deletion.
    fn sync(&mut self) -> Vec<String> {
        let template = pod::template(&self.set, &self.hash);
        let spec = template.spec.clone().unwrap();
        let fits = self.nodes.iter().map(|(name, node)| (name.clone(), pod::fit(&spec, node))).collect();
        let before = self.pods.clone();
        let observed = Observed { set: &self.set, hash: &self.hash, nodes: &fits, pods: &before, now: now() };
        let mut plan = observed.manage(|_| self.pause);
        if plan.is_empty() {
            plan = observed.plan_rolling_update();
        }
        let mut actions = Vec::new();
        for deleted in &plan.delete {
            let node = pod::target_node(deleted).unwrap();
            actions.push(format!("-{node}"));
            for pod in self.pods.get_mut(node).unwrap() {
                if pod.metadata.name == deleted.metadata.name {
                    *pod = deleting((*deleted).clone());
                }
            }
        }
        for node in &plan.create_on {
            self.created += 1;
            actions.push(format!("+{node}"));
            let mut pod = pod::new_pod(&self.set, &template, node);
            pod.metadata.name = Some(format!("agent-{:03}", self.created));
            pod.status = serde_json::from_value(json!({"phase": "Pending"})).unwrap();
            self.pods.entry((*node).to_owned()).or_default().push(pod);
        }
        actions
    }

    /// Removes pods that are being deleted; binds all other pods and makes them ready.
    fn run_kubelets(&mut self) {
        for (node, pods) in &mut self.pods {
            pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
            for pod in pods.iter_mut().filter(|_| self.nodes.contains_key(node)) {
                pod.spec.as_mut().unwrap().node_name = Some(node.clone());
                let ready = if self.stuck.contains(node) { "False" } else { "True" };
                let condition =
                    json!({"type": "Ready", "status": ready, "lastTransitionTime": "2020-01-01T00:00:00Z"});
                let status = json!({"phase": "Running", "conditions": [condition]});
                if !self.stuck.contains(node) || crate::pods::phase(pod) == "Pending" {
                    pod.status = serde_json::from_value(status).unwrap();
                }
            }
        }
        self.pods.retain(|_, pods| !pods.is_empty());
    }

    fn sync_until_stable(&mut self) -> Vec<String> {
        let mut actions = Vec::new();
        for _ in 0..100 {
            let steps = self.sync();
            let waiting = self.pods.values().flatten().any(|pod| pod.metadata.deletion_timestamp.is_some());
            if steps.is_empty() && !waiting {
                return actions;
            }
            if !steps.is_empty() {
                actions.push(steps.join(" "));
            }
            self.run_kubelets();
        }
        panic!("does not settle: {actions:?}");
    }

    fn taint(&mut self, node: &str, effect: &str) {
        let taint: Taint = serde_json::from_value(json!({"key": "k", "effect": effect})).unwrap();
        self.nodes.get_mut(node).unwrap().taints = vec![taint];
    }

    fn phase(&mut self, node: &str, phase: &str) {
        let pod = &mut self.pods.get_mut(node).unwrap()[0];
        pod.status = serde_json::from_value(json!({"phase": phase})).unwrap();
    }

    fn update(&mut self) {
        self.hash = "b".to_owned();
    }

    fn status(&self) -> DaemonSetStatus {
        let spec = spec_of(&self.set).template.spec.clone().unwrap();
        let fits = self.nodes.iter().map(|(name, node)| (name.clone(), pod::fit(&spec, node))).collect();
        let observed =
            Observed { set: &self.set, hash: &self.hash, nodes: &fits, pods: &self.pods, now: now() };
        status::daemon_set_status(&observed, 0, true)
    }
}

fn one_unavailable() -> Value {
    json!({"maxUnavailable": 1, "maxSurge": 0})
}

fn one_surging() -> Value {
    json!({"maxUnavailable": 0, "maxSurge": 1})
}

#[test]
fn each_node_gets_a_pod() {
    let mut world = World::new(&one_unavailable(), 2);
    assert_eq!(world.sync_until_stable(), ["+n1 +n2"]);
    world.nodes.insert("n3".to_owned(), node("n3"));
    assert_eq!(world.sync_until_stable(), ["+n3"]);
    let status = world.status();
    let numbers = (status.desired_number_scheduled, status.number_ready, status.number_unavailable);
    assert_eq!(numbers, (3, 3, None));
}

#[test]
fn taints_prevent_new_pods_and_no_execute_evicts() {
    let mut world = World::new(&one_unavailable(), 2);
    world.taint("n2", "NoSchedule");
    assert_eq!(world.sync_until_stable(), ["+n1"]);
    world.taint("n1", "NoSchedule");
    assert_eq!(world.sync_until_stable(), [""; 0]);
    assert_eq!((world.status().number_misscheduled, world.status().desired_number_scheduled), (1, 0));
    world.taint("n1", "NoExecute");
    assert_eq!(world.sync_until_stable(), ["-n1"]);
}

#[test]
fn deletes_pod_of_a_node_that_no_longer_matches() {
    let mut world = World::stable(&one_unavailable(), 2);
    let spec = json!({"containers": [], "nodeSelector": {"disk": "ssd"}});
    world.set.spec.as_mut().unwrap().template.spec = serde_json::from_value(spec).unwrap();
    assert_eq!(world.sync_until_stable(), ["-n1 -n2"]);
}

#[test]
fn replaces_terminal_pods_with_backoff_for_failed_ones() {
    let mut world = World::stable(&one_unavailable(), 1);
    world.phase("n1", "Succeeded");
    assert_eq!(world.sync_until_stable(), ["-n1", "+n1"]);
    world.phase("n1", "Failed");
    world.pause = Some(Duration::from_secs(4));
    assert_eq!(world.sync(), [""; 0]);
    world.pause = None;
    assert_eq!(world.sync_until_stable(), ["-n1", "+n1"]);
}

#[test]
fn keeps_the_oldest_of_several_pods_on_a_node() {
    let mut world = World::stable(&one_unavailable(), 1);
    let mut second = world.pods["n1"][0].clone();
    second.metadata.name = Some("agent-999".to_owned());
    world.pods.get_mut("n1").unwrap().insert(0, second);
    assert_eq!(world.sync_until_stable(), ["-n1"]);
    assert_eq!(world.pods["n1"][0].metadata.name.as_deref(), Some("agent-001"));
}

#[test]
fn deletes_unbound_pods_of_deleted_nodes() {
    let mut world = World::new(&one_unavailable(), 1);
    world.sync();
    world.nodes.clear();
    assert_eq!(world.sync_until_stable(), ["-n1"]);
    let mut world = World::stable(&one_unavailable(), 1);
    world.nodes.clear();
    assert_eq!(world.sync_until_stable(), [""; 0], "pods that were bound are for the collection of pods");
}

#[test]
fn update_respects_max_unavailable() {
    let mut world = World::stable(&one_unavailable(), 3);
    world.update();
    assert_eq!(world.sync_until_stable(), ["-n1", "+n1", "-n2", "+n2", "-n3", "+n3"]);
    let mut world = World::stable(&json!({"maxUnavailable": "50%", "maxSurge": 0}), 3);
    world.update();
    assert_eq!(world.sync_until_stable(), ["-n1 -n2", "+n1 +n2", "-n3", "+n3"]);
    assert_eq!(world.status().updated_number_scheduled, Some(3));
}

#[test]
fn update_replaces_unavailable_old_pods_first() {
    let mut world = World::stable(&one_unavailable(), 3);
    world.stuck.insert("n3".to_owned());
    world.phase("n3", "Running");
    world.update();
    assert_eq!(world.sync(), ["-n3"], "it is unavailable anyway");
    world.run_kubelets();
    assert_eq!(world.sync(), ["+n3"]);
    world.run_kubelets();
    assert_eq!(world.sync(), [""; 0], "the new pod is not available");
    world.stuck.clear();
    world.run_kubelets();
    assert_eq!(world.sync_until_stable(), ["-n1", "+n1", "-n2", "+n2"]);
}

#[test]
fn surging_update_deletes_old_pod_when_new_one_is_available() {
    let mut world = World::stable(&one_surging(), 2);
    world.update();
    assert_eq!(world.sync_until_stable(), ["+n1", "-n1", "+n2", "-n2"]);
    let hashes = world
        .pods
        .values()
        .flatten()
        .map(|pod| &pod.metadata.labels.as_ref().unwrap()["controller-revision-hash"]);
    assert_eq!(hashes.collect::<Vec<_>>(), ["b", "b"]);
}

#[test]
fn surging_update_waits_for_unavailable_new_pod() {
    let mut world = World::stable(&one_surging(), 2);
    world.update();
    assert_eq!(world.sync(), ["+n1"]);
    assert_eq!(world.sync(), [""; 0]);
    world.run_kubelets();
    assert_eq!(world.sync(), ["-n1"]);
}

#[test]
fn on_delete_strategy_replaces_deleted_pods() {
    let mut world = World::stable(&one_unavailable(), 2);
    let strategy = json!({"type": "OnDelete"});
    world.set.spec.as_mut().unwrap().update_strategy = serde_json::from_value(strategy).unwrap();
    world.update();
    assert_eq!(world.sync_until_stable(), [""; 0]);
    let pod = deleting(world.pods["n1"][0].clone());
    world.pods.insert("n1".to_owned(), vec![pod]);
    assert_eq!(world.sync_until_stable(), ["+n1"]);
    assert_eq!(world.status().updated_number_scheduled, Some(1));
}

#[test]
fn zero_budget_allows_one_unavailable_pod() {
    assert_eq!(super::max_surge_and_unavailable(&set(), 10), (0, 1));
    let world = World::new(&json!({"maxUnavailable": 0, "maxSurge": 0}), 1);
    assert_eq!(super::max_surge_and_unavailable(&world.set, 10), (0, 1));
    let world = World::new(&json!({"maxUnavailable": 0, "maxSurge": "15%"}), 1);
    assert_eq!(super::max_surge_and_unavailable(&world.set, 10), (2, 0));
}
