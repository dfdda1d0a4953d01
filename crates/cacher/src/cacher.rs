//! The cache of one resource, as its users see it.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use nave_store::Store;
use nave_supervisor::Supervisor;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::log::Log;
use crate::memo::EncodingBudget;
use crate::object::Decoder;
use crate::reflector::Reflector;
use crate::state::{Layout, Snapshot, State};
use crate::stats::{Introspection, Stats};
use crate::waits::Waits;
use crate::watcher::{WatchError, WatchRequest, Watcher};
use crate::window::WindowBounds;

/// What one resource's cache is to know and to hold.
#[derive(Clone, Debug)]
pub struct CacherConfig {
    /// The resource's name, for logs and metrics (`pods`, `deployments.apps`).
    pub resource: Arc<str>,
    /// Where its objects lie in the store, with a slash at the end (`/registry/pods/`).
    pub prefix: Arc<str>,
    /// Whether keys have a namespace before the name.
    pub namespaced: bool,
    /// Which of the selectable fields (by position in [`Attributes`](crate::Attributes)) get an index. An index
    /// costs about 60 bytes an object.
    pub indexed_fields: Vec<usize>,
    /// How much history is kept.
    pub window: WindowBounds,
    /// Objects asked of the store at once by the initial list.
    pub page_size: usize,
    /// Past states kept for further pages of lists.
    pub kept_snapshots: usize,
    /// Room for encodings of objects made on demand; may be shared by several caches.
    pub encodings: Arc<EncodingBudget>,
    /// Room for frames of the latest events; may be shared by several caches.
    pub frames: Arc<EncodingBudget>,
    /// Restarts the cache's task if it panics; may be shared by several caches.
    pub supervisor: Supervisor,
}

impl CacherConfig {
    /// The defaults: no index, pages of 10,000, 32 past states, 16 MiB each of encodings and frames.
    pub fn new(resource: impl Into<Arc<str>>, prefix: impl Into<Arc<str>>, namespaced: bool) -> Self {
        Self {
            resource: resource.into(),
            prefix: prefix.into(),
            namespaced,
            indexed_fields: Vec::new(),
            window: WindowBounds::default(),
            page_size: 10_000,
            kept_snapshots: 32,
            encodings: EncodingBudget::new(16 << 20),
            frames: EncodingBudget::new(16 << 20),
            supervisor: Supervisor::new(),
        }
    }
}

/// The watch cache of one resource. Dropping it ends its task and its watchers.
#[derive(Debug)]
pub struct Cacher {
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// The cache is behind the revision asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Too large resource version: {requested}, current: {current}")]
pub struct TooLarge {
    /// The revision asked for.
    pub requested: u64,
    /// The revision the cache has reached; 0 where it is not ready.
    pub current: u64,
}

/// What the task, readers and watchers have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: CacherConfig,
    pub(crate) layout: Arc<Layout>,
    pub(crate) log: RwLock<Log>,
    pub(crate) stats: Stats,
    /// The log's revision, for those who wait for one.
    pub(crate) progress: watch::Sender<u64>,
    /// The revisions that readers wait for.
    pub(crate) waits: Waits,
}

impl Cacher {
    /// Starts to fold the resource's part of `store`. Must be called within a Tokio runtime.
    pub fn start(config: CacherConfig, store: Arc<dyn Store>, decoder: Arc<dyn Decoder>) -> Arc<Self> {
        let layout = Arc::new(Layout {
            prefix: Arc::clone(&config.prefix),
            namespaced: config.namespaced,
            indexed_fields: config.indexed_fields.clone().into(),
        });
        let state = State::new(Arc::clone(&layout));
        let shared = Arc::new(Shared {
            log: RwLock::new(Log::new(state, config.window, Arc::clone(&config.frames))),
            layout,
            stats: Stats::default(),
            progress: watch::Sender::new(0),
            waits: Waits::default(),
            config,
        });
        let reflector = Arc::new(Reflector::new(Arc::clone(&shared), store, decoder));
        let (supervisor, resource) = (shared.config.supervisor.clone(), Arc::clone(&shared.config.resource));
        let reflect = async move {
            // Each run lists the store: nothing of a state that a panic left half changed remains.
            let run = || Arc::clone(&reflector).run();
            match supervisor.supervise("watch cache", &resource, run).await {}
        };
        Arc::new(Self { shared, task: tokio::spawn(reflect).abort_handle() })
    }

    /// What the cache was started with.
    pub fn config(&self) -> &CacherConfig {
        &self.shared.config
    }

    /// Whether the initial list is complete.
    pub fn is_ready(&self) -> bool {
        self.revision() > 0
    }

    /// Waits for the initial list.
    pub async fn wait_ready(&self) {
        // An error would mean that the sender is gone; we hold it.
        let _ = self.shared.progress.subscribe().wait_for(|&revision| revision > 0).await;
    }

    /// The revision up to which the cache is complete; 0 before it is ready.
    pub fn revision(&self) -> u64 {
        *self.shared.progress.borrow()
    }

    /// Waits until the cache has reached `revision`, for at most `timeout`. Meanwhile the store is asked for
    /// progress, once for all who wait, so that writes to other resources alone do not hold a reader up.
    pub async fn wait_until(&self, revision: u64, timeout: Duration) -> Result<(), TooLarge> {
        if self.revision() >= revision.max(1) {
            if revision > 0 {
                self.shared.stats.read_waits.observe(0.0);
            }
            return Ok(());
        }
        let started = Instant::now();
        let _waiting = self.shared.waits.enter(revision);
        let mut progress = self.shared.progress.subscribe();
        let reached = progress.wait_for(|&reached| reached >= revision.max(1));
        let in_time = matches!(tokio::time::timeout(timeout, reached).await, Ok(Ok(_)));
        self.shared.stats.read_waits.observe_time(started.elapsed());
        if in_time { Ok(()) } else { Err(TooLarge { requested: revision, current: self.revision() }) }
    }

    /// The present state, in O(1). Empty at revision 0 before the cache is ready.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.log.read().snapshot()
    }

    /// The state as of exactly `revision`; `None` where memory does not reach back that far (or the revision is
    /// yet to come), so that the store has to be asked. The state is kept for a while, for the next page.
    pub fn snapshot_at(&self, revision: u64) -> Option<Snapshot> {
        let (mut state, events) = self.shared.log.read().way_back(revision, MAX_UNDONE)?;
        for event in &events {
            Arc::make_mut(&mut state).undo(event);
        }
        let snapshot = Snapshot::new(revision, state);
        if !events.is_empty() {
            self.keep(&snapshot);
        }
        self.shared.stats.past_snapshots.add(1);
        Some(snapshot)
    }

    /// Keeps `snapshot` for [`snapshot_at`](Self::snapshot_at): to be called when a continue token for it is
    /// handed out. Kept are a bounded number of them, while their revisions lie in the window.
    pub fn keep(&self, snapshot: &Snapshot) {
        let evicted = self.shared.log.write().keep(snapshot, self.shared.config.kept_snapshots);
        // Large: released here, after the lock.
        drop(evicted);
    }

    /// Starts a watch. Before the cache is ready there is no history: every start is expired.
    pub fn watch(&self, request: WatchRequest) -> Result<Watcher, WatchError> {
        Watcher::start(Arc::clone(&self.shared), request)
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Whether the store has something at `key` that cannot be decoded.
    pub fn is_undecodable(&self, key: &str) -> bool {
        self.shared.log.read().undecodable.contains(key)
    }

    /// The keys under `prefix` of what is stored and cannot be decoded.
    pub fn undecodable(&self, prefix: &str) -> Vec<Arc<str>> {
        let log = self.shared.log.read();
        log.undecodable
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|key| key.starts_with(prefix))
            .cloned()
            .collect()
    }

    /// A description for the administrator.
    pub fn introspect(&self) -> Introspection {
        let log = self.shared.log.read();
        Introspection {
            resource: Arc::clone(&self.shared.config.resource),
            revision: log.revision,
            objects: log.state.objects().len(),
            bytes: log.state.bytes(),
            window: log.window.introspect(),
            kept_snapshots: log.kept(),
            watchers: log.buckets.census().map(|(route, count)| (route.clone(), count)).collect(),
            undecodable: log.undecodable.iter().take(UNDECODABLE_NAMED).cloned().collect(),
        }
    }

    /// Forgets all encodings made on demand, for when memory is short.
    pub fn shed_encodings(&self) {
        let (snapshot, events) = {
            let log = self.shared.log.read();
            (log.snapshot(), log.window.events().cloned().collect::<Vec<_>>())
        };
        for object in snapshot.range("", None) {
            object.shed();
        }
        for event in &events {
            event.shed();
        }
    }
}

impl Drop for Cacher {
    fn drop(&mut self) {
        self.task.abort();
        let aftermath = self.shared.log.write().close();
        aftermath.settle();
    }
}

/// Events undone at most to get to a past state: some tens of milliseconds.
const MAX_UNDONE: usize = 20_000;

/// Undecodable keys that an introspection names.
const UNDECODABLE_NAMED: usize = 16;
