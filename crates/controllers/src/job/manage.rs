//! Which pods of a job to make and which to delete.

use std::collections::HashSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use nave_machinery::backoff::Backoff;

use super::count::{Counts, has_failed, index_failures};
use super::verdict::wanted_active;
use super::{Observed, is_indexed, is_suspended, policy, replaces_ended_only};
use crate::pods::{is_active, is_terminating, phase};
use crate::ranking;
use crate::time_arithmetic::saturating_add;

/// At most so many pods are made or deleted in one sync.
const MOST_AT_ONCE: usize = 500;
/// How long a job waits after failures.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_secs(10), Duration::from_mins(10));

/// What to do about a job's pods. Never both at once: what is made depends on what is left.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// All is as it should be.
    Nothing,
    /// Make pods.
    Create(Vec<NewPod>),
    /// Delete pods.
    Delete(Vec<Pod>),
    /// Make pods, but not before so much time has passed.
    Wait(Duration),
}

/// A pod to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NewPod {
    /// Its completion index.
    pub(super) index: Option<i32>,
    /// How often pods of that index have failed, where the job has a limit for that.
    pub(super) failures: Option<i32>,
}

/// What to do while the job goes on.
pub(super) fn next(observed: &Observed<'_>, counts: &Counts<'_>) -> Action {
    let spec = observed.spec();
    let active: Vec<Pod> = counts.active.iter().map(|pod| (*pod).clone()).collect();
    if is_suspended(spec) {
        return delete(active);
    }
    let active_count = i32::try_from(active.len()).unwrap_or(i32::MAX);
    let wanted = wanted_active(observed, counts, active_count);
    let surplus = surplus(observed, active, active_count - wanted);
    if !surplus.is_empty() {
        return delete(surplus);
    }
    // Where pods are replaced once they have ended, those that are ending hold their places.
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
    create(observed, counts, missing.min(MOST_AT_ONCE))
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

/// The indexes that are not done, not given up, and that no pod works on.
fn pending_indexes<'a>(observed: &'a Observed<'_>, counts: &'a Counts<'_>) -> impl Iterator<Item = i32> + 'a {
    let holds_place =
        |pod: &&Pod| is_active(pod) || replaces_ended_only(observed.spec()) && is_terminating(pod);
    let taken: HashSet<i32> =
        observed.pods.iter().filter(holds_place).filter_map(|pod| observed.index(pod)).collect();
    (0..observed.spec().completions.unwrap_or(0)).filter(move |index| {
        let given_up = counts.failed_indexes.as_ref().is_some_and(|failed| failed.contains(*index));
        !taken.contains(index) && !counts.succeeded_indexes.contains(*index) && !given_up
    })
}

/// How often pods of an index have failed so far: each pod knows of those before it.
fn failures_of(observed: &Observed<'_>, index: i32) -> i32 {
    let own = observed.pods.iter().filter(|pod| observed.index(pod) == Some(index));
    let failures = own
        .filter(|pod| has_failed(observed, pod))
        .map(|pod| index_failures(pod) + i32::from(policy::counts(observed.spec(), pod)));
    failures.max().unwrap_or(0)
}

/// The pods to delete: of an indexed job those without an index of their own, then as many as there are too many.
fn surplus(observed: &Observed<'_>, active: Vec<Pod>, too_many: i32) -> Vec<Pod> {
    let too_many = usize::try_from(too_many).unwrap_or(0);
    let (mut surplus, rest) = if is_indexed(observed.spec()) {
        // Of several pods with one index the one that is furthest stays.
        let ordered = ranking::in_order(active, usize::MAX, observed.now);
        let mut seen = HashSet::new();
        let furthest_first = ordered.into_iter().rev();
        furthest_first.partition(|pod| !observed.index(pod).is_some_and(|index| seen.insert(index)))
    } else {
        (Vec::new(), active)
    };
    let more = too_many.saturating_sub(surplus.len());
    if more > 0 {
        surplus.extend(ranking::in_order(rest, more, observed.now));
    }
    surplus
}

fn delete(mut pods: Vec<Pod>) -> Action {
    pods.truncate(MOST_AT_ONCE);
    if pods.is_empty() { Action::Nothing } else { Action::Delete(pods) }
}

/// How long to wait before another pod is made, after failures that no success has followed.
fn backoff<'p>(pods: impl Iterator<Item = &'p Pod> + Clone, observed: &Observed<'_>) -> Option<Duration> {
    let last_success = pods.clone().filter(|pod| phase(pod) == "Succeeded").filter_map(ended_at).max();
    let failures: Vec<Timestamp> = pods
        .filter(|pod| phase(pod) == "Failed" && policy::counts(observed.spec(), pod))
        .filter_map(ended_at)
        .filter(|at| last_success.is_none_or(|success| *at > success))
        .collect();
    let last = failures.iter().max()?;
    let delay = BACKOFF.after(u32::try_from(failures.len()).unwrap_or(u32::MAX));
    let delay = SignedDuration::try_from(delay).ok()?;
    let wait: Duration = observed.now.duration_until(saturating_add(*last, delay)).try_into().ok()?;
    (!wait.is_zero()).then_some(wait)
}

/// When the last container of a pod ended, as far as that is known.
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
        next(&observed, &Counts::of(&observed))
    }

    fn names(action: Action) -> Vec<String> {
        let Action::Delete(pods) = action else { panic!("{action:?}") };
        pods.into_iter().filter_map(|pod| pod.metadata.name).collect()
    }

    #[test]
    fn as_many_pods_work_as_are_wanted_and_left_to_do() {
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
    fn failures_slow_a_job_down() {
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
    fn an_index_knows_how_often_it_has_failed() {
        let spec = json!({"parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 3});
        let mut failed = indexed(0, "a", "Failed");
        failed.metadata.annotations.as_mut().unwrap().insert(super::super::INDEX_FAILURES.into(), "1".into());
        let new = |index, failures| NewPod { index: Some(index), failures: Some(failures) };
        assert_eq!(action(&spec, &[failed]), Action::Create(vec![new(0, 2), new(1, 0)]));
    }
}
