//! Public API of the cache of one resource.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::reflector::StoreReflector;
use crate::state::{Layout, Snapshot, State};
use crate::stats::{Introspection, Stats};
use crate::waits::Waits;
use crate::watcher::{WatchError, WatchRequest, Watcher};
use crate::window::WindowBounds;

/// Configuration of one resource's cache.
#[derive(Clone, Debug)]
pub struct CacherConfig {
    /// The resource's name, for logs and metrics (`pods`, `deployments.apps`).
    pub resource: Arc<str>,
    /// Prefix of the resource's keys in the store, ending with a slash (`/registry/pods/`).
    pub prefix: Arc<str>,
    /// True if keys contain a namespace before the name.
    pub namespaced: bool,
    /// Selectable fields to index, by position in [`SelectableAttributes`](crate::SelectableAttributes). An index costs
    /// about 60 bytes per object.
    pub indexed_fields: Vec<usize>,
    /// Limits of the history.
    pub window: WindowBounds,
    /// Page size of the initial list.
    pub page_size: usize,
    /// Maximum number of past snapshots kept for later pages of lists.
    pub kept_snapshots: usize,
    /// Budget for encodings of objects. Several caches may share it.
    pub encodings: Arc<EncodingBudget>,
    /// Budget for frames of the latest events. Several caches may share it.
    pub frames: Arc<EncodingBudget>,
    /// Restarts the cache's task after a panic. Several caches may share it.
    pub supervisor: Supervisor,
    /// Keep the JSON of objects compressed, for resources with large objects that are rarely read.
    pub packed: bool,
}

impl CacherConfig {
    /// Returns the defaults: no index, pages of 10,000, 32 past snapshots, 16 MiB each for encodings and frames.
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
            packed: false,
        }
    }
}

/// The watch cache of one resource. Dropping it stops its task and ends its watchers.
#[derive(Debug)]
pub struct Cacher {
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// Error: the cache is behind the requested revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Too large resource version: {requested}, current: {current}")]
pub struct TooLarge {
    /// The requested revision.
    pub requested: u64,
    /// The current revision of the cache; 0 if it is not ready.
    pub current: u64,
}

/// State shared by the task, readers and watchers.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: CacherConfig,
    pub(crate) layout: Arc<Layout>,
    pub(crate) log: RwLock<Log>,
    pub(crate) stats: Stats,
    /// The log's revision, published for readers that wait for a revision.
    pub(crate) progress: watch::Sender<u64>,
    /// The revisions for which readers wait.
    pub(crate) waits: Waits,
    /// True while the list fails because a value cannot be decrypted, so that readers need not wait.
    pub(crate) blocked: AtomicBool,
}

impl Cacher {
    /// Starts to cache the resource from `store`. Must be called in a Tokio runtime.
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
            blocked: AtomicBool::new(false),
            config,
        });
        let reflector = Arc::new(StoreReflector::new(Arc::clone(&shared), store, decoder));
        let (supervisor, resource) = (shared.config.supervisor.clone(), Arc::clone(&shared.config.resource));
        let reflect = async move {
            // Each run starts with a list, so a panic leaves no partial state.
            let run = || Arc::clone(&reflector).run();
            match supervisor.supervise("watch cache", &resource, run).await {}
        };
        Arc::new(Self { shared, task: tokio::spawn(reflect).abort_handle() })
    }

    /// Returns the configuration of the cache.
    pub fn config(&self) -> &CacherConfig {
        &self.shared.config
    }

    /// Returns whether the initial list is complete.
    pub fn is_ready(&self) -> bool {
        self.revision() > 0
    }

    /// Waits for the initial list to complete.
    pub async fn wait_ready(&self) {
        // `wait_for` fails only if the sender is dropped; `self` holds it.
        let _ = self.shared.progress.subscribe().wait_for(|&revision| revision > 0).await;
    }

    /// Returns the revision up to which the cache is complete; 0 before it is ready.
    pub fn revision(&self) -> u64 {
        *self.shared.progress.borrow()
    }

    /// Waits at most `timeout` until the cache has reached `revision`; not at all while the cache cannot be filled because
    /// a value cannot be decrypted. Requests progress from the store once for all
    /// waiting readers, so that writes to other resources do not delay readers.
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
        let is_blocked = || self.shared.blocked.load(Ordering::Relaxed);
        let reached = progress.wait_for(|&reached| reached >= revision.max(1) || is_blocked());
        let in_time = match tokio::time::timeout(timeout, reached).await {
            Ok(Ok(reached)) => *reached >= revision.max(1),
            _ => false,
        };
        self.shared.stats.read_waits.observe_time(started.elapsed());
        if in_time { Ok(()) } else { Err(TooLarge { requested: revision, current: self.revision() }) }
    }

    /// Returns the current state in O(1). Before the cache is ready, the state is empty and has revision 0.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.log.read().snapshot()
    }

    /// Returns the state at exactly `revision` and keeps it for the next page. Returns `None` if memory does not reach
    /// back to the revision or the revision is in the future; the caller then reads from the store.
    pub fn snapshot_at(&self, revision: u64) -> Option<Snapshot> {
        let (mut state, events) = self.shared.log.read().undo_path(revision, MAX_UNDONE)?;
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

    /// Keeps `snapshot` for [`snapshot_at`](Self::snapshot_at). Called when a continue token for it is issued. Keeps a
    /// bounded number of snapshots, as long as their revisions are in the window.
    pub fn keep(&self, snapshot: &Snapshot) {
        let evicted = self.shared.log.write().keep(snapshot, self.shared.config.kept_snapshots);
        // Dropped after the lock is released, because the snapshot may be large.
        drop(evicted);
    }

    /// Forgets the states before `revision`, which the store has compacted: [`snapshot_at`](Self::snapshot_at) does not
    /// return them any more, so that all servers over a store serve the same states. Watches keep their history.
    pub fn forget_states_before(&self, revision: u64) {
        let forgotten = self.shared.log.write().forget_states_before(revision);
        // Dropped after the lock is released, because the snapshots may be large.
        drop(forgotten);
    }

    /// Starts a watch. Before the cache is ready it has no history, so every start fails as expired.
    pub fn watch(&self, request: WatchRequest) -> Result<Watcher, WatchError> {
        Watcher::start(Arc::clone(&self.shared), request)
    }

    /// Returns the counters.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Returns whether the object stored at `key` cannot be decoded.
    pub fn is_undecodable(&self, key: &str) -> bool {
        self.shared.log.read().undecodable.contains(key)
    }

    /// Returns the keys with `prefix` whose stored object cannot be decoded.
    pub fn undecodable(&self, prefix: &str) -> Vec<Arc<str>> {
        let log = self.shared.log.read();
        log.undecodable
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|key| key.starts_with(prefix))
            .cloned()
            .collect()
    }

    /// Returns a description of the state, for administrators.
    pub fn introspect(&self) -> Introspection {
        let log = self.shared.log.read();
        Introspection {
            resource: Arc::clone(&self.shared.config.resource),
            revision: log.revision,
            objects: log.state.objects().len(),
            bytes: log.state.bytes(),
            window: log.window.introspect(),
            kept_snapshots: log.kept_revisions(),
            watchers: log.buckets.watcher_counts().map(|(route, count)| (route.clone(), count)).collect(),
            undecodable: log.undecodable.iter().take(UNDECODABLE_NAMED).cloned().collect(),
        }
    }

    /// Drops all cached encodings to free memory.
    pub fn drop_encodings(&self) {
        let (snapshot, events) = {
            let log = self.shared.log.read();
            (log.snapshot(), log.window.events().cloned().collect::<Vec<_>>())
        };
        for object in snapshot.range("", None) {
            object.drop_encodings();
        }
        for event in &events {
            event.drop_encodings();
        }
    }
}

impl Cacher {
    /// Stops the task and ends all watchers. The state stays readable but no longer follows the store.
    pub fn stop(&self) {
        self.task.abort();
        let deferred = self.shared.log.write().close();
        deferred.run();
    }
}

impl Drop for Cacher {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Maximum number of events to undo to restore a past state. Undoing this many takes tens of milliseconds.
const MAX_UNDONE: usize = 20_000;

/// Maximum number of undecodable keys listed in an introspection.
const UNDECODABLE_NAMED: usize = 16;
