//! Detection of changed files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A set of files that is polled for changes. Reads the metadata of the target of symbolic links: Kubernetes updates a
/// mounted config map or secret by changing a link to its folder.
#[derive(Debug)]
pub struct WatchedFiles {
    files: Vec<(PathBuf, Option<FileState>)>,
}

/// Modification time, length and inode of a file.
type FileState = (SystemTime, u64, u64);

impl WatchedFiles {
    /// Records the current state of the files.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let files = paths.into_iter().map(|path| {
            let state = file_state(&path);
            (path, state)
        });
        Self { files: files.collect() }
    }

    /// Returns whether a file has changed since the last call.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, seen) in &mut self.files {
            let now = file_state(path);
            changed |= *seen != now;
            *seen = now;
        }
        changed
    }
}

fn file_state(path: &Path) -> Option<FileState> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_a_change_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut watched = WatchedFiles::new(vec![path.clone()]);
        assert!(!watched.changed());
        fs::write(&path, "a").unwrap();
        assert!(watched.changed() && !watched.changed());
        fs::write(folder.path().join("new"), "b").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(watched.changed() && !watched.changed());
        fs::remove_file(&path).unwrap();
        assert!(watched.changed() && !watched.changed());
    }
}
