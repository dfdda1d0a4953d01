//! A queue of a priority level, with sums of its waiting requests.

use std::collections::BTreeMap;

use crate::work::{SeatSeconds, WorkEstimate};

/// Sums of the requests that wait in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSums {
    /// Sum of the initial seats.
    pub initial_seats: u64,
    /// Sum of the maximum seats.
    pub max_seats: u64,
    /// Sum of the work.
    pub work: SeatSeconds,
}

/// A queue that has requests or seats.
#[derive(Debug, Default)]
pub struct Queue {
    /// The waiting requests by order of arrival: the slots of their entries.
    pub(super) waiting: BTreeMap<u64, usize>,
    pub(super) executing: u32,
    pub(super) seats_in_use: u64,
    pub(super) next_dispatch: SeatSeconds,
    pub(super) sums: QueueSums,
}

impl Queue {
    /// Returns the number of waiting requests.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the number of executing requests.
    pub fn executing(&self) -> u32 {
        self.executing
    }

    /// Returns the seats in use.
    pub fn seats_in_use(&self) -> u64 {
        self.seats_in_use
    }

    /// Returns the virtual start of the next request.
    pub fn next_dispatch(&self) -> SeatSeconds {
        self.next_dispatch
    }

    /// Returns the sums of the waiting requests.
    pub fn sums(&self) -> QueueSums {
        self.sums
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.executing == 0
    }
}

impl QueueSums {
    pub(super) fn add(&mut self, estimate: WorkEstimate, work: SeatSeconds) {
        self.initial_seats += u64::from(estimate.initial_seats);
        self.max_seats += u64::from(estimate.max_seats());
        self.work = self.work.plus(work);
    }

    pub(super) fn remove(&mut self, estimate: WorkEstimate, work: SeatSeconds) {
        self.initial_seats -= u64::from(estimate.initial_seats);
        self.max_seats -= u64::from(estimate.max_seats());
        self.work = self.work.minus(work);
    }
}
