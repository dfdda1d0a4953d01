//! Input and output types of the [`Store`](crate::Store) contract.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;

use crate::StoreError;

/// One version of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The full key in kube-apiserver's layout (`/registry/pods/default/a`).
    pub key: Arc<str>,
    /// The stored bytes; empty in the `kv` of a delete event.
    pub value: Bytes,
    /// Revision of the transaction that wrote this version.
    pub mod_revision: u64,
}

/// Precondition of a transaction on the current state of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No precondition.
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists and was last written at this revision.
    Revision(u64),
}

/// The write of a transaction, executed if its precondition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates or replaces the key.
    Put {
        /// The bytes to store.
        value: Bytes,
        /// The store deletes the key after this time, unless a later put replaces it. Engines with leases in whole
        /// seconds round it up.
        ttl: Option<Duration>,
    },
    /// Removes the key. If the key does not exist (and `Expect` allows that), no transaction is committed and the
    /// revision does not change.
    Delete,
}

/// An atomic compare and write of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// The key to compare and write.
    pub key: Arc<str>,
    /// The precondition.
    pub expect: Expect,
    /// The write.
    pub op: Op,
}

impl Txn {
    /// Creates `key` if it does not exist.
    pub fn create(key: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        Self::put(key, value).expecting(Expect::Absent)
    }

    /// Writes `key`, whether it exists or not.
    pub fn put(key: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), expect: Expect::Any, op: Op::Put { value: value.into(), ttl: None } }
    }

    /// Deletes `key`, whether it exists or not.
    pub fn delete(key: impl Into<Arc<str>>) -> Self {
        Self { key: key.into(), expect: Expect::Any, op: Op::Delete }
    }

    /// Returns this transaction with the given precondition.
    pub fn expecting(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    /// Sets the time to live of a put; has no effect on a delete.
    pub fn with_ttl(mut self, after: Duration) -> Self {
        if let Op::Put { ttl, .. } = &mut self.op {
            *ttl = Some(after);
        }
        self
    }
}

/// The result of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// The precondition held; the write is durable.
    Committed {
        /// The revision of the write. For a delete of an absent key, the store's revision.
        revision: u64,
    },
    /// The precondition did not hold; nothing was written.
    Failed {
        /// The current version of the key.
        current: Option<KeyValue>,
        /// The store's revision at the time of the comparison.
        revision: u64,
    },
}

/// A query for the keys with a prefix, in byte order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Prefix of the keys. It ends with `/` to select a folder.
    pub prefix: Arc<str>,
    /// Only keys after this one (the last key of the previous page).
    pub start_after: Option<Arc<str>>,
    /// Maximum number of items; 0 means no limit.
    pub limit: usize,
    /// Revision to read at; the latest if `None`.
    pub revision: Option<u64>,
}

impl Range {
    /// Returns a query for all keys with `prefix`, at the latest revision.
    pub fn all(prefix: impl Into<Arc<str>>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
}

/// The result of a range: one consistent state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The items in key order.
    pub items: Vec<KeyValue>,
    /// The revision at which the items were read: the requested one, or the store's latest.
    pub revision: u64,
    /// True if `limit` truncated the result.
    pub more: bool,
    /// Number of items after the last one returned, if the engine knows it.
    pub remaining: Option<u64>,
}

/// The kind of a change to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The key was created or replaced.
    Put,
    /// The key was deleted by a client or expired.
    Delete,
}

/// One committed change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The kind of change.
    pub kind: EventKind,
    /// The new version. For a delete: the key, an empty value and the revision of the delete.
    pub kv: KeyValue,
}

/// One item of a watch stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// Changes in revision order; empty for a progress notification.
    pub events: Vec<Event>,
    /// Every event of the prefix up to and including this revision has been delivered.
    pub revision: u64,
}

/// An endless stream of batches. Only the last item can be an error. Dropping the stream ends the watch.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchBatch, StoreError>> + Send>>;

/// Sizes and revisions of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// Engine and version, for display.
    pub engine: String,
    /// Bytes the store occupies on disk.
    pub size_on_disk: u64,
    /// Bytes of `size_on_disk` that hold live data and retained history.
    pub size_in_use: u64,
    /// The latest revision.
    pub revision: u64,
    /// The oldest readable revision, as far as this process knows. See
    /// [`compacted_revision`](crate::Store::compacted_revision) for the exact one.
    pub compacted: u64,
    /// True if writes fail because the disk or the quota is exhausted (etcd: the alarm `NOSPACE`).
    pub no_space: bool,
    /// The commits of this process; `None` if another process commits.
    pub commits: Option<Commits>,
}

/// Commits to disk since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commits {
    /// Number of commits. A commit may hold several transactions.
    pub count: u64,
    /// Total time of the commits, in which the disk has synced them.
    pub time: Duration,
}

/// The result of [`Store::defragment`](crate::Store::defragment).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defragmentation {
    /// The engine reclaims space while it serves.
    NotNeeded,
    /// Number of bytes returned to the file system.
    Reclaimed(u64),
}
