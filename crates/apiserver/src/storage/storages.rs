//! The storages of all resources. They are opened before the server is constructed, because parts of it watch them.

use std::sync::Arc;

use nave_cacher::{Cacher, EncodingBudget};
use nave_machinery::GroupVersionResource;
use nave_resources::{Registry, ResourceDef};
use nave_store::Store;
use nave_supervisor::Supervisor;

use super::{ResourceStorage, Stores, WatchCacheSizes};
use crate::conversion::Converter;

/// Memory budget for encodings made on demand, for all resources together, in bytes.
const ENCODINGS_KEPT: usize = 32 << 20;

/// Memory budget for frames of recent events, for all resources together, in bytes.
const FRAMES_KEPT: usize = 32 << 20;

/// The parts shared by all watch caches. Frames have a separate budget because they are short-lived, and without them
/// each watcher would encode each event again.
#[derive(Clone)]
pub struct SharedParts {
    /// The budget of encodings of objects.
    pub encodings: Arc<EncodingBudget>,
    /// The budget of frames of events.
    pub frames: Arc<EncodingBudget>,
    /// Supervises the tasks of watch caches and followers.
    pub supervisor: Supervisor,
}

/// The storages of all stored resources of a registry. There is one per storage prefix, so that two resources with the
/// same objects (events) share a watch cache.
#[derive(Clone)]
pub struct Storages {
    registry: Arc<Registry>,
    stores: Stores,
    shared: SharedParts,
    sizes: WatchCacheSizes,
    by_prefix: imbl::HashMap<String, Arc<ResourceStorage>>,
}

impl Storages {
    /// Opens the storage of each stored resource and starts filling its watch cache.
    pub fn open(registry: Registry, stores: impl Into<Stores>, sizes: &WatchCacheSizes) -> Self {
        let shared = SharedParts {
            encodings: EncodingBudget::new(ENCODINGS_KEPT),
            frames: EncodingBudget::new(FRAMES_KEPT),
            supervisor: Supervisor::new(),
        };
        let (registry, sizes, stores) = (Arc::new(registry), sizes.clone(), stores.into());
        let mut storages = Self { registry, stores, shared, sizes, by_prefix: imbl::HashMap::new() };
        for def in Arc::clone(&storages.registry).all() {
            if storages.for_resource(def).is_none()
                && let Some(opened) = storages.open_one(def, None)
            {
                storages.insert(opened);
            }
        }
        storages
    }

    /// Opens the storage of a resource, with its converter, without adding it to these storages; `None` if the resource
    /// stores nothing. Must be called within a Tokio runtime.
    pub fn open_one(
        &self,
        def: &Arc<ResourceDef>,
        converter: Option<Arc<Converter>>,
    ) -> Option<Arc<ResourceStorage>> {
        let window = self.sizes.bounds(&def.group_resource());
        let store = self.stores.for_resource(&def.group_resource());
        ResourceStorage::open(
            Arc::clone(def),
            store,
            window,
            self.stores.media_type(),
            &self.shared,
            converter,
        )
    }

    /// Returns the storages for another registry, without those of `removed` and with `added`.
    #[must_use]
    pub(crate) fn with(
        &self,
        registry: Arc<Registry>,
        removed: &[Arc<ResourceStorage>],
        added: Vec<Arc<ResourceStorage>>,
    ) -> Self {
        let mut storages = Self { registry, ..self.clone() };
        for storage in removed {
            storages.by_prefix.remove(storage.prefix());
        }
        for storage in added {
            storages.insert(storage);
        }
        storages
    }

    fn insert(&mut self, storage: Arc<ResourceStorage>) {
        self.by_prefix.insert(storage.prefix().to_owned(), storage);
    }

    /// Waits until all watch caches are filled, or until the time limit of the stores. Objects that cannot be read, for
    /// example because a key is missing, must not prevent access to other resources.
    pub async fn wait_initialized(&self) {
        let limit = self.stores.timeouts().initialization;
        if tokio::time::timeout(limit, self.wait_ready()).await.is_err() {
            for storage in self.all().filter(|storage| !storage.cacher().is_ready()) {
                let resource = &storage.cacher().config().resource;
                tracing::error!(%resource, ?limit, "the watch cache is not filled, starting without it");
            }
        }
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

    /// Returns the store of most resources.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.stores.main()
    }

    /// Returns the stores.
    pub fn stores(&self) -> &Stores {
        &self.stores
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
