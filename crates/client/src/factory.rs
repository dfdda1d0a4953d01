//! [`SharedInformerFactory`]: one informer per resource in a process.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use nave_cacher::Cacher;
use nave_machinery::{GroupVersionResource, Value};
use nave_supervisor::Supervisor;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::HttpListerWatcher;
use crate::in_process::CacherListerWatcher;
use crate::list_watch::Scope;
use crate::{Backoff, InformerConfig, ListerWatcher, PartialObjectMetadata, SharedInformer};

/// Lists and watches any resource.
pub trait Source: Send + Sync + 'static {
    /// Returns the lister and watcher for a resource. If the resource does not exist, its requests fail.
    fn lister_watcher(&self, resource: &GroupVersionResource, scope: &Scope) -> Arc<dyn ListerWatcher>;
}

/// Lists and watches an API server over HTTP.
impl Source for kube::Client {
    fn lister_watcher(&self, resource: &GroupVersionResource, scope: &Scope) -> Arc<dyn ListerWatcher> {
        Arc::new(HttpListerWatcher::new(self.clone(), resource, scope))
    }
}

/// Lists and watches the watch caches of the server in this process. The function looks up the cache for each
/// request, so resources can be added and removed.
pub struct InProcess<F>(pub F);

impl<F> Source for InProcess<F>
where
    F: Fn(&GroupVersionResource) -> Option<Arc<Cacher>> + Clone + Send + Sync + 'static,
{
    fn lister_watcher(&self, resource: &GroupVersionResource, scope: &Scope) -> Arc<dyn ListerWatcher> {
        let (find, resource) = (self.0.clone(), resource.clone());
        Arc::new(CacherListerWatcher::finding(move || find(&resource), scope))
    }
}

/// Creates and runs informers, one per resource. Clones share them.
#[derive(Clone)]
pub struct SharedInformerFactory {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<dyn Source>,
    config: FactoryConfig,
    informers: Mutex<HashMap<(GroupVersionResource, bool), Entry>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Entry {
    informer: SharedInformer,
    is_started: bool,
    stop: CancellationToken,
}

/// The settings of all informers of a factory.
#[derive(Clone, Debug)]
pub struct FactoryConfig {
    /// The namespace of the informers; empty for all namespaces.
    pub namespace: String,
    /// The default resync interval of handlers.
    pub resync: Option<Duration>,
    /// The backoff after failures.
    pub backoff: Backoff,
    /// Restarts the informers' tasks if they panic.
    pub supervisor: Supervisor,
}

impl Default for FactoryConfig {
    fn default() -> Self {
        Self {
            namespace: String::new(),
            resync: None,
            backoff: Backoff::REFLECTOR,
            supervisor: Supervisor::new(),
        }
    }
}

impl SharedInformerFactory {
    /// Creates a factory for all namespaces, with client-go's timing.
    pub fn new(source: impl Source) -> Self {
        Self::with_config(source, FactoryConfig::default())
    }

    /// Creates a factory with these settings.
    pub fn with_config(source: impl Source, config: FactoryConfig) -> Self {
        let shared = Shared {
            source: Arc::new(source),
            config,
            informers: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the informer for `K`, and creates it if needed. A new informer runs after the next
    /// [`start`](Self::start).
    pub fn informer<K>(&self) -> SharedInformer<K>
    where
        K: kube::Resource<DynamicType = ()> + 'static,
    {
        self.entry(&resource_of::<K>(), false).cast()
    }

    /// Returns the informer of a resource, with untyped objects.
    pub fn for_resource(&self, resource: &GroupVersionResource) -> SharedInformer<Value> {
        self.entry(resource, false)
    }

    /// Returns an informer of a resource's metadata: the informer of whole objects if it exists, otherwise an
    /// informer that requests metadata only.
    pub fn metadata_for_resource(
        &self,
        resource: &GroupVersionResource,
    ) -> SharedInformer<PartialObjectMetadata> {
        self.entry(resource, true).cast()
    }

    /// Starts the informers that have not been started. Must be called within a Tokio runtime.
    pub fn start(&self) {
        for entry in self.shared.informers.lock().values_mut().filter(|entry| !entry.is_started) {
            entry.is_started = true;
            let (informer, stop) = (entry.informer.clone(), entry.stop.clone());
            self.shared.tasks.spawn(async move { informer.run(stop).await });
        }
    }

    /// Waits until all current informers have synced.
    pub async fn wait_for_cache_sync(&self) {
        let informers: Vec<_> =
            self.shared.informers.lock().values().map(|entry| entry.informer.clone()).collect();
        join_all(informers.iter().map(SharedInformer::wait_for_sync)).await;
    }

    /// Stops and removes the informers of a resource, for example because it no longer exists.
    pub fn stop_informer(&self, resource: &GroupVersionResource) {
        let mut informers = self.shared.informers.lock();
        for metadata_only in [false, true] {
            if let Some(entry) = informers.remove(&(resource.clone(), metadata_only)) {
                entry.stop.cancel();
            }
        }
    }

    /// Returns the resources that have an informer.
    pub fn resources(&self) -> Vec<GroupVersionResource> {
        self.shared.informers.lock().keys().map(|(resource, _)| resource.clone()).collect()
    }

    /// Stops all informers, and waits until they and their handlers have stopped.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn entry(&self, resource: &GroupVersionResource, metadata_only: bool) -> SharedInformer {
        let mut informers = self.shared.informers.lock();
        if let Some(whole) = informers.get(&(resource.clone(), false)).filter(|_| metadata_only) {
            return whole.informer.clone();
        }
        let entry = informers.entry((resource.clone(), metadata_only));
        entry.or_insert_with(|| self.shared.make(resource, metadata_only)).informer.clone()
    }
}

impl Shared {
    fn make(&self, resource: &GroupVersionResource, metadata_only: bool) -> Entry {
        let FactoryConfig { namespace, resync, backoff, supervisor } = self.config.clone();
        let scope = Scope { namespace, metadata_only, ..Scope::default() };
        let source = self.source.lister_watcher(resource, &scope);
        let name = resource.group_resource().to_string();
        let config = InformerConfig { name: name.into(), backoff, resync, supervisor };
        let informer = SharedInformer::new(source, config);
        Entry { informer, is_started: false, stop: self.stop.child_token() }
    }
}

impl fmt::Debug for SharedInformerFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedInformerFactory").field("resources", &self.resources()).finish_non_exhaustive()
    }
}

/// Returns the resource of a type.
pub fn resource_of<K: kube::Resource<DynamicType = ()>>() -> GroupVersionResource {
    GroupVersionResource::new(K::group(&()), K::version(&()), K::plural(&()))
}
