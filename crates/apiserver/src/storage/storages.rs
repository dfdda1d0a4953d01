//! The storages of all resources: opened before the server, so that what the server is made of can watch them.

use std::collections::HashMap;
use std::sync::Arc;

use nave_cacher::{Cacher, EncodingBudget};
use nave_machinery::GroupVersionResource;
use nave_resources::{Registry, ResourceDef};
use nave_store::Store;
use nave_supervisor::Supervisor;

use super::{ResourceStorage, WatchCacheSizes};

/// Bytes of encodings made on demand that are kept, of all resources together.
const ENCODINGS_KEPT: usize = 32 << 20;

/// Bytes of frames of the latest events that are kept for those who have not taken them, of all resources together.
const FRAMES_KEPT: usize = 32 << 20;

/// The parts that all watch caches share: room for what is made on demand, and the supervisor of their tasks. Frames have their own: they are given up soon, and
/// without them each watcher would make an event's frame anew.
#[derive(Clone)]
pub struct SharedParts {
    /// For encodings of objects.
    pub encodings: Arc<EncodingBudget>,
    /// For frames of events.
    pub frames: Arc<EncodingBudget>,
    /// For the tasks of watch caches and of what follows them.
    pub supervisor: Supervisor,
}

/// The storages of all stored resources of a registry: one a storage prefix, so that resources of two groups over the
/// same objects (events) share one watch cache.
#[derive(Clone)]
pub struct Storages {
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    shared: SharedParts,
    by_prefix: HashMap<String, Arc<ResourceStorage>>,
}

impl Storages {
    /// Opens every stored resource: its watch cache begins to fill, and will keep this much history.
    pub fn open(registry: Registry, store: Arc<dyn Store>, sizes: &WatchCacheSizes) -> Self {
        let mut by_prefix = HashMap::new();
        let shared = SharedParts {
            encodings: EncodingBudget::new(ENCODINGS_KEPT),
            frames: EncodingBudget::new(FRAMES_KEPT),
            supervisor: Supervisor::new(),
        };
        for def in registry.all() {
            let Some(storage) = &def.storage else { continue };
            let window = sizes.bounds(&def.group_resource());
            if !by_prefix.contains_key(&storage.prefix)
                && let Some(opened) =
                    ResourceStorage::open(Arc::clone(def), Arc::clone(&store), window, &shared)
            {
                by_prefix.insert(storage.prefix.clone(), opened);
            }
        }
        Self { registry: Arc::new(registry), store, shared, by_prefix }
    }

    /// Waits until every watch cache has listed what is stored.
    pub async fn wait_ready(&self) {
        for storage in self.all() {
            storage.cacher().wait_ready().await;
        }
    }

    /// The resources.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The store beneath.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The parts that all watch caches share.
    pub fn shared(&self) -> &SharedParts {
        &self.shared
    }

    /// All storages.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ResourceStorage>> {
        self.by_prefix.values()
    }

    /// The storage of a resource; `None` for one that stores nothing or is not known.
    pub fn for_resource(&self, def: &ResourceDef) -> Option<&Arc<ResourceStorage>> {
        self.by_prefix.get(&def.storage.as_ref()?.prefix)
    }

    /// The storage of the resource of this name; `None` for one that stores nothing or is not known.
    pub fn get(&self, gvr: &GroupVersionResource) -> Option<&Arc<ResourceStorage>> {
        self.for_resource(self.registry.lookup(gvr)?)
    }

    /// The watch cache of a resource, whose objects are in this version; `None` where they are stored in another.
    pub fn cacher(&self, gvr: &GroupVersionResource) -> Option<&Arc<Cacher>> {
        let stored = self.registry.lookup(gvr)?.storage.as_ref()?;
        let same = stored.version.group == gvr.group && stored.version.version == gvr.version;
        same.then(|| self.get(gvr).map(|storage| storage.cacher()))?
    }
}
