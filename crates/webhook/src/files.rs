//! Files that may change while the process runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files that are looked at now and then. A folder that a link leads to may be exchanged as a whole, as Kubernetes does
/// with mounted config maps and secrets, so it is the file behind the path that is looked at, not the path.
#[derive(Debug)]
pub struct Watched {
    files: Vec<(PathBuf, Option<Look>)>,
}

/// What tells a file from what it was before.
type Look = (SystemTime, u64, u64);

impl Watched {
    /// Watches these, as they are now.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let files = paths.into_iter().map(|path| {
            let look = look(&path);
            (path, look)
        });
        Self { files: files.collect() }
    }

    /// Whether one is another than when this was asked last.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, seen) in &mut self.files {
            let now = look(path);
            changed |= *seen != now;
            *seen = now;
        }
        changed
    }
}

fn look(path: &Path) -> Option<Look> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut watched = Watched::new(vec![path.clone()]);
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
