//! The engine `embedded`: stores everything in one local folder.
//!
//! | file | content |
//! | --- | --- |
//! | `engine.rs` | the redb file: commits, recovery from a failed commit |
//! | `view.rs` | consistent reads of the redb file |
//! | `position.rs`, `record.rs` | the place and the encoding of a row |
//! | `index.rs` | key → revisions, in memory |
//! | `entry.rs` | versions and ranges of keys as etcd's API has them |
//! | `leases.rs` | leases of etcd's API |
//! | `transaction.rs` | transactions of several reads and writes |
//! | `load.rs` | the content of the log at start |
//! | `reads.rs` | reads of a key or a range |
//! | `queue.rs`, `writer.rs`, `batch.rs`, `gather.rs` | the writer thread and its commands: group commit, expiry |
//! | `compactor.rs` | compaction in the background |
//! | `space.rs` | a full disk |
//! | `hub.rs`, `watch.rs` | watches |
//! | `faults.rs` | a file with faults, for tests (feature `contract`) |
//! | `lock.rs` | exclusive lock of the folder |
//! | `snapshot_file.rs` | restore a snapshot of etcd's API |
//! | `maintenance.rs` | check, defragment and restore a folder that no server uses |

mod batch;
mod compactor;
mod engine;
mod entry;
#[cfg(feature = "contract")]
pub mod faults;
mod gather;
mod hub;
mod index;
mod leases;
mod load;
mod lock;
pub mod maintenance;
mod position;
mod queue;
mod reads;
mod record;
#[cfg(feature = "etcd-server")]
mod snapshot_file;
mod space;
mod transaction;
mod view;
mod watch;
mod writer;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use crate::{
    Commits, Defragmentation, KeyValue, PendingWrites, Range, RangeResult, Store, StoreError, StoreStatus,
    Txn, TxnOutcome, WatchStream, private_files,
};

use engine::Engine;
pub use entry::{Content, Entry, EntryEvent, Found, KeyRange, Lineage, Query};
use gather::Gathering;
use hub::Hub;
use index::Index;
pub use leases::LeaseInfo;
use leases::Leases;
use lock::FolderLock;
use position::Position;
use queue::{Command, WriterHandle, check_size};
use reads::{INLINE_VALUES, retrying};
use space::{Reserve, Space};
use transaction::Closure;
pub use transaction::{MAX_WRITES, Transaction};
pub use watch::{EntryBatch, EntryWatch};
use writer::Writer;

/// Name of the store file in the folder.
const FILE: &str = "store.redb";
/// Maximum number of concurrent blocking reads. More reads would not be faster on one disk and would occupy all of the
/// runtime's blocking threads.
const BLOCKING_READS: usize = 8;

/// Configuration of the embedded engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Retention of old revisions. `None` keeps all until [`Store::compact`] is called.
    pub history: Option<History>,
    /// Size limit of the engine's page cache, in bytes.
    pub cache_bytes: usize,
    /// The requests that are about to write. Commits wait for them, at most a millisecond.
    pub pending: PendingWrites,
}

/// Retention of history. A state is compacted once it is older than `time` or more than `revisions` behind, whichever
/// comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// The age at which states are compacted, at the latest at twice this age. Applies at low write rates. Defaults to 5
    /// minutes, the default of kube-apiserver's `--etcd-compaction-interval`.
    pub time: Duration,
    /// The number of readable revisions; a few thousand more may remain. Applies at high write rates. Bounds the
    /// memory and disk space of history. etcd has no such limit.
    pub revisions: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { history: Some(History::default()), cache_bytes: 8 << 20, pending: PendingWrites::default() }
    }
}

impl Default for History {
    fn default() -> Self {
        Self { time: Duration::from_mins(5), revisions: 100_000 }
    }
}

/// The embedded engine. Dropping it finishes the current commit, ends its watches and unlocks the folder.
pub struct Embedded {
    shared: Arc<Shared>,
    writer: WriterHandle,
    thread: Option<JoinHandle<()>>,
    _lock: FolderLock,
}

/// State shared by readers, watches and the writer.
struct Shared {
    engine: Engine,
    index: RwLock<Index>,
    hub: Arc<Hub>,
    leases: Mutex<Leases>,
    /// Total bytes of all rows.
    in_use: AtomicU64,
    /// The last commit failed because the disk is full.
    no_space: AtomicBool,
    commits: CommitCounters,
    /// Permits for blocking reads.
    reads: Arc<Semaphore>,
}

/// The number of commits and their total time.
#[derive(Default)]
struct CommitCounters {
    count: AtomicU64,
    nanos: AtomicU64,
}

impl CommitCounters {
    fn add(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> Commits {
        let time = Duration::from_nanos(self.nanos.load(Ordering::Relaxed));
        Commits { count: self.count.load(Ordering::Relaxed), time }
    }
}

impl Embedded {
    /// Opens the store in `folder` and creates the folder if needed. Blocks until all data has been read once.
    pub fn open(folder: &Path, options: &Options) -> Result<Self, StoreError> {
        private_files::create_folder(folder)?;
        let lock = FolderLock::take(folder)?;
        let engine = Engine::open(folder.join(FILE), options.cache_bytes)?;
        Self::start(lock, engine, options, Reserve::new(folder))
    }

    /// Opens the store in `folder` on a file whose operations can fail.
    #[cfg(feature = "contract")]
    pub fn open_with_faults(
        folder: &Path,
        options: &Options,
        faults: Arc<faults::Faults>,
    ) -> Result<Self, StoreError> {
        private_files::create_folder(folder)?;
        let lock = FolderLock::take(folder)?;
        let reserve = Reserve::new(folder).with_faults(Arc::clone(&faults));
        let engine = Engine::open_with_faults(folder.join(FILE), options.cache_bytes, faults)?;
        Self::start(lock, engine, options, reserve)
    }

    fn start(
        lock: FolderLock,
        engine: Engine,
        options: &Options,
        reserve: Reserve,
    ) -> Result<Self, StoreError> {
        let loaded = load::load(&engine)?;
        let shared = Arc::new(Shared {
            engine,
            hub: Arc::new(Hub::new(loaded.index.revision())),
            index: RwLock::new(loaded.index),
            leases: Mutex::new(loaded.leases),
            in_use: AtomicU64::new(loaded.bytes),
            no_space: AtomicBool::new(false),
            commits: CommitCounters::default(),
            reads: Arc::new(Semaphore::new(BLOCKING_READS)),
        });
        let (handle, commands) = WriterHandle::new();
        let writer = Writer::new(
            Arc::clone(&shared),
            commands,
            options.history,
            loaded.expiries,
            loaded.obsolete,
            Space::new(reserve),
            Gathering::new(options.pending.clone()),
        );
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run())?;
        Ok(Self { shared, writer: handle, thread: Some(thread), _lock: lock })
    }
}

/// The operations of etcd's API that the contract of [`Store`] does not have.
impl Embedded {
    /// Runs a transaction. Nothing is written if `work` fails or refuses with `E`. It must not block, and must not write
    /// more than [`MAX_WRITES`] keys. It runs again if its writes could not be committed with others.
    ///
    /// # Errors
    /// A read or the commit has failed.
    pub async fn transact<T, E, W>(&self, work: W) -> Result<Result<T, E>, StoreError>
    where
        T: Send + 'static,
        E: Send + 'static,
        W: FnMut(&mut Transaction<'_>) -> Result<Result<T, E>, StoreError> + Send + 'static,
    {
        let program = |reply| Command::Run(Box::new(Closure { work, done: None, reply }));
        self.writer.submit(program).await
    }

    /// Reads a range of keys.
    ///
    /// # Errors
    /// The revision is compacted or in the future, or the file cannot be read.
    pub async fn query(&self, query: Query) -> Result<Found, StoreError> {
        let is_short = query.range.single().is_some() || (1..=INLINE_VALUES).contains(&query.limit);
        if is_short || query.content == Content::CountOnly {
            return retrying(|| self.shared.query(&query)).await;
        }
        self.shared.read_blocking(move |shared| shared.query(&query)).await
    }

    /// Watches a range of keys from a revision (inclusive) on; 0 means after the current revision.
    pub fn watch_entries(&self, range: KeyRange, from: u64, with_previous: bool) -> EntryWatch {
        EntryWatch::new(Arc::clone(&self.shared), range, from, with_previous)
    }

    /// Requests an empty batch from the watches of a range once they have reached `revision`.
    pub fn request_entry_progress(&self, range: &KeyRange, revision: u64) {
        self.shared.hub.request_progress(Some(&range.common_prefix()), revision);
    }

    /// Grants a lease. Returns false if it exists.
    ///
    /// # Errors
    /// The commit has failed.
    pub async fn grant_lease(&self, id: i64, ttl: Duration) -> Result<bool, StoreError> {
        self.writer.submit(|reply| Command::Grant { id, ttl, reply }).await
    }

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// The commit has failed.
    pub async fn revoke_lease(&self, id: i64) -> Result<(), StoreError> {
        self.writer.submit(|reply| Command::Revoke { id, reply }).await
    }

    /// Gives a lease its full time again; returns this time. `None` if it does not exist.
    pub fn renew_lease(&self, id: i64) -> Option<Duration> {
        self.shared.leases.lock().renew(id, Instant::now())
    }

    /// Returns the state of a lease.
    pub fn lease(&self, id: i64) -> Option<LeaseInfo> {
        self.shared.leases.lock().info(id, Instant::now())
    }

    /// Returns the identifiers of all leases.
    pub fn leases(&self) -> Vec<i64> {
        self.shared.leases.lock().ids()
    }

    /// Returns the number of leases.
    pub fn lease_count(&self) -> usize {
        self.shared.leases.lock().len()
    }
}

#[async_trait]
impl Store for Embedded {
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        check_size(&txn)?;
        self.writer.submit(|reply| Command::Txn { txn, reply }).await
    }

    async fn get(&self, key: &str, revision: Option<u64>) -> Result<Option<KeyValue>, StoreError> {
        retrying(|| self.shared.get(key, revision)).await
    }

    async fn revision(&self, key: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.shared.index.read().latest(key).map(Position::revision))
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        self.shared.range(range).await
    }

    async fn count(&self, prefix: &str) -> Result<u64, StoreError> {
        Ok(self.shared.index.read().count(prefix))
    }

    async fn current_revision(&self) -> Result<u64, StoreError> {
        Ok(self.shared.index.read().revision())
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.writer.submit(|reply| Command::Compact { revision, reply }).await
    }

    async fn compacted_revision(&self) -> Result<u64, StoreError> {
        Ok(self.shared.index.read().compacted())
    }

    async fn watch(&self, prefix: &str, from_revision: u64) -> Result<WatchStream, StoreError> {
        Ok(watch::watch(Arc::clone(&self.shared), prefix, from_revision))
    }

    async fn request_progress(&self, prefix: &str) -> Result<(), StoreError> {
        let revision = self.shared.index.read().revision();
        self.shared.hub.request_progress(Some(prefix), revision);
        Ok(())
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let (revision, compacted) = {
            let index = self.shared.index.read();
            (index.revision(), index.compacted())
        };
        Ok(StoreStatus {
            engine: "embedded (redb 4)".into(),
            size_on_disk: self.shared.engine.size_on_disk()?,
            size_in_use: self.shared.in_use.load(Ordering::Relaxed),
            revision,
            compacted,
            no_space: self.shared.no_space.load(Ordering::Relaxed),
            commits: Some(self.shared.commits.get()),
        })
    }

    /// Does nothing: freed pages are reused, and the file shrinks when the pages at its end are free.
    async fn defragment(&self) -> Result<Defragmentation, StoreError> {
        Ok(Defragmentation::NotNeeded)
    }

    async fn snapshot(&self, to: &Path) -> Result<(), StoreError> {
        let to = to.to_owned();
        self.shared
            .read_blocking(move |shared| {
                DirBuilder::new().recursive(true).mode(0o700).create(&to)?;
                let index = shared.index.read();
                let (view, compacted) = (shared.engine.view()?, index.compacted());
                drop(index);
                view.copy_to(&to.join(FILE), compacted)
            })
            .await
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.writer.close();
        if let Some(thread) = self.thread.take() {
            // Errors are ignored: a panicked writer has no work left to finish.
            let _ = thread.join();
        }
        self.shared.hub.close();
        self.shared.engine.close();
    }
}
