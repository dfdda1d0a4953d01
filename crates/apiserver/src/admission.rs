//! The cluster as admission plugins access it: listers over the watch caches, and the few writes that plugins make.

mod objects;
mod observe;
mod params;

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use lru::LruCache;
use nave_admission::expressions::Programs;
use nave_admission::matching::Matcher;
use nave_admission::{
    Chain, Cluster, Lister, Metrics, NamespaceCreator, Parts, Plugin, PluginConfig, QuotaStatus, Writers,
};
use nave_authz::rbac::Rbac;
use nave_cacher::CachedObject;
use nave_machinery::{GroupResource, GroupVersionResource, Object, Status, meta};
use nave_resources::{list_prefix, storage_key};
use nave_store::Range;
use nave_webhook::ClientManager;
use parking_lot::Mutex;

use self::objects::CatalogObjects;
pub use self::observe::follow_observed;
use self::params::CatalogParams;
use crate::catalog::Catalogs;
use crate::endpoints::Endpoint;
use crate::internal::InternalWriter;
use crate::storage::{Latest, ResourceStorage};

/// Maximum number of parsed objects cached per resource. Each write of a pod reads the same few objects.
const PARSED_KEPT: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// The configuration of the admission plugins.
pub struct AdmissionConfig {
    /// The enabled plugins and their configurations.
    pub plugins: PluginConfig,
    /// The roles and bindings for escalation checks.
    pub rbac: Arc<Rbac>,
    /// Plugins that the caller has constructed, by name.
    pub given: Vec<(&'static str, Plugin)>,
    /// `--default-not-ready-toleration-seconds`.
    pub default_not_ready_toleration_seconds: i64,
    /// `--default-unreachable-toleration-seconds`.
    pub default_unreachable_toleration_seconds: i64,
}

impl AdmissionConfig {
    /// Creates a configuration with the default tolerations and no plugins from the caller.
    pub fn new(plugins: PluginConfig, rbac: Arc<Rbac>) -> Self {
        Self {
            plugins,
            rbac,
            given: Vec::new(),
            default_not_ready_toleration_seconds: 300,
            default_unreachable_toleration_seconds: 300,
        }
    }

    /// Builds the admission chain for the served resources.
    ///
    /// # Errors
    /// The configuration of a plugin is invalid, or a resource that plugins read is not served.
    pub(crate) fn build(
        &self,
        catalogs: &Catalogs,
        authorizer: &nave_authz::Chain,
        webhooks: Arc<ClientManager>,
        metrics: Metrics,
    ) -> Result<Arc<Chain>, AdmissionError> {
        let (chain, catalog) = (LateChain::default(), catalogs.load());
        let storages = catalog.storages();
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
            quota_status: Arc::new(QuotaWriter {
                endpoint: Endpoint::for_storage(quotas, "v1"),
                chain: chain.clone(),
            }),
            namespace_creator: Arc::new(NamespaceWriter {
                endpoint: Endpoint::for_storage(namespaces, "v1"),
                chain: chain.clone(),
            }),
        };
        let lister = |resource: &GroupResource| -> Option<Arc<dyn Lister>> {
            Some(Arc::new(StorageLister::new(stored(&resource.group, &resource.resource)?)))
        };
        let cluster = Cluster::new(lister, writers, Arc::new(catalogs.clone()) as _)
            .map_err(AdmissionError::Missing)?;
        let interfaces = Arc::new(CatalogObjects(catalogs.clone()));
        let parts = Parts {
            matcher: Matcher::new(Arc::clone(&cluster.namespaces), Arc::clone(&interfaces) as _),
            interfaces,
            webhooks,
            programs: Programs::new(metrics.expressions().times().clone()),
            params: Arc::new(CatalogParams::new(catalogs.clone())),
            cluster,
            authorizer: authorizer.clone(),
            rbac: Arc::clone(&self.rbac),
            default_not_ready_toleration_seconds: self.default_not_ready_toleration_seconds,
            default_unreachable_toleration_seconds: self.default_unreachable_toleration_seconds,
        };
        let built = Arc::new(nave_admission::build(&parts, &self.plugins, &self.given, metrics)?);
        chain.set(&built);
        Ok(built)
    }
}

/// An error in building the admission chain.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// A resource that a plugin reads is not served.
    #[error(transparent)]
    Missing(nave_admission::MissingResource),
    /// The configuration of a plugin is invalid.
    #[error(transparent)]
    Config(#[from] nave_admission::ConfigError),
}

/// Lists the objects of a storage. A parsed object is cached while it is the latest version of its key.
struct StorageLister {
    storage: Arc<ResourceStorage>,
    parsed: Mutex<LruCache<Arc<str>, Parsed>>,
}

/// A parsed object and its revision.
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

/// The admission chain, available once it is built. Writes of plugins pass through it like all other writes.
#[derive(Clone, Default)]
struct LateChain(Arc<OnceLock<Weak<Chain>>>);

impl LateChain {
    fn set(&self, chain: &Arc<Chain>) {
        self.0.get_or_init(|| Arc::downgrade(chain));
    }

    fn get(&self) -> Result<Arc<Chain>, Status> {
        let chain = self.0.get().and_then(Weak::upgrade);
        chain.ok_or_else(|| Status::service_unavailable("the server is shutting down"))
    }
}

/// Writes the status of resource quotas.
struct QuotaWriter {
    endpoint: Endpoint,
    chain: LateChain,
}

#[async_trait]
impl QuotaStatus for QuotaWriter {
    async fn update_status(&self, quota: Object) -> Result<Arc<Object>, Status> {
        let chain = self.chain.get()?;
        let writer = InternalWriter::new(&self.endpoint, &chain);
        let stored = writer.replace_status(quota.into_value()).await?;
        Ok(Arc::new(Object::try_from(stored).map_err(Status::internal)?))
    }
}

/// Creates namespaces.
struct NamespaceWriter {
    endpoint: Endpoint,
    chain: LateChain,
}

#[async_trait]
impl NamespaceCreator for NamespaceWriter {
    async fn create(&self, namespace: Object) -> Result<(), Status> {
        let chain = self.chain.get()?;
        let stored = InternalWriter::new(&self.endpoint, &chain).create("", namespace.into_value()).await?;
        // Plugins admit the next object with the state of the watch cache, so wait until the namespace is in it.
        let revision = meta::resource_version(&stored).parse().unwrap_or(0);
        self.endpoint.storage()?.wait_until(revision).await
    }
}
