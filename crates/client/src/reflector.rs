//! [`Reflector`]: brings what a server has of a resource into a store, and keeps it up to date.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use parking_lot::Mutex;
use rand::Rng;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Backoff;
use crate::backoff::Waits;
use crate::{
    ListOptions, ListWatchError, ListerWatcher, Object, WatchEvent, WatchOptions, WatchStart, WatchStream,
};

/// What a reflector fills: a cache, or a queue before one.
#[async_trait]
pub trait ReflectorStore: Send + Sync {
    /// The object was created.
    fn add(&self, object: Object);

    /// The object was changed.
    fn update(&self, object: Object);

    /// The object was deleted; this is its last state.
    fn delete(&self, object: Object);

    /// There are these objects and no others, as of this version.
    fn replace(&self, objects: Vec<Object>, resource_version: &str);

    /// The resync interval has passed.
    fn resync(&self) {}

    /// Waits until there is room for more events.
    async fn room(&self) {}
}

/// Told of each failed list or watch, before the reflector waits and tries again.
pub type WatchErrorHandler = dyn Fn(&ListWatchError) + Send + Sync;

/// How a [`Reflector`] goes about it.
#[derive(Clone)]
pub struct ReflectorConfig {
    /// What is reflected, for logs.
    pub name: Arc<str>,
    /// How long it waits after failures.
    pub backoff: Backoff,
    /// How often the store is told to resync; `None` for never.
    pub resync: Option<Duration>,
    /// Objects asked for in one page, where a list can be read in pages.
    pub page_size: u32,
    /// The server is asked to end a watch after this to twice this.
    pub min_watch_time: Duration,
    /// Told of failures; they are logged too.
    pub on_error: Option<Arc<WatchErrorHandler>>,
}

impl ReflectorConfig {
    /// client-go's: pages of 500, watches of 5 to 10 minutes, no resync.
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

/// Lists, then watches from the list's version; goes on from the last version seen when a watch ends, and lists again
/// when the server has forgotten it.
///
/// | what happens | what it does |
/// | --- | --- |
/// | the watch ends, in peace or broken | watches from the last version seen, of an event or a bookmark |
/// | 410 on a watch | lists, not older than what it has seen |
/// | 410 on a list, or a version the server does not know | lists the latest there is |
/// | a streamed list is refused | lists in pages, from now on |
/// | 410 in the middle of a paged list | lists without pages |
/// | no connection, 429, 5xx, or a watch that ends at once | waits ([`Backoff`]), then goes on |
/// | another failure | waits, then lists |
pub struct Reflector {
    source: Arc<dyn ListerWatcher>,
    store: Arc<dyn ReflectorStore>,
    config: ReflectorConfig,
    /// The version up to which the store has everything.
    last_version: Mutex<String>,
}

impl Reflector {
    /// A reflector of `source` into `store`.
    pub fn new(
        source: Arc<dyn ListerWatcher>,
        store: Arc<dyn ReflectorStore>,
        config: ReflectorConfig,
    ) -> Self {
        Self { source, store, config, last_version: Mutex::default() }
    }

    /// The version up to which the store has everything; empty before the first list.
    pub fn last_sync_resource_version(&self) -> String {
        self.last_version.lock().clone()
    }

    /// Reflects until `stop` is cancelled.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut run = Run {
            reflector: self,
            waits: Waits::new(self.config.backoff),
            streams_lists: self.source.streams_lists(),
            version_is_lost: false,
            next_resync: self.config.resync.map(|interval| Instant::now() + interval),
        };
        stop.run_until_cancelled(run.forever()).await;
    }
}

/// What one run of a reflector keeps in mind.
struct Run<'a> {
    reflector: &'a Reflector,
    waits: Waits,
    streams_lists: bool,
    /// Whether the server did not know the last version seen.
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

    /// Fills the store. A streamed list leaves a watch that goes on.
    async fn list(&mut self) -> Result<Option<WatchStream>, ListWatchError> {
        if self.streams_lists {
            match self.streamed_list().await {
                Err(ListWatchError::Invalid(why)) => {
                    tracing::debug!(name = %self.reflector.config.name, why, "the server streams no lists");
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
            self.told(error);
            return;
        }
        self.failed(error).await;
    }

    /// The version a list must not be older than, so that what was seen is not unseen.
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
            let event = watch.next().await.ok_or_else(|| broken("a streamed list ended early"))?;
            match event? {
                WatchEvent::Added(object) => objects.push(object),
                WatchEvent::Bookmark { resource_version, initial_events_end: true } => {
                    self.replace(objects, resource_version);
                    return Ok(watch);
                }
                WatchEvent::Bookmark { .. } => {}
                WatchEvent::Modified(_) | WatchEvent::Deleted(_) => {
                    return Err(ListWatchError::Malformed("a change within the initial events".into()));
                }
            }
        }
    }

    async fn paged_list(&mut self) -> Result<(), ListWatchError> {
        let resource_version = self.list_version("0");
        // With a version and a limit a server gives the state at exactly that version, which may be long past.
        let is_any = matches!(&*resource_version, "" | "0");
        let limit = if is_any { self.reflector.config.page_size } else { 0 };
        let mut options = ListOptions { resource_version, limit, continue_token: String::new() };
        let mut objects = Vec::new();
        loop {
            let page = match self.reflector.source.list(&options).await {
                // The state that the pages are of is gone: everything at once, then.
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
            // The token says of which version; a second answer to that is an error.
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

    /// Watches until a list is needed.
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
                Some(error) if error.is_expired() => return self.told(&error),
                Some(error) if error.is_passing() => self.failed(&error).await,
                Some(error) => return self.failed(&error).await,
                None if short => self.failed(&broken("a watch ended at once and told nothing")).await,
                None => {}
            }
        }
    }

    async fn open(&self, start: WatchStart) -> Result<WatchStream, ListWatchError> {
        let least = self.reflector.config.min_watch_time;
        let timeout = least.mul_f64(1.0 + rand::rng().random::<f64>());
        self.reflector.source.watch(&WatchOptions { start, timeout }).await
    }

    /// Brings the events of a watch into the store, until it ends: how many there were, and what ended it.
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
                    self.reflector.store.room().await;
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

    fn told(&self, error: &ListWatchError) {
        tracing::debug!(name = %self.reflector.config.name, %error, "the list is to be made anew");
        if let Some(on_error) = &self.reflector.config.on_error {
            on_error(error);
        }
    }

    async fn failed(&mut self, error: &ListWatchError) {
        let wait = self.waits.next_wait().max(error.retry_after().unwrap_or_default().min(MAX_RETRY_AFTER));
        tracing::warn!(name = %self.reflector.config.name, %error, ?wait, "list or watch failed");
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

/// Events taken from a watch at once.
const CHUNK: usize = 128;

/// A watch that ends sooner, without an event, is taken for a failure.
const SHORT_WATCH: Duration = Duration::from_secs(1);

/// A server that wants to be left alone for longer is asked again after this.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(1);
