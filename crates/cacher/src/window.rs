//! The bounded history of a resource.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::stats::WindowIntrospection;

/// Limits of a resource's history.
///
/// The capacity follows the rate of events between `min` and `max`, as upstream. It is doubled if the window is full
/// and its oldest event is younger than `fresh`. It is halved if a quarter of the events would cover `fresh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowBounds {
    /// Minimum capacity in events, regardless of their size.
    pub min: usize,
    /// Maximum capacity in events.
    pub max: usize,
    /// Maximum size of the replaced objects in bytes. Above it, old events are dropped until only `min` events remain.
    pub max_bytes: usize,
    /// Target age of the oldest event. It is slightly longer than the interval of bookmarks.
    pub fresh: Duration,
}

impl Default for WindowBounds {
    fn default() -> Self {
        Self { min: 100, max: 100 * 1024, max_bytes: 64 << 20, fresh: Duration::from_secs(75) }
    }
}

/// A ring of events with consecutive sequence numbers. Unlike revisions, sequence numbers have no gaps, so the index of
/// an event is a subtraction.
#[derive(Debug)]
pub(crate) struct Window {
    bounds: WindowBounds,
    capacity: usize,
    entries: VecDeque<(Arc<Event>, Instant)>,
    first: u64,
    /// The window contains every event after this revision.
    floor: u64,
    retained: usize,
    increases: u64,
    decreases: u64,
}

impl Window {
    pub(crate) fn new(bounds: WindowBounds) -> Self {
        let capacity = bounds.min.max(1);
        let entries = VecDeque::new();
        Self { bounds, capacity, entries, first: 0, floor: 0, retained: 0, increases: 0, decreases: 0 }
    }

    /// Drops all events; history starts after `floor`.
    pub(crate) fn reset(&mut self, floor: u64) {
        let Self { bounds, increases, decreases, .. } = *self;
        *self = Self { first: self.next(), floor, increases, decreases, ..Self::new(bounds) };
    }

    pub(crate) fn push(&mut self, event: Arc<Event>, now: Instant) {
        self.resize(now);
        while self.entries.len() >= self.capacity || self.is_too_big() {
            self.evict();
        }
        self.retained += event.retained();
        self.entries.push_back((event, now));
        // Watchers that keep up have already taken the frames of such old events.
        if let Some(aged) = self.next().checked_sub(FRAMES_KEPT).and_then(|seq| self.get(seq)) {
            aged.drop_encodings();
        }
    }

    /// Returns the event with sequence number `seq` if it is still in the window.
    pub(crate) fn get(&self, seq: u64) -> Option<&Arc<Event>> {
        let index = seq.checked_sub(self.first)?;
        self.entries.get(index as usize).map(|(event, _)| event)
    }

    /// Returns the sequence number of the first event after `revision`; `None` if the window has lost some of these
    /// events.
    pub(crate) fn after(&self, revision: u64) -> Option<u64> {
        let index = self.entries.partition_point(|(event, _)| event.revision() <= revision);
        (revision >= self.floor).then_some(self.first + index as u64)
    }

    /// Returns the sequence numbers of the events in the window.
    pub(crate) fn sequence(&self) -> Range<u64> {
        self.first..self.next()
    }

    /// Returns the sequence number of the next event.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Returns the oldest revision at which a watch can start.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// Returns the current state of the window.
    pub(crate) fn introspect(&self) -> WindowIntrospection {
        WindowIntrospection {
            oldest: self.floor,
            newest: self.entries.back().map_or(self.floor, |(event, _)| event.revision()),
            events: self.entries.len(),
            capacity: self.capacity,
            increases: self.increases,
            decreases: self.decreases,
            bytes: self.retained,
        }
    }

    pub(crate) fn events(&self) -> impl DoubleEndedIterator<Item = &Arc<Event>> + ExactSizeIterator {
        self.entries.iter().map(|(event, _)| event)
    }

    fn resize(&mut self, now: Instant) {
        let fresh = |entry: Option<&(Arc<Event>, Instant)>| {
            entry.is_some_and(|(_, at)| now.saturating_duration_since(*at) < self.bounds.fresh)
        };
        if self.entries.len() < self.capacity {
            return;
        }
        let before = self.capacity;
        if fresh(self.entries.front()) {
            self.capacity = (before * 2).min(self.bounds.max).max(before);
        } else if !fresh(self.entries.get(self.entries.len() - before / 4)) {
            self.capacity = (before / 2).max(self.bounds.min).max(1);
        }
        self.increases += u64::from(self.capacity > before);
        self.decreases += u64::from(self.capacity < before);
    }

    fn is_too_big(&self) -> bool {
        self.retained > self.bounds.max_bytes && self.entries.len() >= self.bounds.min.max(1)
    }

    fn evict(&mut self) {
        if let Some((event, _)) = self.entries.pop_front() {
            self.first += 1;
            self.floor = event.revision();
            self.retained -= event.retained();
        }
    }
}

/// Number of latest events that keep their frames.
const FRAMES_KEPT: u64 = 256;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nave_store::KeyValue;

    use super::*;
    use crate::event::Change;
    use crate::memo::EncodingBudget;
    use crate::object::{CachedObject, DecodedObject, SelectableAttributes};

    const BOUNDS: WindowBounds =
        WindowBounds { min: 4, max: 16, max_bytes: usize::MAX, fresh: Duration::from_secs(75) };

    struct Clock {
        window: Window,
        start: Instant,
        revision: u64,
    }

    impl Clock {
        fn new(bounds: WindowBounds) -> Self {
            Self { window: Window::new(bounds), start: Instant::now(), revision: 0 }
        }

        /// Pushes deletions of an object, one per second starting at `at`. Each deletion increases the revision by two.
        fn push(&mut self, at: u64, count: u64) {
            for second in at..at + count {
                self.revision += 2;
                let event = Event::new(self.revision, Change::Deleted(object()), &EncodingBudget::new(0));
                self.window.push(Arc::new(event), self.start + Duration::from_secs(second));
            }
        }
    }

    fn object() -> Arc<CachedObject> {
        let kv = KeyValue { key: "/r/a".into(), value: Bytes::new(), mod_revision: 1 };
        let decoded =
            DecodedObject { json: "1".into(), version_at: 0, attributes: SelectableAttributes::default() };
        Arc::new(CachedObject::new(&kv, false, decoded, &EncodingBudget::new(0)).unwrap())
    }

    #[test]
    fn finds_events_by_revision_and_by_sequence_number() {
        let mut clock = Clock::new(WindowBounds { max: 4, ..BOUNDS });
        clock.push(0, 6);
        let window = &clock.window;
        assert_eq!((window.sequence(), window.floor()), (2..6, 4));
        assert_eq!(
            [3, 4, 5, 6, 11, 12, 99].map(|revision| window.after(revision)),
            [None, Some(2), Some(2), Some(3), Some(5), Some(6), Some(6)]
        );
        assert_eq!(
            [1, 2, 5, 6].map(|seq| window.get(seq).map(|event| event.revision())),
            [None, Some(6), Some(12), None]
        );
    }

    #[test]
    fn capacity_follows_the_rate_of_events() {
        let mut clock = Clock::new(BOUNDS);
        clock.push(0, 4);
        assert_eq!(clock.window.capacity, 4);
        clock.push(4, 1);
        assert_eq!(clock.window.capacity, 8, "full of fresh events");
        clock.push(5, 60);
        assert_eq!((clock.window.capacity, clock.window.sequence().count()), (16, 16), "but bounded");
        clock.push(1_000, 1);
        assert_eq!((clock.window.capacity, clock.window.sequence().count()), (8, 8), "old ones are dropped");
        clock.push(10_000, 1);
        assert_eq!((clock.window.capacity, clock.window.floor()), (4, clock.revision - 8));
        clock.push(20_000, 1);
        assert_eq!(clock.window.capacity, 4, "never below the lower bound");
        let seen = clock.window.introspect();
        assert_eq!((seen.increases, seen.decreases), (2, 2));
    }

    #[test]
    fn superseded_objects_are_bounded_in_bytes() {
        let mut probe = Clock::new(BOUNDS);
        probe.push(0, 1);
        let one = probe.window.retained;
        let mut clock = Clock::new(WindowBounds { max_bytes: 6 * one, ..BOUNDS });
        clock.push(0, 50);
        assert_eq!((clock.window.sequence().count(), clock.window.retained), (7, 7 * one));
        let mut clock = Clock::new(WindowBounds { max_bytes: 0, ..BOUNDS });
        clock.push(0, 50);
        assert_eq!(clock.window.sequence().count(), 4, "the minimum is kept");
    }

    #[test]
    fn a_reset_starts_a_new_history() {
        let mut clock = Clock::new(BOUNDS);
        clock.push(0, 3);
        clock.window.reset(100);
        assert_eq!((clock.window.sequence(), clock.window.retained), (3..3, 0));
        assert_eq!([99, 100].map(|revision| clock.window.after(revision)), [None, Some(3)]);
    }
}
