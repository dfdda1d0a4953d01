//! The expected work of requests (upstream: `flowcontrol/request`).

use std::time::Duration;

use crate::work::{SeatSeconds, WorkEstimate};

/// Memory of one seat of a list, in bytes.
const BYTES_PER_SEAT: u64 = 100_000;
/// Memory that a list from the watch cache uses at most at once, because it is streamed.
const STREAMED_LIST_BYTES: u64 = 1_000_000;
/// Watchers of one seat of a write.
const WATCHES_PER_SEAT: u32 = 10;
/// Time that one seat needs for the events of a write.
const EVENT_TIME: Duration = Duration::from_millis(5);
/// Maximum seats of a list, and of a write.
const MAX_LIST_SEATS: u32 = 100;
const MAX_MUTATING_SEATS: u32 = 10;

/// The stored objects of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectStats {
    /// Their number.
    pub count: u64,
    /// Their average size in bytes.
    pub average_size: u64,
}

/// The properties of a list, or of the initial state of a watch, that determine its cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListShape {
    /// The maximum number of objects of a page; 0 without a limit.
    pub limit: u64,
    /// True if a label or field selector is set.
    pub has_selector: bool,
    /// True if upstream serves the list from its watch cache.
    pub from_cache: bool,
    /// True if a field selector selects one name.
    pub single: bool,
}

/// Estimates a list by the memory of the objects that it loads. `max_seats` is the maximum of the priority level; 0
/// without one.
pub fn list(stats: ObjectStats, shape: ListShape, max_seats: u32) -> WorkEstimate {
    let limited = if shape.limit > 0 { stats.count.min(shape.limit) } else { stats.count };
    let loaded = match shape {
        ListShape { single: true, .. } => 1,
        // Without a cache, objects are loaded until enough of them match.
        ListShape { from_cache: false, has_selector: true, .. } => limited.max(stats.count / 2),
        _ => limited,
    };
    let bytes = loaded.saturating_mul(stats.average_size);
    let bytes = if shape.from_cache { bytes.min(STREAMED_LIST_BYTES) } else { bytes };
    let seats = u32::try_from(bytes.div_ceil(BYTES_PER_SEAT)).unwrap_or(u32::MAX);
    WorkEstimate::seats(seats.min(bounded(max_seats, MAX_LIST_SEATS)).max(1))
}

/// Estimates a write by the watches that get its event.
pub fn mutating(watches: u32, max_seats: u32) -> WorkEstimate {
    if watches < WATCHES_PER_SEAT {
        return WorkEstimate::seats(1);
    }
    let seats = watches.div_ceil(WATCHES_PER_SEAT);
    let work = SeatSeconds::product(seats.into(), EVENT_TIME);
    let final_seats = seats.min(bounded(max_seats, MAX_MUTATING_SEATS));
    WorkEstimate { initial_seats: 1, final_seats, additional_latency: work.time_with(final_seats.into()) }
}

fn bounded(max_seats: u32, most: u32) -> u32 {
    if max_seats == 0 { most } else { max_seats.min(most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_cost_the_memory_of_their_objects() {
        let shape =
            |limit, has_selector, from_cache, single| ListShape { limit, has_selector, from_cache, single };
        for (count, average_size, shape, max_seats, seats) in [
            (0, 0, shape(0, false, true, false), 10, 1),
            (100, 1_000, shape(0, false, true, false), 10, 1),
            (101, 1_000, shape(0, false, true, false), 10, 2),
            // A list from the cache is streamed.
            (100_000, 1_000, shape(0, false, true, false), 100, 10),
            (100_000, 1_000, shape(0, false, true, false), 4, 4),
            (100_000, 1_000, shape(500, false, true, false), 10, 5),
            (100_000, 1_000, shape(500, false, false, false), 10, 5),
            (100_000, 1_000, shape(0, false, false, false), 0, 100),
            (1_000, 1_000, shape(100, true, false, false), 10, 5),
            (1_000, 1_000, shape(100, true, true, false), 10, 1),
            (1_000_000, 100_000, shape(0, true, false, true), 10, 1),
            (u64::MAX, u64::MAX, shape(0, false, false, false), 10, 10),
        ] {
            let stats = ObjectStats { count, average_size };
            assert_eq!(list(stats, shape, max_seats), WorkEstimate::seats(seats), "{stats:?} {shape:?}");
        }
    }

    #[test]
    fn writes_cost_the_events_of_their_watches() {
        for (watches, max_seats, final_seats, milliseconds) in [
            (9, 10, 0, 0),
            (10, 10, 1, 5),
            (25, 10, 3, 5),
            (1_000, 10, 10, 50),
            (1_000, 0, 10, 50),
            (1_000, 2, 2, 250),
        ] {
            let estimate = mutating(watches, max_seats);
            assert_eq!((estimate.initial_seats, estimate.final_seats), (1, final_seats), "{watches}");
            assert_eq!(estimate.additional_latency, Duration::from_millis(milliseconds), "{watches}");
        }
    }
}
