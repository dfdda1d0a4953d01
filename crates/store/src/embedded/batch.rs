//! A commit in preparation.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Event, EventKind, KeyValue, StoreError, TxnOutcome};

use super::engine::Change;
use super::record::Record;
use super::writer::{Expiries, Reply, unix_millis};

/// The transactions of one commit in revision order.
#[derive(Default)]
pub(super) struct Batch {
    /// The revision after the transactions added so far.
    pub(super) revision: u64,
    pub(super) change: Change,
    /// Size of the new rows, in bytes.
    pub(super) bytes: usize,
    pub(super) events: Vec<Event>,
    /// Expiries added by this commit.
    pub(super) expiring: Expiries,
    /// Expiries removed by this commit.
    pub(super) expired: Expiries,
    /// State of the keys written by this batch.
    pub(super) written: HashMap<Arc<str>, Option<KeyValue>>,
    pub(super) answers: Vec<(Reply<TxnOutcome>, TxnOutcome)>,
}

impl Batch {
    /// Returns an empty batch for a store at `revision`.
    pub(super) fn after(revision: u64) -> Self {
        Self { revision, ..Self::default() }
    }

    pub(super) fn put(&mut self, key: Arc<str>, value: Bytes, ttl: Option<Duration>) {
        self.revision += 1;
        let expires_at = ttl.map_or(0, |ttl| unix_millis().saturating_add(ttl.as_millis() as u64));
        if expires_at > 0 {
            self.expiring.insert((expires_at, self.revision, Arc::clone(&key)));
        }
        let kv = KeyValue { key, value, mod_revision: self.revision };
        self.written.insert(Arc::clone(&kv.key), Some(kv.clone()));
        self.push(Event { kind: EventKind::Put, kv }, expires_at);
    }

    pub(super) fn delete(&mut self, key: Arc<str>) {
        self.revision += 1;
        self.written.insert(Arc::clone(&key), None);
        let kv = KeyValue { key, value: Bytes::new(), mod_revision: self.revision };
        self.push(Event { kind: EventKind::Delete, kv }, 0);
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
    }

    /// Sends each caller the error. Nothing was written.
    pub(super) fn fail(self, error: &StoreError) {
        for (reply, _) in self.answers {
            let _ = reply.send(Err(error.clone()));
        }
    }

    fn push(&mut self, event: Event, expires_at: u64) {
        let Event { kind, kv } = &event;
        let record = Record { kind: *kind, expires_at, key: &kv.key, value: &kv.value };
        let row = record.encode();
        self.bytes += row.len();
        self.change.rows.push((kv.mod_revision, row));
        self.events.push(event);
    }
}
