//! What the metrics endpoint and the administrator are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buckets::Route;

/// Counters of one resource's cache; they only grow.
#[derive(Debug, Default)]
pub struct Stats {
    /// Changes folded in (`apiserver_watch_cache_events_received_total`).
    pub events_received: Counter,
    /// Initial events sent to watchers (`apiserver_init_events_total`).
    pub initial_events: Counter,
    /// Events handed to watchers (`apiserver_watch_events_total`).
    pub events_delivered: Counter,
    /// Watchers ended because they could not keep up (`apiserver_terminated_watchers_total`).
    pub terminated_watchers: Counter,
    /// Lists made of the store (`apiserver_watch_cache_initializations_total`).
    pub initializations: Counter,
    /// Watches of the store opened.
    pub store_watches: Counter,
    /// Stored versions that could not be decoded.
    pub undecodable: Counter,
    /// Snapshots served by `snapshot_at` out of memory.
    pub past_snapshots: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }
}

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
    /// Watches can start at this revision and later ones.
    pub window_oldest: u64,
    /// Revision of the latest event of the window; the oldest one's where it is empty.
    pub window_newest: u64,
    /// Events in the window.
    pub window_events: usize,
    /// Events the window may hold now (`apiserver_watch_cache_capacity`).
    pub window_capacity: usize,
    /// Bytes of superseded objects in the window.
    pub window_bytes: usize,
    /// Past states kept for further pages.
    pub kept_snapshots: usize,
    /// Watchers by what they are indexed by, in no certain order.
    pub watchers: Vec<(Route, usize)>,
    /// Keys whose stored version cannot be decoded, the first few in order.
    pub undecodable: Vec<Arc<str>>,
}
