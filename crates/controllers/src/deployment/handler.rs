//! Which deployments an event concerns. Handlers look at metadata only.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use nave_client::{Deleted, EventHandler, Lister, Object, ObjectName, Workqueue};

use crate::{owned, selectors};

/// Told of replica sets.
pub(super) struct SetHandler {
    queue: Workqueue<ObjectName>,
    deployments: Lister<Deployment>,
}

impl SetHandler {
    pub(super) fn new(queue: Workqueue<ObjectName>, deployments: Lister<Deployment>) -> Self {
        Self { queue, deployments }
    }

    /// Has the deployment of a set looked at; whether it has a controller.
    fn owner(&self, set: &Object<ReplicaSet>) -> bool {
        if let Some(controller) = owned::controller_of_kind(set, "apps", "Deployment") {
            self.queue.add(owned::key_of(set, &controller));
        }
        set.controller_of().is_some()
    }

    /// Has all deployments looked at that could adopt a set.
    fn adopters(&self, set: &Object<ReplicaSet>) {
        for deployment in self.deployments.list_namespace(set.namespace()) {
            let spec = deployment.decode().ok().and_then(|deployment| deployment.spec);
            let selector = spec.and_then(|spec| selectors::parse(&spec.selector).ok());
            if selector.is_some_and(|selector| !selector.is_empty() && set.is_selected_by(&selector)) {
                self.queue.add(deployment.key());
            }
        }
    }
}

impl EventHandler<ReplicaSet> for SetHandler {
    fn on_add(&self, set: &Object<ReplicaSet>, _: bool) {
        if !self.owner(set) && !set.is_being_deleted() {
            self.adopters(set);
        }
    }

    fn on_update(&self, old: &Object<ReplicaSet>, new: &Object<ReplicaSet>) {
        if old.is_same_version(new) {
            return;
        }
        let moved = owned::moved(old, new);
        if moved {
            self.owner(old);
        }
        if !self.owner(new) && moved {
            self.adopters(new);
        }
    }

    fn on_delete(&self, deleted: &Deleted<ReplicaSet>) {
        self.owner(deleted.object());
    }
}

/// Told of pods: a deployment that recreates waits for the last old pod to be gone.
pub(super) struct PodHandler {
    queue: Workqueue<ObjectName>,
    sets: Lister<ReplicaSet>,
    pods: Lister<Pod>,
}

impl PodHandler {
    pub(super) fn new(queue: Workqueue<ObjectName>, sets: Lister<ReplicaSet>, pods: Lister<Pod>) -> Self {
        Self { queue, sets, pods }
    }
}

impl EventHandler<Pod> for PodHandler {
    fn on_add(&self, _: &Object<Pod>, _: bool) {}

    fn on_update(&self, _: &Object<Pod>, _: &Object<Pod>) {}

    fn on_delete(&self, deleted: &Deleted<Pod>) {
        let pod = deleted.object();
        let set = owned::controller_of_kind(pod, "apps", "ReplicaSet");
        let Some(set) = set.filter(|set| owned::by_controller(&self.pods, set.uid).is_empty()) else {
            return;
        };
        let set = self.sets.get_by_key(&owned::key_of(pod, &set));
        let deployment = set.as_ref().and_then(|set| owned::controller_of_kind(set, "apps", "Deployment"));
        if let Some(deployment) = deployment {
            self.queue.add(owned::key_of(pod, &deployment));
        }
    }
}
