//! The task of a resource: lists the store, then follows its watch.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use nave_machinery::backoff::Backoff;
use nave_store::{EventKind, KeyValue, Range, Store, StoreError, WatchBatch};
use tracing::{debug, info, warn};

use crate::cacher::Shared;
use crate::log::{Entry, Outcome};
use crate::object::{CachedObject, DecodeError, Decoder};
use crate::state::State;
use crate::waits::Demand;

pub(crate) struct StoreReflector {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    codec: Arc<Codec>,
}

/// Decodes stored versions.
struct Codec {
    decoder: Arc<dyn Decoder>,
    shared: Arc<Shared>,
}

/// The reason why the store's watch ended.
enum Lost {
    /// The watch can be resumed.
    Stream(Option<StoreError>),
    /// The store has compacted history that the cache has not read yet, or an event of it cannot be decrypted.
    History,
}

impl StoreReflector {
    pub(crate) fn new(shared: Arc<Shared>, store: Arc<dyn Store>, decoder: Arc<dyn Decoder>) -> Self {
        let codec = Arc::new(Codec { decoder, shared: Arc::clone(&shared) });
        Self { shared, store, codec }
    }

    /// Runs until it is dropped or panics: lists, then watches, and resumes the watch after interruptions. Lists again
    /// only if history is lost.
    pub(crate) async fn run(self: Arc<Self>) -> Infallible {
        let resource = Arc::clone(&self.shared.config.resource);
        let mut pauses = BACKOFF.pauses();
        loop {
            // Boxed, because the task then mostly waits and would keep room for the list.
            if let Err(error) = Box::pin(self.list()).await {
                self.set_blocked(matches!(error, StoreError::Transform(_)));
                warn!(%resource, %error, "cannot list the store");
                tokio::time::sleep(pauses.next_pause()).await;
                continue;
            }
            self.set_blocked(false);
            pauses.reset();
            loop {
                let before = self.shared.log.read().revision;
                match self.follow(before + 1).await {
                    Lost::History => break,
                    Lost::Stream(error) => debug!(%resource, ?error, "store watch interrupted"),
                }
                if self.shared.log.read().revision > before {
                    pauses.reset();
                }
                tokio::time::sleep(pauses.next_pause()).await;
            }
            info!(%resource, "unread history was lost, listing again");
        }
    }

    /// Tells readers whether they wait in vain, because a value cannot be decrypted.
    fn set_blocked(&self, blocked: bool) {
        if self.shared.blocked.swap(blocked, Ordering::Relaxed) != blocked {
            // Wakes the readers.
            self.shared.progress.send_modify(|_| {});
        }
    }

    /// Reads all objects at one revision and makes them the state of the log. Reads the next page while decoding the
    /// current one.
    async fn list(&self) -> Result<(), StoreError> {
        let config = &self.shared.config;
        let known = Arc::clone(&self.shared.log.read().state);
        let mut state = State::new(Arc::clone(&self.shared.layout));
        let mut undecodable = BTreeSet::new();
        let mut range = Range { limit: config.page_size, ..Range::all(Arc::clone(&config.prefix)) };
        let mut page = self.store.range(range.clone()).await?;
        let revision = page.revision;
        loop {
            self.shared.stats.pages_read.add(1);
            self.shared.stats.objects_read.add(page.items.len());
            let next = page.items.last().filter(|_| page.more).map(|last| Arc::clone(&last.key));
            let decoding = self.codec.decode_page(page.items, &known);
            let (entries, following) = match next {
                None => (decoding.await?, None),
                Some(start_after) => {
                    (range.start_after, range.revision) = (Some(start_after), Some(revision));
                    let (entries, following) = tokio::join!(decoding, self.store.range(range.clone()));
                    (entries?, Some(following?))
                }
            };
            for Entry { key, outcome, .. } in entries {
                match outcome {
                    Outcome::Object(object) => drop(state.set(&key, Some(&object))),
                    Outcome::Nothing => {}
                    Outcome::Undecodable => drop(undecodable.insert(key)),
                }
            }
            let Some(following) = following else { break };
            page = following;
        }
        drop(known);
        self.shared.stats.initializations.add(1);
        let deferred = self.shared.log.write().reset(state, undecodable, revision);
        deferred.run();
        self.shared.progress.send_replace(revision);
        Ok(())
    }

    /// Applies the store's watch to the log, starting at the revision `from`.
    async fn follow(&self, from: u64) -> Lost {
        let prefix = &self.shared.config.prefix;
        let mut stream = match self.store.watch(prefix, from).await {
            Ok(stream) => stream,
            Err(error) => return Lost::from(error),
        };
        self.shared.stats.store_watches.add(1);
        // Time after which progress may be requested again for readers that still wait.
        let mut retry_at = tokio::time::Instant::now();
        loop {
            let due = self.shared.log.read().buckets.next_due();
            tokio::select! {
                batch = stream.next() => match batch {
                    Some(Ok(batch)) => self.fold(batch).await,
                    Some(Err(error)) => return Lost::from(error),
                    None => return Lost::Stream(None),
                },
                () = reached(due) => {
                    let deferred = self.shared.log.write().take_due(Instant::now());
                    deferred.run();
                }
                () = self.progress_needed(retry_at) => {
                    self.shared.waits.requested();
                    retry_at = tokio::time::Instant::now() + PROGRESS_RETRY;
                    if let Err(error) = self.store.request_progress(prefix).await {
                        return Lost::from(error);
                    }
                }
            }
        }
    }

    /// Waits until a reader waits for a revision for which progress was not requested. After `retry_at`, any revision
    /// that the cache has not reached is enough.
    async fn progress_needed(&self, retry_at: tokio::time::Instant) {
        loop {
            let retry = match self.shared.waits.demand(*self.shared.progress.borrow()) {
                Demand::Unrequested => return,
                Demand::Requested => Some(retry_at.into_std()),
                Demand::Nothing => None,
            };
            tokio::select! {
                () = reached(retry) => return,
                () = self.shared.waits.changed() => {}
            }
        }
    }

    /// Decodes a batch and appends it in chunks, so that neither the lock nor the thread is held for long.
    async fn fold(&self, batch: WatchBatch) {
        let seen = self.shared.log.read().revision;
        match batch.events.len() {
            0 => self.shared.stats.progress_received.add(1),
            events => self.shared.stats.events_received.add(events),
        }
        let mut events = batch.events.into_iter().filter(|event| event.kv.mod_revision > seen).peekable();
        while events.peek().is_some() {
            let (mut entries, mut revision, mut bytes) = (Vec::new(), seen, 0);
            // A chunk never ends within a revision, because it must be complete up to its last revision.
            while let Some(event) = events.next_if(|next| {
                entries.len() < CHUNK && bytes < CHUNK_BYTES || next.kv.mod_revision == revision
            }) {
                revision = event.kv.mod_revision;
                bytes += event.kv.value.len();
                entries.push(self.codec.decode_event(event.kind, &event.kv));
            }
            self.append(entries, revision);
            if bytes < CHUNK_BYTES {
                tokio::task::consume_budget().await;
            } else {
                // Large objects take long to decode, so yield after such a chunk.
                tokio::task::yield_now().await;
            }
        }
        self.append(Vec::new(), batch.revision);
    }

    fn append(&self, entries: Vec<Entry>, revision: u64) {
        let deferred = self.shared.log.write().append(entries, revision, Instant::now());
        self.shared.stats.events_dispatched.add(deferred.events);
        deferred.run();
        self.shared.progress.send_if_modified(|reached| {
            let further = revision > *reached;
            *reached = revision.max(*reached);
            further
        });
    }
}

impl Codec {
    /// Decodes a page of a list. Reuses versions in `known`. Decodes large pages on a blocking thread.
    async fn decode_page(
        self: &Arc<Self>,
        items: Vec<KeyValue>,
        known: &Arc<State>,
    ) -> Result<Vec<Entry>, StoreError> {
        if items.len() <= CHUNK && items.iter().map(|kv| kv.value.len()).sum::<usize>() < CHUNK_BYTES {
            return Ok(items.iter().map(|kv| self.decode_listed(kv, known)).collect());
        }
        let (codec, known) = (Arc::clone(self), Arc::clone(known));
        let decode = move || items.iter().map(|kv| codec.decode_listed(kv, &known)).collect();
        // Fails only if the runtime shuts down or the decoder panics. The caller then retries the list.
        tokio::task::spawn_blocking(decode).await.map_err(|error| StoreError::Io(Arc::new(error.into())))
    }

    fn decode_listed(&self, kv: &KeyValue, known: &State) -> Entry {
        let unchanged =
            known.objects().get(&kv.key).filter(|object| object.resource_version() == kv.mod_revision);
        let outcome = unchanged.map_or_else(|| self.decode(kv), |object| Outcome::Object(Arc::clone(object)));
        Entry { key: Arc::clone(&kv.key), revision: kv.mod_revision, outcome }
    }

    fn decode_event(&self, kind: EventKind, kv: &KeyValue) -> Entry {
        let outcome = match kind {
            EventKind::Put => self.decode(kv),
            EventKind::Delete => Outcome::Nothing,
        };
        Entry { key: Arc::clone(&kv.key), revision: kv.mod_revision, outcome }
    }

    fn decode(&self, kv: &KeyValue) -> Outcome {
        let Shared { config, stats, .. } = &*self.shared;
        // A panic in the decoder must not stop the caching of other objects.
        let decoded = catch_unwind(AssertUnwindSafe(|| self.decoder.decode(kv)));
        let decoded = decoded.unwrap_or_else(|_| Err(DecodeError("the decoder panicked".into())));
        match decoded.and_then(|it| CachedObject::new(kv, config.namespaced, it, &config.encodings)) {
            Ok(object) => Outcome::Object(Arc::new(if config.packed { object.packed() } else { object })),
            Err(error) => {
                if stats.undecodable.get() == 0 {
                    warn!(resource = %config.resource, key = %kv.key, %error, "object cannot be decoded, skipping it; later ones are not logged");
                }
                stats.undecodable.add(1);
                Outcome::Undecodable
            }
        }
    }
}

impl From<StoreError> for Lost {
    fn from(error: StoreError) -> Self {
        match error {
            // A later version of the object may be readable, so the event must not block the watch for ever.
            StoreError::Compacted { .. } | StoreError::Transform(_) => Self::History,
            error => Self::Stream(Some(error)),
        }
    }
}

/// Waits until `time`; forever if it is `None`.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Pauses after a failed list or watch.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(20), Duration::from_secs(5));

/// Maximum number of events that are decoded and appended together.
const CHUNK: usize = 64;

/// Size in bytes at which a chunk ends. Decoding this many bytes takes a few milliseconds.
const CHUNK_BYTES: usize = 256 << 10;

/// Interval of repeated progress requests while readers wait.
const PROGRESS_RETRY: Duration = Duration::from_millis(100);
