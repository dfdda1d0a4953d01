//! The writer thread. Transactions that arrive during a commit share the next commit.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{Expect, KeyValue, Op, StoreError, Txn, TxnOutcome};

use super::batch::{BATCH_TXNS, Batch};
use super::engine::{Change, Engine};
use super::entry::EntryEvent;
use super::index::Index;
use super::leases::Leases;
use super::transaction::{Program, Transaction};
use super::watch::read_log;
use super::{History, Shared};

/// Maximum number of queued transactions; further callers wait for a place in the queue.
const QUEUE: usize = 1024;
/// Maximum number of rows that one commit removes, so that cleanup does not delay writers.
const BATCH_OBSOLETE_ROWS: usize = 512;
/// Maximum number of revisions that one step compacts. Readers wait during a step.
const COMPACT_REVISIONS: u64 = 4096;
/// Pause between two commits that only remove rows.
const CLEANING_PAUSE: Duration = Duration::from_millis(5);
/// Interval of progress notifications on every watch.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Time that writes are rejected after a failed commit (such as a full disk) before the next attempt.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// Limits on one transaction, in bytes.
const MAX_KEY: usize = 4096;
const MAX_VALUE: usize = 3 << 20;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Expiry time (Unix milliseconds), the revision that set it, and the key. Sorted by time.
pub(super) type Expiries = BTreeSet<(u64, u64, Arc<str>)>;

/// A command to the writer.
pub(super) enum Command {
    Txn { txn: Txn, reply: Reply<TxnOutcome> },
    Run(Box<dyn Program>),
    Grant { id: i64, ttl: Duration, reply: Reply<bool> },
    Revoke { id: i64, reply: Reply<()> },
    Compact { revision: u64, reply: Reply<()> },
}

/// The sending end of the command queue.
pub(super) struct WriterHandle {
    commands: Mutex<Option<Sender<Queued>>>,
    free: Arc<Semaphore>,
}

/// A command with its permit, released when the writer takes the command.
pub(super) struct Queued {
    command: Command,
    _permit: OwnedSemaphorePermit,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    commands: Receiver<Queued>,
    expiries: Expiries,
    obsolete: VecDeque<u64>,
    /// Compacted revision that is not on disk yet.
    compacted: Option<u64>,
    compactor: Option<Compactor>,
    next_progress: Instant,
    /// After a failed commit: the time until which writes fail immediately, and the error.
    refused: Option<(Instant, StoreError)>,
}

/// Decides what to compact in the background: revisions older than one interval and revisions beyond the maximum
/// number.
struct Compactor {
    history: History,
    due: Instant,
    /// The revision at the start of the interval. It is compacted at the end of the interval.
    mark: u64,
    /// The revision up to which history is old enough to be compacted.
    aged: u64,
}

/// Content of the log at start.
pub(super) struct Loaded {
    pub(super) index: Index,
    pub(super) leases: Leases,
    pub(super) expiries: Expiries,
    pub(super) obsolete: Vec<u64>,
    pub(super) bytes: u64,
}

/// Rejects keys and values over the limits, before they are queued.
pub(super) fn check_size(txn: &Txn) -> Result<(), StoreError> {
    let value = if let Op::Put { value, .. } = &txn.op { value.len() } else { 0 };
    for (what, size, limit) in [("key", txn.key.len(), MAX_KEY), ("value", value, MAX_VALUE)] {
        if size > limit {
            return Err(StoreError::TooLarge { what, size, limit });
        }
    }
    Ok(())
}

/// Loads the whole log.
pub(super) fn load(engine: &Engine) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded {
        index: Index::new(),
        leases: Leases::default(),
        expiries: Expiries::new(),
        obsolete: Vec::new(),
        bytes: 0,
    };
    let (view, now) = (engine.view()?, Instant::now());
    for (id, seconds) in view.leases()? {
        loaded.leases.grant(id, Duration::from_secs(seconds), now);
    }
    view.scan(0..=u64::MAX, |revision, record, size| {
        let key = Arc::from(record.key);
        loaded.index.apply(&key, record.kind, revision, record.lineage);
        loaded.leases.attach(&key, record.lease);
        loaded.bytes += size as u64;
        if record.expires_at > 0 {
            loaded.expiries.insert((record.expires_at, revision, key));
        }
        Ok(true)
    })?;
    let compacted = engine.compacted()?;
    if compacted > 0 {
        loaded.obsolete = loaded.index.compact(compacted);
    }
    Ok(loaded)
}

impl WriterHandle {
    pub(super) fn new() -> (Self, Receiver<Queued>) {
        let (sender, receiver) = channel();
        let free = Arc::new(Semaphore::new(QUEUE));
        (Self { commands: Mutex::new(Some(sender)), free }, receiver)
    }

    /// Queues a command and waits for its reply.
    pub(super) async fn submit<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let queued = Queued { command: command(reply), _permit: permit };
        let sent = self.commands.lock().as_ref().is_some_and(|commands| commands.send(queued).is_ok());
        if !sent {
            return Err(StoreError::Closed);
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Rejects further commands. The writer exits after it has processed the queued commands.
    pub(super) fn close(&self) {
        self.free.close();
        *self.commands.lock() = None;
    }
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: Receiver<Queued>,
        history: Option<History>,
        expiries: Expiries,
        obsolete: Vec<u64>,
    ) -> Self {
        let now = Instant::now();
        let mark = shared.index.read().revision();
        let compactor = history.map(|history| Compactor { history, due: now + history.time, mark, aged: 0 });
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
            refused: None,
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
            idle = idle.min(compactor.due.saturating_duration_since(now));
        }
        if let Some((expires_at, ..)) = self.expiries.first() {
            idle = idle.min(Duration::from_millis(expires_at.saturating_sub(unix_millis())));
        }
        if let Some(deadline) = self.shared.leases.lock().next_deadline() {
            idle = idle.min(deadline.saturating_duration_since(now));
        }
        if let Some((until, _)) = &self.refused {
            return until.saturating_duration_since(now);
        }
        if self.obsolete.is_empty() && self.compacted.is_none() { idle } else { idle.min(CLEANING_PAUSE) }
    }

    /// Does the timed work except for expiry.
    fn housekeeping(&mut self) {
        let now = Instant::now();
        if self.refused.as_ref().is_some_and(|(until, _)| *until <= now) {
            self.refused = None;
        }
        if self.shared.engine.is_closed() && self.refused.is_none() {
            self.recover();
        }
        if self.next_progress <= now {
            self.next_progress = now + PROGRESS_INTERVAL;
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
        while let Some(Queued { command, _permit }) = next {
            match command {
                Command::Txn { txn, reply } => self.take(&mut batch, txn, reply),
                Command::Run(program) => self.take_program(&mut batch, program),
                other => last = Some(other),
            }
            let full = batch.is_full() || last.is_some();
            next = if full { None } else { self.commands.try_recv().ok() };
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

    /// Evaluates a transaction and adds its write to the batch.
    fn take(&self, batch: &mut Batch, txn: Txn, reply: Reply<TxnOutcome>) {
        let refused = self.refused.as_ref().map(|(_, error)| error.clone());
        match refused.map_or_else(|| self.decide(batch, txn), Err) {
            Ok(outcome) => batch.answers.push((reply, outcome)),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Runs a program and adds its writes to the batch.
    fn take_program(&self, batch: &mut Batch, mut program: Box<dyn Program>) {
        if let Some((_, error)) = &self.refused {
            return program.finish(Err(error.clone()));
        }
        let writes = program.run(Transaction::new(&self.shared, batch));
        batch.write(writes);
        batch.programs.push(program);
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
        if self.refused.is_some() {
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
        if self.refused.is_none() {
            batch.change.obsolete = self.obsolete.iter().take(BATCH_OBSOLETE_ROWS).copied().collect();
            batch.change.compacted = self.compacted;
        }
        if batch.change.is_empty() {
            return batch.answer();
        }
        match self.write(&batch) {
            Ok(removed) => {
                if self.shared.no_space.swap(false, Ordering::Relaxed) {
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
                batch.fail(&error);
            }
        }
    }

    /// Commits the batch. After a failure, reopens the file to find out whether the commit succeeded anyway.
    fn write(&mut self, batch: &Batch) -> Result<u64, StoreError> {
        let started = Instant::now();
        let error = match self.shared.engine.commit(&batch.change) {
            Ok(removed) => {
                self.shared.commits.add(started.elapsed());
                return Ok(removed);
            }
            Err(error) => error,
        };
        self.refused = Some((Instant::now() + FULL_PAUSE, error.clone()));
        match self.shared.engine.reopen() {
            Ok(newest) if batch.is_in(newest) => {
                self.refused = None;
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
            self.refused = Some((Instant::now() + FULL_PAUSE, error));
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
            view.scan(next..=found.revision, |revision, record, _| {
                if record.expires_at > 0 {
                    self.expiries.insert((record.expires_at, revision, record.key.into()));
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
        let change = Change { leases: vec![(id, Some(ttl.as_secs()))], ..Change::default() };
        self.write_alone(Batch { change, ..self.next_batch() })?;
        self.shared.leases.lock().grant(id, ttl, Instant::now());
        Ok(true)
    }

    /// Revokes a lease and deletes its keys.
    fn revoke(&mut self, id: i64) -> Result<(), StoreError> {
        let mut batch = self.next_batch();
        for key in self.shared.leases.lock().keys(id) {
            batch.delete(key);
        }
        batch.change.leases.push((id, None));
        self.write_alone(batch)?;
        self.shared.leases.lock().revoke(id);
        Ok(())
    }

    /// Revokes one lease that has ended. Others follow after the next commit.
    fn revoke_ended(&mut self) {
        if self.refused.is_some() {
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
        if let Some((_, error)) = &self.refused {
            return Err(error.clone());
        }
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

impl Compactor {
    /// Returns the revision to compact to, if compaction is due.
    fn next_target(&mut self, now: Instant, revision: u64, compacted: u64) -> Option<u64> {
        if self.due <= now {
            self.due = now + self.history.time;
            self.aged = std::mem::replace(&mut self.mark, revision);
        }
        // Applies the limit on the number of revisions in whole steps, to save commits.
        let beyond = revision.saturating_sub(self.history.revisions);
        let beyond = if beyond >= compacted + COMPACT_REVISIONS { beyond } else { 0 };
        let upto = self.aged.max(beyond).min(compacted + COMPACT_REVISIONS);
        (upto > compacted).then_some(upto)
    }
}

impl Shared {
    /// Makes durable events visible to reads, then to watches.
    fn publish(&self, events: Vec<EntryEvent>) {
        if events.is_empty() {
            return;
        }
        let mut index = self.index.write();
        for EntryEvent { kind, entry } in &events {
            index.apply(&entry.kv.key, *kind, entry.kv.mod_revision, entry.lineage);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacts_by_age_and_by_number() {
        let (time, start) = (Duration::from_mins(5), Instant::now());
        let history = History { time, revisions: 10_000 };
        let mut compactor = Compactor { history, due: start + time, mark: 5, aged: 0 };
        assert_eq!(compactor.next_target(start, 10_000, 0), None);
        assert_eq!(compactor.next_target(start, 14_000, 0), None, "less than a whole step");
        assert_eq!(compactor.next_target(start, 20_000, 0), Some(4096));
        assert_eq!(compactor.next_target(start, 20_000, 4096), Some(8192));
        assert_eq!(compactor.next_target(start, 20_000, 8192), None);
        assert_eq!(compactor.next_target(start + time, 20_000, 8192), None, "the first interval began at 5");
        assert_eq!(compactor.next_target(start + 2 * time, 20_000, 8192), Some(12_288));
        assert_eq!(compactor.next_target(start + 2 * time, 20_000, 16_384), Some(20_000));
        assert_eq!(compactor.next_target(start + 2 * time, 20_000, 20_000), None);
    }
}
