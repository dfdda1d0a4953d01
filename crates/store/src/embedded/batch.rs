//! A commit in preparation.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{EventKind, KeyValue, StoreError, Txn, TxnOutcome};

use super::engine::Change;
use super::entry::{Entry, EntryEvent, Lineage};
use super::load::Expiries;
use super::position::{MAX_PARTS, Position};
use super::queue::Reply;
use super::record::Record;
use super::transaction::{Program, Write};
use super::writer::unix_millis;

/// Limits of one commit.
pub(super) const BATCH_TXNS: usize = 256;
const BATCH_BYTES: usize = 4 << 20;

/// The transactions of one commit in revision order.
#[derive(Default)]
pub(super) struct Batch {
    /// The revision after the transactions added so far.
    pub(super) revision: u64,
    pub(super) change: Change,
    /// Size of the new rows, in bytes.
    pub(super) bytes: usize,
    pub(super) events: Vec<EntryEvent>,
    /// Expiries added by this commit.
    pub(super) expiring: Expiries,
    /// Expiries removed by this commit.
    pub(super) expired: Expiries,
    /// State of the keys written by this batch.
    pub(super) written: HashMap<Arc<str>, Option<Entry>>,
    /// The puts and their outcomes.
    pub(super) answers: Vec<(Reply<TxnOutcome>, TxnOutcome)>,
    /// The deletions and their outcomes.
    pub(super) deletions: Vec<(Deletion, TxnOutcome)>,
    pub(super) programs: Vec<Ran>,
}

/// A deletion, which can be tried again without the rest of the batch.
pub(super) struct Deletion {
    pub(super) txn: Txn,
    pub(super) reply: Reply<TxnOutcome>,
}

/// A program that has run.
pub(super) struct Ran {
    pub(super) program: Box<dyn Program>,
    /// True if it has put keys.
    pub(super) has_puts: bool,
}

impl Batch {
    /// Returns an empty batch for a store at `revision`.
    pub(super) fn after(revision: u64) -> Self {
        Self { revision, ..Self::default() }
    }

    /// Returns whether no further transaction fits into the commit.
    pub(super) fn is_full(&self) -> bool {
        let transactions = self.answers.len() + self.deletions.len() + self.programs.len();
        transactions >= BATCH_TXNS || self.bytes >= BATCH_BYTES
    }

    /// Puts a key whose latest version has the lineage `previous`.
    pub(super) fn put(
        &mut self,
        key: Arc<str>,
        value: Bytes,
        ttl: Option<Duration>,
        previous: Option<Lineage>,
    ) {
        self.revision += 1;
        let expires_at = ttl.map_or(0, |ttl| unix_millis().saturating_add(ttl.as_millis() as u64));
        if expires_at > 0 {
            self.expiring.insert((expires_at, self.revision, Arc::clone(&key)));
        }
        self.push_put(0, key, value, previous, 0, expires_at);
    }

    /// Adds the writes of a transaction at one revision; one that holds no more takes the next one.
    pub(super) fn write(&mut self, writes: Vec<Write>) {
        for (number, write) in writes.into_iter().enumerate() {
            let part = number % MAX_PARTS;
            if part == 0 {
                self.revision += 1;
            }
            match write {
                Write::Put { key, value, lease, previous } => {
                    self.push_put(part, key, value, previous, lease, 0);
                }
                Write::Delete { key } => self.push_delete(part, key),
            }
        }
    }

    pub(super) fn delete(&mut self, key: Arc<str>) {
        self.revision += 1;
        self.push_delete(0, key);
    }

    /// Returns whether the commit needs space for more than deletions and compactions.
    pub(super) fn needs_space(&self) -> bool {
        let grants = self.change.leases.iter().any(|(_, ttl)| ttl.is_some());
        grants || self.events.iter().any(|event| event.kind == EventKind::Put)
    }

    /// Returns whether a file whose newest row is `newest` contains this batch.
    pub(super) fn is_in(&self, newest: Option<u64>) -> bool {
        !self.events.is_empty() && newest == Some(self.revision)
    }

    /// Sends each caller the outcome of its transaction.
    pub(super) fn answer(self) {
        for (reply, outcome) in self.answers {
            // The caller may have stopped waiting.
            let _ = reply.send(Ok(outcome));
        }
        for (Deletion { reply, .. }, outcome) in self.deletions {
            let _ = reply.send(Ok(outcome));
        }
        for Ran { program, .. } in self.programs {
            program.finish(Ok(()));
        }
    }

    /// Sends each caller the error. Nothing was written.
    pub(super) fn fail(mut self, error: &StoreError) {
        self.fail_puts(error);
        for (Deletion { reply, .. }, _) in self.deletions {
            let _ = reply.send(Err(error.clone()));
        }
        for Ran { program, .. } in self.programs {
            program.finish(Err(error.clone()));
        }
    }

    /// Sends the error to the callers of puts and of programs with puts, and removes these.
    pub(super) fn fail_puts(&mut self, error: &StoreError) {
        for (reply, _) in self.answers.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
        for Ran { program, .. } in self.programs.extract_if(.., |ran| ran.has_puts) {
            program.finish(Err(error.clone()));
        }
    }

    fn push_put(
        &mut self,
        part: usize,
        key: Arc<str>,
        value: Bytes,
        previous: Option<Lineage>,
        lease: i64,
        expires_at: u64,
    ) {
        let lineage = Lineage::after(previous, self.revision);
        let entry = Entry { kv: KeyValue { key, value, mod_revision: self.revision }, lineage, lease };
        self.written.insert(Arc::clone(&entry.kv.key), Some(entry.clone()));
        self.push(part, EntryEvent { kind: EventKind::Put, entry }, expires_at);
    }

    fn push_delete(&mut self, part: usize, key: Arc<str>) {
        self.written.insert(Arc::clone(&key), None);
        let kv = KeyValue { key, value: Bytes::new(), mod_revision: self.revision };
        let entry = Entry { kv, lineage: Lineage::default(), lease: 0 };
        self.push(part, EntryEvent { kind: EventKind::Delete, entry }, 0);
    }

    fn push(&mut self, part: usize, event: EntryEvent, expires_at: u64) {
        let EntryEvent { kind, entry: Entry { kv, lineage, lease } } = &event;
        let (lineage, lease) = (*lineage, *lease);
        let record = Record { kind: *kind, lineage, expires_at, lease, key: &kv.key, value: &kv.value };
        let row = record.encode();
        self.bytes += row.len();
        self.change.rows.push((Position::new(kv.mod_revision, part), row));
        self.events.push(event);
    }
}
