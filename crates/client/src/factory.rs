//! [`SharedInformerFactory`]: one informer a resource in a process.

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

/// Where objects come from: lists and watches of any resource.
pub trait Source: Send + Sync + 'static {
    /// A list and a watch of a resource. Whether there is such a resource, its answers tell.
    fn lister_watcher(&self, resource: &GroupVersionResource, scope: &Scope) -> Arc<dyn ListerWatcher>;
}

/// An API server, over HTTP.
impl Source for kube::Client {
    fn lister_watcher(&self, resource: &GroupVersionResource, scope: &Scope) -> Arc<dyn ListerWatcher> {
        Arc::new(HttpListerWatcher::new(self.clone(), resource, scope))
    }
}

/// The watch caches of the server that runs in this process, as the function finds them by resource. It is asked at
/// each list and watch, so that resources may come and go.
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

/// Makes informers, one a resource, and runs them. A pointer; clones are the same factory.
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

/// What is the same for all informers of a factory.
#[derive(Clone, Debug)]
pub struct FactoryConfig {
    /// Only objects of this namespace; empty for all.
    pub namespace: String,
    /// How often handlers are told of all objects again, where they do not say themselves.
    pub resync: Option<Duration>,
    /// How long informers wait after failures.
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
    /// A factory of informers of all namespaces, with client-go's timing.
    pub fn new(source: impl Source) -> Self {
        Self::with_config(source, FactoryConfig::default())
    }

    /// A factory with its own settings.
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

    /// The informer of `K`, made if there is none. It runs from the next [`start`](Self::start) on.
    pub fn informer<K>(&self) -> SharedInformer<K>
    where
        K: kube::Resource<DynamicType = ()> + 'static,
    {
        self.entry(&resource_of::<K>(), false).cast()
    }

    /// The informer of a resource, its objects read as values.
    pub fn for_resource(&self, resource: &GroupVersionResource) -> SharedInformer<Value> {
        self.entry(resource, false)
    }

    /// An informer of the metadata of a resource's objects: the one of whole objects if there is one already, else one
    /// that asks for no more than metadata.
    pub fn metadata_for_resource(
        &self,
        resource: &GroupVersionResource,
    ) -> SharedInformer<PartialObjectMetadata> {
        self.entry(resource, true).cast()
    }

    /// Runs the informers that do not run yet. Must be called within a Tokio runtime.
    pub fn start(&self) {
        for entry in self.shared.informers.lock().values_mut().filter(|entry| !entry.is_started) {
            entry.is_started = true;
            let (informer, stop) = (entry.informer.clone(), entry.stop.clone());
            self.shared.tasks.spawn(async move { informer.run(stop).await });
        }
    }

    /// Waits until all informers that there are now have synced.
    pub async fn wait_for_cache_sync(&self) {
        let informers: Vec<_> =
            self.shared.informers.lock().values().map(|entry| entry.informer.clone()).collect();
        join_all(informers.iter().map(SharedInformer::wait_for_sync)).await;
    }

    /// Stops the informers of a resource and forgets them: for resources that are no more.
    pub fn stop_informer(&self, resource: &GroupVersionResource) {
        let mut informers = self.shared.informers.lock();
        for metadata_only in [false, true] {
            if let Some(entry) = informers.remove(&(resource.clone(), metadata_only)) {
                entry.stop.cancel();
            }
        }
    }

    /// The resources that have an informer.
    pub fn resources(&self) -> Vec<GroupVersionResource> {
        self.shared.informers.lock().keys().map(|(resource, _)| resource.clone()).collect()
    }

    /// Stops all informers and waits until they and their handlers have ended.
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

/// The resource of a type.
pub fn resource_of<K: kube::Resource<DynamicType = ()>>() -> GroupVersionResource {
    GroupVersionResource::new(K::group(&()), K::version(&()), K::plural(&()))
}
