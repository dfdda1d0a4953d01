//! The index of watchers: who can be concerned by an event at all.
//!
//! A bucket holds the sequence numbers of the events its watchers may care for; they share it, each with a
//! position of its own. An event is noted in the buckets of its namespace, its name and its old and new field
//! values that somebody watches, and costs nothing for all others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::Notify;

use crate::event::{Change, Event};
use crate::filter::{FieldRef, Filter};
use crate::state::Layout;
use crate::window::Window;

/// What the watchers of a bucket have in common: the value of one field, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The field; `None` for watchers with nothing to index them by.
    pub field: Option<FieldRef>,
    /// Its value.
    pub value: Box<str>,
}

impl Route {
    /// The narrowest route that no event `filter` selects can miss.
    pub(crate) fn of(filter: &Filter, layout: &Layout) -> Self {
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
    /// Sequence numbers of events, oldest first; those the window has lost may be missing.
    events: VecDeque<u64>,
    /// Position of the first of them.
    first: u64,
    touched: bool,
    /// Its watchers were woken not long ago: they are to be woken again at this time, not before.
    rests_until: Option<Instant>,
    /// Whether they have something to be woken for.
    due: bool,
}

/// A watcher's place in a bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    bucket: usize,
    position: u64,
}

/// The bucket of each value of a field.
type Values = HashMap<Box<str>, usize>;

#[derive(Debug, Default)]
pub(crate) struct Buckets {
    slab: Slab<Bucket>,
    /// The fields that somebody watches.
    fields: Vec<(Option<FieldRef>, Values)>,
    /// The buckets that are due when they have rested.
    resting: Vec<usize>,
}

impl Buckets {
    /// Enters a watcher that has seen (or will find otherwise) all events up to now.
    pub(crate) fn join(&mut self, route: Route) -> (Place, Arc<Notify>) {
        let at = self.find(&route).unwrap_or_else(|| self.open(route));
        let bucket = &mut self.slab[at];
        bucket.watchers += 1;
        let position = bucket.first + bucket.events.len() as u64;
        (Place { bucket: at, position }, Arc::clone(&bucket.wake))
    }

    /// Takes a watcher out; the last one closes the bucket.
    pub(crate) fn leave(&mut self, place: Place) {
        let bucket = &mut self.slab[place.bucket];
        bucket.watchers -= 1;
        if bucket.watchers > 0 {
            return;
        }
        let Route { field, value } = self.slab.remove(place.bucket).route;
        for (_, values) in self.fields.iter_mut().filter(|(f, _)| *f == field) {
            values.remove(&value);
        }
        self.fields.retain(|(_, values)| !values.is_empty());
    }

    /// Notes the event `seq` in every bucket it can concern, and those buckets in `touched`.
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

    /// What wakes the watchers of the `touched` buckets, but for those that rest; see [`Self::rested`].
    pub(crate) fn wakes(&mut self, touched: Vec<usize>, now: Instant) -> Vec<Arc<Notify>> {
        let Self { slab, resting, .. } = self;
        let mut wake = |at: usize| {
            let bucket = &mut slab[at];
            bucket.touched = false;
            if bucket.rests_until.is_none_or(|until| until <= now) {
                return Some(bucket.wake(now));
            }
            if !std::mem::replace(&mut bucket.due, true) {
                resting.push(at);
            }
            None
        };
        touched.into_iter().filter_map(&mut wake).collect()
    }

    /// When the next bucket is due that rests.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.resting.iter().filter_map(|at| self.slab.get(*at)?.rests_until).min()
    }

    /// What wakes the watchers of the buckets that have rested by now.
    pub(crate) fn rested(&mut self, now: Instant) -> Vec<Arc<Notify>> {
        let mut wakes = Vec::new();
        self.resting.retain(|at| match self.slab.get_mut(*at).filter(|bucket| bucket.due) {
            // The bucket may have gone, and another may have come in its place.
            None => false,
            Some(bucket) if bucket.rests_until.is_some_and(|until| until > now) => true,
            Some(bucket) => {
                wakes.push(bucket.wake(now));
                false
            }
        });
        wakes
    }

    /// What wakes all watchers.
    pub(crate) fn all_wakes(&self) -> Vec<Arc<Notify>> {
        self.slab.iter().map(|(_, bucket)| Arc::clone(&bucket.wake)).collect()
    }

    /// Moves `place` over at most `limit` events, which go to `events`. False where one is lost.
    pub(crate) fn read(
        &self,
        place: &mut Place,
        window: &Window,
        limit: usize,
        events: &mut Vec<Arc<Event>>,
    ) -> bool {
        let bucket = &self.slab[place.bucket];
        let Some(skip) = place.position.checked_sub(bucket.first) else { return false };
        for &seq in bucket.events.iter().skip(skip as usize).take(limit) {
            let Some(event) = window.get(seq) else { return false };
            events.push(Arc::clone(event));
            place.position += 1;
        }
        true
    }

    /// The sequence number of the next event at `place`.
    pub(crate) fn peek(&self, place: Place) -> Option<u64> {
        let bucket = &self.slab[place.bucket];
        let index = place.position.checked_sub(bucket.first)?;
        bucket.events.get(index as usize).copied()
    }

    /// How many watchers take each route.
    pub(crate) fn census(&self) -> impl Iterator<Item = (&Route, usize)> {
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
            rests_until: None,
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
    /// What wakes its watchers, which then rest: a wake costs as much as some kilobytes of events, so that where many
    /// watch, what comes soon after an event goes out together. The first event after a pause never waits.
    fn wake(&mut self, now: Instant) -> Arc<Notify> {
        let rest = (REST_OF_EACH * self.watchers as u32).min(LONGEST_REST);
        self.rests_until = Some(now + rest).filter(|_| rest >= SHORTEST_REST);
        self.due = false;
        Arc::clone(&self.wake)
    }

    fn note(&mut self, seq: u64, oldest: u64) {
        while self.events.front().is_some_and(|&front| front < oldest) {
            self.events.pop_front();
            self.first += 1;
        }
        // The old and the new value may lead to the same bucket.
        if self.events.back() != Some(&seq) {
            self.events.push_back(seq);
        }
    }
}

/// The values that the object has, before and after the change, in what a route names.
fn values_of(field: Option<FieldRef>, change: &Change) -> [Option<&str>; 2] {
    match field {
        None => [Some(""), None],
        Some(field @ (FieldRef::Name | FieldRef::Namespace)) => [Some(field.of(change.latest())), None],
        Some(field) => [change.old().map(|old| field.of(old)), change.current().map(|new| field.of(new))],
    }
}

/// How long a bucket's watchers rest after they were woken, for each of them: some times what it takes to serve one, so
/// that writers find time to write between two rounds.
const REST_OF_EACH: Duration = Duration::from_micros(20);

/// But not longer than this, which is below what a person or a controller notices.
const LONGEST_REST: Duration = Duration::from_millis(50);

/// And not at all where it would be shorter than what timers can tell: with fewer than 50 watchers.
const SHORTEST_REST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn watched_by(watchers: usize) -> (Buckets, usize) {
        let mut buckets = Buckets::default();
        let route = || Route { field: None, value: "".into() };
        let (place, _) = (0..watchers).map(|_| buckets.join(route())).last().unwrap();
        (buckets, place.bucket)
    }

    #[test]
    fn few_watchers_are_woken_at_each_event() {
        let (mut buckets, at) = watched_by(49);
        let now = Instant::now();
        assert_eq!([(); 3].map(|()| buckets.wakes(vec![at], now).len()), [1; 3]);
        assert_eq!(buckets.next_due(), None);
    }

    #[test]
    fn many_watchers_rest_after_they_were_woken() {
        let (mut buckets, at) = watched_by(1_000);
        let (start, rest) = (Instant::now(), REST_OF_EACH * 1_000);
        assert_eq!(buckets.wakes(vec![at], start).len(), 1, "the first event does not wait");
        assert_eq!(buckets.next_due(), None, "nothing has come since");
        assert_eq!([(); 2].map(|()| buckets.wakes(vec![at], start).len()), [0; 2]);
        assert_eq!(buckets.next_due(), Some(start + rest));
        assert_eq!(buckets.rested(start).len(), 0, "not yet");
        assert_eq!(buckets.rested(start + rest).len(), 1, "both at once");
        assert_eq!(buckets.next_due(), None);
        assert_eq!(buckets.wakes(vec![at], start + rest).len(), 0, "they rest again");
        assert_eq!(buckets.wakes(vec![at], start + 2 * rest).len(), 1, "and are woken by who comes after");
        assert_eq!(buckets.rested(start + 9 * rest).len(), 0, "only once");
    }

    #[test]
    fn a_bucket_that_has_gone_is_not_woken() {
        let (mut buckets, at) = watched_by(300);
        let now = Instant::now();
        assert_eq!([(); 2].map(|()| buckets.wakes(vec![at], now).len()), [1, 0]);
        (0..300).for_each(|_| buckets.leave(Place { bucket: at, position: 0 }));
        let route = Route { field: Some(FieldRef::Name), value: "a".into() };
        assert_eq!(buckets.join(route).0.bucket, at, "another in its place");
        assert_eq!(buckets.rested(now + LONGEST_REST).len(), 0);
        assert_eq!(buckets.next_due(), None);
    }
}
