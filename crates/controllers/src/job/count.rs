//! Counts a job's active, succeeded and failed pods.

use k8s_openapi::api::core::v1::Pod;

use super::indexes::Indexes;
use super::{INDEX_FAILURES, Observed, is_indexed, policy, replaces_ended_only, uid};
use crate::pods::{is_active, is_ready, is_terminating, phase};

/// The counts of a job's pods.
#[derive(Debug, Default)]
pub(super) struct Counts<'a> {
    /// Pods that run or will run.
    pub(super) active: Vec<&'a Pod>,
    /// Active pods that are ready.
    pub(super) ready: i32,
    /// Pods that are being deleted and not terminal.
    pub(super) terminating: i32,
    /// The number of succeeded pods; for indexed jobs, of succeeded indexes.
    pub(super) succeeded: i32,
    /// The number of failed pods, excluding pods that the pod failure policy ignores.
    pub(super) failed: i32,
    /// The succeeded indexes.
    pub(super) succeeded_indexes: Indexes,
    /// The failed indexes, if the job has a backoff limit per index.
    pub(super) failed_indexes: Option<Indexes>,
}

impl<'a> Counts<'a> {
    /// Counts each pod once, regardless of the step of counting that it has reached.
    pub(super) fn from_observed(observed: &Observed<'a>) -> Self {
        let (spec, status) = (observed.spec(), observed.status());
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let (uncounted_succeeded, uncounted_failed) =
            (uncounted.succeeded.unwrap_or_default(), uncounted.failed.unwrap_or_default());
        let new: Vec<&Pod> = observed
            .pods
            .iter()
            .filter(|pod| observed.is_tracked(pod) && observed.counts(pod))
            .filter(|pod| {
                !uncounted_succeeded.iter().chain(&uncounted_failed).any(|counted| counted == uid(pod))
            })
            .collect();
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);

        let active: Vec<&Pod> = observed.pods.iter().filter(|pod| is_active(pod)).collect();
        let mut counts = Self {
            ready: count(active.iter().filter(|pod| is_ready(pod)).count()),
            active,
            terminating: count(observed.pods.iter().filter(|pod| is_terminating(pod)).count()),
            ..Self::default()
        };
        let new_failed = new
            .iter()
            .filter(|pod| has_failed(observed, pod) && policy::counts_towards_backoff_limit(spec, pod))
            .count();
        counts.failed = status.failed.unwrap_or(0) + count(uncounted_failed.len() + new_failed);
        if is_indexed(spec) {
            counts.count_indexes(observed);
        } else {
            let new_succeeded = new.iter().filter(|pod| phase(pod) == "Succeeded").count();
            counts.succeeded =
                status.succeeded.unwrap_or(0) + count(uncounted_succeeded.len() + new_succeeded);
        }
        counts
    }

    fn count_indexes(&mut self, observed: &Observed<'_>) {
        let (spec, status) = (observed.spec(), observed.status());
        let completions = spec.completions.unwrap_or(0);
        let parse = |text: &Option<String>| Indexes::parse(text.as_deref().unwrap_or_default(), completions);
        self.succeeded_indexes = parse(&status.completed_indexes);
        let tracked = observed.pods.iter().filter(|pod| observed.is_tracked(pod));
        for pod in tracked.clone().filter(|pod| phase(pod) == "Succeeded") {
            self.succeeded_indexes.insert(observed.index(pod).unwrap_or(completions).min(completions));
        }
        self.succeeded_indexes = Indexes::parse(&self.succeeded_indexes.to_string(), completions);
        self.succeeded = self.succeeded_indexes.len();
        if let Some(limit) = spec.backoff_limit_per_index {
            let mut failed = parse(&status.failed_indexes);
            for pod in tracked.filter(|pod| has_failed(observed, pod)) {
                let gives_up = policy::fails_index(spec, pod)
                    || policy::counts_towards_backoff_limit(spec, pod) && index_failures(pod) >= limit;
                if let Some(index) = observed.index(pod).filter(|_| gives_up)
                    && !self.succeeded_indexes.contains(index)
                {
                    failed.insert(index);
                }
            }
            self.failed_indexes = Some(failed);
        }
    }
}

/// Returns whether a pod has failed. A pod that is being deleted counts as failed, because it may never become
/// terminal, unless the job replaces pods only after they have failed.
pub(super) fn has_failed(observed: &Observed<'_>, pod: &Pod) -> bool {
    let deleted = pod.metadata.deletion_timestamp.is_some() && !replaces_ended_only(observed.spec());
    phase(pod) == "Failed" || deleted && phase(pod) != "Succeeded"
}

/// The number of failed pods of the same index before this pod was created.
pub(super) fn index_failures(pod: &Pod) -> i32 {
    let annotation = pod.metadata.annotations.as_ref().and_then(|all| all.get(INDEX_FAILURES));
    annotation.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::super::fixtures::{indexed, job, pod};
    use super::*;
    use crate::pods::fixtures::{deleting, now};

    #[test]
    fn counts_each_pod_once_at_every_step() {
        let mut job = job(&json!({"completions": 5}));
        let untracked: HashSet<String> = ["uid-removed".to_owned()].into();
        let pods = [
            pod("new", "Succeeded"),
            pod("noted", "Succeeded"),
            pod("removed", "Succeeded"),
            pod("failed", "Failed"),
            deleting(pod("deleted", "Running")),
            pod("running", "Running"),
        ];
        let status = job.status.as_mut().unwrap();
        status.succeeded = Some(1);
        status.uncounted_terminated_pods =
            serde_json::from_value(json!({"succeeded": ["uid-noted", "uid-removed"]})).unwrap();
        let observed = Observed { job: &job, pods: &pods, untracked: &untracked, now: now() };
        let counts = Counts::from_observed(&observed);
        assert_eq!((counts.succeeded, counts.failed, counts.terminating), (4, 2, 1));
        assert_eq!(counts.active.len(), 1);
    }

    #[test]
    fn counts_each_index_once_and_ignores_pods_without_index() {
        let job = job(&json!({"completions": 3, "completionMode": "Indexed"}));
        let pods = [
            indexed(1, "a", "Succeeded"),
            indexed(1, "b", "Succeeded"),
            indexed(3, "beyond", "Succeeded"),
            pod("none", "Failed"),
            indexed(0, "c", "Failed"),
        ];
        let observed = Observed { job: &job, pods: &pods, untracked: &HashSet::new(), now: now() };
        let counts = Counts::from_observed(&observed);
        assert_eq!((counts.succeeded_indexes.to_string().as_str(), counts.failed), ("1", 1));
    }

    #[test]
    fn index_fails_beyond_its_backoff_limit() {
        let job = job(&json!({"completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1}));
        let mut pods = [indexed(0, "a", "Failed"), indexed(1, "b", "Failed")];
        pods[1].metadata.annotations.as_mut().unwrap().insert(INDEX_FAILURES.to_owned(), "1".to_owned());
        let observed = Observed { job: &job, pods: &pods, untracked: &HashSet::new(), now: now() };
        assert_eq!(Counts::from_observed(&observed).failed_indexes.unwrap().to_string(), "1");
    }
}
