//! Decides whether a job has ended, and why.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::count::Counts;
use super::{Observed, is_indexed, is_suspended, policy, true_condition};
use crate::pods::{is_terminal, phase};
use crate::time_arithmetic::saturating_add;

/// Type of the interim condition of a job that will be complete once its remaining pods have terminated.
pub(super) const SUCCESS: &str = "SuccessCriteriaMet";
/// Type of the interim condition of a job that will have failed once its remaining pods have terminated.
pub(super) const FAILURE: &str = "FailureTarget";

/// The interim condition with which a job ends, existing or new; `None` while the job is active.
pub(super) fn end_condition(observed: &Observed<'_>, counts: &Counts<'_>) -> Option<JobCondition> {
    let existing = |type_| true_condition(observed.status(), type_).cloned();
    existing(SUCCESS).or_else(|| existing(FAILURE)).or_else(|| {
        let failed = failure(observed, counts).map(|(reason, message)| (FAILURE, reason, message));
        let succeeded = || {
            let rule = policy::satisfied_rule(observed.spec(), &counts.succeeded_indexes)?;
            Some((SUCCESS, "SuccessPolicy", format!("Matched rules at index {rule}")))
        };
        let (type_, reason, message) = failed.or_else(succeeded)?;
        Some(condition(type_, "True", reason, message, observed.now))
    })
}

fn failure(observed: &Observed<'_>, counts: &Counts<'_>) -> Option<(&'static str, String)> {
    let spec = observed.spec();
    let policy = || {
        let tracked = observed.pods.iter().filter(|pod| observed.is_tracked(pod));
        let message = tracked.into_iter().find_map(|pod| policy::fails_job(spec, pod))?;
        Some(("PodFailurePolicy", message))
    };
    let backoff = || {
        let limit = spec.backoff_limit.unwrap_or(i32::MAX);
        let exceeded = counts.failed > limit || restarts_exceed(observed, limit);
        exceeded.then(|| ("BackoffLimitExceeded", "Job has reached the specified backoff limit".to_owned()))
    };
    let deadline = || {
        let passed = deadline_in(observed)? == Duration::ZERO;
        passed.then(|| ("DeadlineExceeded", "Job was active longer than specified deadline".to_owned()))
    };
    let indexes = || {
        let failed = counts.failed_indexes.as_ref()?.len();
        if spec.max_failed_indexes.is_some_and(|max| failed > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(("MaxFailedIndexesExceeded", message.to_owned()));
        }
        let all_done = failed > 0 && failed + counts.succeeded >= spec.completions.unwrap_or(0);
        all_done.then(|| ("FailedIndexes", "Job has failed indexes".to_owned()))
    };
    policy().or_else(backoff).or_else(deadline).or_else(indexes)
}

/// Returns the interim condition if enough pods have succeeded, given the number of active pods.
pub(super) fn success(observed: &Observed<'_>, succeeded: i32, active: i32) -> Option<JobCondition> {
    let complete = match observed.spec().completions {
        // A work queue is done when one pod has succeeded and no others are active.
        None => succeeded > 0 && active == 0,
        Some(completions) => succeeded >= completions && (completions > 0 || active == 0),
    };
    let message = "Reached expected number of succeeded pods".to_owned();
    complete.then(|| condition(SUCCESS, "True", "CompletionsReached", message, observed.now))
}

/// The remaining time of the active deadline: zero if it has passed, `None` if the job has no deadline or is suspended.
pub(super) fn deadline_in(observed: &Observed<'_>) -> Option<Duration> {
    let (spec, status) = (observed.spec(), observed.status());
    let limit = spec.active_deadline_seconds.filter(|_| !is_suspended(spec))?;
    let end = saturating_add(status.start_time.as_ref()?.0, SignedDuration::from_secs(limit));
    Some(observed.now.duration_until(end).try_into().unwrap_or(Duration::ZERO))
}

/// Returns whether containers restarted in place exceed the backoff limit.
fn restarts_exceed(observed: &Observed<'_>, limit: i32) -> bool {
    let template = observed.spec().template.spec.as_ref();
    if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let running = observed.pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
    let restarts = running.map(restarts).fold(0, i32::saturating_add);
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    let containers = status.container_statuses.iter().flatten();
    let all = containers.chain(status.init_container_statuses.iter().flatten());
    all.map(|container| container.restart_count).fold(0, i32::saturating_add)
}

/// Sets the final condition if all pods are counted and terminated; returns whether it was set.
pub(super) fn conclude(status: &mut JobStatus, interim: &JobCondition, pods: &[Pod], now: Timestamp) -> bool {
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let counted = uncounted.succeeded.is_none_or(|uids| uids.is_empty())
        && uncounted.failed.is_none_or(|uids| uids.is_empty());
    if !counted || pods.iter().any(|pod| !is_terminal(pod)) {
        return false;
    }
    let (type_, complete) = if interim.type_ == SUCCESS { ("Complete", true) } else { ("Failed", false) };
    let message = interim.message.clone().unwrap_or_default();
    let last = condition(type_, "True", interim.reason.as_deref().unwrap_or_default(), message, now);
    set_condition(status, last);
    if complete {
        status.completion_time = Some(Time(now));
    }
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods::default());
    (status.active, status.ready, status.terminating) = (None, Some(0), Some(0));
    true
}

/// The condition `Suspended` of a job that was suspended or resumed since its last status.
pub(super) fn suspension(observed: &Observed<'_>) -> Option<JobCondition> {
    let was = true_condition(observed.status(), "Suspended").is_some();
    let (value, reason, message) = match (is_suspended(observed.spec()), was) {
        (true, false) => ("True", "JobSuspended", "Job suspended"),
        (false, true) => ("False", "JobResumed", "Job resumed"),
        _ => return None,
    };
    Some(condition("Suspended", value, reason, message.to_owned(), observed.now))
}

/// A condition with the current time as its probe and transition times.
fn condition(type_: &str, value: &str, reason: &str, message: String, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Sets a condition; returns whether it has changed.
pub(super) fn set_condition(status: &mut JobStatus, condition: JobCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|old| old.type_ == condition.type_) {
        Some(old) if old.status == condition.status && old.reason == condition.reason => false,
        Some(old) => {
            *old = condition;
            true
        }
        None => {
            conditions.push(condition);
            true
        }
    }
}

/// The reason of the failure event.
pub(super) fn reason_of_failure(interim: &JobCondition) -> &'static str {
    const KNOWN: [&str; 5] = [
        "PodFailurePolicy",
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "MaxFailedIndexesExceeded",
        "FailedIndexes",
    ];
    let reason = interim.reason.as_deref().unwrap_or_default();
    KNOWN.into_iter().find(|known| *known == reason).unwrap_or("Failed")
}

/// The number of active pods that the job needs, limited by the remaining completions.
pub(super) fn needed_active(observed: &Observed<'_>, counts: &Counts<'_>, active: i32) -> i32 {
    let spec = observed.spec();
    let parallelism = spec.parallelism.unwrap_or(1);
    match spec.completions {
        None if counts.succeeded > 0 => active,
        None => parallelism,
        Some(completions) => {
            let given_up = counts.failed_indexes.as_ref().filter(|_| is_indexed(spec));
            let left = completions - counts.succeeded - given_up.map_or(0, super::indexes::Indexes::len);
            left.min(parallelism).max(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::{Value, json};

    use super::super::fixtures::{indexed, job, pod};
    use super::*;
    use crate::pods::fixtures::now;

    fn reason(spec: &Value, pods: &[Pod]) -> Option<String> {
        let job = job(spec);
        let observed = Observed { job: &job, pods, untracked: &HashSet::new(), now: now() };
        end_condition(&observed, &Counts::from_observed(&observed)).and_then(|condition| condition.reason)
    }

    #[test]
    fn job_fails_for_each_of_five_reasons() {
        let failed = [pod("a", "Failed"), pod("b", "Failed")];
        assert_eq!(reason(&json!({"backoffLimit": 2}), &failed), None);
        assert_eq!(reason(&json!({"backoffLimit": 1}), &failed).as_deref(), Some("BackoffLimitExceeded"));
        assert_eq!(reason(&json!({"activeDeadlineSeconds": 61}), &[]), None);
        let late = json!({"activeDeadlineSeconds": 60});
        assert_eq!(reason(&late, &[]).as_deref(), Some("DeadlineExceeded"));
        let late_but_suspended = json!({"activeDeadlineSeconds": 60, "suspend": true});
        assert_eq!(reason(&late_but_suspended, &[]), None);
        let limits = |max: i32| json!({"completions": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": max});
        let pods = [indexed(0, "a", "Failed"), indexed(1, "b", "Failed"), indexed(2, "c", "Running")];
        assert_eq!(reason(&limits(2), &pods), None);
        assert_eq!(reason(&limits(1), &pods).as_deref(), Some("MaxFailedIndexesExceeded"));
        let pods = [indexed(0, "a", "Failed"), indexed(1, "b", "Succeeded"), indexed(2, "c", "Succeeded")];
        assert_eq!(reason(&limits(2), &pods).as_deref(), Some("FailedIndexes"));
    }

    #[test]
    fn job_succeeds_with_enough_succeeded_pods() {
        let success_of = |completions: Option<i32>, succeeded, active| {
            let mut job = job(&json!({}));
            job.spec.as_mut().unwrap().completions = completions;
            let observed = Observed { job: &job, pods: &[], untracked: &HashSet::new(), now: now() };
            success(&observed, succeeded, active).is_some()
        };
        assert!(!success_of(Some(2), 1, 1) && success_of(Some(2), 2, 0));
        assert!(!success_of(None, 0, 0) && !success_of(None, 1, 1) && success_of(None, 1, 0));
        assert!(success_of(Some(0), 0, 0));
    }

    #[test]
    fn job_ends_when_all_pods_are_counted_and_terminated() {
        let interim = condition(SUCCESS, "True", "CompletionsReached", String::new(), now());
        let mut status: JobStatus =
            serde_json::from_value(json!({"uncountedTerminatedPods": {"succeeded": ["x"]}})).unwrap();
        assert!(!conclude(&mut status, &interim, &[], now()));
        status.uncounted_terminated_pods = None;
        assert!(!conclude(&mut status, &interim, &[pod("a", "Running")], now()));
        assert!(conclude(&mut status, &interim, &[pod("a", "Succeeded")], now()));
        assert!(true_condition(&status, "Complete").is_some() && status.completion_time.is_some());
    }

    #[test]
    fn extreme_active_deadlines_do_not_overflow() {
        for limit in [i64::MIN, -1, 0, 1, i64::MAX - 1, i64::MAX] {
            for start in [Timestamp::MIN, now(), Timestamp::MAX] {
                let mut job = job(&json!({"activeDeadlineSeconds": limit}));
                job.status.get_or_insert_default().start_time = Some(Time(start));
                let observed = Observed { job: &job, pods: &[], untracked: &HashSet::new(), now: now() };
                let is_over = deadline_in(&observed) == Some(Duration::ZERO);
                let ends_before_now = start < now() && limit < i64::MAX - 1 || start == now() && limit <= 0;
                let ends_beyond_calendar = limit >= i64::MAX - 1;
                assert_eq!(
                    is_over,
                    ends_before_now && !ends_beyond_calendar || start == Timestamp::MAX && limit == i64::MIN,
                    "{limit} from {start}"
                );
            }
        }
    }

    #[test]
    fn extreme_restart_counts_do_not_overflow() {
        let mut pod = pod("a", "Running");
        let often = json!({"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": i32::MAX});
        pod.status = serde_json::from_value(json!({"containerStatuses": [often, often]})).unwrap();
        assert_eq!(restarts(&pod), i32::MAX);
    }
}
