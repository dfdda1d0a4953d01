//! The one thread that writes. Transactions that wait while a commit is under way share the next one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{Event, Expect, KeyValue, Op, StoreError, Txn, TxnOutcome};

use super::batch::Batch;
use super::engine::{Change, Engine};
use super::index::Index;
use super::watch::read_log;
use super::{History, Shared};

/// Transactions that may wait for the writer; further callers wait before they are queued.
const QUEUE: usize = 1024;
/// Bounds of one commit.
const BATCH_TXNS: usize = 256;
const BATCH_BYTES: usize = 4 << 20;
/// Rows that one commit removes at most, so that cleaning never holds writers up for long.
const BATCH_GARBAGE: usize = 512;
/// Revisions that are given up at once at most, as readers wait meanwhile.
const FORGET_REVISIONS: u64 = 4096;
/// Pause between two commits that only clean.
const CLEANING_PAUSE: Duration = Duration::from_millis(5);
/// How often every watch reports progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// How long writes are refused after the disk was full, before it is tried again.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// Limits on one transaction, in bytes.
const MAX_KEY: usize = 4096;
const MAX_VALUE: usize = 3 << 20;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A key, the revision that gave it a time to live, and when that ends (Unix milliseconds; first, for the order).
pub(super) type Expiries = BTreeSet<(u64, u64, Arc<str>)>;

/// What the writer is asked to do.
pub(super) enum Command {
    Txn { txn: Txn, reply: Reply<TxnOutcome> },
    Compact { revision: u64, reply: Reply<()> },
}

/// The callers' end of the queue.
pub(super) struct WriterHandle {
    commands: Mutex<Option<Sender<Queued>>>,
    free: Arc<Semaphore>,
}

/// A command, and its place in the queue, free again once it has been taken up.
pub(super) struct Queued {
    command: Command,
    _place: OwnedSemaphorePermit,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    commands: Receiver<Queued>,
    expiries: Expiries,
    garbage: VecDeque<u64>,
    /// A compacted revision that is not on disk yet.
    compacted: Option<u64>,
    keeper: Option<Keeper>,
    next_progress: Instant,
    /// The disk was full; until then writes fail at once.
    refused: Option<(Instant, StoreError)>,
}

/// The background compaction: what was new one interval ago is given up, and what lies too many revisions back.
struct Keeper {
    history: History,
    due: Instant,
    /// The revision when the interval began, which is given up to when it ends.
    mark: u64,
    /// Up to where an interval that has ended reaches.
    aged: u64,
}

/// What a start finds in the log.
pub(super) struct Loaded {
    pub(super) index: Index,
    pub(super) expiries: Expiries,
    pub(super) garbage: Vec<u64>,
    pub(super) bytes: u64,
}

/// Refuses what is too large before it is queued.
pub(super) fn check_size(txn: &Txn) -> Result<(), StoreError> {
    let value = if let Op::Put { value, .. } = &txn.op { value.len() } else { 0 };
    for (what, size, limit) in [("key", txn.key.len(), MAX_KEY), ("value", value, MAX_VALUE)] {
        if size > limit {
            return Err(StoreError::TooLarge { what, size, limit });
        }
    }
    Ok(())
}

/// Reads the whole log once.
pub(super) fn load(engine: &Engine) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded { index: Index::new(), expiries: Expiries::new(), garbage: Vec::new(), bytes: 0 };
    engine.view()?.scan(0..=u64::MAX, |revision, record, size| {
        let key = Arc::from(record.key);
        loaded.index.apply(&key, record.kind, revision);
        loaded.bytes += size as u64;
        if record.expires_at > 0 {
            loaded.expiries.insert((record.expires_at, revision, key));
        }
        Ok(true)
    })?;
    let compacted = engine.compacted()?;
    if compacted > 0 {
        loaded.garbage = loaded.index.compact(compacted);
    }
    Ok(loaded)
}

impl WriterHandle {
    pub(super) fn new() -> (Self, Receiver<Queued>) {
        let (sender, receiver) = channel();
        let free = Arc::new(Semaphore::new(QUEUE));
        (Self { commands: Mutex::new(Some(sender)), free }, receiver)
    }

    /// Queues a command and waits for its answer.
    pub(super) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let place = Arc::clone(&self.free).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let queued = Queued { command: command(reply), _place: place };
        let sent = self.commands.lock().as_ref().is_some_and(|commands| commands.send(queued).is_ok());
        if !sent {
            return Err(StoreError::Closed);
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Takes no more commands; the writer ends once it has done those queued.
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
        garbage: Vec<u64>,
    ) -> Self {
        let now = Instant::now();
        let mark = shared.index.read().revision();
        let keeper = history.map(|history| Keeper { history, due: now + history.time, mark, aged: 0 });
        let next_progress = now + PROGRESS_INTERVAL;
        let garbage = garbage.into();
        Self { shared, commands, expiries, garbage, compacted: None, keeper, next_progress, refused: None }
    }

    /// Serves until all senders are gone.
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

    /// How long there is nothing to do if no command comes.
    fn idle_time(&self) -> Duration {
        let now = Instant::now();
        let mut idle = self.next_progress.saturating_duration_since(now);
        if let Some(keeper) = &self.keeper {
            idle = idle.min(keeper.due.saturating_duration_since(now));
        }
        if let Some((expires_at, ..)) = self.expiries.first() {
            idle = idle.min(Duration::from_millis(expires_at.saturating_sub(unix_millis())));
        }
        if let Some((until, _)) = &self.refused {
            return until.saturating_duration_since(now);
        }
        if self.garbage.is_empty() && self.compacted.is_none() { idle } else { idle.min(CLEANING_PAUSE) }
    }

    /// What is due by the clock, apart from expiry.
    fn housekeeping(&mut self) {
        let now = Instant::now();
        if self.refused.as_ref().is_some_and(|(until, _)| *until <= now) {
            self.refused = None;
        }
        if self.shared.engine.is_broken() && self.refused.is_none() {
            self.recover();
        }
        if self.next_progress <= now {
            self.next_progress = now + PROGRESS_INTERVAL;
            self.shared.hub.request_progress(None, self.shared.index.read().revision());
        }
        if let Some(keeper) = &mut self.keeper {
            let (revision, compacted) = {
                let index = self.shared.index.read();
                (index.revision(), index.compacted())
            };
            if let Some(upto) = keeper.step(now, revision, compacted) {
                self.forget(upto);
            }
        }
    }

    /// Puts together and commits what is queued, what has expired and some cleaning.
    fn serve(&mut self, first: Option<Queued>) {
        let mut batch = Batch::after(self.shared.index.read().revision());
        let mut compactions = Vec::new();
        let mut next = first;
        while let Some(Queued { command, _place }) = next {
            match command {
                Command::Txn { txn, reply } => self.take(&mut batch, txn, reply),
                Command::Compact { revision, reply } => compactions.push((revision, reply)),
            }
            let full =
                batch.answers.len() >= BATCH_TXNS || batch.bytes >= BATCH_BYTES || !compactions.is_empty();
            next = if full { None } else { self.commands.try_recv().ok() };
        }
        self.take_expired(&mut batch);
        self.commit(batch);
        for (revision, reply) in compactions {
            // The caller may have gone away.
            let _ = reply.send(self.compact(revision));
        }
    }

    /// Decides one transaction and adds its write to the batch.
    fn take(&self, batch: &mut Batch, txn: Txn, reply: Reply<TxnOutcome>) {
        let refused = self.refused.as_ref().map(|(_, error)| error.clone());
        match refused.map_or_else(|| self.decide(batch, txn), Err) {
            Ok(outcome) => batch.answers.push((reply, outcome)),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn decide(&self, batch: &mut Batch, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let current = match batch.written.get(&txn.key) {
            Some(written) => written.as_ref().map(|kv| kv.mod_revision),
            None => self.shared.index.read().latest(&txn.key),
        };
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
            Op::Put { value, ttl } => batch.put(txn.key, value, ttl),
            Op::Delete if current.is_some() => batch.delete(txn.key),
            Op::Delete => {}
        }
        Ok(TxnOutcome::Committed { revision: batch.revision })
    }

    /// The version of a key after the transactions of the batch so far.
    fn current(&self, batch: &Batch, key: &Arc<str>) -> Result<Option<KeyValue>, StoreError> {
        if let Some(written) = batch.written.get(key) {
            return Ok(written.clone());
        }
        let row = self.shared.index.read().latest(key);
        row.map(|row| self.shared.engine.view()?.key_value(Arc::clone(key), row)).transpose()
    }

    /// Deletes the keys whose time is over.
    fn take_expired(&mut self, batch: &mut Batch) {
        if self.refused.is_some() {
            return;
        }
        let now = unix_millis();
        while self.expiries.first().is_some_and(|(expires_at, ..)| *expires_at <= now) {
            let Some(expiry) = self.expiries.pop_first() else { return };
            let txn = Txn::delete(Arc::clone(&expiry.2)).expecting(Expect::Revision(expiry.1));
            if let Err(error) = self.decide(batch, txn) {
                tracing::warn!(%error, key = &*expiry.2, "cannot expire");
                self.expiries.insert(expiry);
                return;
            }
            batch.expired.insert(expiry);
            if batch.events.len() >= BATCH_TXNS {
                return;
            }
        }
    }

    /// Makes the batch durable, then visible, then answers.
    fn commit(&mut self, mut batch: Batch) {
        if self.refused.is_none() {
            batch.change.garbage = self.garbage.iter().take(BATCH_GARBAGE).copied().collect();
            batch.change.compacted = self.compacted;
        }
        if batch.change.is_empty() {
            return batch.answer();
        }
        match self.write(&batch) {
            Ok(removed) => {
                self.garbage.drain(..batch.change.garbage.len());
                self.compacted = None;
                self.publish(batch, removed);
            }
            Err(error) => {
                tracing::error!(%error, "a commit failed");
                // Expiry is tried again with a later commit.
                self.expiries.append(&mut batch.expired);
                batch.fail(&error);
            }
        }
    }

    /// Commits; where that fails, finds out from the file whether it happened nevertheless.
    fn write(&mut self, batch: &Batch) -> Result<u64, StoreError> {
        let error = match self.shared.engine.commit(&batch.change) {
            Ok(removed) => return Ok(removed),
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
                tracing::error!(error = %reopening, "the store file cannot be opened again");
                Err(error)
            }
        }
    }

    /// Opens the file again some time after that has failed, and takes in what it holds.
    fn recover(&mut self) {
        let taken_in = self.shared.engine.reopen().and_then(|_| self.take_in());
        if let Err(error) = taken_in {
            tracing::error!(%error, "the store file cannot be opened again");
            self.shared.engine.close();
            self.refused = Some((Instant::now() + FULL_PAUSE, error));
        }
    }

    /// Publishes revisions that are on disk though their commit was reported as failed.
    fn take_in(&mut self) -> Result<(), StoreError> {
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
        self.forget(revision);
        let batch =
            Batch { change: Change { compacted: self.compacted, ..Change::default() }, ..Batch::default() };
        self.write(&batch)?;
        self.compacted = None;
        Ok(())
    }

    /// Drops history from the index; its rows are removed with the commits to come.
    fn forget(&mut self, revision: u64) {
        self.garbage.extend(self.shared.index.write().compact(revision));
        self.compacted = Some(revision);
    }
}

impl Keeper {
    /// Up to where a store at `revision` is to be compacted next, if at all.
    fn step(&mut self, now: Instant, revision: u64, compacted: u64) -> Option<u64> {
        if self.due <= now {
            self.due = now + self.history.time;
            self.aged = std::mem::replace(&mut self.mark, revision);
        }
        // By number only whole steps are worth a commit's while.
        let beyond = revision.saturating_sub(self.history.revisions);
        let beyond = if beyond >= compacted + FORGET_REVISIONS { beyond } else { 0 };
        let upto = self.aged.max(beyond).min(compacted + FORGET_REVISIONS);
        (upto > compacted).then_some(upto)
    }
}

impl Shared {
    /// Makes durable events visible: first to reads, then to watches.
    fn publish(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut index = self.index.write();
        for Event { kind, kv, .. } in &events {
            index.apply(&kv.key, *kind, kv.mod_revision);
        }
        drop(index);
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
    fn history_is_given_up_by_age_and_by_number() {
        let (time, start) = (Duration::from_mins(5), Instant::now());
        let history = History { time, revisions: 10_000 };
        let mut keeper = Keeper { history, due: start + time, mark: 5, aged: 0 };
        assert_eq!(keeper.step(start, 10_000, 0), None);
        assert_eq!(keeper.step(start, 14_000, 0), None, "not a whole step");
        assert_eq!(keeper.step(start, 20_000, 0), Some(4096));
        assert_eq!(keeper.step(start, 20_000, 4096), Some(8192));
        assert_eq!(keeper.step(start, 20_000, 8192), None);
        assert_eq!(keeper.step(start + time, 20_000, 8192), None, "the first interval began at 5");
        assert_eq!(keeper.step(start + 2 * time, 20_000, 8192), Some(12_288));
        assert_eq!(keeper.step(start + 2 * time, 20_000, 16_384), Some(20_000));
        assert_eq!(keeper.step(start + 2 * time, 20_000, 20_000), None);
    }
}
