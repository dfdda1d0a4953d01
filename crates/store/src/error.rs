//! Errors of a store.

use std::path::PathBuf;
use std::sync::Arc;

/// Error of a store operation. Cheap to clone: a failed commit fails every transaction in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The requested revision is compacted.
    #[error("required revision has been compacted: history starts at {compacted}")]
    Compacted {
        /// The oldest readable revision.
        compacted: u64,
    },
    /// The requested revision is in the future.
    #[error("required revision {requested} is a future revision: the store is at {current}")]
    FutureRevision {
        /// The requested revision.
        requested: u64,
        /// The store's revision.
        current: u64,
    },
    /// The key or the value is larger than the store's limit.
    #[error("{what} of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// `key` or `value`.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The disk, the quota or the file-size limit is exhausted. The write did not happen; reads still work.
    #[error("no space left for the store: {0}")]
    NoSpace(Arc<std::io::Error>),
    /// Another I/O error; the message names the file. The failed write did not happen, or becomes visible after a
    /// restart at the latest.
    #[error("store I/O: {0}")]
    Io(Arc<std::io::Error>),
    /// Data on disk is corrupt.
    #[error("the store is corrupt: {0}")]
    Corrupt(Arc<str>),
    /// The store is recovering from a failed write and could not answer in time; a retry may succeed.
    #[error("the store is recovering from a failed write")]
    Recovering,
    /// Another process has locked the data folder.
    #[error("data folder {} is in use by another process{}", folder.display(), pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Locked {
        /// The data folder.
        folder: PathBuf,
        /// The process that holds the lock, if known.
        pid: Option<u32>,
    },
    /// No server of the store can be reached, or the servers cannot agree. The operation had no effect.
    #[error("the store is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// The connection or the time limit ended after the write was sent.
    #[error("the outcome of the write is unknown: {0}")]
    OutcomeUnknown(Arc<str>),
    /// The store's server has refused the operation, for example because the client is not authorized.
    #[error("the store has refused the operation: {0}")]
    Rejected(Arc<str>),
    /// A value cannot be encrypted or decrypted. No value was written.
    #[error("{0}")]
    Transform(Arc<str>),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Returns whether the failed write may have happened or may become visible later.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::Io(_) | Self::Corrupt(_) | Self::Recovering | Self::OutcomeUnknown(_) | Self::Closed
        )
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
