//! Plans the creation and deletion of a stateful set's pods. The plan is a pure function of the observed state.
//!
//! Ordered sets (`OrderedReady`) process one pod at a time: an unavailable pod blocks all later pods. Parallel sets
//! create and delete pods at once. In both, an update replaces one pod at a time, from the highest ordinal down to
//! the partition.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::identity::{self, claim_name, claim_templates, revision};
use super::{claims, is_in_range, ordinals, spec_of};
use crate::history::template_of;
use crate::pods::{is_available, is_ready, is_terminal, phase};

/// The maximum number of pods that a parallel set creates per sync.
const BURST: usize = 500;

/// The observed state of a set.
pub(super) struct Observed<'a> {
    pub(super) set: &'a StatefulSet,
    /// The set's pods by ordinal.
    pub(super) pods: &'a BTreeMap<i32, Pod>,
    /// Returns the metadata of a claim by name.
    pub(super) claim: &'a dyn Fn(&str) -> Option<ObjectMeta>,
    pub(super) current: &'a ControllerRevision,
    pub(super) update: &'a ControllerRevision,
    pub(super) now: Timestamp,
}

/// A step for one pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Creates the pod's claims, then the pod.
    Create(Box<Pod>, i32),
    /// Creates the missing claims of a pending pod, and corrects the owners of existing claims.
    EnsureClaims(Box<Pod>, i32),
    /// Restores the labels and volumes of a pod, and the owners of its claims.
    Conform(Box<Pod>, i32),
    /// Corrects the owners of the claims of a pod that is about to be deleted.
    RetainClaims(Box<Pod>, i32),
    Delete(Box<Pod>),
}

/// The steps of a plan in phases. A phase starts when all steps of the previous phase have succeeded.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) phases: Vec<Vec<Step>>,
    /// The number of pods at the current revision that the update deletes.
    pub(super) replaced: i32,
}

impl Plan {
    fn next_phase(&mut self) -> &mut Vec<Step> {
        self.phases.push_mut(Vec::new())
    }
}

/// Returns whether pods are created and deleted one at a time.
pub(super) fn is_ordered(set: &StatefulSet) -> bool {
    spec_of(set).pod_management_policy.as_deref() != Some("Parallel")
}

/// Plans the steps for the observed state.
pub(super) fn plan(observed: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    if observed.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    // A blocked phase also blocks the later phases.
    let _ = observed.phases(&mut plan);
    plan
}

/// Signals that no more steps may be planned.
struct Blocked;

impl Observed<'_> {
    fn phases(&self, plan: &mut Plan) -> Result<(), Blocked> {
        self.keep_replicas(plan.next_phase())?;
        self.retain_claims(plan.next_phase());
        self.scale_down(plan.next_phase())?;
        if let Some(pod) = self.next_to_update() {
            plan.next_phase().push(Step::Delete(Box::new(pod.clone())));
            plan.replaced = 1;
        }
        Ok(())
    }

    /// Creates missing pods in the set's range, and replaces terminal pods.
    fn keep_replicas(&self, steps: &mut Vec<Step>) -> Result<(), Blocked> {
        let ordered = is_ordered(self.set);
        let mut missing = 0;
        for ordinal in ordinals(self.set) {
            let blocked = match self.pods.get(&ordinal) {
                Some(pod) => self.keep_replica(pod, ordinal, steps),
                None if missing == BURST => return Err(Blocked),
                None => {
                    missing += 1;
                    self.create(ordinal, steps);
                    Err(Blocked)
                }
            };
            if ordered {
                blocked?;
            }
        }
        Ok(())
    }

    fn create(&self, ordinal: i32, steps: &mut Vec<Step>) {
        let pod = self.new_pod(ordinal);
        if !self.claims_of(ordinal).any(|claim| claims::is_stale(&claim, self.set, &pod)) {
            steps.push(Step::Create(Box::new(pod), ordinal));
        }
    }

    fn keep_replica(&self, pod: &Pod, ordinal: i32, steps: &mut Vec<Step>) -> Result<(), Blocked> {
        let deleted = pod.metadata.deletion_timestamp.is_some();
        if is_terminal(pod) {
            if !deleted {
                steps.push(Step::Delete(Box::new(pod.clone())));
            }
            return Err(Blocked);
        }
        let retained = self.has_correct_claim_owners(pod, ordinal);
        let complete = self.claims_of(ordinal).count() == claim_templates(self.set).count();
        if phase(pod) == "Pending" && !(complete && retained) {
            steps.push(Step::EnsureClaims(Box::new(pod.clone()), ordinal));
        }
        if is_ordered(self.set) && (deleted || !self.is_running_and_available(pod)) {
            return Err(Blocked);
        }
        if !identity::conforms(self.set, pod, ordinal) || !retained {
            steps.push(Step::Conform(Box::new(pod.clone()), ordinal));
        }
        Ok(())
    }

    fn retain_claims(&self, steps: &mut Vec<Step>) {
        let wrong = self.condemned().filter(|(ordinal, pod)| !self.has_correct_claim_owners(pod, *ordinal));
        steps.extend(wrong.map(|(ordinal, pod)| Step::RetainClaims(Box::new(pod.clone()), ordinal)));
    }

    /// Deletes the pods outside the set's range, from the highest ordinal down.
    fn scale_down(&self, steps: &mut Vec<Step>) -> Result<(), Blocked> {
        let ordered = is_ordered(self.set);
        let lowest_unavailable = self
            .condemned()
            .filter(|(_, pod): &(i32, &Pod)| self.is_unavailable(pod))
            .last()
            .map(|(ordinal, _)| ordinal);
        for (ordinal, pod) in self.condemned() {
            let deleted = pod.metadata.deletion_timestamp.is_some();
            if ordered {
                let holds_up = !self.is_running_and_available(pod) && lowest_unavailable != Some(ordinal);
                if deleted || holds_up {
                    return Err(Blocked);
                }
            }
            if !deleted {
                steps.push(Step::Delete(Box::new(pod.clone())));
                if ordered {
                    return Err(Blocked);
                }
            }
        }
        Ok(())
    }

    /// Returns the next pod that a rolling update replaces.
    fn next_to_update(&self) -> Option<&Pod> {
        let strategy = spec_of(self.set).update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return None;
        }
        let first = ordinals(self.set).start.saturating_add(partition(self.set).unwrap_or(0));
        for ordinal in (first..ordinals(self.set).end).rev() {
            // A pod that is missing from the cache was just created.
            let pod = self.pods.get(&ordinal)?;
            let deleted = pod.metadata.deletion_timestamp.is_some();
            if !deleted && Some(revision(pod)) != self.update.metadata.name.as_deref() {
                return Some(pod);
            }
            if self.is_unavailable(pod) {
                return None;
            }
        }
        None
    }

    /// Returns the pods outside the set's range, from the highest ordinal down.
    fn condemned(&self) -> impl Iterator<Item = (i32, &Pod)> {
        let pods = self.pods.iter().rev().map(|(ordinal, pod)| (*ordinal, pod));
        pods.filter(|(ordinal, _)| !is_in_range(self.set, *ordinal))
    }

    /// Creates a pod for an ordinal, at the current revision or the update revision.
    fn new_pod(&self, ordinal: i32) -> Pod {
        let start = ordinals(self.set).start;
        let strategy = spec_of(self.set).update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
        let current_replicas =
            || self.set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0);
        let at_current = match partition(self.set) {
            Some(partition) => ordinal < start.saturating_add(partition),
            None => rolling && ordinal < start.saturating_add(current_replicas()),
        };
        let at = if at_current { self.current } else { self.update };
        let template: PodTemplateSpec = template_of(at).unwrap_or_else(|| spec_of(self.set).template.clone());
        identity::new_pod(self.set, &template, at.metadata.name.as_deref().unwrap_or_default(), ordinal)
    }

    /// Returns the existing claims for an ordinal.
    fn claims_of(&self, ordinal: i32) -> impl Iterator<Item = ObjectMeta> {
        claim_templates(self.set)
            .filter_map(move |template| (self.claim)(&claim_name(self.set, template, ordinal)))
    }

    fn has_correct_claim_owners(&self, pod: &Pod, ordinal: i32) -> bool {
        self.claims_of(ordinal).all(|claim| claims::corrected_owners(&claim, self.set, pod).is_none())
    }

    fn is_running_and_available(&self, pod: &Pod) -> bool {
        phase(pod) == "Running" && is_ready(pod) && self.is_available(pod)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, spec_of(self.set).min_ready_seconds.unwrap_or(0), self.now)
    }

    fn is_unavailable(&self, pod: &Pod) -> bool {
        pod.metadata.deletion_timestamp.is_some() || !self.is_available(pod)
    }
}

fn partition(set: &StatefulSet) -> Option<i32> {
    let rolling = spec_of(set).update_strategy.as_ref()?.rolling_update.as_ref()?;
    Some(rolling.partition.unwrap_or(0))
}
