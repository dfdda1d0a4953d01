//! Which sets an event concerns. Handlers look at metadata only.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use nave_client::{Deleted, EventHandler, Lister, Object, ObjectName, Workqueue};

use super::kind::Replicated;
use crate::expectations::Expectations;
use crate::{owned, selectors};

/// Told of sets.
pub(super) struct SetHandler {
    queue: Workqueue<ObjectName>,
    expectations: Arc<Expectations>,
}

impl SetHandler {
    pub(super) fn new(queue: Workqueue<ObjectName>, expectations: Arc<Expectations>) -> Self {
        Self { queue, expectations }
    }
}

impl<R: Replicated> EventHandler<R> for SetHandler {
    fn on_add(&self, set: &Object<R>, _: bool) {
        self.queue.add(set.key());
    }

    fn on_update(&self, old: &Object<R>, new: &Object<R>) {
        if old.uid() != new.uid() {
            self.expectations.forget(old.uid());
        }
        self.queue.add(new.key());
    }

    fn on_delete(&self, deleted: &Deleted<R>) {
        self.expectations.forget(deleted.object().uid());
        self.queue.add(deleted.object().key());
    }
}

/// Told of pods: notes what was expected, and finds the sets that own a pod or may adopt it.
pub(super) struct PodHandler<R> {
    queue: Workqueue<ObjectName>,
    expectations: Arc<Expectations>,
    sets: Lister<R>,
}

impl<R: Replicated> PodHandler<R> {
    pub(super) fn new(
        queue: Workqueue<ObjectName>,
        expectations: Arc<Expectations>,
        sets: Lister<R>,
    ) -> Self {
        Self { queue, expectations, sets }
    }

    /// Notes something about a pod for its set, and has the set looked at; whether it has one.
    fn owner(&self, pod: &Object<Pod>, note: impl FnOnce(&str)) -> bool {
        if let Some(controller) = owned::controller_of_kind(pod, &R::group(&()), &R::kind(&())) {
            note(controller.uid);
            self.queue.add(owned::key_of(pod, &controller));
        }
        pod.controller_of().is_some()
    }

    /// Has all sets looked at that could adopt a pod.
    fn adopters(&self, pod: &Object<Pod>) {
        if pod.labels().next().is_none() {
            return;
        }
        for set in self.sets.list_namespace(pod.namespace()) {
            let decoded = set.decode().ok().and_then(|set| set.to_replica_set().spec);
            let selector = decoded.and_then(|spec| selectors::parse(&spec.selector).ok());
            if selector.is_some_and(|selector| !selector.is_empty() && pod.is_selected_by(&selector)) {
                self.queue.add(set.key());
            }
        }
    }

    fn gone(&self, pod: &Object<Pod>) {
        self.owner(pod, |owner| self.expectations.deletion_observed(owner, pod.uid()));
    }
}

impl<R: Replicated> EventHandler<Pod> for PodHandler<R> {
    fn on_add(&self, pod: &Object<Pod>, _: bool) {
        if pod.is_being_deleted() {
            // After a restart a pod may be first seen under deletion.
            self.gone(pod);
        } else if !self.owner(pod, |owner| self.expectations.creation_observed(owner)) {
            self.adopters(pod);
        }
    }

    fn on_update(&self, old: &Object<Pod>, new: &Object<Pod>) {
        if old.is_same_version(new) {
            return;
        }
        let moved = owned::moved(old, new);
        if old.uid() != new.uid() {
            self.gone(old);
        } else if moved {
            self.owner(old, |_| {});
        }
        // Its end counts from the moment it is asked for, not when its node lets it go.
        if new.is_being_deleted() {
            self.gone(new);
        } else if !self.owner(new, |_| {}) && moved {
            self.adopters(new);
        }
    }

    fn on_delete(&self, deleted: &Deleted<Pod>) {
        self.gone(deleted.object());
    }
}
