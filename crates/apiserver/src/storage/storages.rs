//! The storages of all resources: opened before the server, so that what the server is made of can watch them.

use std::collections::HashMap;
use std::sync::Arc;

use nave_cacher::{Cacher, EncodingBudget};
use nave_machinery::GroupVersionResource;
use nave_resources::{Registry, ResourceDef};
use nave_store::Store;

use super::ResourceStorage;

/// Bytes of encodings made on demand that are kept, of all resources together.
const ENCODINGS_KEPT: usize = 32 << 20;

/// The storages of all stored resources of a registry: one a storage prefix, so that resources of two groups over the
/// same objects (events) share one watch cache.
#[derive(Clone)]
pub struct Storages {
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    encodings: Arc<EncodingBudget>,
    by_prefix: HashMap<String, Arc<ResourceStorage>>,
}

impl Storages {
    /// Opens every stored resource: its watch cache begins to fill.
    pub fn open(registry: Registry, store: Arc<dyn Store>) -> Self {
        let mut by_prefix = HashMap::new();
        let encodings = EncodingBudget::new(ENCODINGS_KEPT);
        for def in registry.all() {
            let Some(storage) = &def.storage else { continue };
            if !by_prefix.contains_key(&storage.prefix)
                && let Some(opened) =
                    ResourceStorage::open(Arc::clone(def), Arc::clone(&store), Arc::clone(&encodings))
            {
                by_prefix.insert(storage.prefix.clone(), opened);
            }
        }
        Self { registry: Arc::new(registry), store, encodings, by_prefix }
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

    /// The room for encodings made on demand.
    pub fn encodings(&self) -> &EncodingBudget {
        &self.encodings
    }

    /// All storages.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ResourceStorage>> {
        self.by_prefix.values()
    }

    /// The storage of a resource; `None` for one that stores nothing or is not known.
    pub fn of(&self, def: &ResourceDef) -> Option<&Arc<ResourceStorage>> {
        self.by_prefix.get(&def.storage.as_ref()?.prefix)
    }

    /// The storage of the resource of this name; `None` for one that stores nothing or is not known.
    pub fn get(&self, gvr: &GroupVersionResource) -> Option<&Arc<ResourceStorage>> {
        self.of(self.registry.lookup(gvr)?)
    }

    /// The watch cache of a resource, whose objects are in this version; `None` where they are stored in another.
    pub fn cacher(&self, gvr: &GroupVersionResource) -> Option<&Arc<Cacher>> {
        let stored = self.registry.lookup(gvr)?.storage.as_ref()?;
        let same = stored.version.group == gvr.group && stored.version.version == gvr.version;
        same.then(|| self.get(gvr).map(|storage| storage.cacher()))?
    }
}
