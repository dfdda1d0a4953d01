//! Jobs: run pods to completion and count them exactly.
//!
//! A terminal pod may be deleted at any time, so a finalizer keeps each pod of a job until it is counted. A finished
//! pod is counted in three idempotent steps: its UID is added to `status.uncountedTerminatedPods`; its finalizer is
//! removed; its UID is moved into the counter. At any time each pod counts once: in a counter, as a UID, or as a pod
//! with the finalizer.
//!
//! | module | contents |
//! | --- | --- |
//! | [`count`] | the counts of active, succeeded and failed pods |
//! | [`verdict`] | whether and why the job has ended |
//! | [`manage`] | the pods to create and delete |
//! | [`track`] | the three steps of counting |
//! | [`policy`] | `podFailurePolicy` and `successPolicy` |
//! | [`indexes`], [`pod`] | sets of completion indexes; new pods |
//! | [`sync`], [`handler`] | the sync; event handlers |

mod count;
mod handler;
mod indexes;
mod manage;
mod pod;
mod policy;
mod sync;
mod track;
mod untracked;
mod verdict;
mod written;

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::expectations::Expectations;
use crate::frame::{Context, Descriptor, Workers};
use crate::owned::{self, DependentHandler};
use crate::selectors::{SelectorForm, SelectorIndex};
use untracked::Untracked;
use written::Written;

pub(crate) const JOB: Descriptor = Descriptor {
    name: "job-controller",
    alias: "job",
    service_account: "job-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-job-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (mut builder, mut orphans) = (context.controller("job"), context.controller("job_orphan_pod"));
    let (jobs, pods) = (builder.informer::<Job>(), builder.informer::<Pod>());
    owned::index(&jobs);
    owned::index(&pods);
    let (expectations, untracked) = (Arc::new(Expectations::default()), Arc::new(Untracked::default()));
    let adopters = SelectorIndex::new(jobs.lister(), SelectorForm::Selector);
    let dependents =
        DependentHandler::new(builder.queue(), ("batch", "Job"), adopters, Arc::clone(&expectations));
    let handler = handler::Handler {
        queue: builder.queue(),
        orphans: orphans.queue(),
        dependents,
        expectations: Arc::clone(&expectations),
        untracked: Arc::clone(&untracked),
        jobs: jobs.lister(),
        pods: pods.lister(),
    };
    builder.add_handler(&jobs, handler.clone());
    builder.add_handler(&pods, handler);
    orphans.informer::<Pod>();
    let controller = sync::Controller {
        client: context.client.clone(),
        control: context.object_control(),
        events: context.events.clone(),
        jobs: jobs.lister(),
        pods: pods.lister(),
        expectations,
        untracked,
        written: Arc::new(Written::default()),
    };
    let orphans = orphans.run(sync::Orphans(controller.clone()));
    join(builder.run(controller), orphans).map(drop).boxed()
}

/// The finalizer of pods that are not counted yet.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label of a pod: its completion index.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation of a pod: the number of failed pods of the same index before it.
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";

/// A job and its pods in the caches.
struct Observed<'a> {
    job: &'a Job,
    pods: &'a [Pod],
    /// UIDs of pods whose finalizer was removed although the cache still shows it.
    untracked: &'a HashSet<String>,
    now: Timestamp,
}

impl Observed<'_> {
    fn spec(&self) -> &JobSpec {
        spec(self.job)
    }

    fn status(&self) -> &JobStatus {
        status(self.job)
    }

    /// Returns whether a pod still has its finalizer and must be counted.
    fn is_tracked(&self, pod: &Pod) -> bool {
        is_tracked(pod) && !self.untracked.contains(uid(pod))
    }

    /// The completion index of a pod, if the job is indexed and the index is below `completions`.
    fn index(&self, pod: &Pod) -> Option<i32> {
        let index: i32 = pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()?;
        (0..self.spec().completions.unwrap_or(0)).contains(&index).then_some(index)
    }

    /// Returns whether a pod is counted; pods of an indexed job need an index.
    fn counts(&self, pod: &Pod) -> bool {
        !is_indexed(self.spec()) || self.index(pod).is_some()
    }
}

fn spec(job: &Job) -> &JobSpec {
    static EMPTY: std::sync::LazyLock<JobSpec> = std::sync::LazyLock::new(JobSpec::default);
    job.spec.as_ref().unwrap_or(&EMPTY)
}

fn status(job: &Job) -> &JobStatus {
    static EMPTY: std::sync::LazyLock<JobStatus> = std::sync::LazyLock::new(JobStatus::default);
    job.status.as_ref().unwrap_or(&EMPTY)
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend.unwrap_or(false)
}

fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

/// Returns whether pods are replaced only after they have failed, instead of when their deletion starts.
fn replaces_ended_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

/// The condition of this type whose status is `True`.
fn true_condition<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == type_ && condition.status == "True")
}

/// Returns whether a job is complete or has failed.
pub(crate) fn is_finished(job: &Job) -> bool {
    ["Complete", "Failed"].iter().any(|type_| true_condition(status(job), type_).is_some())
}

/// Returns whether a job has a condition of this type whose status is `True`.
pub(crate) fn has_condition(job: &Job, type_: &str) -> bool {
    true_condition(status(job), type_).is_some()
}

#[cfg(test)]
mod fixtures {
    use serde_json::{Value, json};

    use super::{Job, Pod, TRACKING};

    pub(super) fn job(spec: &Value) -> Job {
        let mut job = json!({
            "metadata": {"name": "sum", "namespace": "default", "uid": "u"},
            "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 6, "template": {
                "metadata": {"labels": {"job-name": "sum"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
            "status": {"startTime": "2026-01-01T11:59:00Z"}
        });
        for (key, value) in spec.as_object().unwrap() {
            job["spec"][key] = value.clone();
        }
        serde_json::from_value(job).unwrap()
    }

    pub(super) fn pod(name: &str, phase: &str) -> Pod {
        let mut pod = crate::pods::fixtures::pod(name, phase, None);
        pod.metadata.finalizers = Some(vec![TRACKING.to_owned()]);
        pod
    }

    pub(super) fn indexed(index: i32, name: &str, phase: &str) -> Pod {
        let mut pod = pod(name, phase);
        pod.metadata.annotations = Some([(super::INDEX.to_owned(), index.to_string())].into());
        pod
    }
}
