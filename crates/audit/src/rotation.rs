//! Log files with rotation by size, age and number. Rotated files have the names of upstream's lumberjack:
//! `audit-2026-01-02T03-04-05.678.log`.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use nave_machinery::time::Timestamp;

use crate::event::timestamp;
use crate::log::FileOptions;

/// A file that is rotated before it would exceed its size.
pub(crate) struct RotatingFile {
    options: FileOptions,
    file: File,
    /// The size of the file; `None` if it is a device or a pipe, which cannot be rotated.
    size: Option<u64>,
    compressing: Option<JoinHandle<()>>,
}

impl RotatingFile {
    /// Opens or creates the file and its folder. Removes an incomplete last line, which a killed process can leave.
    pub(crate) fn open(options: FileOptions) -> io::Result<Self> {
        create_folder(&options.path)?;
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&options.path);
        if file.is_err() {
            // A pipe or device may allow writing only.
            file = OpenOptions::new().append(true).mode(0o600).open(&options.path);
        }
        let mut file = file?;
        let metadata = file.metadata()?;
        let size = if metadata.is_file() { Some(end_of_last_line(&mut file, metadata.len())?) } else { None };
        if let Some(size) = size.filter(|size| *size < metadata.len()) {
            tracing::warn!(file = %options.path.display(), "incomplete last line of the audit log removed");
            file.set_len(size)?;
        }
        let mut opened = Self { options, file, size, compressing: None };
        opened.clean_up();
        Ok(opened)
    }

    /// Renames the file and creates a new one. A file that somebody has moved away needs no new name.
    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.options.path;
        match fs::rename(path, backup_path(path, SystemTime::now())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => create_folder(path)?,
            renamed => renamed?,
        }
        let new = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        if let Err(error) = self.file.metadata().and_then(|old| inherit_access(&new, &old)) {
            tracing::warn!(file = %path.display(), %error, "new audit log is readable by its owner only");
        }
        let size = new.metadata()?.len();
        (self.file, self.size) = (new, Some(size));
        self.clean_up();
        Ok(())
    }

    /// Removes surplus and old files, and compresses the others in a thread.
    fn clean_up(&mut self) {
        if let Err(error) = self.remove_surplus() {
            let file = self.options.path.display();
            tracing::warn!(%file, %error, "clean-up of rotated audit logs failed");
        }
        if !self.options.compress || self.compressing.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let path = self.options.path.clone();
        let compress = move || {
            for Backup { path, .. } in backups(&path).into_iter().filter(|backup| !backup.is_compressed) {
                if let Err(error) = compress(&path) {
                    tracing::warn!(file = %path.display(), %error, "audit log cannot be compressed");
                }
            }
        };
        self.compressing = thread::Builder::new().name("audit-compress".to_owned()).spawn(compress).ok();
    }

    fn remove_surplus(&self) -> io::Result<()> {
        let FileOptions { path, max_age_days, max_backups, .. } = &self.options;
        let now = timestamp(SystemTime::now());
        let max_age = i64::from(*max_age_days) * SECONDS_PER_DAY;
        for (index, backup) in backups(path).into_iter().enumerate() {
            let is_surplus = *max_backups > 0 && index >= *max_backups;
            let is_old = max_age > 0 && now.seconds_since(backup.time) > max_age;
            if is_surplus || is_old {
                fs::remove_file(&backup.path)?;
            }
        }
        Ok(())
    }
}

impl Write for RotatingFile {
    /// Writes all lines or none.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let max = self.options.max_size;
        if let Some(size) = self.size.filter(|size| *size > 0)
            && max > 0
            && size + lines.len() as u64 > max
        {
            self.rotate()?;
        }
        let written = self.file.write_all(lines);
        if let Some(size) = self.size {
            match &written {
                Ok(()) => self.size = Some(size + lines.len() as u64),
                Err(_) => self.file.set_len(size)?,
            }
        }
        written.map(|()| lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A rotated file.
struct Backup {
    path: PathBuf,
    time: Timestamp,
    is_compressed: bool,
}

/// Returns the rotated files, newest first. Ignores files with other names.
fn backups(path: &Path) -> Vec<Backup> {
    let (prefix, extension) = name_parts(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<Backup> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (rest, is_compressed) = match name.strip_suffix(COMPRESSED) {
                Some(rest) => (rest, true),
                None => (name.as_str(), false),
            };
            let time = rest.strip_prefix(&prefix)?.strip_suffix(&extension)?;
            Some(Backup { path: entry.path(), time: parse_time(time)?, is_compressed })
        })
        .collect();
    found.sort_by(|a, b| b.path.file_name().cmp(&a.path.file_name()));
    found
}

/// Returns the path for a file that is rotated at a time. Two rotations in one millisecond get different paths.
fn backup_path(path: &Path, time: SystemTime) -> PathBuf {
    let (prefix, extension) = name_parts(path);
    let mut time = time;
    loop {
        // 2026-01-02T03:04:05.678901Z
        let text = timestamp(time).rfc3339_micro().replace(':', "-");
        let milliseconds = text.get(.."2026-01-02T03-04-05.678".len()).unwrap_or(&text);
        let backup = path.with_file_name(format!("{prefix}{milliseconds}{extension}"));
        if !backup.exists() {
            return backup;
        }
        time += std::time::Duration::from_millis(1);
    }
}

/// Parses the time in a file name: `2026-01-02T03-04-05.678`.
fn parse_time(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once('T')?;
    Timestamp::parse(&format!("{date}T{}Z", time.replace('-', ":")))
}

/// Splits a file's name into the parts before and after the time.
fn name_parts(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name.rfind('.') {
        Some(dot) => (format!("{}-", &name[..dot]), name[dot..].to_owned()),
        None => (format!("{name}-"), String::new()),
    }
}

/// Creates the folder of a file.
fn create_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => DirBuilder::new().recursive(true).mode(0o700).create(folder),
        None => Ok(()),
    }
}

/// Gives a new file the mode of the old one and, if the process may, its owner and group.
fn inherit_access(new: &File, old: &Metadata) -> io::Result<()> {
    let created = new.metadata()?;
    if (created.uid(), created.gid()) != (old.uid(), old.gid()) {
        // Only root may give files away, but everybody may choose among his groups.
        let _ = fchown(new, Some(old.uid()), Some(old.gid())).or_else(|_| fchown(new, None, Some(old.gid())));
    }
    new.set_permissions(Permissions::from_mode(old.mode() & 0o777))
}

/// Replaces a file by its compressed form.
fn compress(path: &Path) -> io::Result<()> {
    let with_suffix = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let (unfinished, compressed) = (with_suffix(".gz.tmp"), with_suffix(COMPRESSED));
    let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    let mut source = File::open(path)?;
    let copied = io::copy(&mut source, &mut encoder)
        .and_then(|_| encoder.finish())
        .and_then(|target| inherit_access(&target, &source.metadata()?));
    if let Err(error) = copied {
        fs::remove_file(&unfinished)?;
        return Err(error);
    }
    fs::rename(unfinished, compressed)?;
    fs::remove_file(path)
}

/// Returns the position after the last line feed.
fn end_of_last_line(file: &mut File, size: u64) -> io::Result<u64> {
    let mut end = size;
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(position) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + position as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

const COMPRESSED: &str = ".gz";
const SECONDS_PER_DAY: i64 = 24 * 60 * 60;
const BLOCK: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn options(folder: &Path, max_size: u64) -> FileOptions {
        FileOptions {
            path: folder.join("audit.log"),
            max_size,
            max_age_days: 0,
            max_backups: 0,
            compress: false,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn rotates_by_size_and_keeps_all_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = RotatingFile::open(options(folder.path(), 100)).unwrap();
        for number in 0..20 {
            file.write_all(format!("{number:029}\n").as_bytes()).unwrap();
        }
        let names = names(folder.path());
        assert_eq!(names.len(), 7, "{names:?}");
        let mut lines = 0;
        for name in &names {
            let path = folder.path().join(name);
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.len() <= 100 && text.ends_with('\n'));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            lines += text.lines().count();
            let time = name.strip_prefix("audit-").and_then(|rest| rest.strip_suffix(".log"));
            assert!(name == "audit.log" || parse_time(time.unwrap()).is_some(), "{name}");
        }
        assert_eq!(lines, 20);
    }

    #[test]
    fn a_file_that_was_moved_away_is_created_anew() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        let (path, moved) = (logs.join("audit.log"), folder.path().join("moved"));
        let mut file = RotatingFile::open(options(&logs, 4)).unwrap();
        file.write_all(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        file.write_all(b"two\n").unwrap();
        assert_eq!((fs::read_to_string(&moved).unwrap().as_str(), names(&logs).len()), ("one\n", 1));
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        // With its folder, too.
        fs::remove_dir_all(&logs).unwrap();
        file.write_all(b"tri\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "tri\n");
        // A failure ends with its cause.
        fs::remove_dir_all(&logs).unwrap();
        fs::write(&logs, "").unwrap();
        file.write_all(b"abc\n").unwrap_err();
        fs::remove_file(&logs).unwrap();
        file.write_all(b"end\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "end\n");
    }

    #[test]
    fn rotated_and_compressed_files_keep_their_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let mut file =
            RotatingFile::open(FileOptions { compress: true, ..options(folder.path(), 4) }).unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
        file.write_all(b"one\n").unwrap();
        file.write_all(b"two\n").unwrap();
        file.compressing.take().unwrap().join().unwrap();
        for name in names(folder.path()) {
            assert_eq!(mode(&folder.path().join(&name)), 0o664, "{name}");
        }
        assert_eq!(names(folder.path()).len(), 2);
    }

    #[test]
    fn removes_surplus_and_old_files() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "audit-2020-01-01T00-00-00.000.log",
            "audit-2020-01-02T00-00-00.000.log.gz",
            "audit-2020-01-03T00-00-00.000.log",
            "audit-x.log",
            "other-2020-01-01T00-00-00.000.log",
        ] {
            fs::write(folder.path().join(name), "x\n").unwrap();
        }
        drop(RotatingFile::open(FileOptions { max_backups: 2, ..options(folder.path(), 0) }).unwrap());
        assert!(!folder.path().join("audit-2020-01-01T00-00-00.000.log").exists());
        assert_eq!(names(folder.path()).len(), 5);
        drop(RotatingFile::open(FileOptions { max_age_days: 1, ..options(folder.path(), 0) }).unwrap());
        assert_eq!(names(folder.path()), ["audit-x.log", "audit.log", "other-2020-01-01T00-00-00.000.log"]);
    }

    #[test]
    fn removes_an_incomplete_last_line() {
        for (before, after) in [("", ""), ("a\n", "a\n"), ("a\nb", "a\n"), ("b", ""), ("a\n\n", "a\n\n")] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("audit.log");
            fs::write(&path, before).unwrap();
            let mut file = RotatingFile::open(options(folder.path(), 0)).unwrap();
            file.write_all(b"c\n").unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), format!("{after}c\n"), "{before:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        fs::write(&path, format!("a\n{}", "x".repeat(3 * BLOCK))).unwrap();
        drop(RotatingFile::open(options(folder.path(), 0)).unwrap());
        assert_eq!(fs::read_to_string(path).unwrap(), "a\n");
    }

    #[test]
    fn compresses_rotated_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut file =
            RotatingFile::open(FileOptions { compress: true, ..options(folder.path(), 4) }).unwrap();
        file.write_all(b"one\n").unwrap();
        file.write_all(b"two\n").unwrap();
        file.compressing.take().unwrap().join().unwrap();
        let compressed = names(folder.path()).into_iter().find(|name| name.ends_with(".log.gz")).unwrap();
        let mut text = String::new();
        let compressed = File::open(folder.path().join(compressed)).unwrap();
        flate2::read::GzDecoder::new(compressed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\n");
        assert_eq!(names(folder.path()).len(), 2);
    }
}
