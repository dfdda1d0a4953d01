//! The storages of all resources. They are opened before the server, whose parts watch them.

use std::collections::HashMap;
use std::sync::Arc;

use nave_cacher::{Cacher, EncodingBudget};
use nave_machinery::GroupVersionResource;
use nave_resources::{Registry, ResourceDef};
use nave_store::Store;
use nave_supervisor::Supervisor;

use super::{ResourceStorage, WatchCacheSizes};

/// Memory budget for encodings made on demand, for all resources together, in bytes.
const ENCODINGS_KEPT: usize = 32 << 20;

/// Memory budget for frames of recent events, for all resources together, in bytes.
const FRAMES_KEPT: usize = 32 << 20;

/// The parts that all watch caches share. Frames have a separate budget: they are short-lived, and without them each
/// watcher would encode an event again.
#[derive(Clone)]
pub struct SharedParts {
    /// The budget of encodings of objects.
    pub encodings: Arc<EncodingBudget>,
    /// The budget of frames of events.
    pub frames: Arc<EncodingBudget>,
    /// Supervises the tasks of watch caches and followers.
    pub supervisor: Supervisor,
}

/// The storages of all stored resources of a registry, one per storage prefix, so that two resources with the same
/// objects (events) share a watch cache.
#[derive(Clone)]
pub struct Storages {
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    shared: SharedParts,
    by_prefix: HashMap<String, Arc<ResourceStorage>>,
}

impl Storages {
    /// Opens the storage of each stored resource, and starts to fill its watch cache.
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

    /// Waits until all watch caches are filled.
    pub async fn wait_ready(&self) {
        for storage in self.all() {
            storage.cacher().wait_ready().await;
        }
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Returns the parts that all watch caches share.
    pub fn shared(&self) -> &SharedParts {
        &self.shared
    }

    /// Returns all storages.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ResourceStorage>> {
        self.by_prefix.values()
    }

    /// Returns the storage of a resource; `None` if it stores nothing or is unknown.
    pub fn for_resource(&self, def: &ResourceDef) -> Option<&Arc<ResourceStorage>> {
        self.by_prefix.get(&def.storage.as_ref()?.prefix)
    }

    /// Returns the storage of a resource by name; `None` if it stores nothing or is unknown.
    pub fn get(&self, gvr: &GroupVersionResource) -> Option<&Arc<ResourceStorage>> {
        self.for_resource(self.registry.lookup(gvr)?)
    }

    /// Returns the watch cache of a resource, if its objects are stored in this version.
    pub fn cacher(&self, gvr: &GroupVersionResource) -> Option<&Arc<Cacher>> {
        let stored = self.registry.lookup(gvr)?.storage.as_ref()?;
        let same = stored.version.group == gvr.group && stored.version.version == gvr.version;
        same.then(|| self.get(gvr).map(|storage| storage.cacher()))?
    }
}
