//! Values for metrics and administrators.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::buckets::Route;

/// Counters of one resource's cache since its start.
#[derive(Debug)]
pub struct Stats {
    /// Changes received from the store (`apiserver_watch_cache_events_received_total`).
    pub events_received: Counter,
    /// Changes dispatched to watchers, counted once per change (`apiserver_watch_cache_events_dispatched_total`).
    pub events_dispatched: Counter,
    /// Progress notifications from the store (`etcd_bookmark_total`).
    pub progress_received: Counter,
    /// Initial events sent to watchers (`apiserver_init_events_total`).
    pub initial_events: Counter,
    /// Watchers closed because they could not keep up (`apiserver_terminated_watchers_total`).
    pub terminated_watchers: Counter,
    /// Lists of the store (`apiserver_watch_cache_initializations_total`).
    pub initializations: Counter,
    /// Pages read by lists of the store.
    pub pages_read: Counter,
    /// Objects read by lists of the store.
    pub objects_read: Counter,
    /// Watches of the store.
    pub store_watches: Counter,
    /// Stored versions that could not be decoded.
    pub undecodable: Counter,
    /// Snapshots that `snapshot_at` served from memory.
    pub past_snapshots: Counter,
    /// Time that readers waited for a revision, in seconds (`apiserver_watch_cache_read_wait_seconds`).
    pub read_waits: Histogram,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            events_received: Counter::default(),
            events_dispatched: Counter::default(),
            progress_received: Counter::default(),
            initial_events: Counter::default(),
            terminated_watchers: Counter::default(),
            initializations: Counter::default(),
            pages_read: Counter::default(),
            objects_read: Counter::default(),
            store_watches: Counter::default(),
            undecodable: Counter::default(),
            past_snapshots: Counter::default(),
            read_waits: Histogram::new(&READ_WAITS),
        }
    }
}

/// A counter that never decreases.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Returns the value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Increases the value.
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Counts observed values by bucket.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One counter for each bound, and one for values above the last bound.
    /// Created with the first value, because most histograms of a server with thousands of resources stay empty.
    counts: OnceLock<Box<[Counter]>>,
    /// Sum of the values in millionths.
    sum: AtomicU64,
}

impl Histogram {
    /// Creates a histogram with these upper bounds, in ascending order.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: OnceLock::new(), sum: AtomicU64::new(0) }
    }

    /// Records a value. It must not be negative.
    pub fn observe(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        let create = || (0..=self.bounds.len()).map(|_| Counter::default()).collect();
        if let Some(count) = self.counts.get_or_init(create).get(at) {
            count.add(1);
        }
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    /// Records a time, in seconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    /// Returns each bound with the number of values less than or equal to it; nothing if there are no values.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let below = self.counts().iter().scan(0, |below, count| {
            *below += count.get();
            Some(*below)
        });
        self.bounds.iter().copied().zip(below)
    }

    /// Returns the number of values.
    pub fn count(&self) -> u64 {
        self.counts().iter().map(Counter::get).sum()
    }

    fn counts(&self) -> &[Counter] {
        self.counts.get().map_or(&[], |counts| &counts[..])
    }

    /// Returns the sum of the values.
    pub fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / 1e6
    }
}

/// Upstream's bounds of `apiserver_watch_cache_read_wait_seconds`.
const READ_WAITS: [f64; 13] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0];

/// The current state of one resource's cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// Name of the resource.
    pub resource: Arc<str>,
    /// Revision up to which the cache is complete; 0 before it is ready.
    pub revision: u64,
    /// Number of objects (`apiserver_storage_objects`).
    pub objects: usize,
    /// Size of the objects in bytes.
    pub bytes: usize,
    /// State of the window.
    pub window: WindowIntrospection,
    /// Revisions of the past snapshots kept for later pages, oldest kept first.
    pub kept_snapshots: Vec<u64>,
    /// Number of watchers by route, in no particular order.
    pub watchers: Vec<(Route, usize)>,
    /// The first keys, sorted, whose stored version cannot be decoded.
    pub undecodable: Vec<Arc<str>>,
}

/// The current state of one resource's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowIntrospection {
    /// Oldest revision at which a watch can start.
    pub oldest: u64,
    /// Revision of the latest event; equal to `oldest` without events.
    pub newest: u64,
    /// Number of events.
    pub events: usize,
    /// Current capacity in events (`watch_cache_capacity`).
    pub capacity: usize,
    /// Number of times the capacity was doubled (`watch_cache_capacity_increase_total`).
    pub increases: u64,
    /// Number of times the capacity was halved (`watch_cache_capacity_decrease_total`).
    pub decreases: u64,
    /// Size of the replaced objects in the window, in bytes.
    pub bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_counts_are_cumulative() {
        let histogram = Histogram::new(&[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 3.0] {
            histogram.observe(value);
        }
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(1.0, 2), (2.0, 3)]);
        assert_eq!((histogram.count(), histogram.sum()), (4, 6.0));
    }
}
