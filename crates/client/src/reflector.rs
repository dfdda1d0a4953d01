//! [`Reflector`]: copies a resource from a server into a store and keeps the store up to date.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use parking_lot::Mutex;
use rand::Rng;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Backoff;
use crate::backoff::BackoffTimer;
use crate::{
    ListOptions, ListWatchError, ListerWatcher, Object, WatchEvent, WatchOptions, WatchStart, WatchStream,
};

/// The store that a reflector fills: a cache, or the queue in front of a cache.
#[async_trait]
pub trait ReflectorStore: Send + Sync {
    /// Called when an object is created.
    fn add(&self, object: Object);

    /// Called when an object is changed.
    fn update(&self, object: Object);

    /// Called when an object is deleted, with its last state.
    fn delete(&self, object: Object);

    /// Replaces the objects with the complete list at this version.
    fn replace(&self, objects: Vec<Object>, resource_version: &str);

    /// Called when the resync interval has passed.
    fn resync(&self) {}

    /// Waits until the store can accept more events.
    async fn wait_for_capacity(&self) {}
}

/// A callback for failed lists and watches. Called before the backoff delay.
pub type WatchErrorHandler = dyn Fn(&ListWatchError) + Send + Sync;

/// The settings of a [`Reflector`].
#[derive(Clone)]
pub struct ReflectorConfig {
    /// The resource, for logs.
    pub name: Arc<str>,
    /// The backoff after failures.
    pub backoff: Backoff,
    /// The resync interval; `None` disables resyncs.
    pub resync: Option<Duration>,
    /// The page size of lists.
    pub page_size: u32,
    /// The minimum timeout of watches. The actual timeout is random and up to twice as long.
    pub min_watch_time: Duration,
    /// A callback for failures. Failures are also logged.
    pub on_error: Option<Arc<WatchErrorHandler>>,
}

impl ReflectorConfig {
    /// Creates client-go's settings: pages of 500 objects, watches of 5 to 10 minutes, no resync.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            backoff: Backoff::REFLECTOR,
            resync: None,
            page_size: 500,
            min_watch_time: Duration::from_mins(5),
            on_error: None,
        }
    }
}

/// Lists, then watches from the version of the list. When a watch ends, resumes at the last version seen. If the
/// server no longer has that version, lists again.
///
/// | event | reaction |
/// | --- | --- |
/// | the watch ends or breaks | watches from the last version in an event or bookmark |
/// | 410 on a watch | lists, at least the last version seen |
/// | 410 on a list, or a version the server does not know | lists the latest version |
/// | a streamed list is refused | lists in pages from now on |
/// | 410 in the middle of a paged list | lists without pages |
/// | no connection, 429, 5xx, or a watch that ends at once | waits ([`Backoff`]), then resumes |
/// | another failure | waits, then lists |
pub struct Reflector {
    source: Arc<dyn ListerWatcher>,
    store: Arc<dyn ReflectorStore>,
    config: ReflectorConfig,
    /// The version up to which the store is complete.
    last_version: Mutex<String>,
}

impl Reflector {
    /// Creates a reflector from `source` into `store`.
    pub fn new(
        source: Arc<dyn ListerWatcher>,
        store: Arc<dyn ReflectorStore>,
        config: ReflectorConfig,
    ) -> Self {
        Self { source, store, config, last_version: Mutex::default() }
    }

    /// Returns the version up to which the store is complete; empty before the first list.
    pub fn last_sync_resource_version(&self) -> String {
        self.last_version.lock().clone()
    }

    /// Runs until `stop` is cancelled.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut run = Run {
            reflector: self,
            waits: BackoffTimer::new(self.config.backoff),
            streams_lists: self.source.streams_lists(),
            version_is_lost: false,
            next_resync: self.config.resync.map(|interval| Instant::now() + interval),
        };
        stop.run_until_cancelled(run.forever()).await;
    }
}

/// The state of one run.
struct Run<'a> {
    reflector: &'a Reflector,
    waits: BackoffTimer,
    streams_lists: bool,
    /// True if the server does not know the last version seen.
    version_is_lost: bool,
    next_resync: Option<Instant>,
}

impl Run<'_> {
    async fn forever(&mut self) {
        loop {
            match self.list().await {
                Ok(watch) => self.watch(watch).await,
                Err(error) => self.list_failed(&error).await,
            }
        }
    }

    /// Lists into the store. A streamed list returns its watch, which continues after the list.
    async fn list(&mut self) -> Result<Option<WatchStream>, ListWatchError> {
        if self.streams_lists {
            match self.streamed_list().await {
                Err(ListWatchError::Invalid(why)) => {
                    tracing::debug!(name = %self.reflector.config.name, why, "server does not support streaming lists");
                    self.streams_lists = false;
                }
                other => return other.map(Some),
            }
        }
        self.paged_list().await.map(|()| None)
    }

    async fn list_failed(&mut self, error: &ListWatchError) {
        let lost = matches!(error, ListWatchError::Expired(_) | ListWatchError::TooLargeResourceVersion(_));
        if lost && !std::mem::replace(&mut self.version_is_lost, true) {
            self.report_relist(error);
            return;
        }
        self.failed(error).await;
    }

    /// Returns the minimum version of a list, so that the store never goes back to an older version.
    fn list_version(&self, any: &str) -> String {
        let last = self.reflector.last_sync_resource_version();
        match (self.version_is_lost, last.is_empty()) {
            (true, _) => String::new(),
            (false, true) => any.to_owned(),
            (false, false) => last,
        }
    }

    async fn streamed_list(&mut self) -> Result<WatchStream, ListWatchError> {
        let start = WatchStart::InitialEvents(self.list_version(""));
        let mut watch = self.open(start).await?;
        let mut objects = Vec::new();
        loop {
            let event = watch.next().await.ok_or_else(|| broken("the streamed list ended early"))?;
            match event? {
                WatchEvent::Added(object) => objects.push(object),
                WatchEvent::Bookmark { resource_version, initial_events_end: true } => {
                    self.replace(objects, resource_version);
                    return Ok(watch);
                }
                WatchEvent::Bookmark { .. } => {}
                WatchEvent::Modified(_) | WatchEvent::Deleted(_) => {
                    return Err(ListWatchError::Malformed("change event within the initial events".into()));
                }
            }
        }
    }

    async fn paged_list(&mut self) -> Result<(), ListWatchError> {
        let resource_version = self.list_version("0");
        // With a version and a limit, the server returns exactly that version, which may have been compacted.
        let is_any = matches!(&*resource_version, "" | "0");
        let limit = if is_any { self.reflector.config.page_size } else { 0 };
        let mut options = ListOptions { resource_version, limit, continue_token: String::new() };
        let mut objects = Vec::new();
        loop {
            let page = match self.reflector.source.list(&options).await {
                // The version of the pages has been compacted: list without pages.
                Err(ListWatchError::Expired(_)) if !options.continue_token.is_empty() => {
                    objects.clear();
                    let version = self.list_version("0");
                    options =
                        ListOptions { resource_version: version, limit: 0, continue_token: String::new() };
                    continue;
                }
                page => page?,
            };
            objects.extend(page.items);
            if page.continue_token.is_empty() {
                self.replace(objects, page.resource_version);
                return Ok(());
            }
            // The continue token contains the version. Sending both is an error.
            options.resource_version.clear();
            options.continue_token = page.continue_token;
        }
    }

    fn replace(&mut self, objects: Vec<Object>, resource_version: String) {
        tracing::debug!(name = %self.reflector.config.name, objects = objects.len(), resource_version, "listed");
        self.reflector.store.replace(objects, &resource_version);
        *self.reflector.last_version.lock() = resource_version;
        self.version_is_lost = false;
    }

    /// Watches until a new list is required.
    async fn watch(&mut self, mut open: Option<WatchStream>) {
        loop {
            let started = Instant::now();
            let watch = match open.take() {
                Some(watch) => Ok(watch),
                None => self.open(WatchStart::After(self.reflector.last_sync_resource_version())).await,
            };
            let (seen, error) = match watch {
                Ok(watch) => self.follow(watch).await,
                Err(error) => (0, Some(error)),
            };
            let short = started.elapsed() < SHORT_WATCH && seen == 0;
            match error {
                Some(error) if error.is_expired() => return self.report_relist(&error),
                Some(error) if error.is_transient() => self.failed(&error).await,
                Some(error) => return self.failed(&error).await,
                None if short => self.failed(&broken("the watch ended at once without an event")).await,
                None => {}
            }
        }
    }

    async fn open(&self, start: WatchStart) -> Result<WatchStream, ListWatchError> {
        let least = self.reflector.config.min_watch_time;
        let timeout = least.mul_f64(1.0 + rand::rng().random::<f64>());
        self.reflector.source.watch(&WatchOptions { start, timeout }).await
    }

    /// Applies the events of a watch until it ends. Returns the number of events and the error.
    async fn follow(&mut self, watch: WatchStream) -> (usize, Option<ListWatchError>) {
        let mut chunks = watch.ready_chunks(CHUNK);
        let mut seen = 0;
        loop {
            tokio::select! {
                chunk = chunks.next() => {
                    let Some(chunk) = chunk else { return (seen, None) };
                    for event in chunk {
                        match event {
                            Ok(event) => self.apply(event),
                            Err(error) => return (seen, Some(error)),
                        }
                        seen += 1;
                    }
                    self.reflector.store.wait_for_capacity().await;
                }
                () = due(self.next_resync) => self.resync(),
            }
        }
    }

    fn apply(&self, event: WatchEvent) {
        let store = &self.reflector.store;
        let version = event.resource_version().to_owned();
        match event {
            WatchEvent::Added(object) => store.add(object),
            WatchEvent::Modified(object) => store.update(object),
            WatchEvent::Deleted(object) => store.delete(object),
            WatchEvent::Bookmark { .. } => {}
        }
        *self.reflector.last_version.lock() = version;
    }

    fn resync(&mut self) {
        self.reflector.store.resync();
        self.next_resync = self.reflector.config.resync.map(|interval| Instant::now() + interval);
    }

    fn report_relist(&self, error: &ListWatchError) {
        tracing::debug!(name = %self.reflector.config.name, %error, "relisting");
        if let Some(on_error) = &self.reflector.config.on_error {
            on_error(error);
        }
    }

    async fn failed(&mut self, error: &ListWatchError) {
        let wait = self.waits.next_delay().max(error.retry_after().unwrap_or_default().min(MAX_RETRY_AFTER));
        let name = &self.reflector.config.name;
        if matches!(error, ListWatchError::Status { code: 404, .. }) {
            // The definition of the resource was deleted, or is not established yet.
            tracing::debug!(%name, %error, ?wait, "list or watch failed");
        } else {
            tracing::warn!(%name, %error, ?wait, "list or watch failed");
        }
        if let Some(on_error) = &self.reflector.config.on_error {
            on_error(error);
        }
        sleep(wait).await;
    }
}

fn broken(what: &'static str) -> ListWatchError {
    ListWatchError::Connection(what.into())
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The maximum number of events to take from a watch at once.
const CHUNK: usize = 128;

/// A watch that ends earlier than this without an event counts as a failure.
const SHORT_WATCH: Duration = Duration::from_secs(1);

/// The maximum delay that a server can request.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(1);
