//! Services and endpoints as the clients of webhooks and aggregated servers see them: from the watch caches.

use std::net::SocketAddr;
use std::sync::Arc;

use nave_cacher::CachedObject;
use nave_machinery::{GroupVersionResource, Value};
use nave_resources::list_prefix;
use nave_webhook::{ClientManager, Routing, ServiceResolver, Services};

use crate::storage::{ResourceStorage, Storages};

/// The label of an endpoint slice that names its service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Creates the manager of webhook clients. Services are resolved from the watch caches; the service `kubernetes` is the
/// server itself, at `own`.
pub fn client_manager(storages: &Storages, routing: Routing, own: SocketAddr) -> ClientManager {
    ClientManager::new(ServiceResolver::new(stored_services(storages), routing, Some(own)))
}

/// Returns the services and endpoint slices in the watch caches.
pub(crate) fn stored_services(storages: &Storages) -> Arc<dyn Services> {
    let storage = |group: &str, resource: &str| {
        storages.get(&GroupVersionResource::new(group, "v1", resource)).cloned()
    };
    Arc::new(StoredServices {
        services: storage("", "services"),
        slices: storage("discovery.k8s.io", "endpointslices"),
    })
}

/// The stored services and endpoint slices; `None` for a server without them.
struct StoredServices {
    services: Option<Arc<ResourceStorage>>,
    slices: Option<Arc<ResourceStorage>>,
}

impl Services for StoredServices {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let storage = self.services.as_ref()?;
        let found = storage.find(namespace, name)?;
        storage.codec().parse_cached(&found).ok().map(Arc::new)
    }

    fn endpoint_slices(&self, namespace: &str, name: &str) -> Vec<Arc<Value>> {
        let Some(storage) = &self.slices else { return Vec::new() };
        let Ok(prefix) = list_prefix(storage.def(), Some(namespace)) else { return Vec::new() };
        let is_of_service = |slice: &&Arc<CachedObject>| slice.attributes().label(SERVICE_NAME) == Some(name);
        let snapshot = storage.cacher().snapshot();
        let slices = snapshot.range(&prefix, None).filter(is_of_service);
        slices.filter_map(|slice| storage.codec().parse_cached(slice).ok().map(Arc::new)).collect()
    }
}
