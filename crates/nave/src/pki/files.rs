//! Atomic file writes.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// The durability of a file: synced to disk or not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Synced, because the file cannot be recreated.
    Synced,
    /// Not synced: a power failure may lose the file, and the next start recreates it. Avoids waiting for the disk at
    /// each start.
    Unsynced,
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, text: &str, durability: Durability) -> io::Result<()> {
    write(path, text, 0o600, durability)
}

/// Writes a file that every user can read.
pub(super) fn write_public(path: &Path, text: &str, durability: Durability) -> io::Result<()> {
    write(path, text, 0o644, durability)
}

/// Writes a temporary file with the final mode next to the path and renames it.
fn write(path: &Path, text: &str, mode: u32, durability: Durability) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    if durability == Durability::Synced {
        file.as_file().sync_all()?;
    }
    file.persist(path)?;
    if durability == Durability::Synced {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
