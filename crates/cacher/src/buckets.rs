//! The index of watchers: who can be concerned by an event at all.
//!
//! A bucket holds the sequence numbers of the events its watchers may care for; they share it, each with a
//! position of its own. An event is noted in the buckets of its namespace, its name and its old and new field
//! values that somebody watches, and costs nothing for all others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

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
    buckets: Slab<Bucket>,
    /// The fields that somebody watches.
    fields: Vec<(Option<FieldRef>, Values)>,
}

impl Buckets {
    /// Enters a watcher that has seen (or will find otherwise) all events up to now.
    pub(crate) fn join(&mut self, route: Route) -> (Place, Arc<Notify>) {
        let at = self.find(&route).unwrap_or_else(|| self.open(route));
        let bucket = &mut self.buckets[at];
        bucket.watchers += 1;
        let position = bucket.first + bucket.events.len() as u64;
        (Place { bucket: at, position }, Arc::clone(&bucket.wake))
    }

    /// Takes a watcher out; the last one closes the bucket.
    pub(crate) fn leave(&mut self, place: Place) {
        let bucket = &mut self.buckets[place.bucket];
        bucket.watchers -= 1;
        if bucket.watchers > 0 {
            return;
        }
        let Route { field, value } = self.buckets.remove(place.bucket).route;
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
                let bucket = &mut self.buckets[at];
                bucket.note(seq, oldest);
                if !std::mem::replace(&mut bucket.touched, true) {
                    touched.push(at);
                }
            }
        }
    }

    /// What wakes the watchers of the `touched` buckets.
    pub(crate) fn wakes(&mut self, touched: Vec<usize>) -> Vec<Arc<Notify>> {
        let mut wake = |at: usize| {
            let bucket = &mut self.buckets[at];
            bucket.touched = false;
            Arc::clone(&bucket.wake)
        };
        touched.into_iter().map(&mut wake).collect()
    }

    /// What wakes all watchers.
    pub(crate) fn all_wakes(&self) -> Vec<Arc<Notify>> {
        self.buckets.iter().map(|(_, bucket)| Arc::clone(&bucket.wake)).collect()
    }

    /// Moves `place` over at most `limit` events, which go to `events`. False where one is lost.
    pub(crate) fn read(
        &self,
        place: &mut Place,
        window: &Window,
        limit: usize,
        events: &mut Vec<Arc<Event>>,
    ) -> bool {
        let bucket = &self.buckets[place.bucket];
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
        let bucket = &self.buckets[place.bucket];
        let index = place.position.checked_sub(bucket.first)?;
        bucket.events.get(index as usize).copied()
    }

    /// How many watchers take each route.
    pub(crate) fn census(&self) -> impl Iterator<Item = (&Route, usize)> {
        self.buckets.iter().map(|(_, bucket)| (&bucket.route, bucket.watchers))
    }

    fn find(&self, route: &Route) -> Option<usize> {
        let (_, values) = self.fields.iter().find(|(field, _)| *field == route.field)?;
        values.get(&route.value).copied()
    }

    fn open(&mut self, route: Route) -> usize {
        let (field, value) = (route.field, route.value.clone());
        let (wake, events) = (Arc::default(), VecDeque::new());
        let at = self.buckets.insert(Bucket { route, watchers: 0, wake, events, first: 0, touched: false });
        match self.fields.iter_mut().find(|(f, _)| *f == field) {
            Some((_, values)) => drop(values.insert(value, at)),
            None => self.fields.push((field, HashMap::from([(value, at)]))),
        }
        at
    }
}

impl Bucket {
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
