//! Work on a folder that no server uses: check, defragment, restore. Each function locks the folder.

use std::path::{Path, PathBuf};

use crate::{StoreError, private_files};

use super::engine::{Change, Engine, remove_leftover, rename_synced};
use super::lock::FolderLock;
#[cfg(feature = "etcd-server")]
use super::snapshot_file;
use super::{FILE, Options, load};

/// Name of the file that [`defragment`] writes before it replaces the store file.
const NEW_FILE: &str = "store.redb.defragmented";
/// The file that a snapshot of etcd consists of.
const ETCD_SNAPSHOT: &str = "snapshot.db";

/// Sizes of a file before and after it was rewritten, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The size before.
    pub before: u64,
    /// The size after.
    pub after: u64,
}

/// Returns whether the folder contains a store.
pub fn exists(folder: &Path) -> bool {
    folder.join(FILE).is_file()
}

/// Verifies the checksums of all pages and decodes all rows. Blocks until the file is read. Can panic for a damaged file.
///
/// # Errors
/// The folder is in use, has no store, or the file is damaged or repaired.
pub fn check(folder: &Path) -> Result<(), StoreError> {
    let _lock = lock(folder)?;
    let engine = Engine::open(folder.join(FILE), Options::default().cache_bytes)?;
    engine.verify()?;
    load::load(&engine).map(drop)
}

/// Rewrites the file without free pages. An interruption leaves the old file.
///
/// # Errors
/// The folder is in use or has no store, or the new file cannot be written.
pub fn defragment(folder: &Path) -> Result<Rewritten, StoreError> {
    let _lock = lock(folder)?;
    let (file, new) = (folder.join(FILE), folder.join(NEW_FILE));
    let engine = Engine::open(file.clone(), Options::default().cache_bytes)?;
    let obsolete = load::load(&engine)?.obsolete;
    engine.commit(&Change { obsolete, ..Change::default() })?;
    let before = engine.size_on_disk()?;
    remove_leftover(&new)?;
    engine.view()?.copy_to(&new, engine.compacted()?)?;
    engine.close();
    rename_synced(&new, &file)?;
    let after = Engine::open(file, 0)?.size_on_disk()?;
    Ok(Rewritten { before, after })
}

/// Returns the path of the store's file in a folder.
pub fn store_file(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Copies the snapshot `from` to the new folder `to`. The snapshot is a folder, or a file that etcd's API has sent.
///
/// # Errors
/// `from` has no store, is in use or damaged, `to` has a store, or the copy cannot be written.
pub fn restore(from: &Path, to: &Path) -> Result<(), StoreError> {
    #[cfg(feature = "etcd-server")]
    if from.is_file() {
        return snapshot_file::restore(from, to);
    }
    let _from = lock(from)?;
    private_files::create_folder(to)?;
    let _to = FolderLock::take(to)?;
    let engine = Engine::open(from.join(FILE), Options::default().cache_bytes)?;
    engine.view()?.copy_to(&to.join(FILE), engine.compacted()?)
}

fn lock(folder: &Path) -> Result<FolderLock, StoreError> {
    if !exists(folder) {
        let of_etcd = folder.join(ETCD_SNAPSHOT).exists();
        let why =
            if of_etcd { "has a snapshot of etcd: use 'etcdutl snapshot restore'" } else { "has no store" };
        let why = format!("{} {why}", folder.display());
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, why).into());
    }
    FolderLock::take(folder)
}
