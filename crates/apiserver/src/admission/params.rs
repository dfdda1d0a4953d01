//! The parameters of admission policies: objects of any stored kind, read from the watch caches.

use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use lru::LruCache;
use nave_admission::{KindResolver, Lister, ParamKinds};
use nave_machinery::selector::LabelSelector;
use nave_machinery::{GroupVersionKind, GroupVersionResource, Object, Status};
use parking_lot::Mutex;

use super::StorageLister;
use crate::catalog::Catalogs;
use crate::endpoints::Endpoint;
use crate::endpoints::versions;
use crate::endpoints::view::View;
use crate::storage::ResourceStorage;

/// Maximum number of kinds whose parsed objects are cached.
const KINDS_KEPT: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// Reads parameters by the current catalog.
pub(super) struct CatalogParams {
    catalogs: Catalogs,
    listers: Mutex<LruCache<GroupVersionResource, Arc<StorageLister>>>,
}

/// A kind of parameters.
struct ParamKind {
    endpoint: Endpoint,
    lister: Arc<StorageLister>,
}

impl CatalogParams {
    pub(super) fn new(catalogs: Catalogs) -> Self {
        Self { catalogs, listers: Mutex::new(LruCache::new(KINDS_KEPT)) }
    }

    fn find(&self, kind: &GroupVersionKind) -> Option<ParamKind> {
        let resource = self.catalogs.resource_of(kind)?;
        let endpoint = self.catalogs.load().endpoint(&resource)?.clone();
        let storage = endpoint.storage().ok()?;
        let lister = self.lister(resource, storage);
        Some(ParamKind { endpoint, lister })
    }

    fn known(&self, kind: &GroupVersionKind) -> Result<ParamKind, Status> {
        self.find(kind).ok_or_else(|| Status::internal(format!("{kind} is not served")))
    }

    /// Returns the lister of a storage. A changed definition has a new storage.
    fn lister(&self, resource: GroupVersionResource, storage: &Arc<ResourceStorage>) -> Arc<StorageLister> {
        let mut listers = self.listers.lock();
        if let Some(lister) = listers.get(&resource)
            && Arc::ptr_eq(&lister.storage, storage)
        {
            return Arc::clone(lister);
        }
        let lister = Arc::new(StorageLister::new(Arc::clone(storage)));
        listers.put(resource, Arc::clone(&lister));
        lister
    }
}

impl ParamKind {
    /// Converts an object to the version of the kind.
    fn versioned(&self, stored: Arc<Object>) -> Result<Arc<Object>, Status> {
        if self.endpoint.is_storage_version() {
            return Ok(stored);
        }
        let object = stored.as_value().clone();
        let served = if self.endpoint.def.is_custom() {
            versions::read_without_webhook(&self.endpoint, object)?
        } else {
            View::Object.to_served(&self.endpoint, object)?
        };
        Ok(Arc::new(Object::try_from(served).map_err(Status::internal)?))
    }
}

#[async_trait]
impl ParamKinds for CatalogParams {
    fn is_namespaced(&self, kind: &GroupVersionKind) -> Option<bool> {
        Some(self.find(kind)?.endpoint.def.namespaced)
    }

    async fn get(
        &self,
        kind: &GroupVersionKind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
        let kind = self.known(kind)?;
        kind.lister.get(namespace, name)?.map(|object| kind.versioned(object)).transpose()
    }

    async fn list(
        &self,
        kind: &GroupVersionKind,
        namespace: &str,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<Object>>, Status> {
        let kind = self.known(kind)?;
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        let selected =
            kind.lister.list(namespace)?.into_iter().filter(|it| selector.matches(|key| it.label(key)));
        selected.map(|object| kind.versioned(object)).collect()
    }
}
