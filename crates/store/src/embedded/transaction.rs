//! Transactions of several reads and writes, for etcd's API.
//!
//! A transaction runs on the writer's thread. Its writes share one revision and are committed and published together. It
//! writes a key once at most: a later write of the same key replaces the earlier one.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{KeyValue, StoreError};

use super::Shared;
use super::batch::Batch;
use super::entry::{Content, Entry, Found, KeyRange, Lineage, Query};
use super::position::MAX_PARTS;

/// A transaction in progress. It sees the writes before it and its own.
pub struct Transaction<'a> {
    shared: &'a Shared,
    batch: &'a Batch,
    /// The last write of each key of this transaction, and its entry unless it is a delete.
    written: HashMap<Arc<str>, Option<Entry>>,
    writes: Vec<Write>,
}

/// Maximum number of keys that a transaction writes.
pub const MAX_WRITES: usize = MAX_PARTS;

/// A write of a transaction.
pub(super) enum Write {
    Put { key: Arc<str>, value: Bytes, lease: i64, previous: Option<Lineage> },
    Delete { key: Arc<str> },
}

impl Write {
    fn key(&self) -> &Arc<str> {
        let (Self::Put { key, .. } | Self::Delete { key }) = self;
        key
    }
}

/// Work on the writer's thread.
pub(super) trait Program: Send {
    /// Runs the transaction; returns its writes, or nothing if it is refused. It can run again if its writes were not
    /// committed.
    fn run(&mut self, transaction: Transaction<'_>) -> Vec<Write>;

    /// Sends the reply, once the writes are durable or have failed.
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

/// A closure with the place of its result.
pub(super) struct Closure<W, T> {
    pub(super) work: W,
    pub(super) done: Option<Result<T, StoreError>>,
    pub(super) reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<W, T, E> Program for Closure<W, Result<T, E>>
where
    W: FnMut(&mut Transaction<'_>) -> Result<Result<T, E>, StoreError> + Send,
    T: Send,
    E: Send,
{
    fn run(&mut self, mut transaction: Transaction<'_>) -> Vec<Write> {
        let done = self.done.insert((self.work)(&mut transaction));
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
        Self { shared, batch, written: HashMap::new(), writes: Vec::new() }
    }

    /// Returns the revision of the state that this transaction sees: its own if it has written.
    pub fn revision(&self) -> u64 {
        self.batch.revision + u64::from(!self.writes.is_empty())
    }

    /// Returns the number of keys that this transaction has written.
    pub fn written(&self) -> usize {
        self.writes.len()
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
        let is_latest = query.revision.is_none_or(|revision| revision == self.revision());
        if !is_latest {
            let found = self.shared.query(query)?;
            return Ok(Found { revision: self.revision(), ..found });
        }
        let pending = self.pending_of(&query.range);
        // Each pending key can take the place of a stored one.
        let limit = if query.limit == 0 { 0 } else { query.limit + pending.len() };
        let stored = self.shared.query(&Query { revision: None, limit, ..query.clone() })?;
        if pending.is_empty() {
            return Ok(Found { revision: self.revision(), ..stored });
        }
        let count = self.count_with(stored.count, &pending);
        if query.content == Content::CountOnly {
            return Ok(Found { entries: Vec::new(), count, revision: self.revision() });
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
        Ok(Found { entries, count, revision: self.revision() })
    }

    /// Returns the keys of a range, in order; the first ones of those that are stored if they are more than `limit`.
    pub fn keys(&self, range: &KeyRange, limit: usize) -> Vec<Arc<str>> {
        let pending = self.pending_of(range);
        let stored = self.shared.index.read().keys(range, limit.saturating_add(pending.len()));
        let unwritten = stored.into_iter().filter(|key| self.pending(key).is_none());
        let pending =
            pending.into_iter().filter(|(_, entry)| entry.is_some()).map(|(key, _)| Arc::clone(key));
        let mut keys: Vec<_> = unwritten.chain(pending).collect();
        keys.sort_unstable();
        keys
    }

    /// Writes a key.
    pub fn put(&mut self, key: &str, value: Bytes, lease: i64) {
        let key = Arc::<str>::from(key);
        let previous = match self.batch.written.get(&key) {
            Some(written) => written.as_ref().map(|entry| entry.lineage),
            None => self.shared.index.read().current(&key).map(|(_, lineage)| lineage),
        };
        let mod_revision = self.batch.revision + 1;
        let lineage = Lineage::after(previous, mod_revision);
        let kv = KeyValue { key: Arc::clone(&key), value: value.clone(), mod_revision };
        let entry = Entry { kv, lineage, lease };
        self.write(&key, Some(entry), Write::Put { key: Arc::clone(&key), value, lease, previous });
    }

    /// Deletes a key, which exists.
    pub fn delete(&mut self, key: &Arc<str>) {
        self.write(key, None, Write::Delete { key: Arc::clone(key) });
    }

    fn write(&mut self, key: &Arc<str>, entry: Option<Entry>, write: Write) {
        let is_rewrite = self.written.insert(Arc::clone(key), entry).is_some();
        let earlier = if is_rewrite { self.writes.iter_mut().find(|it| it.key() == key) } else { None };
        match earlier {
            Some(earlier) => *earlier = write,
            None => self.writes.push(write),
        }
    }

    /// Returns the state of a key that this transaction or one before it in the commit has written.
    fn pending(&self, key: &str) -> Option<&Option<Entry>> {
        self.written.get(key).or_else(|| self.batch.written.get(key))
    }

    /// Returns the keys of a range that are pending, with their states.
    fn pending_of(&self, range: &KeyRange) -> Vec<(&Arc<str>, Option<&Entry>)> {
        if let Some(key) = range.single() {
            let written = self.written.get_key_value(key).or_else(|| self.batch.written.get_key_value(key));
            return written.map(|(key, entry)| (key, entry.as_ref())).into_iter().collect();
        }
        let own = self.written.iter();
        let before = self.batch.written.iter().filter(|(key, _)| !self.written.contains_key(*key));
        let pending = own.chain(before).filter(|(key, _)| range.contains(key));
        pending.map(|(key, entry)| (key, entry.as_ref())).collect()
    }

    /// Returns the number of keys after pending writes, of which `stored` are in the index.
    fn count_with(&self, stored: u64, pending: &[(&Arc<str>, Option<&Entry>)]) -> u64 {
        let index = self.shared.index.read();
        pending.iter().fold(stored, |count, (key, entry)| match (index.latest(key).is_some(), entry) {
            (true, None) => count.saturating_sub(1),
            (false, Some(_)) => count + 1,
            _ => count,
        })
    }
}
