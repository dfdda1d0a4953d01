//! Plans the creation and deletion of a job's pods.

use std::collections::HashSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use nave_machinery::backoff::Backoff;

use super::count::{Counts, has_failed, index_failures};
use super::verdict::needed_active;
use super::{Observed, is_indexed, is_suspended, policy, replaces_ended_only};
use crate::pods::{is_active, is_terminating, phase};
use crate::ranking;
use crate::time_arithmetic::saturating_add;

/// The maximum number of pods created or deleted per sync.
const MAX_PODS_PER_SYNC: usize = 500;
/// The backoff after failures.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_secs(10), Duration::from_mins(10));

/// The action on a job's pods. A sync never both creates and deletes pods, because the pods to create depend on the
/// remaining pods.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    Nothing,
    /// Create pods.
    Create(Vec<NewPod>),
    /// Delete pods.
    Delete(Vec<Pod>),
    /// Create pods after this time.
    Wait(Duration),
}

/// A pod to create.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NewPod {
    /// Its completion index.
    pub(super) index: Option<i32>,
    /// The number of failed pods of the index, if the job has a backoff limit per index.
    pub(super) failures: Option<i32>,
}

/// The action on the pods of an active job.
pub(super) fn next_action(observed: &Observed<'_>, counts: &Counts<'_>) -> Action {
    let spec = observed.spec();
    let active: Vec<Pod> = counts.active.iter().map(|pod| (*pod).clone()).collect();
    if is_suspended(spec) {
        return delete(active);
    }
    let active_count = i32::try_from(active.len()).unwrap_or(i32::MAX);
    let wanted = needed_active(observed, counts, active_count);
    let surplus = surplus(observed, active, active_count - wanted);
    if !surplus.is_empty() {
        return delete(surplus);
    }
    // If pods are replaced only after they are terminal, terminating pods still count.
    let ending = if replaces_ended_only(spec) { counts.terminating } else { 0 };
    let missing = usize::try_from(wanted - active_count - ending).unwrap_or(0);
    if missing == 0 {
        return Action::Nothing;
    }
    if spec.backoff_limit_per_index.is_none()
        && let Some(wait) = backoff(observed.pods.iter(), observed)
    {
        return Action::Wait(wait);
    }
    create(observed, counts, missing.min(MAX_PODS_PER_SYNC))
}

fn create(observed: &Observed<'_>, counts: &Counts<'_>, count: usize) -> Action {
    let spec = observed.spec();
    if !is_indexed(spec) {
        return Action::Create(vec![NewPod::default(); count]);
    }
    let mut ready = Vec::new();
    let mut soonest: Option<Duration> = None;
    for index in pending_indexes(observed, counts).take(count) {
        let failures = spec.backoff_limit_per_index.map(|_| failures_of(observed, index));
        let own = observed.pods.iter().filter(|pod| observed.index(pod) == Some(index));
        match failures.and_then(|_| backoff(own, observed)) {
            Some(wait) => soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait))),
            None => ready.push(NewPod { index: Some(index), failures }),
        }
    }
    match (ready.is_empty(), soonest) {
        (false, _) => Action::Create(ready),
        (true, Some(wait)) => Action::Wait(wait),
        (true, None) => Action::Nothing,
    }
}

/// The indexes that are neither succeeded nor failed and have no active pod.
fn pending_indexes<'a>(observed: &'a Observed<'_>, counts: &'a Counts<'_>) -> impl Iterator<Item = i32> + 'a {
    let taken: HashSet<i32> = observed
        .pods
        .iter()
        .filter(|pod| is_active(pod) || replaces_ended_only(observed.spec()) && is_terminating(pod))
        .filter_map(|pod| observed.index(pod))
        .collect();
    (0..observed.spec().completions.unwrap_or(0)).filter(move |index| {
        let given_up = counts.failed_indexes.as_ref().is_some_and(|failed| failed.contains(*index));
        !taken.contains(index) && !counts.succeeded_indexes.contains(*index) && !given_up
    })
}

/// The number of failed pods of an index. Each pod records the number of failures before it.
fn failures_of(observed: &Observed<'_>, index: i32) -> i32 {
    let own = observed.pods.iter().filter(|pod| observed.index(pod) == Some(index));
    let failures = own.filter(|pod| has_failed(observed, pod)).map(|pod| {
        index_failures(pod) + i32::from(policy::counts_towards_backoff_limit(observed.spec(), pod))
    });
    failures.max().unwrap_or(0)
}

/// The pods to delete: for an indexed job, pods with an invalid or duplicate index first, then the surplus.
fn surplus(observed: &Observed<'_>, active: Vec<Pod>, too_many: i32) -> Vec<Pod> {
    let too_many = usize::try_from(too_many).unwrap_or(0);
    let (mut surplus, rest) = if is_indexed(observed.spec()) {
        // Keeps the most advanced of several pods with the same index.
        let ordered = ranking::first_in_deletion_order(active, usize::MAX, observed.now);
        let mut seen = HashSet::new();
        let furthest_first = ordered.into_iter().rev();
        furthest_first.partition(|pod| !observed.index(pod).is_some_and(|index| seen.insert(index)))
    } else {
        (Vec::new(), active)
    };
    let more = too_many.saturating_sub(surplus.len());
    if more > 0 {
        surplus.extend(ranking::first_in_deletion_order(rest, more, observed.now));
    }
    surplus
}

fn delete(mut pods: Vec<Pod>) -> Action {
    pods.truncate(MAX_PODS_PER_SYNC);
    if pods.is_empty() { Action::Nothing } else { Action::Delete(pods) }
}

/// The time until another pod may be created, after failures since the last success.
fn backoff<'p>(pods: impl Iterator<Item = &'p Pod> + Clone, observed: &Observed<'_>) -> Option<Duration> {
    let last_success = pods.clone().filter(|pod| phase(pod) == "Succeeded").filter_map(ended_at).max();
    let failures: Vec<Timestamp> = pods
        .filter(|pod| phase(pod) == "Failed" && policy::counts_towards_backoff_limit(observed.spec(), pod))
        .filter_map(ended_at)
        .filter(|at| last_success.is_none_or(|success| *at > success))
        .collect();
    let last = failures.iter().max()?;
    let delay: SignedDuration =
        BACKOFF.after(u32::try_from(failures.len()).unwrap_or(u32::MAX)).try_into().ok()?;
    let wait: Duration = observed.now.duration_until(saturating_add(*last, delay)).try_into().ok()?;
    (!wait.is_zero()).then_some(wait)
}

/// The time at which the last container of a pod terminated, if known.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let ended = statuses.into_iter().flatten().filter_map(|container| {
        container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0)
    });
    let known = [&pod.metadata.deletion_timestamp, &pod.metadata.creation_timestamp];
    ended.max().or_else(|| known.into_iter().flatten().map(|time| time.0).next())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixtures::{indexed, job, pod};
    use super::*;
    use crate::pods::fixtures::now;

    fn action(spec: &Value, pods: &[Pod]) -> Action {
        let job = job(spec);
        let observed = Observed { job: &job, pods, untracked: &HashSet::new(), now: now() };
        next_action(&observed, &Counts::from_observed(&observed))
    }

    fn names(action: Action) -> Vec<String> {
        let Action::Delete(pods) = action else { panic!("{action:?}") };
        pods.into_iter().filter_map(|pod| pod.metadata.name).collect()
    }

    #[test]
    fn active_pods_are_limited_by_parallelism_and_completions() {
        let five = json!({"parallelism": 3, "completions": 5});
        let new = |count| Action::Create(vec![NewPod::default(); count]);
        assert_eq!(action(&five, &[]), new(3));
        let done: Vec<Pod> = ["a", "b", "c", "d"].iter().map(|name| pod(name, "Succeeded")).collect();
        assert_eq!(action(&five, &done), new(1));
        assert_eq!(action(&json!({"parallelism": 0}), &[]), Action::Nothing);
        let running = [pod("a", "Running"), pod("b", "Pending")];
        assert_eq!(names(action(&json!({"parallelism": 1, "completions": 2}), &running)), ["b"]);
        assert_eq!(names(action(&json!({"suspend": true}), &running)).len(), 2);
    }

    #[test]
    fn each_index_has_one_pod() {
        let spec = json!({"parallelism": 3, "completions": 4, "completionMode": "Indexed"});
        let pods = [indexed(0, "a", "Succeeded"), indexed(2, "b", "Running")];
        let with = |index| NewPod { index: Some(index), failures: None };
        assert_eq!(action(&spec, &pods), Action::Create(vec![with(1), with(3)]));
        let twice = [indexed(1, "a", "Running"), indexed(1, "b", "Pending"), pod("none", "Running")];
        assert_eq!(names(action(&spec, &twice)), ["none", "b"]);
    }

    #[test]
    fn backs_off_after_failures() {
        let ended = |seconds: i64| {
            let at = now() - SignedDuration::from_secs(seconds);
            let mut pod = pod("a", "Failed");
            pod.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
            pod
        };
        assert_eq!(action(&json!({}), &[ended(4)]), Action::Wait(Duration::from_secs(6)));
        assert_eq!(action(&json!({}), &[ended(5), ended(12)]), Action::Wait(Duration::from_secs(15)));
        assert!(matches!(action(&json!({}), &[ended(10)]), Action::Create(_)));
        let mut last = ended(0);
        last.metadata.creation_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::MAX));
        assert!(matches!(action(&json!({}), &[last]), Action::Wait(_)));
    }

    #[test]
    fn new_pod_has_failure_count_of_its_index() {
        let spec = json!({"parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 3});
        let mut failed = indexed(0, "a", "Failed");
        failed.metadata.annotations.as_mut().unwrap().insert(super::super::INDEX_FAILURES.into(), "1".into());
        let new = |index, failures| NewPod { index: Some(index), failures: Some(failures) };
        assert_eq!(action(&spec, &[failed]), Action::Create(vec![new(0, 2), new(1, 0)]));
    }
}
