//! Files and folders that only their owner can access.
//!
//! They are created with their mode, so others can never access them, not even briefly. If a file or folder exists with
//! a wider mode, the mode is reduced and a warning is logged.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Mode of a private file.
const FILE: u32 = 0o600;
/// Mode of a private folder.
const FOLDER: u32 = 0o700;
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// Creates a private folder and its missing parents. If the folder exists, reduces its mode.
pub fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER).create(path)?;
    tighten(path, FOLDER)
}

/// Opens a private file for reading and writing; creates it if it does not exist.
pub fn open_file(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE).open(path)?;
    tighten(path, FILE)?;
    Ok(file)
}

/// Reduces the mode of an existing file.
pub fn tighten_file(path: &Path) -> io::Result<()> {
    tighten(path, FILE)
}

fn tighten(path: &Path, mode: u32) -> io::Result<()> {
    let found = path.metadata()?.permissions().mode() & 0o7777;
    if found & OTHERS == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    tracing::warn!(path = %path.display(), from = format!("{found:o}"), to = format!("{mode:o}"), "permissions tightened");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn new_and_existing_files_are_private() {
        rustix::process::umask(rustix::fs::Mode::empty());
        let parent = tempfile::tempdir().unwrap();
        std::fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
        let folder = parent.path().join("above").join("own");
        let file = folder.join("file");
        for _ in 0..2 {
            create_folder(&folder).unwrap();
            open_file(&file).unwrap();
            assert_eq!([mode(folder.parent().unwrap()), mode(&folder), mode(&file)], [0o700, 0o700, 0o600]);
            std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(0o664)).unwrap();
        }
        tighten_file(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(parent.path()), 0o755, "the parent is not changed");
    }
}
