//! The three steps of counting a finished pod.

use std::collections::HashSet;

use k8s_openapi::api::batch::v1::{JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::count::{Counts, has_failed, index_failures};
use super::{Observed, is_indexed, policy, uid};
use crate::pods::{is_active, phase};

/// The maximum number of UIDs in `uncountedTerminatedPods`, which bounds the size of the status.
const MOST_UNCOUNTED: usize = 500;

/// The first step: records finished pods in the status. Returns the pods whose finalizer may be removed once the
/// status is written, and whether all finished pods were recorded.
pub(super) fn record_finished<'a>(
    observed: &Observed<'a>,
    counts: &Counts<'_>,
    status: &mut JobStatus,
) -> (Vec<&'a Pod>, bool) {
    let spec = observed.spec();
    let mut noted = status.uncounted_terminated_pods.take().unwrap_or_default();
    let (mut ended, mut all) = (Vec::new(), true);
    for pod in observed.pods.iter().filter(|pod| observed.is_tracked(pod)) {
        let (succeeded, failed) = (phase(pod) == "Succeeded", has_failed(observed, pod));
        let abandoned = observed.job.metadata.deletion_timestamp.is_some();
        if !(succeeded || failed || abandoned) || holds_failure_count(observed, counts, pod) {
            continue;
        }
        ended.push(pod);
        if succeeded && !is_indexed(spec) {
            add(&mut noted.succeeded, uid(pod));
        } else if failed
            && !succeeded
            && observed.counts(pod)
            && policy::counts_towards_backoff_limit(spec, pod)
        {
            add(&mut noted.failed, uid(pod));
        }
        if ended.len() >= MOST_UNCOUNTED {
            all = false;
            break;
        }
    }
    status.uncounted_terminated_pods = Some(noted);
    if is_indexed(spec) {
        status.completed_indexes = counts.succeeded_indexes.text();
        status.succeeded = (counts.succeeded > 0).then_some(counts.succeeded);
        status.failed_indexes = counts.failed_indexes.as_ref().map(ToString::to_string);
    }
    (ended, all)
}

/// The third step: moves pods without finalizer from `uncountedTerminatedPods` to the counters.
pub(super) fn move_to_counters(status: &mut JobStatus, tracked: &HashSet<&str>) {
    let Some(noted) = &mut status.uncounted_terminated_pods else { return };
    let UncountedTerminatedPods { succeeded, failed } = noted;
    for (uids, counter) in [(succeeded, &mut status.succeeded), (failed, &mut status.failed)] {
        let Some(list) = uids else { continue };
        let before = list.len();
        list.retain(|uid| tracked.contains(uid.as_str()));
        let settled = i32::try_from(before - list.len()).unwrap_or(i32::MAX);
        if settled > 0 {
            *counter = Some(counter.unwrap_or(0).saturating_add(settled));
        }
        if list.is_empty() {
            *uids = None;
        }
    }
}

/// Returns whether a failed pod is the only record of its index's failure count. The pod must be kept until the next
/// pod of the index exists.
fn holds_failure_count(observed: &Observed<'_>, counts: &Counts<'_>, pod: &Pod) -> bool {
    let (Some(failed), Some(index)) = (&counts.failed_indexes, observed.index(pod)) else { return false };
    let going_on = observed.job.metadata.deletion_timestamp.is_none()
        && super::verdict::end_condition(observed, counts).is_none()
        && !failed.contains(index)
        && !counts.succeeded_indexes.contains(index);
    let newest = index_failures(pod);
    let replaced = observed.pods.iter().any(|other| {
        observed.index(other) == Some(index)
            && (index_failures(other) > newest || is_active(other) && uid(other) != uid(pod))
    });
    going_on && phase(pod) != "Succeeded" && !replaced
}

fn add(uids: &mut Option<Vec<String>>, uid: &str) {
    let uids = uids.get_or_insert_default();
    if !uids.iter().any(|noted| noted == uid) {
        uids.push(uid.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixtures::{indexed, job, pod};
    use super::super::status;
    use super::*;
    use crate::pods::fixtures::now;

    #[test]
    fn repeated_steps_do_not_change_the_count() {
        let mut job = job(&json!({"completions": 3}));
        let pods = [pod("a", "Succeeded"), pod("b", "Failed"), pod("c", "Running")];
        for _ in 0..2 {
            let observed = Observed { job: &job, pods: &pods, untracked: &HashSet::new(), now: now() };
            let mut new = status(&job).clone();
            let (ended, all) = record_finished(&observed, &Counts::from_observed(&observed), &mut new);
            assert_eq!((ended.len(), all), (2, true));
            move_to_counters(&mut new, &["uid-a", "uid-b", "uid-c"].into());
            let noted = new.uncounted_terminated_pods.clone().unwrap();
            assert_eq!(noted.succeeded.unwrap(), ["uid-a"]);
            assert_eq!(noted.failed.unwrap(), ["uid-b"]);
            assert_eq!((new.succeeded, new.failed), (None, None));
            job.status = Some(new);
        }
        let mut status = job.status.unwrap();
        move_to_counters(&mut status, &["uid-b", "uid-c"].into());
        move_to_counters(&mut status, &["uid-c"].into());
        move_to_counters(&mut status, &["uid-c"].into());
        assert_eq!((status.succeeded, status.failed), (Some(1), Some(1)));
        assert_eq!(status.uncounted_terminated_pods, Some(UncountedTerminatedPods::default()));
    }

    #[test]
    fn counts_indexes_separately() {
        let job = job(&json!({"completions": 3, "completionMode": "Indexed"}));
        let pods = [indexed(2, "a", "Succeeded"), indexed(0, "b", "Succeeded")];
        let observed = Observed { job: &job, pods: &pods, untracked: &HashSet::new(), now: now() };
        let mut new = status(&job).clone();
        let (ended, _) = record_finished(&observed, &Counts::from_observed(&observed), &mut new);
        assert_eq!(ended.len(), 2);
        assert_eq!((new.completed_indexes.as_deref(), new.succeeded), (Some("0,2"), Some(2)));
    }

    #[test]
    fn failed_pod_stays_until_its_successor_exists() {
        let job = job(&json!({"completions": 1, "completionMode": "Indexed", "backoffLimitPerIndex": 3}));
        let mut pods = vec![indexed(0, "a", "Failed")];
        let ended = |pods: &[Pod]| {
            let observed = Observed { job: &job, pods, untracked: &HashSet::new(), now: now() };
            record_finished(&observed, &Counts::from_observed(&observed), &mut status(&job).clone()).0.len()
        };
        assert_eq!(ended(&pods), 0);
        pods.push(indexed(0, "b", "Running"));
        assert_eq!(ended(&pods), 1);
    }
}
