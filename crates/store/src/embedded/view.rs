//! Consistent reads of the redb file.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use redb::{AccessGuard, ReadOnlyTable, ReadTransaction, ReadableTable, StorageError, TableError};

use crate::{KeyValue, StoreError};

use super::engine::{Change, Engine, LEASES, LOG, PARTS, beside, remove_leftover, rename_synced, typed};
use super::entry::Entry;
use super::position::Position;
use super::record::Record;

type Rows = ReadOnlyTable<u64, &'static [u8]>;
type Row = (AccessGuard<'static, u64>, AccessGuard<'static, &'static [u8]>);

/// A consistent snapshot of the log. Later commits do not affect it.
pub(super) struct View {
    transaction: ReadTransaction,
    log: Rows,
}

impl View {
    pub(super) fn new(transaction: ReadTransaction) -> Result<Self, StoreError> {
        let log = transaction.open_table(LOG).map_err(typed)?;
        Ok(Self { transaction, log })
    }

    /// Returns the table of records that are not the first of their revision, if there has been one.
    fn parts(&self) -> Result<Option<Rows>, StoreError> {
        match self.transaction.open_table(PARTS) {
            Ok(parts) => Ok(Some(parts)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(typed(error)),
        }
    }

    /// Calls `each` for every row in `revisions`, in ascending order, until it returns false.
    pub(super) fn scan(
        &self,
        revisions: RangeInclusive<u64>,
        mut each: impl FnMut(Position, Record<'_>, usize) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let parts = match self.parts()? {
            Some(parts) => {
                let newest = Position::stored(*revisions.end()).map_or(u64::MAX, Position::last_of_revision);
                Some(parts.range(Position::first(*revisions.start()).packed()..=newest).map_err(typed)?)
            }
            None => None,
        };
        let mut parts = parts.into_iter().flatten().map(|row| stored(row, |key| Ok(Position::unpack(key))));
        let mut firsts = self.log.range(revisions).map_err(typed)?.map(|row| stored(row, Position::stored));
        let (mut first, mut part) = (firsts.next().transpose()?, parts.next().transpose()?);
        loop {
            let is_part = match (&first, &part) {
                (Some((first, _)), Some((part, _))) => part < first,
                (first, _) => first.is_none(),
            };
            let row = if is_part {
                std::mem::replace(&mut part, parts.next().transpose()?)
            } else {
                std::mem::replace(&mut first, firsts.next().transpose()?)
            };
            let Some((position, bytes)) = row else { return Ok(()) };
            let record = Record::decode(position.revision(), bytes.value())?;
            if !each(position, record, bytes.value().len())? {
                return Ok(());
            }
        }
    }

    /// Reads a row, which holds a version of `key`.
    pub(super) fn row<T>(
        &self,
        position: Position,
        key: &str,
        read: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, StoreError> {
        let revision = position.revision();
        let row = if position.is_first() {
            self.log.get(revision).map_err(typed)?
        } else {
            self.parts()?.map(|parts| parts.get(position.packed())).transpose().map_err(typed)?.flatten()
        };
        let Some(row) = row else {
            return Err(StoreError::Corrupt(format!("revision {revision} of {key} is missing").into()));
        };
        Ok(read(Record::decode(revision, row.value())?))
    }

    /// Returns the version in a row, using the caller's copy of the key.
    pub(super) fn key_value(&self, key: &Arc<str>, row: Position) -> Result<KeyValue, StoreError> {
        self.row(row, key, |record| record.to_key_value(row.revision(), Arc::clone(key)))
    }

    /// Returns the version in a row with all that is known about it.
    pub(super) fn entry(&self, key: &Arc<str>, row: Position) -> Result<Entry, StoreError> {
        self.row(row, key, |record| record.to_entry(row.revision(), Arc::clone(key)))
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
        let first = self.log.last().map_err(typed)?.map(|(revision, _)| revision.value());
        let Some(parts) = self.parts()? else { return Ok(first) };
        let part = parts.last().map_err(typed)?;
        Ok(first.max(part.map(|(packed, _)| Position::unpack(packed.value()).revision())))
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
        let firsts = self.log.range::<u64>(..).map_err(typed)?.map(|row| stored(row, Position::stored));
        let parts = self.parts()?.map(|parts| parts.range::<u64>(..)).transpose().map_err(typed)?;
        let parts = parts.into_iter().flatten().map(|row| stored(row, |key| Ok(Position::unpack(key))));
        for row in firsts.chain(parts) {
            let (position, bytes) = row?;
            change.rows.push((position, bytes.value().to_vec()));
            if change.rows.len() == SNAPSHOT_ROWS {
                copy.commit(&std::mem::take(&mut change))?;
            }
        }
        copy.commit(&change)?;
        copy.close();
        rename_synced(&partial, path)
    }
}

/// Returns the position and the bytes of a row.
fn stored(
    row: Result<Row, StorageError>,
    position: impl Fn(u64) -> Result<Position, StoreError>,
) -> Result<(Position, AccessGuard<'static, &'static [u8]>), StoreError> {
    let (key, bytes) = row.map_err(typed)?;
    Ok((position(key.value())?, bytes))
}

/// Number of rows that a snapshot copies per commit.
const SNAPSHOT_ROWS: usize = 4096;
