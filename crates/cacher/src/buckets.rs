//! Index of watchers by the events that can concern them.
//!
//! A bucket holds the sequence numbers of the events that may concern its watchers. The watchers share the bucket, each
//! with its own cursor. An event is added only to existing buckets: those of its namespace, its name, and its old and
//! new field values. Other watchers cause no cost.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::Notify;

use crate::event::{Change, Event};
use crate::filter::{FieldRef, Filter};
use crate::state::Layout;
use crate::window::Window;

/// The property that the watchers of a bucket share: the value of a field, or no property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The field; `None` for watchers that cannot be indexed.
    pub field: Option<FieldRef>,
    /// The value of the field.
    pub value: Box<str>,
}

impl Route {
    /// Returns the narrowest route that matches every event selected by `filter`.
    pub(crate) fn for_filter(filter: &Filter, layout: &Layout) -> Self {
        let indexed = || layout.indexed_fields.iter().map(|&field| FieldRef::Declared(field));
        let fields = [FieldRef::Name].into_iter().chain(indexed()).chain([FieldRef::Namespace]);
        let exact = |field| Some(Self { field: Some(field), value: filter.exact(field)?.into() });
        fields.into_iter().find_map(exact).unwrap_or(Self { field: None, value: "".into() })
    }
}

#[derive(Debug)]
struct Bucket {
    route: Route,
    watchers: usize,
    wake: Arc<Notify>,
    /// Sequence numbers of events, oldest first. Events outside the window may be missing.
    events: VecDeque<u64>,
    /// Position of the first element of `events`.
    first: u64,
    touched: bool,
    /// The watchers were woken recently and must not be woken again before this time.
    paused_until: Option<Instant>,
    /// True if events were added since the last wake.
    due: bool,
}

/// A watcher's position in a bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BucketCursor {
    bucket: usize,
    position: u64,
}

/// The bucket of each value of a field.
type Values = HashMap<Box<str>, usize>;

#[derive(Debug, Default)]
pub(crate) struct Buckets {
    slab: Slab<Bucket>,
    /// The fields that have watchers.
    fields: Vec<(Option<FieldRef>, Values)>,
    /// Buckets that have new events and wait for the end of their pause.
    paused: Vec<usize>,
}

impl Buckets {
    /// Adds a watcher positioned after the latest event.
    pub(crate) fn join(&mut self, route: Route) -> (BucketCursor, Arc<Notify>) {
        let at = self.find(&route).unwrap_or_else(|| self.open(route));
        let bucket = &mut self.slab[at];
        bucket.watchers += 1;
        let position = bucket.first + bucket.events.len() as u64;
        (BucketCursor { bucket: at, position }, Arc::clone(&bucket.wake))
    }

    /// Removes a watcher; the last one removes the bucket.
    pub(crate) fn leave(&mut self, cursor: BucketCursor) {
        let bucket = &mut self.slab[cursor.bucket];
        bucket.watchers -= 1;
        if bucket.watchers > 0 {
            return;
        }
        let Route { field, value } = self.slab.remove(cursor.bucket).route;
        for (_, values) in self.fields.iter_mut().filter(|(f, _)| *f == field) {
            values.remove(&value);
        }
        self.fields.retain(|(_, values)| !values.is_empty());
    }

    /// Adds the event `seq` to every bucket it may concern, and adds those buckets to `touched`.
    pub(crate) fn note(&mut self, seq: u64, event: &Event, oldest: u64, touched: &mut Vec<usize>) {
        let change = event.change();
        for (field, values) in &self.fields {
            for value in values_of(*field, change).into_iter().flatten() {
                let Some(&at) = values.get(value) else { continue };
                let bucket = &mut self.slab[at];
                bucket.note(seq, oldest);
                if !std::mem::replace(&mut bucket.touched, true) {
                    touched.push(at);
                }
            }
        }
    }

    /// Returns the wakers of the `touched` buckets that are not paused. [`Self::take_due`] returns the others later.
    pub(crate) fn wakes(&mut self, touched: Vec<usize>, now: Instant) -> Vec<Arc<Notify>> {
        let Self { slab, paused, .. } = self;
        let mut wake = |at: usize| {
            let bucket = &mut slab[at];
            bucket.touched = false;
            if bucket.paused_until.is_none_or(|until| until <= now) {
                return Some(bucket.wake(now));
            }
            if !std::mem::replace(&mut bucket.due, true) {
                paused.push(at);
            }
            None
        };
        touched.into_iter().filter_map(&mut wake).collect()
    }

    /// Returns the earliest time at which a pause ends.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.paused.iter().filter_map(|at| self.slab.get(*at)?.paused_until).min()
    }

    /// Returns the wakers of the buckets whose pause has ended.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Arc<Notify>> {
        let mut wakes = Vec::new();
        self.paused.retain(|at| match self.slab.get_mut(*at).filter(|bucket| bucket.due) {
            // The bucket may have been removed and its slot reused.
            None => false,
            Some(bucket) if bucket.paused_until.is_some_and(|until| until > now) => true,
            Some(bucket) => {
                wakes.push(bucket.wake(now));
                false
            }
        });
        wakes
    }

    /// Returns the wakers of all watchers.
    pub(crate) fn all_wakes(&self) -> Vec<Arc<Notify>> {
        self.slab.iter().map(|(_, bucket)| Arc::clone(&bucket.wake)).collect()
    }

    /// Advances `cursor` over at most `limit` events and appends them to `events`. Returns false if an event is lost.
    pub(crate) fn read(
        &self,
        cursor: &mut BucketCursor,
        window: &Window,
        limit: usize,
        events: &mut Vec<Arc<Event>>,
    ) -> bool {
        let bucket = &self.slab[cursor.bucket];
        let Some(skip) = cursor.position.checked_sub(bucket.first) else { return false };
        for &seq in bucket.events.iter().skip(skip as usize).take(limit) {
            let Some(event) = window.get(seq) else { return false };
            events.push(Arc::clone(event));
            cursor.position += 1;
        }
        true
    }

    /// Returns the sequence number of the next event at `cursor`.
    pub(crate) fn peek(&self, cursor: BucketCursor) -> Option<u64> {
        let bucket = &self.slab[cursor.bucket];
        let index = cursor.position.checked_sub(bucket.first)?;
        bucket.events.get(index as usize).copied()
    }

    /// Returns the number of watchers for each route.
    pub(crate) fn watcher_counts(&self) -> impl Iterator<Item = (&Route, usize)> {
        self.slab.iter().map(|(_, bucket)| (&bucket.route, bucket.watchers))
    }

    fn find(&self, route: &Route) -> Option<usize> {
        let (_, values) = self.fields.iter().find(|(field, _)| *field == route.field)?;
        values.get(&route.value).copied()
    }

    fn open(&mut self, route: Route) -> usize {
        let (field, value) = (route.field, route.value.clone());
        let at = self.slab.insert(Bucket {
            route,
            watchers: 0,
            wake: Arc::default(),
            events: VecDeque::new(),
            first: 0,
            touched: false,
            paused_until: None,
            due: false,
        });
        match self.fields.iter_mut().find(|(f, _)| *f == field) {
            Some((_, values)) => drop(values.insert(value, at)),
            None => self.fields.push((field, HashMap::from([(value, at)]))),
        }
        at
    }
}

impl Bucket {
    /// Returns the waker and starts a pause. A wake costs as much as a few kilobytes of events, so with many watchers,
    /// events that follow soon are delivered together. The first event after a pause is never delayed.
    fn wake(&mut self, now: Instant) -> Arc<Notify> {
        let pause = (PAUSE_PER_WATCHER * self.watchers as u32).min(MAX_PAUSE);
        self.paused_until = Some(now + pause).filter(|_| pause >= MIN_PAUSE);
        self.due = false;
        Arc::clone(&self.wake)
    }

    fn note(&mut self, seq: u64, oldest: u64) {
        while self.events.front().is_some_and(|&front| front < oldest) {
            self.events.pop_front();
            self.first += 1;
        }
        // The old and the new value may belong to the same bucket.
        if self.events.back() != Some(&seq) {
            self.events.push_back(seq);
        }
    }
}

/// Returns the values of the route's field before and after the change.
fn values_of(field: Option<FieldRef>, change: &Change) -> [Option<&str>; 2] {
    match field {
        None => [Some(""), None],
        Some(field @ (FieldRef::Name | FieldRef::Namespace)) => [Some(field.value_in(change.latest())), None],
        Some(field) => {
            [change.old().map(|old| field.value_in(old)), change.current().map(|new| field.value_in(new))]
        }
    }
}

/// Pause per watcher after a wake. It is several times the cost of serving one watcher, so that writers make progress
/// between wakes.
const PAUSE_PER_WATCHER: Duration = Duration::from_micros(20);

/// Maximum pause. People and controllers do not notice it.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Minimum pause: the resolution of timers. Buckets with fewer than 50 watchers have no pause.
const MIN_PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn watched_by(watchers: usize) -> (Buckets, usize) {
        let mut buckets = Buckets::default();
        let route = || Route { field: None, value: "".into() };
        let (cursor, _) = (0..watchers).map(|_| buckets.join(route())).last().unwrap();
        (buckets, cursor.bucket)
    }

    #[test]
    fn few_watchers_are_woken_by_each_event() {
        let (mut buckets, at) = watched_by(49);
        let now = Instant::now();
        assert_eq!([(); 3].map(|()| buckets.wakes(vec![at], now).len()), [1; 3]);
        assert_eq!(buckets.next_due(), None);
    }

    #[test]
    fn many_watchers_pause_after_a_wake() {
        let (mut buckets, at) = watched_by(1_000);
        let (start, pause) = (Instant::now(), PAUSE_PER_WATCHER * 1_000);
        assert_eq!(buckets.wakes(vec![at], start).len(), 1, "the first event is not delayed");
        assert_eq!(buckets.next_due(), None, "no event since");
        assert_eq!([(); 2].map(|()| buckets.wakes(vec![at], start).len()), [0; 2]);
        assert_eq!(buckets.next_due(), Some(start + pause));
        assert_eq!(buckets.take_due(start).len(), 0, "not yet");
        assert_eq!(buckets.take_due(start + pause).len(), 1, "both together");
        assert_eq!(buckets.next_due(), None);
        assert_eq!(buckets.wakes(vec![at], start + pause).len(), 0, "paused again");
        assert_eq!(buckets.wakes(vec![at], start + 2 * pause).len(), 1, "woken by the next event");
        assert_eq!(buckets.take_due(start + 9 * pause).len(), 0, "only once");
    }

    #[test]
    fn a_removed_bucket_is_not_woken() {
        let (mut buckets, at) = watched_by(300);
        let now = Instant::now();
        assert_eq!([(); 2].map(|()| buckets.wakes(vec![at], now).len()), [1, 0]);
        (0..300).for_each(|_| buckets.leave(BucketCursor { bucket: at, position: 0 }));
        let route = Route { field: Some(FieldRef::Name), value: "a".into() };
        assert_eq!(buckets.join(route).0.bucket, at, "the slot is reused");
        assert_eq!(buckets.take_due(now + MAX_PAUSE).len(), 0);
        assert_eq!(buckets.next_due(), None);
    }
}
