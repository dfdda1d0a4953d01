//! The redb file: a table from revision to record, and recovery from failed writes.

use std::fs::File;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use redb::{
    Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    TableError,
};

use crate::{KeyValue, StoreError, private_files};

use super::entry::Entry;
use super::record::Record;

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// The times to live of leases, in seconds.
const LEASES: TableDefinition<i64, u64> = TableDefinition::new("leases");
/// Row of `META`: the compacted revision.
const COMPACTED: &str = "compacted";
/// Number of rows that a snapshot copies per commit.
const SNAPSHOT_ROWS: usize = 4096;

/// An open store file. Only the writer thread modifies it.
pub(super) struct Engine {
    path: PathBuf,
    cache_bytes: usize,
    #[cfg(feature = "contract")]
    faults: Option<Arc<super::faults::Faults>>,
    /// `None` after the store is closed, or if the file could not be reopened after a failed write.
    database: RwLock<Option<Database>>,
}

/// The changes of one commit.
#[derive(Default)]
pub(super) struct Change {
    /// New rows, in ascending order.
    pub(super) rows: Vec<(u64, Vec<u8>)>,
    /// Rows that are no longer needed by any reader.
    pub(super) obsolete: Vec<u64>,
    /// The new compacted revision.
    pub(super) compacted: Option<u64>,
    /// Granted leases with their time to live in seconds, and revoked ones without.
    pub(super) leases: Vec<(i64, Option<u64>)>,
}

/// A consistent snapshot of the log. Later commits do not affect it.
pub(super) struct View {
    transaction: ReadTransaction,
    log: ReadOnlyTable<u64, &'static [u8]>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        let Self { rows, obsolete, compacted, leases } = self;
        rows.is_empty() && obsolete.is_empty() && compacted.is_none() && leases.is_empty()
    }
}

impl Engine {
    pub(super) fn open(path: PathBuf, cache_bytes: usize) -> Result<Self, StoreError> {
        Self {
            path,
            cache_bytes,
            #[cfg(feature = "contract")]
            faults: None,
            database: RwLock::default(),
        }
        .opened()
    }

    /// Opens a file whose operations can fail.
    #[cfg(feature = "contract")]
    pub(super) fn open_with_faults(
        path: PathBuf,
        cache_bytes: usize,
        faults: Arc<super::faults::Faults>,
    ) -> Result<Self, StoreError> {
        Self { path, cache_bytes, faults: Some(faults), database: RwLock::default() }.opened()
    }

    fn opened(self) -> Result<Self, StoreError> {
        *self.database.write() = Some(self.open_database()?);
        Ok(self)
    }

    /// Writes `change` atomically and durably; returns the number of bytes removed.
    pub(super) fn commit(&self, change: &Change) -> Result<u64, StoreError> {
        let database = self.database.read();
        let mut transaction =
            database.as_ref().ok_or(StoreError::Recovering)?.begin_write().map_err(typed)?;
        transaction.set_durability(Durability::Immediate).map_err(typed)?;
        let mut removed = 0;
        {
            let mut log = transaction.open_table(LOG).map_err(typed)?;
            for (revision, record) in &change.rows {
                log.insert(revision, record.as_slice()).map_err(typed)?;
            }
            for revision in &change.obsolete {
                removed +=
                    log.remove(revision).map_err(typed)?.map_or(0, |record| record.value().len() as u64);
            }
        }
        if let Some(compacted) = change.compacted {
            let mut meta = transaction.open_table(META).map_err(typed)?;
            meta.insert(COMPACTED, compacted).map_err(typed)?;
        }
        if !change.leases.is_empty() {
            let mut leases = transaction.open_table(LEASES).map_err(typed)?;
            for (id, ttl) in &change.leases {
                match ttl {
                    Some(ttl) => drop(leases.insert(id, ttl).map_err(typed)?),
                    None => drop(leases.remove(id).map_err(typed)?),
                }
            }
        }
        transaction.commit().map_err(typed)?;
        Ok(removed)
    }

    /// Reopens the file after a failed commit, as redb requires. Returns its newest revision, which tells the caller
    /// whether the commit succeeded.
    pub(super) fn reopen(&self) -> Result<Option<u64>, StoreError> {
        let mut database = self.database.write();
        // Closes the file first, because it is locked while it is open.
        *database = None;
        *database = Some(self.open_database()?);
        drop(database);
        self.view()?.newest()
    }

    /// Returns whether the file is closed: the last [`reopen`](Self::reopen) failed or the store is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.database.read().is_none()
    }

    /// Closes the file so that another process can open it.
    pub(super) fn close(&self) {
        *self.database.write() = None;
    }

    pub(super) fn view(&self) -> Result<View, StoreError> {
        let database = self.database.read();
        let transaction = database.as_ref().ok_or(StoreError::Recovering)?.begin_read().map_err(typed)?;
        let log = transaction.open_table(LOG).map_err(typed)?;
        Ok(View { transaction, log })
    }

    /// Returns the compacted revision on disk.
    pub(super) fn compacted(&self) -> Result<u64, StoreError> {
        let database = self.database.read();
        let transaction = database.as_ref().ok_or(StoreError::Recovering)?.begin_read().map_err(typed)?;
        match transaction.open_table(META) {
            Ok(meta) => Ok(meta.get(COMPACTED).map_err(typed)?.map_or(0, |row| row.value())),
            Err(TableError::TableDoesNotExist(_)) => Ok(0),
            Err(error) => Err(typed(error)),
        }
    }

    /// Verifies the checksums of all pages.
    ///
    /// # Errors
    /// A page is damaged. The file may have been repaired, but writes of its last commit may be lost.
    pub(super) fn verify(&self) -> Result<(), StoreError> {
        let mut database = self.database.write();
        let database = database.as_mut().ok_or(StoreError::Recovering)?;
        if database.check_integrity().map_err(typed)? {
            Ok(())
        } else {
            Err(StoreError::Corrupt("pages were damaged and have been repaired".into()))
        }
    }

    /// Opens the file, or creates it. A new file gets its name when it is complete, so that a crash leaves no file that
    /// looks like a damaged store, and an incomplete file is never taken for a new store.
    fn open_database(&self) -> Result<Database, StoreError> {
        if self.path.try_exists()? {
            if std::fs::metadata(&self.path)?.len() == 0 {
                return Err(StoreError::Corrupt("its file is empty".into()));
            }
            return self.open_file(&self.path);
        }
        let new = beside(&self.path, ".new");
        remove_leftover(&new)?;
        let database = self.open_file(&new)?;
        rename_synced(&new, &self.path)?;
        Ok(database)
    }

    fn open_file(&self, path: &Path) -> Result<Database, StoreError> {
        // Creates the file first, because redb would use the default mode of the process.
        let file = private_files::open_file(path)?;
        let mut builder = Database::builder();
        builder.set_cache_size(self.cache_bytes);
        #[cfg(feature = "contract")]
        if let Some(faults) = &self.faults {
            let backend = super::faults::FaultyFile { file, faults: Arc::clone(faults) };
            return with_log(builder.create_with_backend(backend).map_err(typed)?);
        }
        drop(file);
        with_log(builder.create(path).map_err(typed)?)
    }

    /// Returns the bytes allocated to the file. A preallocated file is sparse.
    pub(super) fn size_on_disk(&self) -> Result<u64, StoreError> {
        let file = std::fs::metadata(&self.path)?;
        #[cfg(unix)]
        return Ok(std::os::unix::fs::MetadataExt::blocks(&file) * 512);
        #[cfg(not(unix))]
        return Ok(file.len());
    }
}

impl View {
    /// Calls `each` for every row in `revisions`, in ascending order, until it returns false.
    pub(super) fn scan(
        &self,
        revisions: RangeInclusive<u64>,
        mut each: impl FnMut(u64, Record<'_>, usize) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for row in self.log.range(revisions).map_err(typed)? {
            let (revision, bytes) = row.map_err(typed)?;
            let record = Record::decode(revision.value(), bytes.value())?;
            if !each(revision.value(), record, bytes.value().len())? {
                break;
            }
        }
        Ok(())
    }

    /// Reads the row `revision`, which holds a version of `key`.
    pub(super) fn row<T>(
        &self,
        revision: u64,
        key: &str,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, StoreError> {
        let Some(row) = self.log.get(revision).map_err(typed)? else {
            return Err(StoreError::Corrupt(format!("revision {revision} of {key} is missing").into()));
        };
        Ok(read(Record::decode(revision, row.value())?))
    }

    /// Returns the version in row `revision`, using the caller's copy of the key.
    pub(super) fn key_value(&self, key: &Arc<str>, revision: u64) -> Result<KeyValue, StoreError> {
        self.row(revision, key, |record| record.to_key_value(revision, Arc::clone(key)))
    }

    /// Returns the version in row `revision` with all that is known about it.
    pub(super) fn entry(&self, key: &Arc<str>, revision: u64) -> Result<Entry, StoreError> {
        self.row(revision, key, |record| record.to_entry(revision, Arc::clone(key)))
    }

    /// Returns the leases and their times to live in seconds.
    pub(super) fn leases(&self) -> Result<Vec<(i64, u64)>, StoreError> {
        let leases = match self.transaction.open_table(LEASES) {
            Ok(leases) => leases,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(typed(error)),
        };
        let rows = leases.iter().map_err(typed)?;
        rows.map(|row| row.map(|(id, ttl)| (id.value(), ttl.value())).map_err(typed)).collect()
    }

    /// Returns the revision of the last row.
    pub(super) fn newest(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.log.last().map_err(typed)?.map(|(revision, _)| revision.value()))
    }

    /// Copies all rows to a new file, which gets its name when it is complete.
    pub(super) fn copy_to(&self, path: &Path, compacted: u64) -> Result<(), StoreError> {
        if path.try_exists()? {
            let why = format!("{} exists", path.display());
            return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, why).into());
        }
        let partial = beside(path, ".partial");
        remove_leftover(&partial)?;
        let copy = Engine::open(partial.clone(), 0)?;
        let leases = self.leases()?.into_iter().map(|(id, ttl)| (id, Some(ttl))).collect();
        let mut change = Change { compacted: Some(compacted), leases, ..Change::default() };
        for row in self.log.iter().map_err(typed)? {
            let (revision, bytes) = row.map_err(typed)?;
            change.rows.push((revision.value(), bytes.value().to_vec()));
            if change.rows.len() == SNAPSHOT_ROWS {
                copy.commit(&std::mem::take(&mut change))?;
            }
        }
        copy.commit(&change)?;
        copy.close();
        rename_synced(&partial, path)
    }
}

/// Returns the path of a file with a longer name in the same folder.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes the file of an interrupted run, if there is one.
pub(super) fn remove_leftover(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Gives a file another name, durably.
pub(super) fn rename_synced(from: &Path, to: &Path) -> Result<(), StoreError> {
    File::open(from)?.sync_all()?;
    std::fs::rename(from, to)?;
    if let Some(folder) = to.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Creates the table of rows in a new file.
fn with_log(database: Database) -> Result<Database, StoreError> {
    let has_log = match database.begin_read().map_err(typed)?.open_table(LOG) {
        Ok(_) => true,
        Err(TableError::TableDoesNotExist(_)) => false,
        Err(error) => return Err(typed(error)),
    };
    if !has_log {
        let transaction = database.begin_write().map_err(typed)?;
        transaction.open_table(LOG).map_err(typed)?;
        transaction.commit().map_err(typed)?;
    }
    Ok(database)
}

/// Converts an error of redb.
fn typed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) => error.into(),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => StoreError::Recovering,
        redb::Error::Corrupted(what) => StoreError::Corrupt(what.into()),
        other => StoreError::Corrupt(other.to_string().into()),
    }
}
