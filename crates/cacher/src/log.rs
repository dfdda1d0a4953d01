//! The log of a resource: current state, history and index of watchers, changed together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::buckets::Buckets;
use crate::event::{Change, Event};
use crate::memo::EncodingBudget;
use crate::object::CachedObject;
use crate::state::{Snapshot, State};
use crate::window::{Window, WindowBounds};

/// All state shared by readers and watchers, behind one lock. The lock is held while pointers are copied or one chunk
/// of events is appended, but never while decoding or encoding.
#[derive(Debug)]
pub(crate) struct Log {
    /// All events up to this revision are applied; 0 before the first list.
    pub(crate) revision: u64,
    /// Changes when history is lost. Positions of earlier epochs are invalid.
    pub(crate) epoch: u64,
    /// Set when the cacher is dropped. No further events follow.
    pub(crate) closed: bool,
    pub(crate) state: Arc<State>,
    pub(crate) window: Window,
    pub(crate) buckets: Buckets,
    /// Keys whose stored version cannot be decoded.
    pub(crate) undecodable: BTreeSet<Arc<str>>,
    kept: Vec<Snapshot>,
    /// The states before this revision are compacted in the store.
    compacted: u64,
    /// Initial states of watches that are still being sent, by revision, with the number of watches.
    sent: BTreeMap<u64, (Snapshot, usize)>,
    /// Budget for frames of events.
    frames: Arc<EncodingBudget>,
}

/// One committed change, decoded.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Arc<str>,
    pub(crate) revision: u64,
    pub(crate) outcome: Outcome,
}

/// The state of a key after a change.
#[derive(Debug)]
pub(crate) enum Outcome {
    Object(Arc<CachedObject>),
    Nothing,
    /// The bytes cannot be decoded. Treated as absent, but counted.
    Undecodable,
}

/// Work that must be done after the lock is released.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct DeferredWork {
    wakes: Vec<Arc<Notify>>,
    /// Number of new events for watchers.
    pub(crate) events: usize,
    /// Large structures, dropped outside the lock.
    dropped: Vec<Snapshot>,
}

impl DeferredWork {
    /// Wakes each affected watcher once.
    pub(crate) fn run(self) {
        for wake in &self.wakes {
            wake.notify_waiters();
        }
        drop(self.dropped);
    }
}

impl Log {
    pub(crate) fn new(state: State, bounds: WindowBounds, frames: Arc<EncodingBudget>) -> Self {
        Self {
            revision: 0,
            epoch: 0,
            closed: false,
            state: Arc::new(state),
            window: Window::new(bounds),
            buckets: Buckets::default(),
            undecodable: BTreeSet::new(),
            kept: Vec::new(),
            compacted: 0,
            sent: BTreeMap::new(),
            frames,
        }
    }

    /// Replaces the state after a list. History is lost and the positions of all watchers become invalid.
    pub(crate) fn reset(
        &mut self,
        state: State,
        undecodable: BTreeSet<Arc<str>>,
        revision: u64,
    ) -> DeferredWork {
        let mut dropped = std::mem::take(&mut self.kept);
        dropped.extend(std::mem::take(&mut self.sent).into_values().map(|(snapshot, _)| snapshot));
        dropped.push(Snapshot::new(self.revision, std::mem::replace(&mut self.state, Arc::new(state))));
        self.undecodable = undecodable;
        self.revision = revision;
        self.epoch += 1;
        self.window.reset(revision);
        DeferredWork { wakes: self.buckets.all_wakes(), events: 0, dropped }
    }

    /// Ends all watchers.
    pub(crate) fn close(&mut self) -> DeferredWork {
        self.closed = true;
        DeferredWork { wakes: self.buckets.all_wakes(), events: 0, dropped: std::mem::take(&mut self.kept) }
    }

    /// Applies consecutive changes. They are complete up to `revision`.
    pub(crate) fn append(&mut self, entries: Vec<Entry>, revision: u64, now: Instant) -> DeferredWork {
        let (mut touched, before) = (Vec::new(), self.window.next());
        for entry in entries {
            self.append_one(entry, now, &mut touched);
        }
        self.revision = self.revision.max(revision);
        let events = (self.window.next() - before) as usize;
        DeferredWork {
            wakes: self.buckets.wakes(touched, now),
            events,
            dropped: self.release_old_snapshots(),
        }
    }

    /// Wakes the watchers whose pause has ended.
    pub(crate) fn take_due(&mut self, now: Instant) -> DeferredWork {
        DeferredWork { wakes: self.buckets.take_due(now), ..DeferredWork::default() }
    }

    fn append_one(&mut self, entry: Entry, now: Instant, touched: &mut Vec<usize>) {
        let Entry { key, revision, outcome } = entry;
        if !self.undecodable.is_empty() {
            self.undecodable.remove(&key);
        }
        let new = match outcome {
            Outcome::Object(object) => Some(object),
            Outcome::Nothing => None,
            Outcome::Undecodable => {
                self.undecodable.insert(Arc::clone(&key));
                None
            }
        };
        let old = Arc::make_mut(&mut self.state).set(&key, new.as_ref());
        let Some(change) = Change::between(old, new) else { return };
        let event = Arc::new(Event::new(revision, change, &self.frames));
        let seq = self.window.next();
        self.window.push(Arc::clone(&event), now);
        self.buckets.note(seq, &event, self.window.sequence().start, touched);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.revision, Arc::clone(&self.state))
    }

    /// Keeps a snapshot for later pages while its revision is in the window. Apart from tree nodes, it then keeps
    /// nothing in memory that is not also in the window.
    pub(crate) fn keep(&mut self, snapshot: &Snapshot, limit: usize) -> Option<Snapshot> {
        let known = self.kept.iter().any(|kept| kept.revision() == snapshot.revision());
        if known || limit == 0 || self.window.after(snapshot.revision()).is_none() {
            return None;
        }
        let evicted = (self.kept.len() >= limit).then(|| self.kept.remove(0));
        self.kept.push(snapshot.clone());
        evicted
    }

    /// Returns the nearest state at or after `revision` and the events between them, latest first. Returns `None` if
    /// this takes more than `most` events or some are lost.
    pub(crate) fn undo_path(&self, revision: u64, most: usize) -> Option<(Arc<State>, Vec<Arc<Event>>)> {
        // The current state is also that of later revisions without changes.
        if revision < self.compacted.min(self.revision) {
            return None;
        }
        let wanted = self.window.after(revision).filter(|_| revision <= self.revision)?;
        let kept =
            self.kept.iter().filter_map(|kept| Some((self.window.after(kept.revision())?, kept.state())));
        let now = (self.window.next(), &self.state);
        let (from, state) =
            kept.chain([now]).filter(|(seq, _)| *seq >= wanted).min_by_key(|(seq, _)| *seq)?;
        if from - wanted > most as u64 {
            return None;
        }
        let events = (wanted..from).rev().map(|seq| self.window.get(seq).cloned()).collect::<Option<_>>()?;
        Some((Arc::clone(state), events))
    }

    /// Keeps the initial state of a watch while its revision is in the window. A client that does not read therefore
    /// cannot keep old state in memory.
    pub(crate) fn begin_sending(&mut self, snapshot: Snapshot) {
        self.sent.entry(snapshot.revision()).or_insert_with(|| (snapshot, 0)).1 += 1;
    }

    /// Forgets the states before `revision`, but for the current one. Returns the snapshots that were kept.
    pub(crate) fn forget_states_before(&mut self, revision: u64) -> Vec<Snapshot> {
        self.compacted = self.compacted.max(revision);
        self.kept.extract_if(.., |kept| kept.revision() < revision).collect()
    }

    /// Returns the initial state of a watch if it is still kept.
    pub(crate) fn sent(&self, revision: u64) -> Option<Snapshot> {
        self.sent.get(&revision).map(|(snapshot, _)| snapshot.clone())
    }

    /// Stops sending this state to one watch. The caller drops the returned state after releasing the lock.
    pub(crate) fn end_sending(&mut self, revision: u64) -> Option<Snapshot> {
        let (_, watches) = self.sent.get_mut(&revision)?;
        *watches -= 1;
        let last = *watches == 0;
        last.then(|| self.sent.remove(&revision)).flatten().map(|(snapshot, _)| snapshot)
    }

    /// Returns the revisions of the kept snapshots.
    pub(crate) fn kept_revisions(&self) -> Vec<u64> {
        self.kept.iter().map(Snapshot::revision).collect()
    }

    fn release_old_snapshots(&mut self) -> Vec<Snapshot> {
        let floor = self.window.floor();
        let mut old: Vec<_> = self.kept.extract_if(.., |kept| kept.revision() < floor).collect();
        while let Some(sent) = self.sent.first_entry().filter(|sent| *sent.key() < floor) {
            old.push(sent.remove().0);
        }
        old
    }
}
