//! What can go wrong in a store.

use std::path::PathBuf;
use std::sync::Arc;

/// Why a store operation failed. Cheap to clone: one failed commit answers every transaction in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for is older than the kept history.
    #[error("required revision has been compacted: history starts at {compacted}")]
    Compacted {
        /// The oldest revision that can still be read.
        compacted: u64,
    },
    /// The revision asked for has not been committed yet.
    #[error("required revision {requested} is a future revision: the store is at {current}")]
    FutureRevision {
        /// The revision asked for.
        requested: u64,
        /// The store's revision.
        current: u64,
    },
    /// The key or the value is over the store's limit.
    #[error("{what} of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// `key` or `value`.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The disk, the quota or the file-size limit is exhausted. The write did not happen; reads go on.
    #[error("no space left for the store: {0}")]
    NoSpace(Arc<std::io::Error>),
    /// Reading or writing failed otherwise. A write that got this did not happen, or will be seen after a
    /// restart at the latest; the message says which file.
    #[error("store I/O: {0}")]
    Io(Arc<std::io::Error>),
    /// Bytes on disk are not what was written.
    #[error("the store is corrupt: {0}")]
    Corrupt(Arc<str>),
    /// The store is recovering from a failed write and could not answer in time; the same call may succeed later.
    #[error("the store is recovering from a failed write")]
    Recovering,
    /// Another process has the data folder.
    #[error("data folder {} is in use by another process{}", folder.display(), pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Locked {
        /// The data folder.
        folder: PathBuf,
        /// The process that holds it, where known.
        pid: Option<u32>,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether a write that failed with this may have happened, or may still be seen later.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Corrupt(_) | Self::Recovering | Self::Closed)
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::NoSpace(Arc::new(error)),
            _ => Self::Io(Arc::new(error)),
        }
    }
}
