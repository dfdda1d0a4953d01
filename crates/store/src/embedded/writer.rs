//! The writer thread. Transactions that arrive during a commit share the next commit, with those of requests that are
//! about to write ([`gather`](super::gather)).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{Expect, KeyValue, Op, StoreError, Txn, TxnOutcome};

use super::batch::{BATCH_TXNS, Batch, Deletion, Ran};
use super::compactor::Compactor;
use super::engine::Change;
use super::entry::EntryEvent;
use super::gather::{Gathering, Wait};
use super::load::Expiries;
use super::position::Position;
use super::queue::{Command, Queued, Reply};
use super::space::Space;
use super::transaction::{Program, Transaction, Write};
use super::watch::read_log;
use super::{History, Shared};

/// Maximum number of rows that one commit removes, so that cleanup does not delay writers.
const BATCH_OBSOLETE_ROWS: usize = 512;
/// The same while the disk is full, so that the reserve suffices.
const FULL_OBSOLETE_ROWS: usize = 64;
/// Pause between two commits that only remove rows.
const CLEANING_PAUSE: Duration = Duration::from_millis(5);
/// Interval of progress notifications on every watch.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    shared: Arc<Shared>,
    commands: Receiver<Queued>,
    expiries: Expiries,
    obsolete: VecDeque<Position>,
    /// Compacted revision that is not on disk yet.
    compacted: Option<u64>,
    compactor: Option<Compactor>,
    next_progress: Instant,
    space: Space,
    gathering: Gathering,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: Receiver<Queued>,
        history: Option<History>,
        expiries: Expiries,
        obsolete: Vec<Position>,
        space: Space,
        gathering: Gathering,
    ) -> Self {
        let now = Instant::now();
        let mark = shared.index.read().revision();
        let compactor = history.map(|history| Compactor::new(history, now, mark));
        let next_progress = now + PROGRESS_INTERVAL;
        let obsolete = obsolete.into();
        Self {
            shared,
            commands,
            expiries,
            obsolete,
            compacted: None,
            compactor,
            next_progress,
            space,
            gathering,
        }
    }

    /// Runs until all senders are dropped.
    pub(super) fn run(mut self) {
        loop {
            let first = match self.commands.recv_timeout(self.idle_time()) {
                Ok(queued) => Some(queued),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.housekeeping();
            self.serve(first);
        }
    }

    /// Returns the time to wait for a command before timed work is due.
    fn idle_time(&self) -> Duration {
        let now = Instant::now();
        let mut idle = self.next_progress.saturating_duration_since(now);
        if let Some(compactor) = &self.compactor {
            idle = idle.min(compactor.idle_time(now));
        }
        if let Some((expires_at, ..)) = self.expiries.first() {
            idle = idle.min(Duration::from_millis(expires_at.saturating_sub(unix_millis())));
        }
        if let Some(deadline) = self.shared.leases.lock().next_deadline() {
            idle = idle.min(deadline.saturating_duration_since(now));
        }
        if let Some(attempt) = self.space.next_attempt() {
            let pause = attempt.saturating_duration_since(now);
            if self.space.refusal_of_deletions().is_some() {
                return pause;
            }
            idle = idle.min(pause);
        }
        if self.obsolete.is_empty() && self.compacted.is_none() { idle } else { idle.min(CLEANING_PAUSE) }
    }

    /// Does the timed work except for expiry.
    fn housekeeping(&mut self) {
        let now = Instant::now();
        let is_pausing = self.space.next_attempt().is_some_and(|attempt| now < attempt);
        self.space.retry(now, || self.shared.room());
        if self.shared.engine.is_closed() && !is_pausing {
            self.recover();
        }
        if self.next_progress <= now {
            self.next_progress = now + PROGRESS_INTERVAL;
            self.space.refill();
            self.shared.hub.request_progress(None, self.shared.index.read().revision());
        }
        if let Some(compactor) = &mut self.compactor {
            let (revision, compacted) = {
                let index = self.shared.index.read();
                (index.revision(), index.compacted())
            };
            if let Some(upto) = compactor.next_target(now, revision, compacted) {
                self.drop_history(upto);
            }
        }
    }

    /// Commits the queued transactions, the deletes of expired keys and some cleanup.
    fn serve(&mut self, first: Option<Queued>) {
        let mut batch = self.next_batch();
        let mut last = None;
        let mut next = first;
        let mut wait = Wait::default();
        while let Some(Queued { command, _permit }) = next {
            match command {
                Command::Txn { txn, reply } => self.take(&mut batch, txn, reply),
                Command::Run(program) => self.take_program(&mut batch, program),
                other => last = Some(other),
            }
            let full = batch.is_full() || last.is_some();
            next = if full { None } else { self.next_command(&mut wait) };
        }
        self.take_expired(&mut batch);
        self.commit(batch);
        // The caller may have stopped waiting.
        match last {
            Some(Command::Compact { revision, reply }) => drop(reply.send(self.compact(revision))),
            Some(Command::Grant { id, ttl, reply }) => drop(reply.send(self.grant(id, ttl))),
            Some(Command::Revoke { id, reply }) => drop(reply.send(self.revoke(id))),
            _ => {}
        }
        self.revoke_ended();
    }

    /// Returns the next command of a commit; `None` if the commit should begin.
    fn next_command(&mut self, wait: &mut Wait) -> Option<Queued> {
        loop {
            if let Ok(queued) = self.commands.try_recv() {
                return Some(queued);
            }
            let time = self.gathering.time(wait, Instant::now())?;
            match self.commands.recv_timeout(time) {
                Ok(queued) => {
                    wait.gathered();
                    return Some(queued);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Evaluates a transaction and adds its write to the batch.
    fn take(&self, batch: &mut Batch, txn: Txn, reply: Reply<TxnOutcome>) {
        let (refusal, deletion) = match txn.op {
            Op::Delete => (self.space.refusal_of_deletions(), Some(txn.clone())),
            Op::Put { .. } => (self.space.refusal(), None),
        };
        match refusal.cloned().map_or_else(|| self.decide(batch, txn), Err) {
            Ok(outcome) => match deletion {
                Some(txn) => batch.deletions.push((Deletion { txn, reply }, outcome)),
                None => batch.answers.push((reply, outcome)),
            },
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Runs a program and adds its writes to the batch.
    fn take_program(&self, batch: &mut Batch, mut program: Box<dyn Program>) {
        if let Some(error) = self.space.refusal_of_deletions() {
            return program.finish(Err(error.clone()));
        }
        let writes = program.run(Transaction::new(&self.shared, batch));
        let has_puts = writes.iter().any(|write| matches!(write, Write::Put { .. }));
        if let Some(error) = self.space.refusal().filter(|_| has_puts) {
            return program.finish(Err(error.clone()));
        }
        batch.write(writes);
        batch.programs.push(Ran { program, has_puts });
    }

    fn decide(&self, batch: &mut Batch, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let current = match batch.written.get(&txn.key) {
            Some(written) => written.as_ref().map(|entry| (entry.kv.mod_revision, entry.lineage)),
            None => self.shared.index.read().current(&txn.key),
        };
        let (current, lineage) = current.unzip();
        let holds = match txn.expect {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Revision(revision) => current == Some(revision),
        };
        if !holds {
            let current = self.current(batch, &txn.key)?;
            return Ok(TxnOutcome::Failed { current, revision: batch.revision });
        }
        match txn.op {
            Op::Put { value, ttl } => batch.put(txn.key, value, ttl, lineage),
            Op::Delete if current.is_some() => batch.delete(txn.key),
            Op::Delete => {}
        }
        Ok(TxnOutcome::Committed { revision: batch.revision })
    }

    /// Returns the version of a key after the transactions of the batch so far.
    fn current(&self, batch: &Batch, key: &Arc<str>) -> Result<Option<KeyValue>, StoreError> {
        if let Some(written) = batch.written.get(key) {
            return Ok(written.as_ref().map(|entry| entry.kv.clone()));
        }
        let row = self.shared.index.read().latest(key);
        row.map(|row| self.shared.engine.view()?.key_value(key, row)).transpose()
    }

    /// Deletes expired keys.
    fn take_expired(&mut self, batch: &mut Batch) {
        if self.space.refusal_of_deletions().is_some() {
            return;
        }
        let now = unix_millis();
        while self.expiries.first().is_some_and(|(expires_at, ..)| *expires_at <= now) {
            let Some(expiry) = self.expiries.pop_first() else { return };
            let txn = Txn::delete(Arc::clone(&expiry.2)).expecting(Expect::Revision(expiry.1));
            if let Err(error) = self.decide(batch, txn) {
                tracing::warn!(%error, key = &*expiry.2, "key expiry failed");
                self.expiries.insert(expiry);
                return;
            }
            batch.expired.insert(expiry);
            if batch.events.len() >= BATCH_TXNS {
                return;
            }
        }
    }

    /// Makes the batch durable, then visible, then sends the replies.
    fn commit(&mut self, mut batch: Batch) {
        let is_full = self.space.refusal().is_some();
        if self.space.refusal_of_deletions().is_none() {
            let rows = if is_full { FULL_OBSOLETE_ROWS } else { BATCH_OBSOLETE_ROWS };
            batch.change.obsolete = self.obsolete.iter().take(rows).copied().collect();
            batch.change.compacted = self.compacted;
        }
        if batch.change.is_empty() {
            return batch.answer();
        }
        match self.write(&batch) {
            Ok(removed) => {
                if !is_full && self.shared.no_space.swap(false, Ordering::Relaxed) {
                    tracing::info!("the disk has space again, writes succeed");
                }
                self.obsolete.drain(..batch.change.obsolete.len());
                self.compacted = None;
                self.publish(batch, removed);
            }
            Err(error) => {
                let is_full = matches!(error, StoreError::NoSpace(_));
                // A full disk is logged once, not with each attempt.
                if !self.shared.no_space.swap(is_full, Ordering::Relaxed) || !is_full {
                    tracing::error!(%error, "commit failed");
                }
                // A later commit will expire these keys.
                self.expiries.append(&mut batch.expired);
                if is_full && batch.needs_space() && self.space.refusal_of_deletions().is_none() {
                    batch.fail_puts(&error);
                    self.commit_deletions(batch);
                } else {
                    batch.fail(&error);
                }
            }
        }
    }

    /// Commits the deletions of a batch whose puts have found the disk full. They run again, because they may have seen
    /// these puts.
    fn commit_deletions(&mut self, failed: Batch) {
        let mut batch = self.next_batch();
        for (Deletion { txn, reply }, _) in failed.deletions {
            self.take(&mut batch, txn, reply);
        }
        for Ran { program, .. } in failed.programs {
            self.take_program(&mut batch, program);
        }
        self.take_expired(&mut batch);
        // Ends here: puts are refused now.
        self.commit(batch);
    }

    /// Commits the batch. Deletions that find the disk full are tried again with the space of the reserve.
    fn write(&mut self, batch: &Batch) -> Result<u64, StoreError> {
        match self.try_write(batch) {
            Err(StoreError::NoSpace(_))
                if !batch.needs_space() && self.space.refusal_of_deletions().is_none() =>
            {
                self.try_write(batch)
            }
            outcome => outcome,
        }
    }

    /// Commits the batch. After a failure, reopens the file to find out whether the commit succeeded anyway.
    fn try_write(&mut self, batch: &Batch) -> Result<u64, StoreError> {
        let started = Instant::now();
        let error = match self.shared.engine.commit(&batch.change) {
            Ok(removed) => {
                self.shared.commits.add(started.elapsed());
                return Ok(removed);
            }
            Err(error) => error,
        };
        self.space.refuse(error.clone(), batch.needs_space());
        match self.shared.engine.reopen() {
            Ok(newest) if batch.is_in(newest) => {
                self.space.accept();
                Ok(0)
            }
            Ok(_) => Err(error),
            Err(reopening) => {
                tracing::error!(error = %reopening, "store file cannot be reopened");
                Err(error)
            }
        }
    }

    /// Retries reopening the file and publishes the revisions found in it.
    fn recover(&mut self) {
        let recovered = self.shared.engine.reopen().and_then(|_| self.publish_unreported());
        if let Err(error) = recovered {
            tracing::error!(%error, "store file cannot be reopened");
            self.shared.engine.close();
            self.space.refuse(error, false);
        }
    }

    /// Publishes revisions that are on disk although their commit returned an error.
    fn publish_unreported(&mut self) -> Result<(), StoreError> {
        loop {
            let next = self.shared.index.read().revision() + 1;
            let view = self.shared.engine.view()?;
            let found = read_log(&view, "", next..=u64::MAX)?;
            if found.events.is_empty() {
                return Ok(());
            }
            view.scan(next..=found.revision, |position, record, _| {
                if record.expires_at > 0 {
                    self.expiries.insert((record.expires_at, position.revision(), record.key.into()));
                }
                Ok(true)
            })?;
            self.shared.publish(found.events);
        }
    }

    fn publish(&mut self, mut batch: Batch, removed: u64) {
        let in_use = self.shared.in_use.load(Ordering::Relaxed) + batch.bytes as u64;
        self.shared.in_use.store(in_use.saturating_sub(removed), Ordering::Relaxed);
        self.expiries.append(&mut batch.expiring);
        self.shared.publish(std::mem::take(&mut batch.events));
        batch.answer();
    }

    /// Grants a lease, durably. Returns false if it exists.
    fn grant(&mut self, id: i64, ttl: Duration) -> Result<bool, StoreError> {
        if self.shared.leases.lock().contains(id) {
            return Ok(false);
        }
        if let Some(error) = self.space.refusal() {
            return Err(error.clone());
        }
        let change = Change { leases: vec![(id, Some(ttl.as_secs()))], ..Change::default() };
        self.write_alone(Batch { change, ..self.next_batch() })?;
        self.shared.leases.lock().grant(id, ttl, Instant::now());
        Ok(true)
    }

    /// Revokes a lease and deletes its keys.
    fn revoke(&mut self, id: i64) -> Result<(), StoreError> {
        if let Some(error) = self.space.refusal_of_deletions() {
            return Err(error.clone());
        }
        let mut batch = self.next_batch();
        let keys = self.shared.leases.lock().keys(id);
        batch.write(keys.into_iter().map(|key| Write::Delete { key }).collect());
        batch.change.leases.push((id, None));
        self.write_alone(batch)?;
        self.shared.leases.lock().revoke(id);
        Ok(())
    }

    /// Revokes one lease that has ended. Others follow after the next commit.
    fn revoke_ended(&mut self) {
        if self.space.refusal_of_deletions().is_some() {
            return;
        }
        let Some(id) = self.shared.leases.lock().ended(Instant::now()) else { return };
        if let Err(error) = self.revoke(id) {
            tracing::warn!(%error, lease = id, "lease expiry failed");
        }
    }

    fn next_batch(&self) -> Batch {
        Batch::after(self.shared.index.read().revision())
    }

    /// Commits and publishes a batch that shares its commit with no others.
    fn write_alone(&mut self, batch: Batch) -> Result<(), StoreError> {
        let removed = self.write(&batch)?;
        self.publish(batch, removed);
        Ok(())
    }

    fn compact(&mut self, revision: u64) -> Result<(), StoreError> {
        {
            let index = self.shared.index.read();
            let (current, compacted) = (index.revision(), index.compacted());
            if revision <= compacted {
                return Err(StoreError::Compacted { compacted });
            }
            if revision > current {
                return Err(StoreError::FutureRevision { requested: revision, current });
            }
        }
        if let Some(error) = self.space.refusal_of_deletions() {
            return Err(error.clone());
        }
        self.drop_history(revision);
        let batch =
            Batch { change: Change { compacted: self.compacted, ..Change::default() }, ..Batch::default() };
        self.write(&batch)?;
        self.compacted = None;
        Ok(())
    }

    /// Drops history from the index. Later commits remove the rows.
    fn drop_history(&mut self, revision: u64) {
        self.obsolete.extend(self.shared.index.write().compact(revision));
        self.compacted = Some(revision);
    }
}

impl Shared {
    /// Returns the size of the free pages in the file, as a low estimate: rows take at most twice their size.
    fn room(&self) -> u64 {
        let size = self.engine.size_on_disk().unwrap_or_default();
        size.saturating_sub(2 * self.in_use.load(Ordering::Relaxed))
    }

    /// Makes durable events visible to reads, then to watches.
    fn publish(&self, events: Vec<EntryEvent>) {
        if events.is_empty() {
            return;
        }
        let mut index = self.index.write();
        let mut position = Position::first(index.revision());
        for EntryEvent { kind, entry } in &events {
            position = position.next(entry.kv.mod_revision);
            index.apply(&entry.kv.key, *kind, position, entry.lineage);
        }
        drop(index);
        let mut leases = self.leases.lock();
        for event in &events {
            leases.attach(&event.entry.kv.key, event.entry.lease);
        }
        drop(leases);
        self.hub.publish(events);
    }
}

pub(super) fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
