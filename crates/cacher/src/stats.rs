//! What the metrics endpoint and the administrator are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::buckets::Route;

/// What one resource's cache has done since it was started.
#[derive(Debug)]
pub struct Stats {
    /// Changes that came from the store (`apiserver_watch_cache_events_received_total`).
    pub events_received: Counter,
    /// Changes told to watchers, each once for all of them (`apiserver_watch_cache_events_dispatched_total`).
    pub events_dispatched: Counter,
    /// Progress that the store told without a change (`etcd_bookmark_total`).
    pub progress_received: Counter,
    /// Initial events sent to watchers (`apiserver_init_events_total`).
    pub initial_events: Counter,
    /// Watchers ended because they could not keep up (`apiserver_terminated_watchers_total`).
    pub terminated_watchers: Counter,
    /// Lists made of the store (`apiserver_watch_cache_initializations_total`).
    pub initializations: Counter,
    /// Pages of those lists.
    pub pages_read: Counter,
    /// Objects in those pages.
    pub objects_read: Counter,
    /// Watches of the store opened.
    pub store_watches: Counter,
    /// Stored versions that could not be decoded.
    pub undecodable: Counter,
    /// Snapshots served by `snapshot_at` out of memory.
    pub past_snapshots: Counter,
    /// How long readers waited for a revision, in seconds (`apiserver_watch_cache_read_wait_seconds`).
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

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds to it.
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// How often values fell between which bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One a bound, and one for what is above the last.
    counts: Box<[Counter]>,
    /// In millionths.
    sum: AtomicU64,
}

impl Histogram {
    /// With these upper bounds, in ascending order.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| Counter::default()).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// Notes a value, which must not be negative.
    pub fn observe(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(at) {
            count.add(1);
        }
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    /// Notes a time, in seconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    /// For each bound how many values were not above it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let below = self.counts.iter().scan(0, |below, count| {
            *below += count.get();
            Some(*below)
        });
        self.bounds.iter().copied().zip(below)
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(Counter::get).sum()
    }

    /// Their sum.
    pub fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / 1e6
    }
}

/// Upstream's bounds of `apiserver_watch_cache_read_wait_seconds`.
const READ_WAITS: [f64; 13] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0];

/// The state of one resource's cache at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// The resource's name.
    pub resource: Arc<str>,
    /// Revision up to which the cache is complete; 0 before it is ready.
    pub revision: u64,
    /// Objects held (`apiserver_storage_objects`).
    pub objects: usize,
    /// Bytes the objects occupy.
    pub bytes: usize,
    /// The window.
    pub window: WindowIntrospection,
    /// Revisions of the past states kept for further pages, in the order in which they were kept.
    pub kept_snapshots: Vec<u64>,
    /// Watchers by what they are indexed by, in no certain order.
    pub watchers: Vec<(Route, usize)>,
    /// Keys whose stored version cannot be decoded, the first few in order.
    pub undecodable: Vec<Arc<str>>,
}

/// The state of one resource's history at an instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowIntrospection {
    /// Watches can start at this revision and later ones.
    pub oldest: u64,
    /// Revision of the latest event; the oldest one's where there is none.
    pub newest: u64,
    /// Events held.
    pub events: usize,
    /// Events it may hold now (`watch_cache_capacity`).
    pub capacity: usize,
    /// How often that was doubled (`watch_cache_capacity_increase_total`).
    pub increases: u64,
    /// How often that was halved (`watch_cache_capacity_decrease_total`).
    pub decreases: u64,
    /// Bytes of superseded objects in it.
    pub bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let histogram = Histogram::new(&[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 3.0] {
            histogram.observe(value);
        }
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(1.0, 2), (2.0, 3)]);
        assert_eq!((histogram.count(), histogram.sum()), (4, 6.0));
    }
}
