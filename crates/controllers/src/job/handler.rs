//! Event handlers of jobs and pods. They read metadata only.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use nave_client::{Deleted, EventHandler, Lister, Object, Workqueue};

use super::TRACKING;
use super::untracked::Untracked;
use crate::expectations::Expectations;
use crate::owned::{self, DependentHandler};

/// The state that the handlers share.
#[derive(Clone)]
pub(super) struct Handler {
    pub(super) queue: Workqueue,
    /// Pods with a tracking finalizer whose job may not exist.
    pub(super) orphans: Workqueue,
    pub(super) dependents: DependentHandler<Job>,
    pub(super) expectations: Arc<Expectations>,
    pub(super) untracked: Arc<Untracked>,
    pub(super) jobs: Lister<Job>,
    pub(super) pods: Lister<Pod>,
}

impl EventHandler<Job> for Handler {
    fn on_add(&self, job: &Object<Job>, _: bool) {
        self.queue.add(job.key());
    }

    fn on_update(&self, old: &Object<Job>, new: &Object<Job>) {
        if old.uid() != new.uid() {
            self.job_deleted(old);
        }
        self.queue.add(new.key());
    }

    fn on_delete(&self, deleted: &Deleted<Job>) {
        self.job_deleted(deleted.object());
        self.queue.add(deleted.object().key());
    }
}

/// Forwards events to `dependents`, tracks removed finalizers, and finds pods whose finalizer no job will remove.
impl EventHandler<Pod> for Handler {
    fn on_add(&self, pod: &Object<Pod>, is_in_initial_list: bool) {
        self.dependents.on_add(pod, is_in_initial_list);
        self.check_orphan(pod);
    }

    fn on_update(&self, old: &Object<Pod>, new: &Object<Pod>) {
        if has_tracking_finalizer(old) && !has_tracking_finalizer(new) || old.uid() != new.uid() {
            self.untracked.remove(old.uid());
        }
        self.dependents.on_update(old, new);
        self.check_orphan(new);
    }

    fn on_delete(&self, deleted: &Deleted<Pod>) {
        self.untracked.remove(deleted.object().uid());
        self.dependents.on_delete(deleted);
    }
}

impl Handler {
    fn job_deleted(&self, job: &Object<Job>) {
        self.expectations.forget(job.uid());
        for pod in owned::by_controller(&self.pods, job.uid()) {
            if has_tracking_finalizer(&pod) {
                self.orphans.add(pod.key());
            }
        }
    }

    fn check_orphan(&self, pod: &Object<Pod>) {
        if !has_tracking_finalizer(pod) {
            return;
        }
        let Some(controller) = owned::controller_of_kind(pod, "batch", "Job") else { return };
        let job = self.jobs.get_by_key(&owned::key_of(pod, &controller));
        if job.is_none_or(|job| job.uid() != controller.uid) {
            self.orphans.add(pod.key());
        }
    }
}

fn has_tracking_finalizer(pod: &Object<Pod>) -> bool {
    pod.finalizers().any(|finalizer| finalizer == TRACKING)
}
