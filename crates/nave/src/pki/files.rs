//! Files that appear whole, or not at all.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// What a power cut may do to a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nothing, once it is written: it cannot be replaced.
    Safely,
    /// Empty it or take it away: the next start makes it anew, so that no start has to wait for the disk.
    Loosely,
}

/// Writes a file that its owner alone may read.
pub(crate) fn write_private(path: &Path, text: &str, kept: Kept) -> io::Result<()> {
    write(path, text, 0o600, kept)
}

/// Writes a file that everybody may read.
pub(super) fn write_public(path: &Path, text: &str, kept: Kept) -> io::Result<()> {
    write(path, text, 0o644, kept)
}

/// Writes beside the path, with the mode from the start, and renames when all is there.
fn write(path: &Path, text: &str, mode: u32, kept: Kept) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    if kept == Kept::Safely {
        file.as_file().sync_all()?;
    }
    file.persist(path)?;
    if kept == Kept::Safely {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
