//! The redb file: tables of records, commits, and recovery from failed writes.

use std::fs::File;
use std::path::{Path, PathBuf};
#[cfg(feature = "contract")]
use std::sync::Arc;

use parking_lot::RwLock;
use redb::{Database, Durability, ReadableDatabase, Table, TableDefinition, TableError, WriteTransaction};

use crate::{StoreError, private_files};

use super::position::Position;
use super::view::View;

/// The first record of each revision, by revision.
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// The other records of a revision, by packed position. A file of an older version has no such table.
pub(super) const PARTS: TableDefinition<u64, &[u8]> = TableDefinition::new("parts");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// The times to live of leases, in seconds.
pub(super) const LEASES: TableDefinition<i64, u64> = TableDefinition::new("leases");
/// Row of `META`: the compacted revision.
const COMPACTED: &str = "compacted";

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
    pub(super) rows: Vec<(Position, Vec<u8>)>,
    /// Rows that are no longer needed by any reader.
    pub(super) obsolete: Vec<Position>,
    /// The new compacted revision.
    pub(super) compacted: Option<u64>,
    /// Granted leases with their time to live in seconds, and revoked ones without.
    pub(super) leases: Vec<(i64, Option<u64>)>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        let Self { rows, obsolete, compacted, leases } = self;
        rows.is_empty() && obsolete.is_empty() && compacted.is_none() && leases.is_empty()
    }

    /// Writes the new rows that belong to one table and removes the obsolete ones; returns the number of bytes removed.
    fn apply_to(
        &self,
        table: &mut Table<'_, u64, &'static [u8]>,
        key: impl Fn(Position) -> Option<u64>,
    ) -> Result<u64, StoreError> {
        for (position, record) in &self.rows {
            if let Some(key) = key(*position) {
                table.insert(key, record.as_slice()).map_err(typed)?;
            }
        }
        let mut removed = 0;
        for key in self.obsolete.iter().filter_map(|position| key(*position)) {
            removed += table.remove(key).map_err(typed)?.map_or(0, |record| record.value().len() as u64);
        }
        Ok(removed)
    }

    /// Writes the rows and removes the obsolete ones; returns the number of bytes removed.
    fn apply_rows(&self, transaction: &WriteTransaction) -> Result<u64, StoreError> {
        let mut log = transaction.open_table(LOG).map_err(typed)?;
        let mut removed =
            self.apply_to(&mut log, |position| position.is_first().then(|| position.revision()))?;
        let mut positions = self.rows.iter().map(|(position, _)| position).chain(&self.obsolete);
        if !positions.all(|position| position.is_first()) {
            let mut parts = transaction.open_table(PARTS).map_err(typed)?;
            removed +=
                self.apply_to(&mut parts, |position| (!position.is_first()).then(|| position.packed()))?;
        }
        Ok(removed)
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
        let removed = change.apply_rows(&transaction)?;
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
        View::new(transaction)
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

/// Returns the path of a file with a longer name in the same folder.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
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
pub(super) fn typed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) => error.into(),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => StoreError::Recovering,
        redb::Error::Corrupted(what) => StoreError::Corrupt(what.into()),
        other => StoreError::Corrupt(other.to_string().into()),
    }
}
