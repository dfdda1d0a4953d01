//! Which jobs an event concerns. Handlers look at metadata only.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use nave_client::{Deleted, EventHandler, Lister, Object, ObjectName, Workqueue};

use super::TRACKING;
use super::untracked::Untracked;
use crate::expectations::Expectations;
use crate::{owned, selectors};

/// What handlers of jobs and pods share.
#[derive(Clone)]
pub(super) struct Handler {
    pub(super) queue: Workqueue<ObjectName>,
    /// Pods that may have to be let go because their job is gone.
    pub(super) orphans: Workqueue<ObjectName>,
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
            self.job_gone(old);
        }
        self.queue.add(new.key());
    }

    fn on_delete(&self, deleted: &Deleted<Job>) {
        self.job_gone(deleted.object());
    }
}

impl EventHandler<Pod> for Handler {
    fn on_add(&self, pod: &Object<Pod>, _: bool) {
        if pod.is_being_deleted() {
            self.pod_gone(pod);
        } else if !self.owner(pod, |owner| self.expectations.creation_observed(owner)) {
            self.adopters(pod);
        }
        self.check_orphan(pod);
    }

    fn on_update(&self, old: &Object<Pod>, new: &Object<Pod>) {
        if old.is_same_version(new) {
            return;
        }
        if tracked(old) && !tracked(new) || old.uid() != new.uid() {
            self.untracked.seen(old.uid());
        }
        let moved = owned::moved(old, new);
        if old.uid() != new.uid() {
            self.pod_gone(old);
        } else if moved {
            self.owner(old, |_| {});
        }
        if new.is_being_deleted() {
            self.pod_gone(new);
        } else if !self.owner(new, |_| {}) && moved {
            self.adopters(new);
        }
        self.check_orphan(new);
    }

    fn on_delete(&self, deleted: &Deleted<Pod>) {
        self.untracked.seen(deleted.object().uid());
        self.pod_gone(deleted.object());
    }
}

impl Handler {
    fn job_gone(&self, job: &Object<Job>) {
        self.expectations.forget(job.uid());
        for pod in owned::by_controller(&self.pods, job.uid()) {
            if tracked(&pod) {
                self.orphans.add(pod.key());
            }
        }
    }

    fn pod_gone(&self, pod: &Object<Pod>) {
        self.owner(pod, |owner| self.expectations.deletion_observed(owner, pod.uid()));
    }

    /// Notes something about a pod for its job, and has the job looked at; whether it has a controller.
    fn owner(&self, pod: &Object<Pod>, note: impl FnOnce(&str)) -> bool {
        if let Some(controller) = owned::controller_of_kind(pod, "batch", "Job") {
            note(controller.uid);
            self.queue.add(owned::key_of(pod, &controller));
        }
        pod.controller_of().is_some()
    }

    fn check_orphan(&self, pod: &Object<Pod>) {
        if !tracked(pod) {
            return;
        }
        let Some(controller) = owned::controller_of_kind(pod, "batch", "Job") else { return };
        let job = self.jobs.get_by_key(&owned::key_of(pod, &controller));
        if job.is_none_or(|job| job.uid() != controller.uid) {
            self.orphans.add(pod.key());
        }
    }

    /// Has all jobs looked at that could adopt a pod.
    fn adopters(&self, pod: &Object<Pod>) {
        if pod.labels().next().is_none() {
            return;
        }
        for job in self.jobs.list_namespace(pod.namespace()) {
            let selector = job.decode().ok().and_then(|job| job.spec?.selector);
            let selector = selector.and_then(|selector| selectors::parse(&selector).ok());
            if selector.is_some_and(|selector| !selector.is_empty() && pod.is_selected_by(&selector)) {
                self.queue.add(job.key());
            }
        }
    }
}

fn tracked(pod: &Object<Pod>) -> bool {
    pod.finalizers().any(|finalizer| finalizer == TRACKING)
}
