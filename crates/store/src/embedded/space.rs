//! Space on the disk: writes that are refused after a failed commit, and a reserve for deletions while the disk is full.
//!
//! On a full disk, a deletion needs space before it frees some: a commit writes new pages before it frees old ones. The
//! reserve is a file of [`RESERVE`] bytes beside the store. It is emptied when the disk is full, and then only
//! deletions and compactions are committed (as etcd under its alarm `NOSPACE`), until it is filled again.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
#[cfg(feature = "contract")]
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::{StoreError, private_files};

/// The writes that are refused, and the reserve.
pub(super) struct Space {
    reserve: Reserve,
    refusal: Option<Refusal>,
}

/// The state after a failed commit.
struct Refusal {
    error: StoreError,
    /// The time of the next attempt.
    until: Instant,
    /// True if deletions are committed meanwhile.
    takes_deletions: bool,
}

impl Space {
    /// Fills the reserve, if the disk has space for it.
    pub(super) fn new(mut reserve: Reserve) -> Self {
        if let Err(error) = reserve.fill() {
            tracing::warn!(%error, "no space reserved: deletions will fail when the disk is full");
        }
        Self { reserve, refusal: None }
    }

    /// Returns the error for writes that need space.
    pub(super) fn refusal(&self) -> Option<&StoreError> {
        self.refusal.as_ref().map(|refusal| &refusal.error)
    }

    /// Returns the error for deletions and compactions.
    pub(super) fn refusal_of_deletions(&self) -> Option<&StoreError> {
        self.refusal.as_ref().filter(|refusal| !refusal.takes_deletions).map(|refusal| &refusal.error)
    }

    /// Returns the time of the next attempt, if writes are refused.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        self.refusal.as_ref().map(|refusal| refusal.until)
    }

    /// Refuses writes after a failed commit. On a full disk, empties the reserve for deletions. `needs_space` is true if
    /// the commit had more than deletions.
    pub(super) fn refuse(&mut self, error: StoreError, needs_space: bool) {
        let is_full = matches!(error, StoreError::NoSpace(_));
        let has_emptied = is_full && self.reserve.empty();
        // If only deletions have failed although the reserve was empty, the next ones have to wait.
        let takes_deletions = has_emptied || (is_full && needs_space);
        self.refusal = Some(Refusal { error, until: Instant::now() + PAUSE, takes_deletions });
    }

    /// Fills the reserve again if it was emptied and the disk has space.
    pub(super) fn refill(&mut self) {
        // A later attempt will succeed.
        let _ = self.reserve.fill();
    }

    /// Accepts writes again: the commit that failed is in the file.
    pub(super) fn accept(&mut self) {
        self.refusal = None;
    }

    /// Accepts writes again when their time has come, after a full disk only if the reserve can be filled or the file has
    /// `room`: other writes must not use the space that deletions need.
    pub(super) fn retry(&mut self, now: Instant, room: impl FnOnce() -> u64) {
        let Some(refusal) = self.refusal.as_mut().filter(|refusal| refusal.until <= now) else { return };
        let is_full = matches!(refusal.error, StoreError::NoSpace(_));
        if !is_full || self.reserve.fill().is_ok() || room() >= RESERVE {
            self.refusal = None;
        } else {
            refusal.until = now + PAUSE;
            refusal.takes_deletions = true;
        }
    }
}

/// The file that holds the space.
pub(super) struct Reserve {
    path: PathBuf,
    is_filled: bool,
    #[cfg(feature = "contract")]
    faults: Option<Arc<super::faults::Faults>>,
}

impl Reserve {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            path: folder.join(FILE),
            is_filled: false,
            #[cfg(feature = "contract")]
            faults: None,
        }
    }

    /// Takes the space from a simulated disk.
    #[cfg(feature = "contract")]
    pub(super) fn with_faults(mut self, faults: Arc<super::faults::Faults>) -> Self {
        self.faults = Some(faults);
        self
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.is_filled {
            return Ok(());
        }
        #[cfg(feature = "contract")]
        if let Some(faults) = &self.faults {
            faults.take_space(RESERVE)?;
        }
        let file = private_files::open_file(&self.path)?;
        if file.metadata()?.blocks().saturating_mul(512) < RESERVE {
            allocate(&file).inspect_err(|_| {
                // Gives back the part that was allocated. Without it, less space is free.
                let _ = file.set_len(0);
            })?;
        }
        self.is_filled = true;
        Ok(())
    }

    /// Frees the space; returns false if it was free.
    fn empty(&mut self) -> bool {
        if !std::mem::replace(&mut self.is_filled, false) {
            return false;
        }
        #[cfg(feature = "contract")]
        if let Some(faults) = &self.faults {
            faults.free_space(RESERVE);
        }
        match private_files::open_file(&self.path).and_then(|file| file.set_len(0)) {
            Ok(()) => tracing::warn!("the disk is full: only deletions are committed"),
            Err(error) => tracing::error!(%error, "reserved space cannot be freed"),
        }
        true
    }
}

/// Allocates the reserve to a file.
fn allocate(mut file: &File) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, RESERVE) {
        // The file system cannot allocate space in advance.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        allocated => return Ok(allocated?),
    }
    let part = vec![0; PART];
    for _ in 0..RESERVE / PART as u64 {
        file.write_all(&part)?;
    }
    file.sync_all()
}

/// Name of the reserve's file.
const FILE: &str = "reserve";
/// Size of the reserve, in bytes: several commits of deletions, each of which writes the pages that it changes anew.
const RESERVE: u64 = 4 << 20;
const PART: usize = 64 << 10;
/// Time that writes are refused after a failed commit before the next attempt.
const PAUSE: Duration = Duration::from_secs(1);
