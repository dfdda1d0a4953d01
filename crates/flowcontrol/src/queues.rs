//! Fair queuing for server requests (KEP-1040; upstream: `fairqueuing/queueset`): the queues of one priority level.
//!
//! Each queue has a virtual time at which its next request would start in a world where all queues are served at the same
//! rate. The queue whose next request would finish first in that world is served first. The meter `progress` is the work
//! that each queue would have got since the start; it advances with the seats in use, divided by the busy queues.
//!
//! This is a state machine without clock, locks or tasks: the caller passes the time and wakes the dispatched requests. A
//! queue exists while it has requests or seats, so the cost of an operation does not depend on the configured number of
//! queues, and is constant while nothing waits.

mod queue;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

pub use self::queue::{Queue, QueueSums};
use crate::dealer::Hand;
use crate::work::{ESTIMATED_SERVICE_TIME, SeatSeconds, WorkEstimate};

/// The treatment of requests beyond the limit of a priority level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queuing {
    /// Requests are never limited.
    Exempt,
    /// Requests beyond the limit are rejected.
    Reject,
    /// Requests beyond the limit wait in queues.
    Queue {
        /// The number of queues.
        queues: u32,
        /// The number of queues of one flow.
        hand_size: u32,
        /// The number of requests in a queue beyond which requests are rejected.
        queue_length_limit: u32,
    },
}

/// The reason why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// All seats of a level without queues are in use.
    ConcurrencyLimit,
    /// The queue is full.
    QueueFull,
    /// The request waited as long as it may.
    TimeOut,
}

impl Rejection {
    /// Returns the reason's label in upstream's metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
        }
    }
}

/// Identifies a request. Never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    slot: usize,
    number: u64,
}

/// The state of a request after its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It has its seats.
    Executing(RequestId),
    /// It waits in a queue of this length, itself included.
    Waiting(RequestId, u32),
}

/// A request in the queues.
#[derive(Debug)]
pub struct Entry<T> {
    /// The data of the caller.
    pub request: T,
    /// The estimate; the final seats may have been narrowed at dispatch.
    pub estimate: WorkEstimate,
    /// When the request arrived.
    pub arrived: Instant,
    /// When it got its seats; `None` while it waits.
    pub started: Option<Instant>,
    /// Index of its queue; `None` in a level without queues.
    pub queue: Option<u32>,
    number: u64,
    arrival_progress: SeatSeconds,
    work: SeatSeconds,
}

/// Counts of all requests since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that got seats.
    pub dispatched: u64,
    /// Requests that were rejected, including those that waited too long.
    pub rejected: u64,
    /// Requests that left their queue before they got seats.
    pub cancelled: u64,
}

/// Positions of the queues in virtual time at the latest dispatch, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DispatchStats {
    /// The progress at the dispatch.
    pub progress: SeatSeconds,
    /// The virtual start of the dispatched request.
    pub start: SeatSeconds,
    /// Lowest and highest virtual start of the oldest request of each queue.
    pub starts: (SeatSeconds, SeatSeconds),
    /// The same, less the estimated work in progress of the queue.
    pub discounted: (SeatSeconds, SeatSeconds),
}

/// Seats that a finished request still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lingering {
    until: Instant,
    queue: Option<u32>,
    seats: u32,
}

/// The queues of a priority level, and its seats.
#[derive(Debug)]
pub struct QueueSet<T> {
    queuing: Queuing,
    limit: u32,
    queues: BTreeMap<u32, Queue>,
    requests: Slab<Entry<T>>,
    lingering: BinaryHeap<Reverse<Lingering>>,
    dispatched: Vec<RequestId>,
    progress: SeatSeconds,
    last: Instant,
    /// Index of the queue that was served last; ties go to the next one.
    robin: u32,
    /// Number of queues with waiting or executing requests.
    active: u32,
    waiting: u32,
    executing: u32,
    seats_in_use: u64,
    /// The part of the seats in use that belongs to no queue.
    seats_without_queue: u64,
    seats_waiting: u64,
    arrivals: u64,
    deals: u64,
    totals: Totals,
    latest_dispatch: DispatchStats,
    /// Dispatches that failed because the request did not fit into the free seats.
    not_accommodated: u64,
}

impl<T> QueueSet<T> {
    /// Creates a set without requests.
    pub fn new(now: Instant, queuing: Queuing, limit: u32) -> Self {
        Self {
            queuing,
            limit,
            queues: BTreeMap::new(),
            requests: Slab::new(),
            lingering: BinaryHeap::new(),
            dispatched: Vec::new(),
            progress: SeatSeconds::default(),
            last: now,
            robin: 0,
            active: 0,
            waiting: 0,
            executing: 0,
            seats_in_use: 0,
            seats_without_queue: 0,
            seats_waiting: 0,
            arrivals: 0,
            deals: 0,
            totals: Totals::default(),
            latest_dispatch: DispatchStats::default(),
            not_accommodated: 0,
        }
    }

    /// Changes the configuration. Requests in queues that no longer exist are still served.
    pub fn configure(&mut self, now: Instant, queuing: Queuing, limit: u32) {
        self.advance(now);
        self.queuing = queuing;
        self.limit = limit;
        self.dispatch(now);
    }

    /// Handles the arrival of a request of the flow with this hash.
    ///
    /// # Errors
    /// The request is rejected at once.
    pub fn arrive(
        &mut self,
        now: Instant,
        hash: u64,
        estimate: WorkEstimate,
        request: T,
    ) -> Result<Arrival, Rejection> {
        self.advance(now);
        let (hand_size, queues, queue_length_limit) = match self.queuing {
            Queuing::Queue { queues, hand_size, queue_length_limit } if queues > 0 => {
                (hand_size, queues, queue_length_limit)
            }
            _ if self.accommodates(estimate.max_seats()) => {
                let id = self.insert(now, None, estimate, request);
                self.execute(now, id.slot);
                return Ok(Arrival::Executing(id));
            }
            _ => {
                self.totals.rejected += 1;
                return Err(Rejection::ConcurrencyLimit);
            }
        };
        let index = self.choose_queue(&Hand::deal(hash, queues, hand_size));
        let length = self.queues.get(&index).map_or(0, |queue| queue.waiting.len() as u32);
        let is_full = self.seats_in_use >= self.limit.into();
        if is_full && length >= queue_length_limit {
            self.totals.rejected += 1;
            return Err(Rejection::QueueFull);
        }
        // A queue that was idle has no credit from the past.
        let progress = self.progress;
        let queue = self.queues.entry(index).or_default();
        if queue.is_idle() {
            queue.next_dispatch = progress;
        }
        // Without waiting requests, the queue need not be passed through.
        let at_once = self.waiting == 0 && !is_full && self.accommodates(estimate.max_seats());
        let id = self.insert(now, Some(index), estimate, request);
        if at_once {
            if let Some(queue) = self.queues.get_mut(&index) {
                queue.next_dispatch = queue.next_dispatch.max(progress);
            }
            self.start(now, index, id.slot);
            return Ok(Arrival::Executing(id));
        }
        self.enqueue(id, index);
        self.bound_next_dispatch(index);
        self.dispatch(now);
        // The request may have been dispatched together with the others.
        match self.get(id).and_then(|entry| entry.started) {
            Some(_) => {
                self.dispatched.retain(|dispatched| *dispatched != id);
                Ok(Arrival::Executing(id))
            }
            None => Ok(Arrival::Waiting(id, length + 1)),
        }
    }

    /// Ends a request: frees its seats, or removes it from its queue. Returns the request, or `None` if it has ended
    /// before.
    pub fn leave(&mut self, now: Instant, id: RequestId) -> Option<T> {
        self.get(id)?;
        self.advance(now);
        let entry = self.requests.try_remove(id.slot)?;
        match entry.started {
            Some(started) => self.finish(now, started, &entry),
            None => self.withdraw(&entry),
        }
        self.dispatch(now);
        Some(entry.request)
    }

    /// Releases the seats of finished requests that were held until now.
    pub fn release_due(&mut self, now: Instant) {
        self.advance(now);
        self.dispatch(now);
    }

    /// Returns the requests that were dispatched since the last call.
    pub fn take_dispatched(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.dispatched)
    }

    /// Returns when the next seats of a finished request become free, if requests wait for seats.
    pub fn next_release(&self) -> Option<Instant> {
        let Reverse(next) = self.lingering.peek()?;
        (self.waiting > 0).then_some(next.until)
    }

    /// Returns a request.
    pub fn get(&self, id: RequestId) -> Option<&Entry<T>> {
        self.requests.get(id.slot).filter(|entry| entry.number == id.number)
    }

    /// Returns a request.
    pub fn get_mut(&mut self, id: RequestId) -> Option<&mut Entry<T>> {
        self.requests.get_mut(id.slot).filter(|entry| entry.number == id.number)
    }

    /// Returns all requests.
    pub fn entries(&self) -> impl Iterator<Item = (RequestId, &Entry<T>)> {
        self.requests.iter().map(|(slot, entry)| (RequestId { slot, number: entry.number }, entry))
    }

    /// Returns the queues that have requests or seats, by index.
    pub fn queues(&self) -> &BTreeMap<u32, Queue> {
        &self.queues
    }

    /// Returns the configuration.
    pub fn queuing(&self) -> Queuing {
        self.queuing
    }

    /// Returns the limit of seats.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Returns the number of waiting requests.
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Returns the number of executing requests.
    pub fn executing(&self) -> u32 {
        self.executing
    }

    /// Returns the seats in use, including those of finished requests.
    pub fn seats_in_use(&self) -> u64 {
        self.seats_in_use
    }

    /// Returns the seats that waiting requests need.
    pub fn seats_waiting(&self) -> u64 {
        self.seats_waiting
    }

    /// Returns the progress in virtual time.
    pub fn progress(&self) -> SeatSeconds {
        self.progress
    }

    /// Returns the counts since the start.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Returns the positions at the latest dispatch.
    pub fn latest_dispatch(&self) -> DispatchStats {
        self.latest_dispatch
    }

    /// Returns how often a dispatch failed because a request needs more seats than are free.
    pub fn not_accommodated(&self) -> u64 {
        self.not_accommodated
    }

    /// Returns whether no request waits or executes.
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0
    }

    /// Returns whether no request waits or executes and no seat is held.
    pub fn is_drained(&self) -> bool {
        self.is_idle() && self.seats_in_use == 0
    }

    /// Chooses the queue of a hand with the least waiting work. The first card to consider rotates, so that flows with
    /// overlapping hands spread.
    fn choose_queue(&mut self, hand: &Hand) -> u32 {
        let cards = hand.cards();
        let offset = (self.deals % cards.len().max(1) as u64) as usize;
        self.deals += 1;
        let (front, back) = cards.split_at(offset);
        let work =
            |index: &u32| self.queues.get(index).map_or(SeatSeconds::default(), |queue| queue.sums.work);
        // The first of equals.
        back.iter().chain(front).copied().min_by_key(work).unwrap_or_default()
    }

    fn insert(&mut self, now: Instant, queue: Option<u32>, estimate: WorkEstimate, request: T) -> RequestId {
        self.arrivals += 1;
        let entry = Entry {
            request,
            estimate,
            arrived: now,
            started: None,
            queue,
            number: self.arrivals,
            arrival_progress: self.progress,
            work: estimate.total_work(),
        };
        RequestId { number: entry.number, slot: self.requests.insert(entry) }
    }

    fn enqueue(&mut self, id: RequestId, index: u32) {
        let Some(entry) = self.requests.get(id.slot) else { return };
        let queue = self.queues.entry(index).or_default();
        self.active += u32::from(queue.is_idle());
        queue.waiting.insert(id.number, id.slot);
        queue.sums.add(entry.estimate, entry.work);
        self.waiting += 1;
        self.seats_waiting += u64::from(entry.estimate.max_seats());
    }

    /// Removes a request that has not been dispatched.
    fn withdraw(&mut self, entry: &Entry<T>) {
        self.totals.rejected += 1;
        self.totals.cancelled += 1;
        let Some(index) = entry.queue else { return };
        self.dequeue(index, entry.number, entry.estimate, entry.work);
        self.remove_if_unused(index);
        self.bound_next_dispatch(index);
    }

    fn dequeue(&mut self, index: u32, number: u64, estimate: WorkEstimate, work: SeatSeconds) {
        self.waiting -= 1;
        self.seats_waiting -= u64::from(estimate.max_seats());
        let Some(queue) = self.queues.get_mut(&index) else { return };
        queue.waiting.remove(&number);
        queue.sums.remove(estimate, work);
        self.active -= u32::from(queue.is_idle());
    }

    /// Gives a request its seats.
    fn execute(&mut self, now: Instant, slot: usize) {
        let Some(entry) = self.requests.get_mut(slot) else { return };
        entry.started = Some(now);
        let seats = u64::from(entry.estimate.max_seats());
        self.totals.dispatched += 1;
        self.executing += 1;
        self.seats_in_use += seats;
        let Some(queue) = entry.queue.and_then(|index| self.queues.get_mut(&index)) else {
            self.seats_without_queue += seats;
            return;
        };
        self.active += u32::from(queue.is_idle());
        queue.executing += 1;
        queue.seats_in_use += seats;
        queue.next_dispatch = queue.next_dispatch.plus(entry.work);
    }

    /// Ends the execution of a request. Its seats stay in use for the additional latency.
    fn finish(&mut self, now: Instant, started: Instant, entry: &Entry<T>) {
        self.executing -= 1;
        if let Some(index) = entry.queue
            && let Some(queue) = self.queues.get_mut(&index)
        {
            queue.executing -= 1;
            self.active -= u32::from(queue.is_idle());
            // Replaces the estimated service time by the actual one.
            let seats = f64::from(entry.estimate.initial_seats);
            let estimated = SeatSeconds::product(seats, ESTIMATED_SERVICE_TIME);
            let actual = SeatSeconds::product(seats, now.saturating_duration_since(started));
            queue.next_dispatch = queue.next_dispatch.minus(estimated).plus(actual);
            self.bound_next_dispatch(index);
        }
        let held = Lingering {
            until: now + entry.estimate.additional_latency,
            queue: entry.queue,
            seats: entry.estimate.max_seats(),
        };
        if entry.estimate.additional_latency.is_zero() {
            self.release(held);
        } else {
            self.lingering.push(Reverse(held));
        }
    }

    fn release(&mut self, held: Lingering) {
        let seats = u64::from(held.seats);
        self.seats_in_use -= seats;
        match held.queue.and_then(|index| self.queues.get_mut(&index)) {
            Some(queue) => queue.seats_in_use -= seats,
            None => self.seats_without_queue -= seats,
        }
        if let Some(index) = held.queue {
            self.remove_if_unused(index);
        }
    }

    fn remove_if_unused(&mut self, index: u32) {
        if self.queues.get(&index).is_some_and(|queue| queue.is_idle() && queue.seats_in_use == 0) {
            self.queues.remove(&index);
        }
    }

    /// Dispatches as many waiting requests as there are seats for.
    fn dispatch(&mut self, now: Instant) {
        while self.waiting > 0 && self.seats_in_use < self.limit.into() && self.dispatch_one(now) {}
    }

    fn dispatch_one(&mut self, now: Instant) -> bool {
        let Some((index, slot)) = self.next_to_dispatch() else { return false };
        let Some(entry) = self.requests.get(slot) else { return false };
        let (number, estimate, work) = (entry.number, entry.estimate, entry.work);
        if !self.accommodates(estimate.max_seats()) {
            self.not_accommodated += 1;
            return false;
        }
        self.dequeue(index, number, estimate, work);
        self.start(now, index, slot);
        self.bound_next_dispatch(index);
        self.dispatched.push(RequestId { slot, number });
        true
    }

    /// Starts a request that is in no queue any more.
    fn start(&mut self, now: Instant, index: u32, slot: usize) {
        self.robin = index;
        self.note_dispatch(index);
        if let Some(entry) = self.requests.get_mut(slot) {
            entry.estimate = narrowed(entry.estimate, self.limit);
        }
        self.execute(now, slot);
    }

    /// Returns the queue whose oldest request finishes first in virtual time, and the slot of that request. The queues
    /// are considered from the one after the last that was served.
    fn next_to_dispatch(&self) -> Option<(u32, usize)> {
        let after = self.queues.range(self.robin.saturating_add(1)..);
        let before = self.queues.range(..=self.robin);
        let finish = |(index, queue): (&u32, &Queue)| {
            let (_, slot) = queue.waiting.first_key_value()?;
            Some((queue.next_dispatch.plus(self.requests.get(*slot)?.work), *index, *slot))
        };
        // The first of equals.
        let next = after.chain(before).filter_map(finish).min_by_key(|(finish, ..)| *finish)?;
        Some((next.1, next.2))
    }

    fn note_dispatch(&mut self, index: u32) {
        let Some(start) = self.queues.get(&index).map(|queue| queue.next_dispatch) else { return };
        let mut stats = DispatchStats {
            progress: self.progress,
            start,
            starts: (start, start),
            discounted: (start, start),
        };
        // With nothing else waiting there is nothing to compare.
        if self.waiting > 0 {
            for queue in self.queues.values().filter(|queue| !queue.waiting.is_empty()) {
                let in_progress = SeatSeconds::product(queue.seats_in_use as f64, ESTIMATED_SERVICE_TIME);
                let (start, discounted) = (queue.next_dispatch, queue.next_dispatch.minus(in_progress));
                stats.starts = (stats.starts.0.min(start), stats.starts.1.max(start));
                stats.discounted = (stats.discounted.0.min(discounted), stats.discounted.1.max(discounted));
            }
        }
        self.latest_dispatch = stats;
    }

    /// Returns whether a request with this number of seats can start now. A request that is wider than the limit starts
    /// alone.
    fn accommodates(&self, seats: u32) -> bool {
        if self.queuing == Queuing::Exempt {
            return true;
        }
        if seats > self.limit {
            return self.executing == 0;
        }
        self.seats_in_use + u64::from(seats) <= self.limit.into()
    }

    /// Makes sure that the oldest request of a queue does not start before it arrived, in virtual time. Otherwise a queue
    /// with little work would save up seats.
    fn bound_next_dispatch(&mut self, index: u32) {
        let Some(queue) = self.queues.get_mut(&index) else { return };
        let Some((_, slot)) = queue.waiting.first_key_value() else { return };
        let Some(oldest) = self.requests.get(*slot) else { return };
        queue.next_dispatch = queue.next_dispatch.max(oldest.arrival_progress);
    }

    /// Advances the virtual time, with the release of seats at their times.
    fn advance(&mut self, now: Instant) {
        while let Some(Reverse(held)) = self.lingering.peek().copied()
            && held.until <= now
        {
            self.advance_to(held.until);
            self.lingering.pop();
            self.release(held);
        }
        self.advance_to(now);
    }

    fn advance_to(&mut self, now: Instant) {
        let elapsed: Duration = now.saturating_duration_since(self.last);
        self.last = self.last.max(now);
        if self.active == 0 {
            return;
        }
        let requested = self.seats_in_use - self.seats_without_queue + self.seats_waiting;
        let rate = requested.min(self.limit.into()) as f64 / f64::from(self.active);
        self.progress = self.progress.plus(SeatSeconds::product(rate, elapsed));
    }
}

impl<T> Entry<T> {
    /// Returns the position in the order of arrival.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// Returns the estimate with at most `limit` final seats, which are held longer in return.
fn narrowed(estimate: WorkEstimate, limit: u32) -> WorkEstimate {
    if estimate.final_seats <= limit {
        return estimate;
    }
    let additional_latency = estimate.final_work().time_with(limit.into());
    WorkEstimate { final_seats: limit, additional_latency, ..estimate }
}

#[cfg(test)]
mod tests;
