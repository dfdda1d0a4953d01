//! Snapshots that etcd's API has sent: the store's file, followed by its SHA-256.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{StoreError, private_files};

use super::engine::Engine;
use super::lock::FolderLock;
use super::{FILE, Options, load};

const CHECKSUM: usize = 32;
const PART: usize = 64 << 10;

/// Writes the store of a snapshot to the new folder `to`.
///
/// # Errors
/// The file is damaged or not a snapshot of an embedded store, `to` has a store, or the copy cannot be written.
pub(super) fn restore(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut source = File::open(from)?;
    let length = source.metadata()?.len();
    let damaged = |why: &str| StoreError::Corrupt(format!("{}: {why}", from.display()).into());
    let content = length.checked_sub(CHECKSUM as u64).ok_or_else(|| damaged("too short for a snapshot"))?;
    verify(&mut source, content)?.then_some(()).ok_or_else(|| damaged("the checksum at its end is wrong"))?;
    private_files::create_folder(to)?;
    let _to = FolderLock::take(to)?;
    let file = to.join(FILE);
    if file.exists() {
        let why = format!("{} exists", file.display());
        return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, why).into());
    }
    let copied = copy(&mut source, content, &file);
    if copied.is_err() {
        // Leaves no incomplete store.
        std::fs::remove_file(&file)?;
    }
    copied
}

/// Returns whether the checksum after the content is right.
fn verify(source: &mut File, content: u64) -> Result<bool, StoreError> {
    let mut digest = Sha256::new();
    let mut part = vec![0; PART];
    let mut reader = source.take(content);
    loop {
        let read = reader.read(&mut part)?;
        if read == 0 {
            break;
        }
        digest.update(part.get(..read).unwrap_or_default());
    }
    let mut checksum = [0; CHECKSUM];
    source.read_exact(&mut checksum)?;
    Ok(digest.finalize()[..] == checksum)
}

fn copy(source: &mut File, content: u64, file: &Path) -> Result<(), StoreError> {
    source.rewind()?;
    let mut target = private_files::open_file(file)?;
    std::io::copy(&mut source.take(content), &mut target)?;
    target.flush()?;
    target.sync_all()?;
    // Rejects the snapshots of etcd, which have the same checksum.
    load::load(&Engine::open(file.to_owned(), Options::default().cache_bytes)?).map(drop)
}
