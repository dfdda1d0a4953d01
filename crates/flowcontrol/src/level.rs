//! A priority level in use: its queues, the requests that wait in them, and its seats.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::allocation::Limits;
use crate::controller::Request;
use crate::demand::{DemandStats, Integrator};
use crate::flow::Flow;
use crate::metrics::{DEMAND_BUCKETS, ReadWrite, SEAT_BUCKETS, UTILIZATION_BUCKETS};
use crate::objects::LevelConfig;
use crate::queues::{Arrival, QueueSet, Queuing, Rejection, RequestId};
use crate::retry_after::RetryAfter;
use crate::timing::TimingHistogram;
use crate::work::WorkEstimate;

/// The part of the nominal limit that one request may hold.
const MAX_SEATS_FRACTION: f64 = 0.15;

/// A priority level.
pub(crate) struct Level {
    name: Arc<str>,
    /// The maximum number of seats of a request; 0 without one.
    max_seats: AtomicU32,
    /// True if requests need the hash of their flow.
    is_queued: AtomicBool,
    state: Mutex<State>,
    read_write: Arc<ReadWrite>,
    /// Notified when a request waits for the seats of a finished one.
    releases: Arc<Notify>,
    started: Instant,
}

/// The state of a level, behind its lock. The lock is never held across an await.
pub(crate) struct State {
    pub(crate) set: QueueSet<Held>,
    demand: Integrator,
    pub(crate) stats: DemandStats,
    pub(crate) limits: Limits,
    pub(crate) target: f64,
    pub(crate) utilization: Utilization,
    retry_after: RetryAfter,
    /// The level is no longer used and has no requests; it accepts none.
    retired: bool,
}

/// Utilization over time.
#[derive(Clone, Debug)]
pub(crate) struct Utilization {
    pub(crate) waiting: TimingHistogram,
    pub(crate) executing: TimingHistogram,
    pub(crate) seats: TimingHistogram,
    pub(crate) demand: TimingHistogram,
    queue_capacity: f64,
    seat_capacity: f64,
}

/// A request in the queues.
pub(crate) struct Held {
    pub(crate) request: Request,
    pub(crate) flow: Arc<Flow>,
    wake: Option<oneshot::Sender<()>>,
}

/// The state of a request that a level accepted.
enum Entered {
    Executing(Seat),
    /// The receiver gets a message when the request gets its seats.
    Waiting(Seat, oneshot::Receiver<()>),
}

/// The reason why a level does not serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The level is no longer in use; the request is to be classified again.
    Retired,
    /// The level rejects the request; retry after these seconds.
    Rejected(Rejection, u64),
}

/// The place of a request in a level. It leaves the level when this is dropped: gives back its seats, or leaves its queue.
pub struct Seat {
    level: Arc<Level>,
    id: RequestId,
}

impl Level {
    pub(crate) fn new(
        now: Instant,
        name: &str,
        config: &LevelConfig,
        read_write: Arc<ReadWrite>,
        releases: Arc<Notify>,
    ) -> Self {
        Self {
            name: name.into(),
            max_seats: AtomicU32::new(0),
            is_queued: AtomicBool::new(false),
            state: Mutex::new(State {
                set: QueueSet::new(now, config.queuing, 0),
                demand: Integrator::new(now),
                stats: DemandStats::default(),
                limits: Limits::default(),
                target: 0.0,
                utilization: Utilization::new(now),
                retry_after: RetryAfter::default(),
                retired: false,
            }),
            read_write,
            releases,
            started: now,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn max_seats(&self) -> u32 {
        self.max_seats.load(Ordering::Relaxed)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Waits for the seats of a request. A future that is dropped leaves the queue.
    ///
    /// # Errors
    /// The level does not serve the request.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        flow: &Arc<Flow>,
        request: &Request,
        estimate: WorkEstimate,
    ) -> Result<Seat, Refusal> {
        let (seat, dispatched) = match self.enter(flow, request, estimate)? {
            Entered::Executing(seat) => return Ok(seat),
            Entered::Waiting(seat, dispatched) => (seat, dispatched),
        };
        let outcome = timeout_at(request.wait_until, dispatched).await;
        if matches!(outcome, Ok(Ok(()))) {
            return Ok(seat);
        }
        let mut state = self.state.lock();
        // It may have been dispatched at the last moment.
        if state.set.get(seat.id).is_some_and(|entry| entry.started.is_some()) {
            drop(state);
            return Ok(seat);
        }
        let refusal = self.rejected(&mut state, flow, Rejection::TimeOut, Instant::now());
        // The seat takes the lock when it is dropped.
        drop(state);
        Err(refusal)
    }

    /// Gives a request its seats, or puts it into a queue.
    fn enter(
        self: &Arc<Self>,
        flow: &Arc<Flow>,
        request: &Request,
        estimate: WorkEstimate,
    ) -> Result<Entered, Refusal> {
        let now = Instant::now();
        let is_queued = self.is_queued.load(Ordering::Relaxed);
        let hash = if is_queued { flow.hash(request) } else { 0 };
        let held = Held { request: request.clone(), flow: Arc::clone(flow), wake: None };
        let mut state = self.state.lock();
        if state.retired {
            return Err(Refusal::Retired);
        }
        let arrival = state.set.arrive(now, hash, estimate, held);
        self.dispatched(&mut state, now);
        let (entered, length) = match arrival {
            Err(rejection) => return Err(self.rejected(&mut state, flow, rejection, now)),
            Ok(Arrival::Executing(id)) => {
                self.read_write.executing(request.mutating, 1, now);
                (Entered::Executing(Seat { level: Arc::clone(self), id }), 1)
            }
            Ok(Arrival::Waiting(id, length)) => {
                self.read_write.waiting(request.mutating, 1, now);
                let (wake, dispatched) = oneshot::channel();
                if let Some(entry) = state.set.get_mut(id) {
                    entry.request.wake = Some(wake);
                }
                if state.set.next_release().is_some() {
                    self.releases.notify_one();
                }
                (Entered::Waiting(Seat { level: Arc::clone(self), id }, dispatched), length)
            }
        };
        drop(state);
        if is_queued {
            flow.handles().queue_lengths.observe(length.into());
        }
        Ok(entered)
    }

    fn rejected(&self, state: &mut State, flow: &Flow, rejection: Rejection, now: Instant) -> Refusal {
        flow.metrics.rejected(&self.name, &flow.name, rejection);
        Refusal::Rejected(rejection, state.retry_after.rejected((now - self.started).as_secs()))
    }

    /// Wakes the requests that got seats, and records the new state.
    fn dispatched(&self, state: &mut State, now: Instant) {
        for id in state.set.take_dispatched() {
            let Some(held) = state.set.get_mut(id).map(|entry| &mut entry.request) else { continue };
            self.read_write.waiting(held.request.mutating, -1, now);
            self.read_write.executing(held.request.mutating, 1, now);
            if let Some(wake) = held.wake.take() {
                // The receiver is gone if the request leaves right now; its seat is dropped too.
                let _ = wake.send(());
            }
        }
        state.record(now);
    }

    /// Removes a request that ends or is cancelled.
    fn leave(&self, id: RequestId) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let Some(started) = state.set.get(id).map(|entry| entry.started) else { return };
        let Some(held) = state.set.leave(now, id) else { return };
        self.dispatched(&mut state, now);
        if state.set.next_release().is_some() {
            self.releases.notify_one();
        }
        drop(state);
        match started {
            None => self.read_write.waiting(held.request.mutating, -1, now),
            Some(started) => {
                self.read_write.executing(held.request.mutating, -1, now);
                let handles = held.flow.handles();
                let times =
                    if held.request.is_watch { &handles.watch_initializations } else { &handles.executions };
                times.observe((now - started).as_secs_f64());
            }
        }
    }

    /// Ends the initialization of watches that have been dispatched for longer than `limit`, so that clients that do not
    /// read hold no seats.
    pub(crate) fn end_slow_watches(&self, now: Instant, limit: Duration) {
        let is_slow = |started: Instant| now.saturating_duration_since(started) >= limit;
        let slow: Vec<_> = {
            let state = self.state.lock();
            let watches = state.set.entries().filter(|(_, entry)| entry.request.request.is_watch);
            watches.filter(|(_, entry)| entry.started.is_some_and(is_slow)).map(|(id, _)| id).collect()
        };
        for id in slow {
            self.leave(id);
        }
    }

    /// Releases the seats of finished requests that are due.
    pub(crate) fn release_due(&self, now: Instant) {
        let mut state = self.state.lock();
        state.set.release_due(now);
        self.dispatched(&mut state, now);
    }

    /// Ends an adjustment period: returns the statistics of the demand.
    pub(crate) fn end_period(&self, now: Instant) -> DemandStats {
        let mut state = self.state.lock();
        let State { demand, stats, .. } = &mut *state;
        demand.end_period(now, stats);
        *stats
    }

    /// Sets the configured limits.
    pub(crate) fn set_limits(&self, config: &LevelConfig, limits: Limits) {
        self.state.lock().limits = limits;
        let Queuing::Queue { hand_size, .. } = config.queuing else {
            self.max_seats.store(0, Ordering::Relaxed);
            return;
        };
        let part = (f64::from(limits.nominal) * MAX_SEATS_FRACTION).ceil() as u32;
        let most = part.min(limits.nominal / hand_size.max(1)).max(1);
        self.max_seats.store(most, Ordering::Relaxed);
    }

    /// Sets the queues, and the limit that results from an adjustment. `fallback` is the denominator of ratios if the
    /// limit is 0.
    pub(crate) fn configure(
        &self,
        now: Instant,
        config: &LevelConfig,
        limit: u32,
        target: f64,
        fallback: f64,
    ) {
        let mut state = self.state.lock();
        state.target = target;
        self.is_queued.store(matches!(config.queuing, Queuing::Queue { .. }), Ordering::Relaxed);
        state.utilization.queue_capacity = match config.queuing {
            Queuing::Queue { queues, queue_length_limit, .. } => {
                f64::from(queues) * f64::from(queue_length_limit.max(1))
            }
            _ => 1.0,
        };
        state.utilization.seat_capacity = if limit > 0 { f64::from(limit) } else { fallback };
        state.set.configure(now, config.queuing, limit);
        self.dispatched(&mut state, now);
    }

    /// Stops the use of the level if it has no requests; returns whether it did.
    pub(crate) fn retire(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.set.release_due(now);
        state.retired = state.set.is_drained();
        state.retired
    }
}

impl State {
    fn record(&mut self, now: Instant) {
        let (in_use, waiting) = (self.set.seats_in_use() as f64, self.set.seats_waiting() as f64);
        self.demand.set(now, in_use + waiting);
        let Utilization { queue_capacity, seat_capacity, .. } = self.utilization;
        self.utilization.waiting.set(now, self.set.waiting().into(), queue_capacity);
        self.utilization.executing.set(now, self.set.executing().into(), seat_capacity);
        self.utilization.seats.set(now, in_use, seat_capacity);
        self.utilization.demand.set(now, in_use + waiting, seat_capacity);
    }
}

impl Utilization {
    fn new(now: Instant) -> Self {
        Self {
            waiting: TimingHistogram::new(now, &UTILIZATION_BUCKETS),
            executing: TimingHistogram::new(now, &UTILIZATION_BUCKETS),
            seats: TimingHistogram::new(now, &SEAT_BUCKETS),
            demand: TimingHistogram::new(now, &DEMAND_BUCKETS),
            queue_capacity: 1.0,
            seat_capacity: 1.0,
        }
    }

    /// Returns the histograms with the time until now.
    pub(crate) fn until(&self, now: Instant) -> Self {
        let mut until = self.clone();
        for histogram in [&mut until.waiting, &mut until.executing, &mut until.seats, &mut until.demand] {
            histogram.advance(now);
        }
        until
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.level.leave(self.id);
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("level", &self.level.name).finish_non_exhaustive()
    }
}
