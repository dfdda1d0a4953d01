//! An in-memory store with injected faults, and a decoder of small objects.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test uses a part of this module"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use nave_cacher::{DecodeError, DecodedObject, Decoder, SelectableAttributes};
use nave_store::{
    Defragmentation, Event, EventKind, KeyValue, Range, RangeResult, Store, StoreError, StoreStatus, Txn,
    TxnOutcome, WatchBatch, WatchStream,
};
use std::sync::Mutex;
use tokio::sync::Notify;

pub const PREFIX: &str = "/registry/pods/";

/// A log of all events. Replaying the log gives the state at any revision. Watches see events up to `released`.
#[derive(Clone, Default)]
pub struct FakeStore(Arc<(Mutex<Inner>, Notify)>);

#[derive(Default)]
pub struct Inner {
    /// The event at index `i` has revision `i + 2`: an empty store is at revision 1.
    pub log: Vec<Event>,
    pub compacted: u64,
    /// Watches see only events up to this revision.
    pub released: u64,
    /// Number of cuts. Watches opened before the latest cut are broken.
    pub cuts: u64,
    /// Number of ranges that will fail.
    pub failing_ranges: usize,
    /// True if a value cannot be decrypted.
    pub undecryptable: bool,
    pub progress_requests: u64,
    /// Number of reads of a watch that will panic.
    pub panicking_reads: usize,
    pub ranges: Vec<Range>,
    /// Maximum number of events in a batch; 0 means no limit.
    pub batch: usize,
}

impl Inner {
    pub fn revision(&self) -> u64 {
        self.log.len() as u64 + 1
    }

    pub fn state_at(&self, revision: u64) -> BTreeMap<Arc<str>, KeyValue> {
        let mut state = BTreeMap::new();
        for event in self.log.iter().take_while(|event| event.kv.mod_revision <= revision) {
            match event.kind {
                EventKind::Put => state.insert(Arc::clone(&event.kv.key), event.kv.clone()),
                EventKind::Delete => state.remove(&event.kv.key),
            };
        }
        state
    }
}

impl FakeStore {
    /// Reads or changes the store, then wakes its watches.
    pub fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        let result = act(&mut self.0.0.lock().unwrap());
        self.0.1.notify_waiters();
        result
    }

    pub fn put(&self, key: &str, value: impl Into<Bytes>) -> u64 {
        self.write(key, Some(value.into()))
    }

    pub fn delete(&self, key: &str) -> u64 {
        self.write(key, None)
    }

    /// Makes all committed events visible to watches.
    pub fn release(&self) {
        self.with(|inner| inner.released = inner.revision());
    }

    /// Breaks all watches.
    pub fn cut(&self) {
        self.with(|inner| inner.cuts += 1);
    }

    fn write(&self, key: &str, value: Option<Bytes>) -> u64 {
        self.with(|inner| {
            let key: Arc<str> = key.into();
            let kind = if value.is_some() { EventKind::Put } else { EventKind::Delete };
            let (revision, value) = (inner.revision() + 1, value.unwrap_or_default());
            let kv = KeyValue { key, value, mod_revision: revision };
            inner.log.push(Event { kind, kv });
            revision
        })
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        self.with(|inner| {
            inner.ranges.push(range.clone());
            if inner.failing_ranges > 0 {
                inner.failing_ranges -= 1;
                return Err(StoreError::Closed);
            }
            if inner.undecryptable {
                return Err(StoreError::Transform("no key".into()));
            }
            let revision = range.revision.unwrap_or(inner.revision());
            if revision < inner.compacted {
                return Err(StoreError::Compacted { compacted: inner.compacted });
            }
            let wanted = |key: &str| {
                key.starts_with(&*range.prefix)
                    && range.start_after.as_deref().is_none_or(|after| key > after)
            };
            let mut items: Vec<_> = inner.state_at(revision).into_values().collect();
            items.retain(|kv| wanted(&kv.key));
            let more = range.limit > 0 && items.len() > range.limit;
            items.truncate(if more { range.limit } else { items.len() });
            Ok(RangeResult { items, revision, more, remaining: None })
        })
    }

    async fn watch(&self, prefix: &str, from_revision: u64) -> Result<WatchStream, StoreError> {
        let (cuts, asked) = self.with(|inner| (inner.cuts, inner.progress_requests));
        let watch = Watch {
            store: self.clone(),
            prefix: prefix.into(),
            next: from_revision,
            cuts,
            asked,
            over: false,
        };
        Ok(Box::pin(stream::unfold(watch, |mut watch| async move {
            let item = watch.next().await?;
            watch.over = item.is_err();
            Some((item, watch))
        })))
    }

    async fn request_progress(&self, _prefix: &str) -> Result<(), StoreError> {
        self.with(|inner| inner.progress_requests += 1);
        Ok(())
    }

    async fn current_revision(&self) -> Result<u64, StoreError> {
        Ok(self.with(|inner| inner.revision()))
    }

    async fn txn(&self, _txn: Txn) -> Result<TxnOutcome, StoreError> {
        Err(StoreError::Closed)
    }

    async fn get(&self, _key: &str, _revision: Option<u64>) -> Result<Option<KeyValue>, StoreError> {
        Err(StoreError::Closed)
    }

    async fn revision(&self, _key: &str) -> Result<Option<u64>, StoreError> {
        Err(StoreError::Closed)
    }

    async fn count(&self, _prefix: &str) -> Result<u64, StoreError> {
        Err(StoreError::Closed)
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.with(|inner| inner.compacted = revision);
        Ok(())
    }

    async fn compacted_revision(&self) -> Result<u64, StoreError> {
        Ok(self.with(|inner| inner.compacted))
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        Err(StoreError::Closed)
    }

    async fn defragment(&self) -> Result<Defragmentation, StoreError> {
        Err(StoreError::Closed)
    }

    async fn snapshot(&self, _to: &Path) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
}

struct Watch {
    store: FakeStore,
    prefix: Arc<str>,
    next: u64,
    cuts: u64,
    asked: u64,
    over: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchBatch, StoreError>> {
        loop {
            let store = self.store.clone();
            let changed = store.0.1.notified();
            if self.over {
                return None;
            }
            let panics = {
                let mut inner = store.0.0.lock().unwrap();
                let left = inner.panicking_reads.checked_sub(1);
                left.inspect(|left| inner.panicking_reads = *left).is_some()
            };
            assert!(!panics, "a read of the watch panics");
            if let Some(item) = self.poll(&store.0.0.lock().unwrap()) {
                return Some(item);
            }
            changed.await;
        }
    }

    fn poll(&mut self, inner: &Inner) -> Option<Result<WatchBatch, StoreError>> {
        if inner.cuts > self.cuts {
            return Some(Err(StoreError::Closed));
        }
        if self.next < inner.compacted {
            return Some(Err(StoreError::Compacted { compacted: inner.compacted }));
        }
        let mut events = Vec::new();
        while self.next <= inner.released.min(inner.revision())
            && (inner.batch == 0 || events.len() < inner.batch)
        {
            let event = &inner.log[self.next as usize - 2];
            if event.kv.key.starts_with(&*self.prefix) {
                events.push(event.clone());
            }
            self.next += 1;
        }
        let asked = std::mem::replace(&mut self.asked, inner.progress_requests) < inner.progress_requests;
        (asked || !events.is_empty()).then_some(Ok(WatchBatch { events, revision: self.next - 1 }))
    }
}

/// Decodes `node;key=value,…`: one selectable field and labels. Fails for a value that starts with `!`, and panics for
/// a value with `?`.
pub struct TextDecoder;

impl Decoder for TextDecoder {
    fn decode(&self, kv: &KeyValue) -> Result<DecodedObject, DecodeError> {
        let text = std::str::from_utf8(&kv.value).map_err(|error| DecodeError(error.to_string()))?;
        if text.starts_with('!') {
            return Err(DecodeError("damaged".into()));
        }
        assert!(!text.starts_with('?'), "a decoder panics");
        let (node, labels) = text.split_once(';').unwrap_or((text, ""));
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        let head = r#"{"metadata":{"resourceVersion":""#;
        Ok(DecodedObject {
            json: format!(r#"{head}{}"}},"is":"{text}"}}"#, kv.mod_revision).into(),
            version_at: head.len(),
            attributes: SelectableAttributes::new([node], labels),
        })
    }
}
