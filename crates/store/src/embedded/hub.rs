//! Watches: a window of the newest events, and cursors into it.
//!
//! A watch has no queue. It stores the next revision to deliver and, when woken, reads from the window, or from the log
//! if the window has moved past that revision. A watch is woken only by events with its prefix: an event looks up only
//! the watches whose prefix is a prefix of its key. Once every watch waits for new events, most of the window is dropped.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::KeyValue;

use super::entry::EntryEvent;

/// Limits of the window; the first one reached applies.
const WINDOW_EVENTS: usize = 4096;
const WINDOW_BYTES: usize = 4 << 20;
/// Maximum size of the window while no watch has anything to read.
const IDLE_BYTES: usize = 256 << 10;
/// Number of events a cursor examines in one step, which ends with a whole revision.
const STEP: usize = 1024;

/// All watches and their shared window.
pub(super) struct Hub {
    state: Mutex<State>,
}

struct State {
    /// All events of the newest revisions up to `revision`, without gaps.
    window: VecDeque<EntryEvent>,
    bytes: usize,
    revision: u64,
    subscribers: HashMap<u64, Subscriber>,
    /// Number of subscribers that are not parked.
    reading: usize,
    /// Subscribers by prefix.
    prefixes: BTreeMap<Arc<str>, Vec<u64>>,
    /// Subscribers that requested progress up to a future revision.
    expecting: Vec<u64>,
    next_id: u64,
    closed: bool,
}

struct Subscriber {
    wake: Arc<Notify>,
    /// Revision at which to report progress, even without events.
    wanted: Option<u64>,
    /// True if the cursor is waiting and no event since then concerned it. The cursor then continues after the newest
    /// event, so a watch without events never falls behind the window.
    parked: bool,
    /// No event before this revision concerns the watch.
    resume: u64,
}

/// The registration of a watch; dropping it ends the watch.
pub(super) struct Subscription {
    hub: Arc<Hub>,
    id: u64,
    pub(super) prefix: Arc<str>,
    pub(super) wake: Arc<Notify>,
    /// The next revision to deliver.
    pub(super) next: u64,
}

/// The result of a cursor step.
#[derive(Debug)]
pub(super) enum CursorStep {
    /// Matching events (may be empty, for progress only), and the revision up to which they are complete. A revision is
    /// never split.
    Batch(Vec<EntryEvent>, u64),
    /// The window does not reach back to the cursor's revision.
    Behind,
    /// Nothing to report until the cursor is woken.
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
                subscribers: HashMap::new(),
                reading: 0,
                prefixes: BTreeMap::new(),
                expecting: Vec::new(),
                next_id: 0,
                closed: false,
            }),
        }
    }

    /// Registers a watch of `prefix` that starts at the revision `from`; 0 means after the current revision.
    pub(super) fn subscribe(self: &Arc<Self>, prefix: &str, from: u64) -> Subscription {
        let (prefix, wake) = (Arc::<str>::from(prefix), Arc::new(Notify::new()));
        let mut state = self.state.lock();
        let resume = if from == 0 { state.revision + 1 } else { from };
        let id = state.next_id;
        state.next_id += 1;
        let parked = resume > state.revision;
        state.reading += usize::from(!parked);
        let subscriber = Subscriber { wake: Arc::clone(&wake), wanted: None, parked, resume };
        state.subscribers.insert(id, subscriber);
        state.prefixes.entry(Arc::clone(&prefix)).or_default().push(id);
        Subscription { hub: Arc::clone(self), id, prefix, wake, next: resume }
    }

    /// Appends durable events in revision order and wakes the affected subscribers.
    pub(super) fn publish(&self, events: Vec<EntryEvent>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        for event in events {
            state.wake(&event);
            state.revision = event.entry.kv.mod_revision;
            state.bytes += weight(&event);
            state.window.push_back(event);
        }
        for id in std::mem::take(&mut state.expecting) {
            if let Some(subscriber) = state.subscribers.get(&id) {
                subscriber.wake.notify_one();
            }
        }
        state.trim();
    }

    /// Makes the watches of `prefix` (all watches if `None`) report progress when they reach `revision`.
    pub(super) fn request_progress(&self, prefix: Option<&str>, revision: u64) {
        let mut state = self.state.lock();
        let ids: Vec<u64> = match prefix {
            Some(prefix) => state.prefixes.get(prefix).cloned().unwrap_or_default(),
            None => state.subscribers.keys().copied().collect(),
        };
        let is_to_come = revision > state.revision;
        for id in ids {
            let Some(subscriber) = state.subscribers.get_mut(&id) else { continue };
            subscriber.wanted = subscriber.wanted.max(Some(revision));
            subscriber.wake.notify_one();
            if is_to_come {
                state.expecting.push(id);
            }
        }
    }

    /// Ends all watches.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for subscriber in state.subscribers.values() {
            subscriber.wake.notify_one();
        }
    }
}

impl Subscription {
    /// Returns the next step and advances the cursor past it.
    pub(super) fn step(&mut self) -> CursorStep {
        let mut state = self.hub.state.lock();
        let State { window, revision, subscribers, reading, closed, .. } = &mut *state;
        let reached = *revision;
        let Some(subscriber) = subscribers.get_mut(&self.id).filter(|_| !*closed) else {
            return CursorStep::Closed;
        };
        let resume = if subscriber.parked { reached + 1 } else { subscriber.resume };
        *reading += usize::from(std::mem::take(&mut subscriber.parked));
        self.next = self.next.max(resume);
        subscriber.resume = self.next;
        if self.next <= reached {
            let first = window.front().map_or(reached + 1, |event| event.entry.kv.mod_revision);
            if self.next < first {
                return CursorStep::Behind;
            }
            let start = window.partition_point(|event| event.entry.kv.mod_revision < self.next);
            let upto = window.get(start + STEP - 1).map_or(reached, |event| event.entry.kv.mod_revision);
            let seen = window.range(start..).take_while(|event| event.entry.kv.mod_revision <= upto);
            let events: Vec<_> =
                seen.filter(|event| event.entry.kv.key.starts_with(&*self.prefix)).cloned().collect();
            self.next = upto + 1;
            if !events.is_empty() || upto < reached {
                return CursorStep::Batch(events, upto);
            }
        }
        if subscriber.wanted.is_some_and(|wanted| wanted <= reached) {
            subscriber.wanted = None;
            return CursorStep::Batch(Vec::new(), reached);
        }
        subscriber.parked = true;
        subscriber.resume = self.next;
        *reading -= 1;
        state.trim();
        CursorStep::Wait
    }
}

impl State {
    /// Wakes the subscribers of the event's key.
    fn wake(&mut self, event: &EntryEvent) {
        let Self { subscribers, prefixes, reading, .. } = self;
        let KeyValue { key, mod_revision, .. } = &event.entry.kv;
        each_prefix_of(key, prefixes, |ids| {
            for id in ids {
                let subscriber =
                    subscribers.get_mut(id).filter(|subscriber| *mod_revision >= subscriber.resume);
                let Some(subscriber) = subscriber else { continue };
                if std::mem::take(&mut subscriber.parked) {
                    subscriber.resume = *mod_revision;
                    *reading += 1;
                }
                subscriber.wake.notify_one();
            }
        });
    }

    /// Drops the oldest revisions beyond the limits.
    fn trim(&mut self) {
        let bytes = if self.reading == 0 { IDLE_BYTES } else { WINDOW_BYTES };
        while self.window.len() > WINDOW_EVENTS || self.bytes > bytes {
            let Some(event) = self.window.pop_front() else { break };
            self.bytes -= weight(&event);
            // Keeps only whole revisions.
            let revision = event.entry.kv.mod_revision;
            while let Some(event) = self.window.pop_front_if(|next| next.entry.kv.mod_revision == revision) {
                self.bytes -= weight(&event);
            }
        }
    }
}

/// Calls `each` with the values of all prefixes of `key`, longest first. The cost is one lookup per matching prefix,
/// plus one per entry that shares more of the key than the next prefix does.
fn each_prefix_of<T>(key: &str, prefixes: &BTreeMap<Arc<str>, T>, mut each: impl FnMut(&T)) {
    let mut bound = Bound::Included(key);
    while let Some((prefix, value)) = prefixes.range::<str, _>((Bound::Unbounded, bound)).next_back() {
        if key.starts_with(&**prefix) {
            each(value);
            bound = Bound::Excluded(key.get(..prefix.len()).unwrap_or_default());
        } else {
            let common = key.bytes().zip(prefix.bytes()).take_while(|(one, other)| one == other).count();
            // Cuts at a character boundary.
            let common = (0..=common).rev().find(|length| key.is_char_boundary(*length)).unwrap_or_default();
            bound = Bound::Included(key.get(..common).unwrap_or_default());
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.hub.state.lock();
        let left = state.subscribers.remove(&self.id);
        state.reading -= usize::from(left.is_some_and(|subscriber| !subscriber.parked));
        if let Some(ids) = state.prefixes.get_mut(&self.prefix) {
            ids.retain(|id| *id != self.id);
            if ids.is_empty() {
                state.prefixes.remove(&self.prefix);
            }
        }
    }
}

fn weight(event: &EntryEvent) -> usize {
    size_of::<EntryEvent>() + event.entry.kv.key.len() + event.entry.kv.value.len()
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Entry, Lineage};
    use super::*;
    use crate::EventKind;

    /// Returns a change of 64 KiB.
    fn event(revision: u64) -> EntryEvent {
        let kv = KeyValue { key: "/a/b".into(), value: vec![b'x'; 64 << 10].into(), mod_revision: revision };
        EntryEvent { kind: EventKind::Put, entry: Entry { kv, lineage: Lineage::default(), lease: 0 } }
    }

    fn publish(hub: &Hub, revisions: std::ops::RangeInclusive<u64>) {
        for revision in revisions {
            hub.publish(vec![event(revision)]);
        }
    }

    /// Returns the revisions that a cursor reads until it waits.
    fn read(watch: &mut Subscription) -> Vec<u64> {
        let mut read = Vec::new();
        loop {
            match watch.step() {
                CursorStep::Batch(events, _) => {
                    read.extend(events.iter().map(|event| event.entry.kv.mod_revision));
                }
                CursorStep::Wait => return read,
                step => panic!("{step:?}"),
            }
        }
    }

    #[test]
    fn the_window_is_small_once_every_watch_has_read_it() {
        let hub = Arc::new(Hub::new(0));
        let (mut one, mut other) = (hub.subscribe("/a/", 0), hub.subscribe("/a/", 0));
        let bytes = || hub.state.lock().bytes;
        publish(&hub, 1..=40);
        assert!(bytes() > 40 * (64 << 10), "nobody has read");
        assert_eq!(read(&mut one), (1..=40).collect::<Vec<_>>());
        assert!(bytes() > 40 * (64 << 10), "one has not read");
        assert_eq!(read(&mut other), (1..=40).collect::<Vec<_>>());
        assert!((1..=IDLE_BYTES).contains(&bytes()), "{}", bytes());
        assert_eq!((read(&mut one), read(&mut other)), (vec![], vec![]));

        publish(&hub, 41..=60);
        assert_eq!(read(&mut one), (41..=60).collect::<Vec<_>>());
        drop(other);
        publish(&hub, 61..=61);
        assert_eq!(read(&mut one), [61]);
        assert!((1..=IDLE_BYTES).contains(&bytes()), "the other no longer counts");

        publish(&hub, 62..=62);
        let mut late = hub.subscribe("/a/", 30);
        assert!(matches!(late.step(), CursorStep::Behind));
        assert_eq!(read(&mut one), [62]);
        publish(&hub, 63..=80);
        assert!(bytes() > 18 * (64 << 10), "the late one has not read");
        drop((one, late));
        publish(&hub, 81..=81);
        assert!(bytes() <= IDLE_BYTES, "nobody watches");
        assert_eq!(hub.state.lock().reading, 0);
    }

    #[test]
    fn watches_of_other_keys_keep_no_events() {
        let hub = Arc::new(Hub::new(0));
        let mut other = hub.subscribe("/z/", 0);
        publish(&hub, 1..=10);
        assert!(hub.state.lock().bytes <= IDLE_BYTES);
        assert_eq!(read(&mut other), Vec::<u64>::new());
        hub.request_progress(Some("/z/"), 10);
        let step = other.step();
        assert!(matches!(&step, CursorStep::Batch(events, 10) if events.is_empty()), "{step:?}");
    }

    #[test]
    fn each_prefix_of_visits_only_prefixes_of_the_key() {
        let names = ["", "/", "/a/", "/a/b", "/a/b/", "/a/c/", "/b/", "/é/", "/ê/", "b"];
        let prefixes: BTreeMap<Arc<str>, &str> = names.iter().map(|name| (Arc::from(*name), *name)).collect();
        for key in ["/a/b/c", "/a/b", "/a/bb", "/b/1", "/c", "/é/1", "/ë", "", "a", "b", "/a/d/", "/a/c/x"]
        {
            let mut visited = Vec::new();
            each_prefix_of(key, &prefixes, |name| visited.push(*name));
            visited.reverse();
            let wanted: Vec<_> = names.iter().filter(|name| key.starts_with(**name)).copied().collect();
            assert_eq!(visited, wanted, "{key}");
        }
    }
}
