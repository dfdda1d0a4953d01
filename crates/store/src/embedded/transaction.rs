//! Transactions of several reads and writes, for etcd's API.
//!
//! A transaction runs on the writer's thread. Its writes have consecutive revisions, one each, and are committed and
//! published together.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{KeyValue, StoreError};

use super::Shared;
use super::batch::Batch;
use super::entry::{Content, Entry, Found, Lineage, Query};

/// A transaction in progress. It sees the writes before it and its own.
pub struct Transaction<'a> {
    shared: &'a Shared,
    batch: &'a Batch,
    /// The last write of each key of this transaction, and its entry unless it is a delete.
    written: HashMap<Arc<str>, Option<Entry>>,
    writes: Vec<Write>,
    revision: u64,
}

/// A write of a transaction.
pub(super) enum Write {
    Put { key: Arc<str>, value: Bytes, lease: i64, previous: Option<Lineage> },
    Delete { key: Arc<str> },
}

/// Work on the writer's thread.
pub(super) trait Program: Send {
    /// Runs the transaction; returns its writes, or nothing if it is refused.
    fn run(&mut self, transaction: Transaction<'_>) -> Vec<Write>;

    /// Sends the reply, once the writes are durable or have failed.
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

/// A closure with the place of its result.
pub(super) struct Closure<W, T> {
    pub(super) work: Option<W>,
    pub(super) done: Option<Result<T, StoreError>>,
    pub(super) reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<W, T, E> Program for Closure<W, Result<T, E>>
where
    W: FnOnce(&mut Transaction<'_>) -> Result<Result<T, E>, StoreError> + Send,
    T: Send,
    E: Send,
{
    fn run(&mut self, mut transaction: Transaction<'_>) -> Vec<Write> {
        let Some(work) = self.work.take() else { return Vec::new() };
        let done = self.done.insert(work(&mut transaction));
        if matches!(done, Ok(Ok(_))) { transaction.writes } else { Vec::new() }
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let done = self.done.unwrap_or(Err(StoreError::Closed));
        // The caller may have stopped waiting.
        let _ = self.reply.send(committed.and(done));
    }
}

impl<'a> Transaction<'a> {
    pub(super) fn new(shared: &'a Shared, batch: &'a Batch) -> Self {
        Self { shared, batch, written: HashMap::new(), writes: Vec::new(), revision: batch.revision }
    }

    /// Returns the revision of the last write.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns whether this transaction has written.
    pub fn has_written(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Returns whether a lease exists.
    pub fn has_lease(&self, id: i64) -> bool {
        self.shared.leases.lock().contains(id)
    }

    /// Returns the latest version of a key.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        if let Some(written) = self.pending(key) {
            return Ok(written.clone());
        }
        let found = self.shared.index.read().find(key, None)?;
        found.map(|(key, row)| self.shared.engine.view()?.entry(&key, row)).transpose()
    }

    /// Reads a range. A query of an older revision does not see the writes of this transaction.
    ///
    /// # Errors
    /// The revision is compacted or in the future, or the file cannot be read.
    pub fn query(&self, query: &Query) -> Result<Found, StoreError> {
        let is_latest = query.revision.is_none_or(|revision| revision == self.revision);
        if !is_latest {
            let found = self.shared.query(query)?;
            return Ok(Found { revision: self.revision, ..found });
        }
        let pending = self.pending_of(query);
        // Each pending key can take the place of a stored one.
        let limit = if query.limit == 0 { 0 } else { query.limit + pending.len() };
        let stored = self.shared.query(&Query { revision: None, limit, ..query.clone() })?;
        if pending.is_empty() {
            return Ok(Found { revision: self.revision, ..stored });
        }
        let count = self.count_with(stored.count, &pending);
        if query.content == Content::CountOnly {
            return Ok(Found { entries: Vec::new(), count, revision: self.revision });
        }
        let unwritten = stored.entries.into_iter().filter(|entry| self.pending(&entry.kv.key).is_none());
        let pending = pending.into_iter().filter_map(|(_, entry)| entry.cloned());
        let mut entries: Vec<Entry> = unwritten.chain(pending).collect();
        entries.sort_unstable_by(|one, other| one.kv.key.cmp(&other.kv.key));
        if query.limit != 0 {
            entries.truncate(query.limit);
        }
        if query.content == Content::KeysOnly {
            for entry in &mut entries {
                entry.kv.value = Bytes::new();
            }
        }
        Ok(Found { entries, count, revision: self.revision })
    }

    /// Writes a key.
    pub fn put(&mut self, key: &str, value: Bytes, lease: i64) {
        let key = Arc::<str>::from(key);
        let previous = match self.pending(&key) {
            Some(written) => written.as_ref().map(|entry| entry.lineage),
            None => self.shared.index.read().current(&key).map(|(_, lineage)| lineage),
        };
        self.revision += 1;
        let lineage = Lineage::after(previous, self.revision);
        let kv = KeyValue { key: Arc::clone(&key), value: value.clone(), mod_revision: self.revision };
        self.written.insert(Arc::clone(&key), Some(Entry { kv, lineage, lease }));
        self.writes.push(Write::Put { key, value, lease, previous });
    }

    /// Deletes a key, which exists.
    pub fn delete(&mut self, key: &Arc<str>) {
        self.revision += 1;
        self.written.insert(Arc::clone(key), None);
        self.writes.push(Write::Delete { key: Arc::clone(key) });
    }

    /// Returns the state of a key that this transaction or one before it in the commit has written.
    fn pending(&self, key: &str) -> Option<&Option<Entry>> {
        self.written.get(key).or_else(|| self.batch.written.get(key))
    }

    /// Returns the keys of a query that are pending, with their states.
    fn pending_of(&self, query: &Query) -> Vec<(&str, Option<&Entry>)> {
        if let Some(key) = query.range.single() {
            let written = self.written.get_key_value(key).or_else(|| self.batch.written.get_key_value(key));
            return written.map(|(key, entry)| (&**key, entry.as_ref())).into_iter().collect();
        }
        let own = self.written.iter();
        let before = self.batch.written.iter().filter(|(key, _)| !self.written.contains_key(*key));
        let pending = own.chain(before).filter(|(key, _)| query.range.contains(key));
        pending.map(|(key, entry)| (&**key, entry.as_ref())).collect()
    }

    /// Returns the number of keys after pending writes, of which `stored` are in the index.
    fn count_with(&self, stored: u64, pending: &[(&str, Option<&Entry>)]) -> u64 {
        let index = self.shared.index.read();
        pending.iter().fold(stored, |count, (key, entry)| match (index.latest(key).is_some(), entry) {
            (true, None) => count.saturating_sub(1),
            (false, Some(_)) => count + 1,
            _ => count,
        })
    }
}
