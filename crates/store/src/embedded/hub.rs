//! Watches: a window of the newest events, and cursors into it.
//!
//! A watch has no queue. It remembers the next revision it wants and reads on from the window, or from the log
//! where the window has moved past it, when it is woken; it is woken only by events below its prefix.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Event;

/// The window's bounds; whichever is reached first.
const WINDOW_EVENTS: usize = 4096;
const WINDOW_BYTES: usize = 4 << 20;
/// Revisions a cursor looks at in one step.
const STEP: usize = 1024;

/// Everybody who watches, and what they read from.
pub(super) struct Hub {
    state: Mutex<State>,
}

struct State {
    /// One event for each of the revisions up to `revision`, without gaps.
    window: VecDeque<Event>,
    bytes: usize,
    revision: u64,
    watchers: HashMap<u64, Watcher>,
    next_id: u64,
    closed: bool,
}

struct Watcher {
    prefix: Arc<str>,
    wake: Arc<Notify>,
    /// Progress to report even without events, once this revision is reached.
    wanted: Option<u64>,
    /// True while the cursor has seen everything before `resume` and waits.
    parked: bool,
    /// No event before this revision concerns the watch any more. Moves on while it is parked, so that a watch
    /// without events never falls behind the window.
    resume: u64,
}

/// A registration, ended by its drop.
pub(super) struct Subscription {
    hub: Arc<Hub>,
    id: u64,
    pub(super) prefix: Arc<str>,
    pub(super) wake: Arc<Notify>,
    /// The next revision wanted.
    pub(super) next: u64,
}

/// What a cursor finds.
#[derive(Debug)]
pub(super) enum Step {
    /// Matching events (none: only progress), and the revision they reach to.
    Batch(Vec<Event>, u64),
    /// The window does not go back that far.
    Behind,
    /// Nothing to report; wait to be woken.
    Wait,
    /// The store is closed.
    Closed,
}

impl Hub {
    pub(super) fn new(revision: u64) -> Self {
        Self {
            state: Mutex::new(State {
                window: VecDeque::new(),
                bytes: 0,
                revision,
                watchers: HashMap::new(),
                next_id: 0,
                closed: false,
            }),
        }
    }

    /// Registers a watch of `prefix` from the revision `from` on; 0 is "after now".
    pub(super) fn subscribe(self: &Arc<Self>, prefix: &str, from: u64) -> Subscription {
        let (prefix, wake) = (Arc::<str>::from(prefix), Arc::new(Notify::new()));
        let mut state = self.state.lock();
        let resume = if from == 0 { state.revision + 1 } else { from };
        let id = state.next_id;
        state.next_id += 1;
        let watcher = Watcher {
            prefix: Arc::clone(&prefix),
            wake: Arc::clone(&wake),
            wanted: None,
            parked: resume > state.revision,
            resume,
        };
        state.watchers.insert(id, watcher);
        Subscription { hub: Arc::clone(self), id, prefix, wake, next: resume }
    }

    /// Takes in durable events, the next revisions in order, and wakes who has waited for them.
    pub(super) fn publish(&self, events: Vec<Event>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let reached = state.revision + events.len() as u64;
        for watcher in state.watchers.values_mut() {
            watcher.observe(&events, reached);
        }
        for event in events {
            state.revision = event.kv.mod_revision;
            state.bytes += weight(&event);
            state.window.push_back(event);
        }
        while state.window.len() > WINDOW_EVENTS || state.bytes > WINDOW_BYTES {
            let Some(event) = state.window.pop_front() else { break };
            state.bytes -= weight(&event);
        }
    }

    /// Makes the watches of `prefix` (all, if `None`) report progress once they have reached `revision`.
    pub(super) fn request_progress(&self, prefix: Option<&str>, revision: u64) {
        for watcher in self.state.lock().watchers.values_mut() {
            if prefix.is_none_or(|prefix| prefix == &*watcher.prefix) {
                watcher.wanted = watcher.wanted.max(Some(revision));
                watcher.wake.notify_one();
            }
        }
    }

    /// Ends all watches.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for watcher in state.watchers.values() {
            watcher.wake.notify_one();
        }
    }
}

impl Subscription {
    /// What there is next; moves past what it finds.
    pub(super) fn step(&mut self) -> Step {
        let mut state = self.hub.state.lock();
        let State { window, revision, watchers, closed, .. } = &mut *state;
        let reached = *revision;
        let Some(watcher) = watchers.get_mut(&self.id).filter(|_| !*closed) else { return Step::Closed };
        watcher.parked = false;
        self.next = watcher.resume.max(self.next);
        if self.next <= reached {
            let first = reached + 1 - window.len() as u64;
            let Some(skipped) = self.next.checked_sub(first) else { return Step::Behind };
            let seen = window.range(skipped as usize..).take(STEP);
            let events: Vec<_> =
                seen.filter(|event| event.kv.key.starts_with(&*self.prefix)).cloned().collect();
            let upto = reached.min(self.next + STEP as u64 - 1);
            self.next = upto + 1;
            if !events.is_empty() || upto < reached {
                return Step::Batch(events, upto);
            }
        }
        if watcher.wanted.is_some_and(|wanted| wanted <= reached) {
            watcher.wanted = None;
            return Step::Batch(Vec::new(), reached);
        }
        watcher.parked = true;
        Step::Wait
    }
}

impl Watcher {
    /// Looks at events about to be published, the last of which is `reached`.
    fn observe(&mut self, events: &[Event], reached: u64) {
        let concerns =
            |event: &&Event| event.kv.mod_revision >= self.resume && event.kv.key.starts_with(&*self.prefix);
        let matching = events.iter().find(concerns);
        if self.parked {
            self.resume = matching.map_or(self.resume.max(reached + 1), |event| event.kv.mod_revision);
            self.parked = matching.is_none();
        }
        if matching.is_some() || self.wanted.is_some() {
            self.wake.notify_one();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.state.lock().watchers.remove(&self.id);
    }
}

fn weight(event: &Event) -> usize {
    let previous = event.previous.as_ref().map_or(0, |previous| previous.value.len());
    size_of::<Event>() + event.kv.key.len() + event.kv.value.len() + previous
}
