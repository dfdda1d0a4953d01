//! The resource's log: present state, history and the watchers' index, changed together.

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

/// Everything readers and watchers share, behind one lock that is held for the length of a pointer copy, a
/// handful of events or one chunk of them, never while decoding or encoding.
#[derive(Debug)]
pub(crate) struct Log {
    /// All events up to here are folded in; 0 before the first list.
    pub(crate) revision: u64,
    /// Changes when history is lost: positions from before are void.
    pub(crate) epoch: u64,
    /// There will be no more.
    pub(crate) closed: bool,
    pub(crate) state: Arc<State>,
    pub(crate) window: Window,
    pub(crate) buckets: Buckets,
    /// Keys whose stored version cannot be decoded.
    pub(crate) undecodable: BTreeSet<Arc<str>>,
    kept: Vec<Snapshot>,
    /// States that watches began with and are still sending, by revision, and how many send each.
    sent: BTreeMap<u64, (Snapshot, usize)>,
    /// Room for the events' frames.
    frames: Arc<EncodingBudget>,
}

/// One committed change, decoded.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Arc<str>,
    pub(crate) revision: u64,
    pub(crate) outcome: Outcome,
}

/// What is at a key after a change.
#[derive(Debug)]
pub(crate) enum Outcome {
    Object(Arc<CachedObject>),
    Nothing,
    /// Bytes nobody can read: as good as nothing, but counted.
    Undecodable,
}

/// What is left to do once the lock is released.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Aftermath {
    wakes: Vec<Arc<Notify>>,
    /// How many events there are for watchers.
    pub(crate) events: usize,
    /// Large structures whose release takes time.
    dropped: Vec<Snapshot>,
}

impl Aftermath {
    /// Wakes the watchers concerned, each once.
    pub(crate) fn settle(self) {
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
            sent: BTreeMap::new(),
            frames,
        }
    }

    /// Starts over from a list: history is gone, and with it every watcher's position.
    pub(crate) fn reset(
        &mut self,
        state: State,
        undecodable: BTreeSet<Arc<str>>,
        revision: u64,
    ) -> Aftermath {
        let mut dropped = std::mem::take(&mut self.kept);
        dropped.extend(std::mem::take(&mut self.sent).into_values().map(|(snapshot, _)| snapshot));
        dropped.push(Snapshot::new(self.revision, std::mem::replace(&mut self.state, Arc::new(state))));
        self.undecodable = undecodable;
        self.revision = revision;
        self.epoch += 1;
        self.window.reset(revision);
        Aftermath { wakes: self.buckets.all_wakes(), events: 0, dropped }
    }

    /// Ends all watchers.
    pub(crate) fn close(&mut self) -> Aftermath {
        self.closed = true;
        Aftermath { wakes: self.buckets.all_wakes(), events: 0, dropped: std::mem::take(&mut self.kept) }
    }

    /// Folds in consecutive changes, complete up to `revision`.
    pub(crate) fn append(&mut self, entries: Vec<Entry>, revision: u64, now: Instant) -> Aftermath {
        let (mut touched, before) = (Vec::new(), self.window.next());
        for entry in entries {
            self.append_one(entry, now, &mut touched);
        }
        self.revision = self.revision.max(revision);
        let events = (self.window.next() - before) as usize;
        Aftermath { wakes: self.buckets.wakes(touched, now), events, dropped: self.release_old_snapshots() }
    }

    /// Wakes the watchers that have rested.
    pub(crate) fn rested(&mut self, now: Instant) -> Aftermath {
        Aftermath { wakes: self.buckets.rested(now), ..Aftermath::default() }
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

    /// Keeps a snapshot for later pages, as long as its revision lies in the window, so that beyond tree nodes
    /// it holds nothing alive which the window does not.
    pub(crate) fn keep(&mut self, snapshot: &Snapshot, limit: usize) -> Option<Snapshot> {
        let known = self.kept.iter().any(|kept| kept.revision() == snapshot.revision());
        if known || limit == 0 || self.window.after(snapshot.revision()).is_none() {
            return None;
        }
        let evicted = (self.kept.len() >= limit).then(|| self.kept.remove(0));
        self.kept.push(snapshot.clone());
        evicted
    }

    /// A state at or after `revision`, as near as there is one, and the events that lead to it from
    /// `revision`, latest first. `None` where that would take more than `most` events, or they are gone.
    pub(crate) fn way_back(&self, revision: u64, most: usize) -> Option<(Arc<State>, Vec<Arc<Event>>)> {
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

    /// Keeps a state for a watch that begins with it: like others as long as its revision lies in the window, so that
    /// a client that does not take it holds no past alive.
    pub(crate) fn begin_sending(&mut self, snapshot: Snapshot) {
        self.sent.entry(snapshot.revision()).or_insert_with(|| (snapshot, 0)).1 += 1;
    }

    /// The state that a watch began with, while it is kept.
    pub(crate) fn sent(&self, revision: u64) -> Option<Snapshot> {
        self.sent.get(&revision).map(|(snapshot, _)| snapshot.clone())
    }

    /// One watch less sends this state. What is given back is to be dropped without the lock.
    pub(crate) fn end_sending(&mut self, revision: u64) -> Option<Snapshot> {
        let (_, watches) = self.sent.get_mut(&revision)?;
        *watches -= 1;
        let last = *watches == 0;
        last.then(|| self.sent.remove(&revision)).flatten().map(|(snapshot, _)| snapshot)
    }

    /// The revisions of the snapshots that are kept.
    pub(crate) fn kept(&self) -> Vec<u64> {
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
