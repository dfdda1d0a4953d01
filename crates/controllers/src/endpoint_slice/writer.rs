//! Writes the slices of one manager, and tracks which writes the cache does not show yet.

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

/// Index of slices by manager and service.
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

    /// Tracks the slices that the cache shows, and enqueues the services of slices that other clients changed.
    pub(super) fn handler(&self, queue: Workqueue) -> impl EventHandler<EndpointSlice> {
        SliceHandler { pending: Arc::clone(&self.pending), manager: self.manager, queue }
    }

    /// The time to wait for the cache before the next check; `None` if it is up to date.
    pub(super) fn wait(&self, service: &ObjectName) -> Option<Duration> {
        self.pending.wait(service)
    }

    /// Removes a deleted service.
    pub(super) fn forget(&self, service: &ObjectName) {
        self.pending.forget(service);
    }

    /// The slices of a service that this manager owns and that are not being deleted.
    pub(super) fn slices_of(&self, key: &ObjectName) -> Result<Vec<EndpointSlice>, SyncError> {
        let mut found = self.slices.by_index(BY_SERVICE, &index_key(self.manager, key)).unwrap_or_default();
        found.retain(|slice| !slice.is_being_deleted());
        Ok(found.iter().map(Object::decode).collect::<Result<_, _>>()?)
    }

    fn record_write(&self, key: &ObjectName, slice: &EndpointSlice) {
        self.pending.record_write(key, slice, |name| {
            let found = self.slices.get(key.namespace(), name);
            found.map(|slice| slice.resource_version().to_owned())
        });
    }

    pub(super) async fn apply(&self, key: &ObjectName, plan: Plan) -> Result<(), SyncError> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), key.namespace());
        for slice in plan.create {
            match slices.create(&PostParams::default(), &slice).await {
                Ok(created) => self.record_write(key, &created),
                refused => return api::ignore_already_exists(refused),
            }
        }
        for slice in plan.update {
            let name = slice.metadata.name.clone().unwrap_or_default();
            let updated = slices.replace(&name, &PostParams::default(), &slice).await?;
            self.record_write(key, &updated);
        }
        for slice in plan.delete {
            let name = slice.metadata.name.clone().unwrap_or_default();
            api::ignore_not_found(slices.delete(&name, &DeleteParams::default()).await)?;
        }
        Ok(())
    }
}

fn index_key(manager: &str, service: &ObjectName) -> String {
    format!("{manager} {service}")
}

/// The service of a slice that this manager owns.
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
            self.pending.record_seen(&service, slice.name(), slice.resource_version(), is_gone);
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
