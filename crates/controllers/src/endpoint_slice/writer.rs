//! Writes the slices of one manager, and knows which of them the cache has yet to see.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, PostParams};
use nave_client::{Deleted, EventHandler, Lister, Object, ObjectName, SharedInformer, Workqueue};

use super::pending::Pending;
use super::slices::Plan;
use super::{MANAGED_BY_LABEL, SERVICE_LABEL};
use crate::api;
use crate::frame::SyncError;

/// The index of slices by their manager and service.
const BY_SERVICE: &str = "service";

/// The slices of one manager.
pub(super) struct SliceWriter {
    client: kube::Client,
    slices: Lister<EndpointSlice>,
    manager: &'static str,
    pending: Arc<Pending>,
}

impl SliceWriter {
    pub(super) fn new(
        client: kube::Client,
        slices: &SharedInformer<EndpointSlice>,
        manager: &'static str,
    ) -> Self {
        slices.add_index(BY_SERVICE, |slice| {
            let managers = [super::MANAGER, super::mirroring::MANAGER];
            let keys = managers
                .into_iter()
                .filter_map(|manager| Some(index_key(manager, &service_of(slice, manager)?)));
            keys.collect()
        });
        Self { client, slices: slices.lister(), manager, pending: Arc::default() }
    }

    /// Notes which slices the cache has seen, and enqueues the services of slices that others changed.
    pub(super) fn handler(&self, queue: Workqueue) -> impl EventHandler<EndpointSlice> {
        SliceHandler { pending: Arc::clone(&self.pending), manager: self.manager, queue }
    }

    /// How long to wait for the cache before the next look; nothing once it has seen everything.
    pub(super) fn wait(&self, service: &ObjectName) -> Option<Duration> {
        self.pending.wait(service)
    }

    /// Forgets a service that is gone.
    pub(super) fn forget(&self, service: &ObjectName) {
        self.pending.forget(service);
    }

    /// The slices of a service that this manager writes and that stay.
    pub(super) fn slices_of(&self, key: &ObjectName) -> Result<Vec<EndpointSlice>, SyncError> {
        let mut found = self.slices.by_index(BY_SERVICE, &index_key(self.manager, key)).unwrap_or_default();
        found.retain(|slice| !slice.is_being_deleted());
        Ok(found.iter().map(Object::decode).collect::<Result<_, _>>()?)
    }

    fn wrote(&self, key: &ObjectName, slice: &EndpointSlice) {
        self.pending.wrote(key, slice, |name| {
            let found = self.slices.get(key.namespace(), name);
            found.map(|slice| slice.resource_version().to_owned())
        });
    }

    pub(super) async fn carry_out(&self, key: &ObjectName, plan: Plan) -> Result<(), SyncError> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), key.namespace());
        for slice in plan.create {
            match slices.create(&PostParams::default(), &slice).await {
                Ok(created) => self.wrote(key, &created),
                refused => return api::created(refused),
            }
        }
        for slice in plan.update {
            let name = slice.metadata.name.clone().unwrap_or_default();
            let updated = slices.replace(&name, &PostParams::default(), &slice).await?;
            self.wrote(key, &updated);
        }
        for slice in plan.delete {
            let name = slice.metadata.name.clone().unwrap_or_default();
            api::gone_is_fine(slices.delete(&name, &DeleteParams::default()).await)?;
        }
        Ok(())
    }
}

fn index_key(manager: &str, service: &ObjectName) -> String {
    format!("{manager} {service}")
}

/// The service of a slice that a manager writes.
fn service_of(slice: &Object<EndpointSlice>, manager: &str) -> Option<ObjectName> {
    let managed = slice.label(MANAGED_BY_LABEL) == Some(manager);
    slice.label(SERVICE_LABEL).filter(|_| managed).map(|name| ObjectName::new(slice.namespace(), name))
}

struct SliceHandler {
    pending: Arc<Pending>,
    manager: &'static str,
    queue: Workqueue,
}

impl SliceHandler {
    fn changed(&self, slice: &Object<EndpointSlice>, is_gone: bool) {
        if let Some(service) = service_of(slice, self.manager) {
            self.pending.saw(&service, slice.name(), slice.resource_version(), is_gone);
            self.queue.add(service);
        }
    }
}

impl EventHandler<EndpointSlice> for SliceHandler {
    fn on_add(&self, slice: &Object<EndpointSlice>, _: bool) {
        self.changed(slice, false);
    }

    fn on_update(&self, old: &Object<EndpointSlice>, new: &Object<EndpointSlice>) {
        self.changed(new, false);
        if service_of(old, self.manager) != service_of(new, self.manager) {
            self.changed(old, true);
        }
    }

    fn on_delete(&self, deleted: &Deleted<EndpointSlice>) {
        self.changed(deleted.object(), true);
    }
}
