//! The cluster as admission plugins see it: listers over the watch caches, and the few writes that plugins make.

use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use lru::LruCache;
use nave_admission::{
    Chain, Cluster, Lister, Metrics, NamespaceCreator, Parts, Plugin, PluginConfig, QuotaStatus, Writers,
};
use nave_authz::rbac::Rbac;
use nave_cacher::CachedObject;
use nave_machinery::{GroupResource, GroupVersionResource, Object, Status, time};
use nave_resources::{list_prefix, storage_key};
use nave_store::Range;
use parking_lot::Mutex;

use crate::lifecycle;
use crate::storage::{Latest, ResourceStorage, Storages, Stored, Update};

/// Parsed objects that are kept of each resource: those that each write of a pod asks for again.
const PARSED_KEPT: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// The configuration of the admission plugins.
pub struct AdmissionConfig {
    /// The plugins that run, and their configurations.
    pub plugins: PluginConfig,
    /// The roles and bindings that escalation is checked against.
    pub rbac: Arc<Rbac>,
    /// Plugins made by the caller, by their names in the list of plugins.
    pub given: Vec<(&'static str, Plugin)>,
    /// `--default-not-ready-toleration-seconds`.
    pub default_not_ready_toleration_seconds: i64,
    /// `--default-unreachable-toleration-seconds`.
    pub default_unreachable_toleration_seconds: i64,
}

impl AdmissionConfig {
    /// The default tolerations, and no plugins of the caller.
    pub fn new(plugins: PluginConfig, rbac: Arc<Rbac>) -> Self {
        Self {
            plugins,
            rbac,
            given: Vec::new(),
            default_not_ready_toleration_seconds: 300,
            default_unreachable_toleration_seconds: 300,
        }
    }

    /// The chain of plugins over these storages.
    ///
    /// # Errors
    /// A plugin cannot be configured this way, or a resource that plugins read is not served.
    pub(crate) fn build(
        &self,
        storages: &Storages,
        authorizer: &nave_authz::Chain,
        metrics: Metrics,
    ) -> Result<Chain, AdmissionError> {
        let stored = |group: &str, resource: &str| {
            let gvr = GroupVersionResource::new(group, "v1", resource);
            storages.get(&gvr).cloned()
        };
        let missing = |resource: &str| {
            AdmissionError::Missing(nave_admission::MissingResource(GroupResource::new("", resource)))
        };
        let quotas = stored("", "resourcequotas").ok_or_else(|| missing("resourcequotas"))?;
        let namespaces = stored("", "namespaces").ok_or_else(|| missing("namespaces"))?;
        let writers = Writers {
            quota_status: Arc::new(QuotaWriter(quotas)),
            namespace_creator: Arc::new(NamespaceWriter(namespaces)),
        };
        let lister = |resource: &GroupResource| -> Option<Arc<dyn Lister>> {
            Some(Arc::new(StorageLister::new(stored(&resource.group, &resource.resource)?)))
        };
        let parts = Parts {
            cluster: Cluster::new(lister, writers, Arc::clone(storages.registry()) as _)
                .map_err(AdmissionError::Missing)?,
            authorizer: authorizer.clone(),
            rbac: Arc::clone(&self.rbac),
            default_not_ready_toleration_seconds: self.default_not_ready_toleration_seconds,
            default_unreachable_toleration_seconds: self.default_unreachable_toleration_seconds,
        };
        Ok(nave_admission::build(&parts, &self.plugins, &self.given, metrics)?)
    }
}

/// The admission plugins cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// A resource that they read is not served.
    #[error(transparent)]
    Missing(nave_admission::MissingResource),
    /// One of them cannot be configured this way.
    #[error(transparent)]
    Config(#[from] nave_admission::ConfigError),
}

/// The objects of one storage. Parsed objects are kept while they are the latest of their keys.
struct StorageLister {
    storage: Arc<ResourceStorage>,
    parsed: Mutex<LruCache<Arc<str>, Parsed>>,
}

/// A parsed object and the revision that wrote it.
struct Parsed {
    revision: u64,
    object: Arc<Object>,
}

impl StorageLister {
    fn new(storage: Arc<ResourceStorage>) -> Self {
        Self { storage, parsed: Mutex::new(LruCache::new(PARSED_KEPT)) }
    }

    fn object(&self, cached: &CachedObject) -> Result<Arc<Object>, Status> {
        let revision = cached.resource_version();
        if let Some(parsed) = self.parsed.lock().get(cached.key())
            && parsed.revision == revision
        {
            return Ok(Arc::clone(&parsed.object));
        }
        let value = self.storage.codec().parse_cached(cached)?;
        let object = Arc::new(Object::try_from(value).map_err(Status::internal)?);
        let parsed = Parsed { revision, object: Arc::clone(&object) };
        self.parsed.lock().put(Arc::clone(cached.key()), parsed);
        Ok(object)
    }

    fn key(&self, namespace: &str, name: &str) -> Option<String> {
        let def = self.storage.def();
        storage_key(def, def.namespaced.then_some(namespace), name).ok()
    }

    fn prefix(&self, namespace: Option<&str>) -> Result<String, Status> {
        let def = self.storage.def();
        list_prefix(def, namespace.filter(|_| def.namespaced)).map_err(Status::internal)
    }
}

#[async_trait]
impl Lister for StorageLister {
    fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status> {
        self.storage.find(namespace, name).map(|cached| self.object(&cached)).transpose()
    }

    fn list(&self, namespace: Option<&str>) -> Result<Vec<Arc<Object>>, Status> {
        let prefix = self.prefix(namespace)?;
        self.storage.cacher().snapshot().range(&prefix, None).map(|cached| self.object(cached)).collect()
    }

    async fn get_live(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status> {
        let Some(key) = self.key(namespace, name) else { return Ok(None) };
        self.storage.get_latest(&key).await?.map(|cached| self.object(&cached)).transpose()
    }

    async fn list_live(&self, namespace: Option<&str>) -> Result<Vec<Arc<Object>>, Status> {
        let prefix = self.prefix(namespace)?;
        match self.storage.latest().await? {
            Latest::Memory(snapshot) => {
                snapshot.range(&prefix, None).map(|cached| self.object(cached)).collect()
            }
            Latest::Store(revision) => {
                let range = Range { revision: Some(revision), ..Range::all(prefix) };
                let found = self.storage.range(range).await?;
                found.items.iter().map(|kv| self.object(&self.storage.cached(kv)?)).collect()
            }
        }
    }
}

/// Writes the status of quotas.
struct QuotaWriter(Arc<ResourceStorage>);

#[async_trait]
impl QuotaStatus for QuotaWriter {
    async fn update_status(&self, quota: Object) -> Result<Arc<Object>, Status> {
        let (storage, name) = (&self.0, quota.name());
        let key = storage_key(storage.def(), Some(quota.namespace()), name)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let set_status = |current: &Stored| {
            if current.object.resource_version() != quota.resource_version() {
                let why = "the object has been modified";
                return Err(Status::conflict(&storage.def().group_resource(), name, why));
            }
            let mut object = current.object.clone();
            if let Some(status) = quota.get("status") {
                object.insert("status", status.clone());
            }
            Ok(Update::Put(object.into_value()))
        };
        Ok(Arc::new(storage.guaranteed_update(&key, name, set_status).await?.stored.object))
    }
}

/// Creates namespaces.
struct NamespaceWriter(Arc<ResourceStorage>);

#[async_trait]
impl NamespaceCreator for NamespaceWriter {
    async fn create(&self, namespace: Object) -> Result<(), Status> {
        let (storage, name) = (&self.0, namespace.name().to_owned());
        let def = storage.def();
        let key = storage_key(def, None, &name).map_err(|error| Status::bad_request(error.to_string()))?;
        let mut object = namespace.into_value();
        lifecycle::before_create(def, &mut object, "", time::now())?;
        def.strategy.default(&mut object, "v1");
        def.strategy.prepare_for_create(&mut object);
        def.strategy.canonicalize(&mut object);
        let revision = storage.create(&key, &name, &mut object).await?;
        storage.wait_until(revision).await
    }
}
