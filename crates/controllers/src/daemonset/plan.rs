//! Decides which pods of a daemon set to create and delete: a pure function of the observed state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;

use super::pod::{Fit, is_updated};
use super::{is_rolling, max_surge_and_unavailable, spec_of, surges};
use crate::pods::{is_available, is_ready, node_name, phase};

/// The observed state.
pub(super) struct Observed<'a> {
    pub(super) set: &'a DaemonSet,
    /// The hash of the current template.
    pub(super) hash: &'a str,
    /// The placement decision for each node.
    pub(super) nodes: &'a BTreeMap<String, Fit>,
    /// The set's pods by target node.
    pub(super) pods: &'a BTreeMap<String, Vec<Pod>>,
    pub(super) now: Timestamp,
}

/// Pods to create and to delete.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    /// Nodes that get a new pod.
    pub(super) create_on: Vec<&'a str>,
    pub(super) delete: Vec<&'a Pod>,
    /// Nodes with a failed pod; `delete` also contains the pod.
    pub(super) failed: Vec<(&'a str, &'a Pod)>,
    /// Nodes with a succeeded pod; `delete` also contains the pod.
    pub(super) succeeded: Vec<(&'a str, &'a Pod)>,
    /// The shortest remaining backoff of a failed pod.
    pub(super) retry_after: Option<Duration>,
}

impl Plan<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.create_on.is_empty() && self.delete.is_empty()
    }
}

/// Orders the pods of a node: bound before unbound, then by age.
pub(super) fn age_order(a: &Pod, b: &Pod) -> std::cmp::Ordering {
    let order = |pod: &Pod| (node_name(pod).is_none(), pod.metadata.creation_timestamp.clone());
    order(a).cmp(&order(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

impl<'a> Observed<'a> {
    /// Plans one pod for each node that should run one, and deletes all others. `backoff` returns the remaining
    /// backoff of a node's failed pod.
    pub(super) fn manage(&self, backoff: impl Fn(&str) -> Option<Duration>) -> Plan<'a> {
        let mut plan = Plan::default();
        for (node, fit) in self.nodes {
            let pods = self.pods.get(node).map(Vec::as_slice);
            match (fit, pods) {
                (Fit::ShouldRun, None) => plan.create_on.push(node),
                (Fit::MustNotRun, Some(pods)) => {
                    plan.delete.extend(pods.iter().filter(|pod| !is_deleted(pod)));
                }
                (Fit::MustNotRun, None) => {}
                (Fit::ShouldRun | Fit::MayContinue, pods) => {
                    self.manage_node(node, *fit, pods.unwrap_or_default(), &backoff, &mut plan);
                }
            }
        }
        // Deletes unbound pods for deleted nodes, which can never be scheduled.
        let gone = self.pods.iter().filter(|(node, _)| !self.nodes.contains_key(*node));
        plan.delete.extend(gone.flat_map(|(_, pods)| pods).filter(|pod| node_name(pod).is_none()));
        plan
    }

    fn manage_node(
        &self,
        node: &'a str,
        fit: Fit,
        pods: &'a [Pod],
        backoff: impl Fn(&str) -> Option<Duration>,
        plan: &mut Plan<'a>,
    ) {
        let mut running = Vec::new();
        for pod in pods.iter().filter(|pod| !is_deleted(pod)) {
            match (phase(pod), backoff(node)) {
                ("Failed", Some(wait)) => {
                    plan.retry_after = Some(plan.retry_after.map_or(wait, |least| least.min(wait)));
                }
                ("Failed", None) => {
                    plan.failed.push((node, pod));
                    plan.delete.push(pod);
                }
                ("Succeeded", _) => {
                    plan.succeeded.push((node, pod));
                    plan.delete.push(pod);
                }
                _ => running.push(pod),
            }
        }
        running.sort_by(|a, b| age_order(a, b));
        if !surges(self.set) {
            plan.delete.extend(running.into_iter().skip(1));
        } else if running.is_empty() {
            plan.create_on.extend((fit == Fit::ShouldRun).then_some(node));
        } else if running.len() > 1 {
            self.keep_old_and_new(&running, plan);
        }
    }

    /// Keeps the oldest pod of the current template, and the oldest old pod until the new one is available.
    fn keep_old_and_new(&self, running: &[&'a Pod], plan: &mut Plan<'a>) {
        let is_new = |pod: &&&Pod| is_updated(self.set, pod, self.hash);
        let (new, old): (Vec<&'a Pod>, Vec<&'a Pod>) = running.iter().copied().partition(|pod| is_new(&pod));
        plan.delete.extend(new.iter().skip(1));
        plan.delete.extend(old.iter().skip(1));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!is_ready(old) || self.is_available(new))
        {
            plan.delete.push(old);
        }
    }

    /// Plans the next step of a rolling update, within surge and unavailability.
    pub(super) fn plan_rolling_update(&self) -> Plan<'a> {
        if !is_rolling(self.set) {
            return Plan::default();
        }
        let desired = self.nodes.values().filter(|fit| **fit == Fit::ShouldRun).count();
        let (surge, unavailable) = max_surge_and_unavailable(self.set, desired);
        if surge == 0 { self.replace(unavailable) } else { self.surge(surge, desired) }
    }

    /// The nodes that have a pod or should run one.
    fn candidate_nodes(&self) -> BTreeSet<&'a str> {
        let wanting = self.nodes.iter().filter(|(_, fit)| **fit == Fit::ShouldRun).map(|(node, _)| node);
        self.pods.keys().chain(wanting).map(String::as_str).collect()
    }

    /// Deletes old pods while at most `max_unavailable` are unavailable; new pods replace them in a later sync.
    fn replace(&self, max_unavailable: usize) -> Plan<'a> {
        let (mut unavailable, mut free, mut candidates) = (0_usize, Vec::new(), Vec::new());
        for node in self.candidate_nodes() {
            match self.old_and_new(node) {
                Some((None, Some(old))) if self.is_available(old) => candidates.push(old),
                Some((None, Some(old))) => {
                    free.push(old);
                    unavailable += 1;
                }
                Some((Some(new), None)) if self.is_available(new) => {}
                _ => unavailable += 1,
            }
        }
        let room = max_unavailable.saturating_sub(unavailable);
        free.extend(candidates.into_iter().take(room));
        Plan { delete: free, ..Plan::default() }
    }

    /// Creates at most `max_surge` new pods beside old ones, and deletes old pods whose successor is available.
    fn surge(&self, max_surge: usize, desired: usize) -> Plan<'a> {
        let mut plan = Plan::default();
        let (mut surging, mut available) = (0_usize, 0_usize);
        let (mut candidates, mut misplaced) = (Vec::new(), Vec::new());
        for node in self.candidate_nodes() {
            let Some((new, old)) = self.old_and_new(node) else {
                surging += 1;
                continue;
            };
            available += usize::from(old.or(new).is_some_and(|pod| self.is_available(pod)));
            let runs = self.nodes.get(node).map(|fit| *fit == Fit::ShouldRun);
            match (new, old, runs) {
                (_, None, _) | (None, _, None) => {}
                (None, Some(old), Some(false)) if self.is_available(old) => misplaced.push(old),
                (None, Some(old), Some(false)) => plan.delete.push(old),
                (None, Some(old), Some(true)) if self.is_available(old) => candidates.push(node),
                (None, Some(_), Some(true)) => plan.create_on.push(node),
                (Some(new), Some(old), _) if self.is_available(new) => plan.delete.push(old),
                (Some(_), Some(_), _) => surging += 1,
            }
        }
        plan.delete.extend(misplaced.into_iter().take(available.saturating_sub(desired)));
        plan.create_on.extend(candidates.into_iter().take(max_surge.saturating_sub(surging)));
        plan
    }

    /// The pod of the current template and the old pod of a node; `None` if the node has several of either kind.
    fn old_and_new(&self, node: &str) -> Option<(Option<&'a Pod>, Option<&'a Pod>)> {
        let (mut new, mut old) = (None, None);
        for pod in self.pods.get(node).into_iter().flatten().filter(|pod| !is_deleted(pod)) {
            let slot = if is_updated(self.set, pod, self.hash) { &mut new } else { &mut old };
            if slot.replace(pod).is_some() {
                return None;
            }
        }
        Some((new, old))
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, spec_of(self.set).min_ready_seconds.unwrap_or(0), self.now)
    }
}

fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}
