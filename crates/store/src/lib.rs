//! The ordered, durable, versioned log under everything else: the [`Store`] contract (etcd's model) and the engine
//! [`embedded`], which keeps it in one folder of this machine.
//!
//! ```text
//!   txn ──► queue ──► writer thread: compare, number ──► one redb commit + fdatasync for all that waited
//!                                                              │
//!              get, range ◄── index (key → revisions) ◄────────┤ then visible,
//!              watch      ◄── window of the newest events ◄────┤ then told to watches,
//!              txn's caller ◄──────────────────────────────────┘ then acknowledged
//! ```
//!
//! # Invariants
//! - Every committed transaction has one revision, one row in the log and one event. Nothing else changes data:
//!   the end of a time to live is a transaction too.
//! - What a read, a watch or a caller has seen is durable.
//! - A watch holds a position and no events. Its memory does not grow, however slow its reader is.
//! - Old rows are taken away only once no revision that can still be read needs them.
//! - A failed write leaves the store as it was, or, if the file says so afterwards, counts as done. Meanwhile reads
//!   go on. While the disk is full writes fail at once with [`StoreError::NoSpace`], and one a second is tried.
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
//! 100,000 puts of 1.5 KB, random bytes, one row a revision, in commits of 1, 16 and 64 with an fdatasync each; caches
//! bounded to 8 MB (fjall: also an 8 MB memtable, one worker, no compression); then a new process that reads all
//! in order. CPU is user and system time. A shared 2-core machine: CPU, sizes and memory hold, rates only roughly.
//! "Plain log" is an append-only file with CRC-32, no more than a lower bound to hold the engines against.
//!
//! | engine | CPU a put, batch 1 / 16 / 64 | puts/s, batch 1 / 16 / 64 | scan | on disk | memory, writing / after scan |
//! | --- | --- | --- | --- | --- | --- |
//! | redb 4.6 | 144 / 16 / 8.5 µs | 3,900 / 35,300 / 73,900 | 1.6 GB/s | 198 MB | 12 / 11 MB |
//! | fjall 3.1 | 60 / 8.7 / 5.1 µs | 7,500 / 57,900 / 115,500 | 1.3 GB/s | 167 MB | 23 / 21 MB |
//! | heed 0.22 (LMDB) | 177 / 20 / 10 µs | 900 / 27,800 / 63,700 | 5 GB/s | 392 MB | 395 / 395 MB |
//! | plain log | 73 / 9.7 / 4.1 µs | 5,400 / 6,200 / 19,500 | 4 GB/s | 148 MB | 3 / 2 MB |
//!
//! - After kill -9 neither redb nor fjall had lost anything acknowledged (redb reads its file once to repair it, at
//!   about 1 GB/s; fjall replays its journal).
//! - LMDB is out: its mapped pages count as resident, the file never shrinks, and opening it is `unsafe`.
//! - fjall costs the least CPU, but creating an empty store took 137 ms (redb: three syncs), a failed flush poisons
//!   it too, and its background threads and memtables are memory and moments we do not control.
//! - redb is one file without threads of its own, with checksummed copy-on-write commits of one sync, snapshots for
//!   readers, a bounded cache, and no dependency. It meets the bar of 25 µs a put at batch 64 three times over.
//! - A log of our own would save 4 µs a put and 9 MB: no reason to write one.
//!
//! The whole engine on redb (`cargo run --release -p nave-store --example puts`), callers and their tasks included, on
//! a machine busy with other work: 21 µs CPU a put with 64 writers in flight, 34 µs with 16, 168 µs with one; an empty
//! store opens in 12 ms and the process takes 4 MB; 20,000 keys of 2.5 KB are opened and listed with 190 ms CPU.
//! The index takes about 110 bytes a key, and of the history that is kept 16 bytes an update and about 260 a key that
//! came and went.

mod api;
#[cfg(feature = "contract")]
pub mod contract;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
pub mod private_files;

use std::path::Path;

use async_trait::async_trait;

pub use api::{
    Defragmentation, Event, EventKind, Expect, KeyValue, Op, Range, RangeResult, StoreStatus, Txn,
    TxnOutcome, WatchBatch, WatchStream,
};
#[cfg(feature = "embedded")]
pub use embedded::Embedded;
pub use error::StoreError;

/// The contract every engine keeps; used as `Arc<dyn Store>`.
///
/// Revisions start at 1 for an empty store and grow by exactly one with each committed transaction, over all
/// keys. A read at revision `r` fails as [`StoreError::Compacted`] where `r` is below
/// [`compacted_revision`](Store::compacted_revision), and as [`StoreError::FutureRevision`] where `r` is above
/// [`current_revision`](Store::current_revision).
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Compares and writes one key. Returns once the write is durable. After an error of which
    /// [`is_outcome_unknown`](StoreError::is_outcome_unknown) holds the write may have happened, or still happen.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError>;

    /// The version of `key` as of `revision` (the latest if `None`).
    async fn get(&self, key: &str, revision: Option<u64>) -> Result<Option<KeyValue>, StoreError>;

    /// The revision that wrote the latest version of `key`; `None` where there is no such key. Reads no value.
    async fn revision(&self, key: &str) -> Result<Option<u64>, StoreError>;

    /// The keys below a prefix, in byte order, at one revision.
    async fn range(&self, range: Range) -> Result<RangeResult, StoreError>;

    /// How many keys lie below `prefix` now.
    async fn count(&self, prefix: &str) -> Result<u64, StoreError>;

    /// The revision of the last durable transaction.
    async fn current_revision(&self) -> Result<u64, StoreError>;

    /// Gives up the states below `revision`. Compacting what is compacted already fails as
    /// [`StoreError::Compacted`], beyond the present as [`StoreError::FutureRevision`].
    async fn compact(&self, revision: u64) -> Result<(), StoreError>;

    /// The oldest revision that can be read; 0 where nothing was ever compacted.
    async fn compacted_revision(&self) -> Result<u64, StoreError>;

    /// Every change below `prefix` from `from_revision` on (that one included), in order, without gaps.
    ///
    /// `from_revision` may lie in the future; 0 means "after now". Where it is below the compacted
    /// revision (at it, an engine may do either) the stream's first item is [`StoreError::Compacted`]; so is the
    /// last item for a reader so slow that history it has not read is compacted. Batches without events tell progress.
    async fn watch(&self, prefix: &str, from_revision: u64) -> Result<WatchStream, StoreError>;

    /// Asks every watch of exactly `prefix` to report soon that it has reached the revision the store has now,
    /// with an empty batch if there is nothing to deliver. Without it watches report every few seconds.
    async fn request_progress(&self, prefix: &str) -> Result<(), StoreError>;

    /// Sizes and revisions.
    async fn status(&self) -> Result<StoreStatus, StoreError>;

    /// Gives free space back to the file system, where the engine does not do so by itself.
    async fn defragment(&self) -> Result<Defragmentation, StoreError>;

    /// Writes a consistent copy to the new folder `to`, which the engine can open.
    async fn snapshot(&self, to: &Path) -> Result<(), StoreError>;
}
