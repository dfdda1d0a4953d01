//! The contract's vocabulary: what goes into a [`Store`](crate::Store) and what comes out.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;

use crate::StoreError;

/// One version of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The whole key, as kube-apiserver lays it out (`/registry/pods/default/a`).
    pub key: Arc<str>,
    /// The stored bytes; empty in the `kv` of a delete event.
    pub value: Bytes,
    /// Revision of the transaction that wrote this version.
    pub mod_revision: u64,
}

/// What a transaction asks of its key's present state before it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: the operation is carried out in any case.
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists and this revision wrote it.
    Revision(u64),
}

/// What a transaction does when its expectation holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates or replaces the key.
    Put {
        /// The bytes to store.
        value: Bytes,
        /// The key is deleted by the store once this has passed, unless a later put replaces it. Rounded up
        /// to whole seconds by engines whose leases count so.
        ttl: Option<Duration>,
    },
    /// Removes the key. Where it does not exist (and `Expect` allows that) nothing is committed and the
    /// revision stays.
    Delete,
}

/// One atomic compare and write of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// The key compared and written.
    pub key: Arc<str>,
    /// The comparison.
    pub expect: Expect,
    /// The write.
    pub op: Op,
}

impl Txn {
    /// Creates `key`, if it is absent.
    pub fn create(key: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        Self::put(key, value).expecting(Expect::Absent)
    }

    /// Writes `key` whatever is there.
    pub fn put(key: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), expect: Expect::Any, op: Op::Put { value: value.into(), ttl: None } }
    }

    /// Deletes `key` whatever is there.
    pub fn delete(key: impl Into<Arc<str>>) -> Self {
        Self { key: key.into(), expect: Expect::Any, op: Op::Delete }
    }

    /// The same write under another condition.
    pub fn expecting(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    /// The same put with a time to live; a delete is left as it is.
    pub fn with_ttl(mut self, after: Duration) -> Self {
        if let Op::Put { ttl, .. } = &mut self.op {
            *ttl = Some(after);
        }
        self
    }
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// The expectation held; the write is durable.
    Committed {
        /// The revision the write got (for a delete of nothing: the store's revision).
        revision: u64,
    },
    /// The expectation did not hold; nothing was written.
    Failed {
        /// What is there instead.
        current: Option<KeyValue>,
        /// The store's revision when this was so.
        revision: u64,
    },
}

/// A question for the keys below a prefix, in byte order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Keys that start with this; end it with `/` to mean a folder.
    pub prefix: Arc<str>,
    /// Only keys after this one (the last key of the page before).
    pub start_after: Option<Arc<str>>,
    /// At most so many items; 0 means all.
    pub limit: usize,
    /// The state as of this revision; the latest if `None`.
    pub revision: Option<u64>,
}

impl Range {
    /// Everything below `prefix`, at the latest revision.
    pub fn all(prefix: impl Into<Arc<str>>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
}

/// A range's answer: one consistent state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The items in key order.
    pub items: Vec<KeyValue>,
    /// The revision the items were read at: the asked one, or the store's latest.
    pub revision: u64,
    /// True where `limit` cut the answer short.
    pub more: bool,
    /// How many items of the range lie after the last one returned, where the engine knows.
    pub remaining: Option<u64>,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was created or replaced.
    Put,
    /// It was deleted, by a client or because its time to live was over.
    Delete,
}

/// One committed change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The new version; for a delete the key, an empty value and the delete's revision.
    pub kv: KeyValue,
}

/// A step of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// Changes in revision order; empty for a mere progress notification.
    pub events: Vec<Event>,
    /// Progress: every event of the prefix at or below this revision has been delivered.
    pub revision: u64,
}

/// An endless sequence of batches; an error is its last item. Dropping it ends the watch.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchBatch, StoreError>> + Send>>;

/// How a store is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// Engine and version, for people.
    pub engine: String,
    /// Bytes the store occupies on disk.
    pub size_on_disk: u64,
    /// Of those, bytes that hold live data and kept history.
    pub size_in_use: u64,
    /// The latest revision.
    pub revision: u64,
    /// Revisions below this one can no longer be read.
    pub compacted: u64,
}

/// What [`Store::defragment`](crate::Store::defragment) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defragmentation {
    /// Nothing: the engine reclaims space while it serves.
    NotNeeded,
    /// So many bytes went back to the file system.
    Reclaimed(u64),
}
