//! [`SharedInformer`]: shares one watch and one cache of a resource.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use nave_supervisor::Supervisor;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::delivery::{Delivery, Notification};
use crate::handler::Typed;
use crate::reflector::{ReflectorConfig, ReflectorStore, WatchErrorHandler};
use crate::store::IndexFn;
use crate::{
    Backoff, Delta, DeltaFifo, Deltas, EventHandler, Indexer, Lister, ListerWatcher, Object, ObjectName,
    Reflector,
};

/// Transforms an object before it is cached, for example to drop unused fields.
pub type TransformFn<K = nave_machinery::Value> = dyn Fn(Object<K>) -> Object<K> + Send + Sync;

/// One reflector, one cache, and any number of handlers. Clones share them.
///
/// The informer is idle until [`run`](Self::run) is called. Read the cache with [`lister`](Self::lister), and
/// receive events with [handlers](Self::add_event_handler). The cache is always at least as new as the delivered
/// events.
pub struct SharedInformer<K = nave_machinery::Value> {
    core: Arc<Core>,
    kind: PhantomData<fn() -> K>,
}

/// The settings of an informer.
#[derive(Clone, Debug)]
pub struct InformerConfig {
    /// The resource, for logs.
    pub name: Arc<str>,
    /// The backoff of the reflector.
    pub backoff: Backoff,
    /// The default resync interval of handlers; `None` disables resyncs.
    pub resync: Option<Duration>,
    /// Restarts the informer's tasks if they panic. Several informers can share a supervisor.
    pub supervisor: Supervisor,
}

impl InformerConfig {
    /// Creates a configuration with client-go's backoff and no resync.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), backoff: Backoff::REFLECTOR, resync: None, supervisor: Supervisor::new() }
    }
}

/// A registered handler.
#[derive(Clone)]
pub struct Registration {
    core: Arc<Core>,
    delivery: Arc<Delivery>,
    synced: watch::Receiver<bool>,
}

struct Core {
    source: Arc<dyn ListerWatcher>,
    cache: Arc<Indexer>,
    queue: Arc<DeltaFifo>,
    config: InformerConfig,
    /// Locked while a change is applied to the cache and sent to the handlers, so that a new handler misses no
    /// event.
    handlers: Mutex<Handlers>,
    settings: Mutex<Settings>,
    synced: watch::Sender<bool>,
    reflector: Mutex<Option<Arc<Reflector>>>,
}

#[derive(Default)]
struct Settings {
    transform: Option<Arc<TransformFn>>,
    on_error: Option<Arc<WatchErrorHandler>>,
}

#[derive(Default)]
struct Handlers {
    all: Vec<Handler>,
    /// The running deliveries, or `None` before the informer runs.
    running: Option<Running>,
}

struct Handler {
    delivery: Arc<Delivery>,
    resync: Option<Resync>,
    /// True if the current resync includes this handler.
    is_syncing: bool,
}

struct Resync {
    interval: Duration,
    next: Instant,
}

struct Running {
    name: Arc<str>,
    supervisor: Supervisor,
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl<K: 'static> SharedInformer<K> {
    /// Creates an informer of `source`.
    pub fn new(source: Arc<dyn ListerWatcher>, config: InformerConfig) -> Self {
        let cache = Arc::new(Indexer::new());
        let core = Core {
            source,
            queue: Arc::new(DeltaFifo::new(Arc::clone(&cache))),
            cache,
            config,
            handlers: Mutex::default(),
            settings: Mutex::default(),
            synced: watch::Sender::new(false),
            reflector: Mutex::default(),
        };
        Self { core: Arc::new(core), kind: PhantomData }
    }

    /// Converts to an informer with another object type.
    pub fn cast<L>(&self) -> SharedInformer<L> {
        SharedInformer { core: Arc::clone(&self.core), kind: PhantomData }
    }

    /// Returns a reader of the cache.
    pub fn lister(&self) -> Lister<K> {
        Lister::new(Arc::clone(&self.core.cache))
    }

    /// Adds an index to the cache, or replaces the index with this name. `function` returns the index values of an
    /// object.
    pub fn add_index(
        &self,
        name: &str,
        function: impl Fn(&Object<K>) -> Vec<String> + Send + Sync + 'static,
    ) {
        let function: Arc<IndexFn> = Arc::new(move |object: &Object| function(&object.clone().cast()));
        self.core.cache.add_index(name, function);
    }

    /// Adds a handler. If the informer is running, the handler first receives all cached objects as the initial
    /// list.
    pub fn add_event_handler(&self, handler: impl EventHandler<K>) -> Registration {
        self.add_event_handler_with_resync(handler, self.core.config.resync)
    }

    /// Adds a handler with a resync interval. If the informer is running, the interval is rounded up to a multiple
    /// of the shortest interval at its start.
    pub fn add_event_handler_with_resync(
        &self,
        handler: impl EventHandler<K>,
        resync: Option<Duration>,
    ) -> Registration {
        self.core.add_handler(Arc::new(Typed(handler, PhantomData)), resync)
    }

    /// Sets a function that transforms objects before they are cached. Must be called before the informer runs.
    pub fn set_transform(&self, transform: impl Fn(Object<K>) -> Object<K> + Send + Sync + 'static) {
        let transform = move |object: Object| transform(object.cast()).cast();
        self.core.settings.lock().transform = Some(Arc::new(transform));
    }

    /// Sets a callback for failed lists and watches. Must be called before the informer runs.
    pub fn set_watch_error_handler(&self, on_error: Arc<WatchErrorHandler>) {
        self.core.settings.lock().on_error = Some(on_error);
    }

    /// Returns whether the cache has all objects of the first list. Handlers may lag behind; see
    /// [`Registration::has_synced`].
    pub fn has_synced(&self) -> bool {
        *self.core.synced.borrow()
    }

    /// Waits until [`has_synced`](Self::has_synced) returns true.
    pub async fn wait_for_sync(&self) {
        // Cannot fail: `self` holds the sender.
        let _ = self.core.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Returns the version up to which all events are queued or cached; empty before the first list.
    pub fn last_sync_resource_version(&self) -> String {
        self.core
            .reflector
            .lock()
            .as_ref()
            .map(|reflector| reflector.last_sync_resource_version())
            .unwrap_or_default()
    }

    /// Runs until `stop` is cancelled, and returns when all handlers have stopped. An informer runs only once;
    /// later calls return immediately.
    pub async fn run(&self, stop: CancellationToken) {
        Core::run(&self.core, stop).await;
    }
}

impl<K> Clone for SharedInformer<K> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), kind: PhantomData }
    }
}

impl<K> fmt::Debug for SharedInformer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedInformer").field("name", &self.core.config.name).finish_non_exhaustive()
    }
}

impl Registration {
    /// Returns whether the handler has been called with all objects of the initial list.
    pub fn has_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until [`has_synced`](Self::has_synced) returns true.
    pub async fn wait_for_sync(&self) {
        let _ = self.synced.clone().wait_for(|synced| *synced).await;
    }

    /// Removes the handler. A call in progress may still complete.
    pub fn remove(&self) {
        self.delivery.stop();
        self.core.handlers.lock().all.retain(|handler| !Arc::ptr_eq(&handler.delivery, &self.delivery));
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("has_synced", &self.has_synced()).finish_non_exhaustive()
    }
}

impl Core {
    async fn run(core: &Arc<Self>, stop: CancellationToken) {
        let Some(tasks) = core.start(&stop) else { return };
        let reflector = core.reflector();
        // Lists after each restart, as the comparison finds changes that a panic lost.
        let work = || async {
            let reflect = async {
                reflector.run(&stop).await;
                core.queue.close();
            };
            tokio::join!(reflect, core.process());
        };
        let InformerConfig { name, supervisor, .. } = &core.config;
        tokio::join!(
            supervisor.supervise("informer", name, work),
            stop.run_until_cancelled(core.mark_synced())
        );
        tasks.close();
        tasks.wait().await;
    }

    fn reflector(self: &Arc<Self>) -> Arc<Reflector> {
        let settings = self.settings.lock();
        let config = ReflectorConfig {
            backoff: self.config.backoff,
            resync: self.shortest_resync(),
            on_error: settings.on_error.clone(),
            ..ReflectorConfig::new(Arc::clone(&self.config.name))
        };
        let intake = Intake { core: Arc::downgrade(self), transform: settings.transform.clone() };
        let reflector = Arc::new(Reflector::new(Arc::clone(&self.source), Arc::new(intake), config));
        *self.reflector.lock() = Some(Arc::clone(&reflector));
        reflector
    }

    /// Starts the deliveries. Returns `None` if they have already been started.
    fn start(&self, stop: &CancellationToken) -> Option<TaskTracker> {
        let mut handlers = self.handlers.lock();
        if handlers.running.is_some() {
            return None;
        }
        let tasks = TaskTracker::new();
        let running = Running {
            name: Arc::clone(&self.config.name),
            supervisor: self.config.supervisor.clone(),
            runtime: Handle::current(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        handlers.all.iter().for_each(|handler| running.spawn(&handler.delivery));
        handlers.running = Some(running);
        Some(tasks)
    }

    /// Applies queued changes to the cache and sends them to the handlers until the queue is closed.
    async fn process(&self) {
        let mut done = 0_usize;
        while self.queue.pop(|deltas| self.process_deltas(deltas)).await.is_some() {
            done += 1;
            let pauses = done.is_multiple_of(PROCESSED_AT_ONCE);
            // Wakes handlers once per batch.
            if pauses || self.queue.is_empty() {
                self.handlers.lock().all.iter().for_each(|handler| handler.delivery.wake());
            }
            if pauses {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Marks the informer as synced when the first list is in the cache.
    async fn mark_synced(&self) {
        self.queue.wait_for_sync().await;
        let handlers = self.handlers.lock();
        self.synced.send_replace(true);
        for handler in &handlers.all {
            handler.delivery.complete_initial();
        }
    }

    fn process_deltas(&self, deltas: Deltas) {
        let handlers = self.handlers.lock();
        for delta in deltas.deltas {
            self.process_delta(&handlers, &deltas.key, delta, deltas.is_in_initial_list);
        }
    }

    fn process_delta(&self, handlers: &Handlers, key: &ObjectName, delta: Delta, initial: bool) {
        match delta {
            Delta::Deleted(deleted) => {
                self.cache.remove(key);
                handlers.send(false, &Notification::Delete(deleted));
            }
            Delta::Sync(object) => {
                handlers.send(true, &Notification::Update { old: object.clone(), new: object });
            }
            Delta::Added(object) | Delta::Updated(object) => self.put(handlers, object, false, initial),
            Delta::Replaced(object) => self.put(handlers, object, true, initial),
        }
    }

    fn put(&self, handlers: &Handlers, object: Object, is_replaced: bool, initial: bool) {
        match self.cache.put(object.clone()) {
            None => handlers.send(false, &Notification::Add { object, initial }),
            Some(old) => {
                // Most objects in a list are unchanged; these are sent like a resync.
                let is_sync = is_replaced && old.is_same_version(&object);
                handlers.send(is_sync, &Notification::Update { old, new: object });
            }
        }
    }

    fn add_handler(
        self: &Arc<Self>,
        handler: Arc<dyn EventHandler>,
        resync: Option<Duration>,
    ) -> Registration {
        let delivery = Arc::new(Delivery::new(handler));
        let mut handlers = self.handlers.lock();
        for object in self.cache.list() {
            delivery.send(Notification::Add { object, initial: true });
        }
        if *self.synced.borrow() {
            delivery.complete_initial();
        }
        if let Some(running) = &handlers.running {
            running.spawn(&delivery);
        }
        let resync = resync.map(|interval| Resync { interval, next: Instant::now() + interval });
        handlers.all.push(Handler { delivery: Arc::clone(&delivery), resync, is_syncing: false });
        Registration { core: Arc::clone(self), synced: delivery.synced(), delivery }
    }

    fn shortest_resync(&self) -> Option<Duration> {
        let handlers = self.handlers.lock();
        let intervals = handlers.all.iter().filter_map(|handler| Some(handler.resync.as_ref()?.interval));
        intervals.chain(self.config.resync).min()
    }
}

impl Handlers {
    /// Sends a notification to all handlers. For a resync, only sends it to the handlers that are due.
    fn send(&self, is_sync: bool, notification: &Notification) {
        for handler in self.all.iter().filter(|handler| !is_sync || handler.is_syncing) {
            handler.delivery.send(notification.clone());
        }
    }

    /// Marks the handlers that are due for a resync. Returns whether any handler is due.
    fn begin_resync(&mut self) -> bool {
        let now = Instant::now();
        for handler in &mut self.all {
            let due = handler.resync.as_mut().filter(|resync| resync.next <= now);
            handler.is_syncing = due.is_some();
            if let Some(resync) = due {
                resync.next = now + resync.interval;
            }
        }
        self.all.iter().any(|handler| handler.is_syncing)
    }
}

impl Running {
    fn spawn(&self, delivery: &Arc<Delivery>) {
        if delivery.is_stopped() {
            return;
        }
        let (name, supervisor) = (Arc::clone(&self.name), self.supervisor.clone());
        let (delivery, stop) = (Arc::clone(delivery), self.stop.clone());
        let deliver = async move {
            supervisor.supervise("event handler delivery", &name, || delivery.run(&stop)).await;
        };
        self.tasks.spawn_on(deliver, &self.runtime);
    }
}

/// The store of the reflector. Applies the transform and fills the queue.
struct Intake {
    core: std::sync::Weak<Core>,
    transform: Option<Arc<TransformFn>>,
}

impl Intake {
    fn with(&self, object: Object, put: impl FnOnce(&DeltaFifo, Object)) {
        if let Some(core) = self.core.upgrade() {
            put(&core.queue, self.transformed(object));
        }
    }

    fn transformed(&self, object: Object) -> Object {
        match &self.transform {
            Some(transform) => transform(object),
            None => object,
        }
    }
}

#[async_trait::async_trait]
impl ReflectorStore for Intake {
    fn add(&self, object: Object) {
        self.with(object, ReflectorStore::add);
    }

    fn update(&self, object: Object) {
        self.with(object, ReflectorStore::update);
    }

    fn delete(&self, object: Object) {
        self.with(object, ReflectorStore::delete);
    }

    fn replace(&self, objects: Vec<Object>, resource_version: &str) {
        let Some(core) = self.core.upgrade() else { return };
        let objects = objects.into_iter().map(|object| self.transformed(object)).collect();
        core.queue.replace(objects, resource_version);
    }

    fn resync(&self) {
        let Some(core) = self.core.upgrade() else { return };
        if core.handlers.lock().begin_resync() {
            core.queue.resync();
        }
    }

    async fn wait_for_capacity(&self) {
        if let Some(core) = self.core.upgrade() {
            core.queue.wait_for_capacity().await;
        }
    }
}

/// The number of objects processed before other tasks get a turn.
const PROCESSED_AT_ONCE: usize = 128;
