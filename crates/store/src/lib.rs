//! The ordered, durable, versioned log that holds all data: the [`Store`] contract (etcd's model) and two engines:
//! [`embedded`], which stores it in one local folder, and [`etcd`], which uses an etcd cluster.
//!
//! The embedded engine:
//!
//! ```text
//!   txn ──► queue ──► writer thread: compare, number ──► one redb commit + fdatasync for all waiting
//!                                                              │
//!              get, range ◄── index (key → revisions) ◄────────┤ then visible,
//!              watch      ◄── window of the newest events ◄────┤ then sent to watches,
//!              txn's caller ◄──────────────────────────────────┘ then acknowledged
//! ```
//!
//! # Invariants
//! - Every committed transaction has one revision, and one row in the log and one event for each key that it writes. All
//!   changes of data are transactions, including expiries. A batch of a watch ends with a whole revision.
//! - Everything that a read, a watch or a caller has seen is durable.
//! - A watch stores a position but no events. Its memory does not grow, even if its reader is slow.
//! - A row is removed only when no readable revision needs it.
//! - A failed write leaves the store unchanged, or counts as committed if the file contains it after reopening. Reads
//!   continue during recovery. While the disk is full, deletions and compactions are committed into reserved space, also
//!   those that shared a commit with the write that found it full, and other writes fail immediately with [`StoreError::NoSpace`] until the disk or the file has space for both.
//! - A store's file has its name only when it is complete. An empty or damaged file is never a new store.
//!
//! # Example
//! ```
//! use nave_store::embedded::{Embedded, Options};
//! use nave_store::{Expect, Store, Txn, TxnOutcome};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let store = Embedded::open(folder.path(), &Options::default())?;
//! let outcome = store.txn(Txn::create("/registry/pods/default/a", "first")).await?;
//! let TxnOutcome::Committed { revision } = outcome else { panic!("the key is new") };
//! let update = Txn::put("/registry/pods/default/a", "second").expecting(Expect::Revision(revision));
//! store.txn(update).await?;
//! let before = store.get("/registry/pods/default/a", Some(revision)).await?;
//! assert_eq!(before.map(|version| version.value), Some("first".into()));
//! # Ok(())
//! # }
//! ```
//!
//! # Why redb
//! 100,000 puts of 1.5 KB of random bytes, one row per revision, in commits of 1, 16 and 64 puts with one fdatasync
//! each. Caches limited to 8 MB (fjall: also an 8 MB memtable, one worker, no compression). Then a new process reads
//! all rows in order. CPU is user plus system time. Measured on a shared 2-core machine: CPU, sizes and memory are
//! reliable, rates only approximate. "Plain log" is an append-only file with CRC-32, as a lower bound.
//!
//! | engine | CPU per put, batch 1 / 16 / 64 | puts/s, batch 1 / 16 / 64 | scan | on disk | memory, writing / after scan |
//! | --- | --- | --- | --- | --- | --- |
//! | redb 4.6 | 144 / 16 / 8.5 µs | 3,900 / 35,300 / 73,900 | 1.6 GB/s | 198 MB | 12 / 11 MB |
//! | fjall 3.1 | 60 / 8.7 / 5.1 µs | 7,500 / 57,900 / 115,500 | 1.3 GB/s | 167 MB | 23 / 21 MB |
//! | heed 0.22 (LMDB) | 177 / 20 / 10 µs | 900 / 27,800 / 63,700 | 5 GB/s | 392 MB | 395 / 395 MB |
//! | plain log | 73 / 9.7 / 4.1 µs | 5,400 / 6,200 / 19,500 | 4 GB/s | 148 MB | 3 / 2 MB |
//!
//! - After kill -9 neither redb nor fjall had lost an acknowledged write (redb repairs its file by reading it once, at
//!   about 1 GB/s; fjall replays its journal).
//! - LMDB is rejected: its mapped pages count as resident memory, the file never shrinks, and opening it is `unsafe`.
//! - fjall needs the least CPU, but creating an empty store took 137 ms (redb: three syncs), a failed flush makes it
//!   unusable, and the memory and timing of its background threads and memtables cannot be controlled.
//! - redb is one file without background threads. It has checksummed copy-on-write commits with one sync, snapshots for
//!   readers, a bounded cache, and no dependencies. Its CPU cost is a third of the target of 25 µs per put at batch 64.
//! - A custom log would save 4 µs per put and 9 MB, which does not justify writing it.
//!
//! The whole engine on redb (`cargo run --release -p nave-store --example puts`), callers and their tasks included, on
//! a machine with other load: 21 µs CPU per put with 64 concurrent writers, 34 µs with 16, 168 µs with one. An empty
//! store opens in 12 ms and the process uses 4 MB. Opening and listing 20,000 keys of 2.5 KB takes 190 ms CPU. The
//! index takes about 110 bytes per key. Retained history takes 16 bytes per update and about 260 per deleted key.

mod api;
#[cfg(feature = "contract")]
pub mod contract;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "etcd-server")]
pub mod etcd_server;
#[cfg(any(feature = "etcd", feature = "etcd-server"))]
mod etcdserverpb;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(any(feature = "etcd", feature = "etcd-server"))]
mod pem;
mod pending;
pub mod private_files;

use std::path::Path;

use async_trait::async_trait;

pub use api::{
    Commits, Defragmentation, Event, EventKind, Expect, KeyValue, Op, Range, RangeResult, StoreStatus, Txn,
    TxnOutcome, WatchBatch, WatchStream,
};
#[cfg(feature = "embedded")]
pub use embedded::Embedded;
pub use error::StoreError;
#[cfg(feature = "etcd")]
pub use etcd::Etcd;
pub use pending::PendingWrites;

/// The contract of every engine; used as `Arc<dyn Store>`.
///
/// Revisions start at 1 for an empty store and grow by exactly one with each committed transaction, over all keys. A
/// read at revision `r` fails with [`StoreError::Compacted`] if `r` is below
/// [`compacted_revision`](Store::compacted_revision), and with [`StoreError::FutureRevision`] if `r` is above
/// [`current_revision`](Store::current_revision).
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Compares and writes one key. Returns once the write is durable. After an error for which
    /// [`is_outcome_unknown`](StoreError::is_outcome_unknown) is true, the write may have happened or may still happen.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError>;

    /// Returns the version of `key` as of `revision` (the latest if `None`).
    async fn get(&self, key: &str, revision: Option<u64>) -> Result<Option<KeyValue>, StoreError>;

    /// Returns the revision of the latest version of `key`, or `None` if the key does not exist. Reads no value.
    async fn revision(&self, key: &str) -> Result<Option<u64>, StoreError>;

    /// Returns whether the stored form of the latest version of `key` is not the one that a write of the same value would
    /// give. An update writes such a version even if the object does not change.
    async fn is_stale(&self, key: &str) -> Result<bool, StoreError> {
        let _ = key;
        Ok(false)
    }

    /// Returns the keys with a prefix, in byte order, at one revision.
    async fn range(&self, range: Range) -> Result<RangeResult, StoreError>;

    /// Returns the number of keys with `prefix`.
    async fn count(&self, prefix: &str) -> Result<u64, StoreError>;

    /// Returns the revision of the last durable transaction.
    async fn current_revision(&self) -> Result<u64, StoreError>;

    /// Drops the states below `revision`. Fails with [`StoreError::Compacted`] if they are compacted already, and with
    /// [`StoreError::FutureRevision`] for a future revision.
    async fn compact(&self, revision: u64) -> Result<(), StoreError>;

    /// Returns the oldest readable revision; 0 if the store was never compacted.
    async fn compacted_revision(&self) -> Result<u64, StoreError>;

    /// Streams every change with `prefix` from `from_revision` (inclusive) on, in order, without gaps.
    ///
    /// `from_revision` may be in the future; 0 means after the current revision. If it is below the compacted revision,
    /// the first item of the stream is [`StoreError::Compacted`]; engines may differ if both are equal. The same error
    /// ends the stream if unread history is compacted because the reader is too slow. Empty batches report progress.
    async fn watch(&self, prefix: &str, from_revision: u64) -> Result<WatchStream, StoreError>;

    /// Requests a progress report up to the current revision from every watch of exactly `prefix`; a watch without
    /// events sends an empty batch. Otherwise, watches report progress every few seconds.
    async fn request_progress(&self, prefix: &str) -> Result<(), StoreError>;

    /// Returns sizes and revisions.
    async fn status(&self) -> Result<StoreStatus, StoreError>;

    /// Returns free space to the file system if the engine does not do so automatically.
    async fn defragment(&self) -> Result<Defragmentation, StoreError>;

    /// Writes a consistent copy to the new folder `to`. The engine can open the copy.
    async fn snapshot(&self, to: &Path) -> Result<(), StoreError>;
}
