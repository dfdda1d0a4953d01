//! Deliveries of events that requests wait for. A delivery belongs to no request: a client that goes away ends its
//! request, but takes no event with it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::TaskTracker;

use crate::metrics::{Losses, Metrics};

/// The work of a delivery; returns whether the event was recorded.
pub(crate) type Delivery = Pin<Box<dyn Future<Output = bool> + Send>>;

/// The deliveries of all requests.
pub(crate) struct Deliveries {
    tasks: TaskTracker,
    runtime: Handle,
    room: Arc<Semaphore>,
    losses: Losses,
}

/// The result of handing an event to a backend.
pub(crate) enum Outcome<'d> {
    /// The event was accepted or lost.
    Known(bool),
    /// The event will be recorded, even if nobody waits for it.
    Started(oneshot::Receiver<bool>),
    /// The event waits for room. It is counted as lost if nobody waits for it.
    Waiting(Waiting<'d>),
}

impl Outcome<'_> {
    /// Waits until the event is recorded; returns false if it cannot be recorded.
    pub(crate) async fn recorded(self) -> bool {
        match self {
            Self::Known(recorded) => recorded,
            Self::Started(recorded) => recorded.await.unwrap_or(false),
            Self::Waiting(waiting) => waiting.recorded().await,
        }
    }
}

impl Deliveries {
    /// Creates an empty set of deliveries. Needs a Tokio runtime.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let tasks = TaskTracker::new();
        // A closed tracker accepts tasks, and can be waited for.
        tasks.close();
        let room = Arc::new(Semaphore::new(MAX_BYTES / UNIT));
        Self { tasks, runtime: Handle::current(), room, losses: metrics.losses("buffered") }
    }

    /// Starts the delivery of an event of this size, at once if there is room.
    pub(crate) fn start(&self, size: usize, delivery: Delivery) -> Outcome<'_> {
        let units = units(size);
        match Arc::clone(&self.room).try_acquire_many_owned(units) {
            Ok(room) => Outcome::Started(self.spawn(delivery, room)),
            Err(_) => Outcome::Waiting(Waiting { deliveries: self, delivery: Some(delivery), units }),
        }
    }

    fn spawn(&self, delivery: Delivery, room: OwnedSemaphorePermit) -> oneshot::Receiver<bool> {
        let (done, recorded) = oneshot::channel();
        let task = async move {
            let accepted = delivery.await;
            drop(room);
            // The request may have ended.
            let _ = done.send(accepted);
        };
        self.tasks.spawn_on(task, &self.runtime);
        recorded
    }

    /// Returns the number of deliveries under way.
    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Waits until all deliveries have ended.
    pub(crate) async fn flush(&self) {
        self.tasks.wait().await;
    }
}

/// An event that waits for room.
pub(crate) struct Waiting<'d> {
    deliveries: &'d Deliveries,
    delivery: Option<Delivery>,
    units: u32,
}

impl Waiting<'_> {
    async fn recorded(mut self) -> bool {
        let room = Arc::clone(&self.deliveries.room).acquire_many_owned(self.units).await;
        let (Ok(room), Some(delivery)) = (room, self.delivery.take()) else { return false };
        self.deliveries.spawn(delivery, room).await.unwrap_or(false)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.delivery.is_some() {
            self.deliveries.losses.add(1, &"audit backends are too slow, and the request has ended");
        }
    }
}

/// Returns the share of the room that an event needs. An event that is larger than the room gets all of it.
fn units(size: usize) -> u32 {
    size.div_ceil(UNIT).clamp(1, MAX_BYTES / UNIT) as u32
}

/// Maximum size of the events that are being delivered, in bytes.
const MAX_BYTES: usize = 64 << 20;
/// The memory that a delivery needs at least, in bytes: its task and its call.
const UNIT: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    #[tokio::test]
    async fn a_delivery_continues_without_its_request_and_waits_for_room() {
        let registry = Registry::new();
        let deliveries = Deliveries::new(&Metrics::new(&registry).unwrap());
        let lost = || deliveries.losses.count();
        let (release, released) = oneshot::channel::<()>();
        let first = deliveries.start(2 * MAX_BYTES, Box::pin(async move { released.await.is_ok() }));
        let Outcome::Started(mut first) = first else { panic!("there is room") };
        assert_eq!(deliveries.len(), 1);
        // Nobody waits for this one.
        drop(deliveries.start(1, Box::pin(async { true })));
        assert_eq!(lost(), 1);
        // A request that waits, and one that ends while it waits.
        let mut ended = Box::pin(deliveries.start(1, Box::pin(async { true })).recorded());
        let mut waiting = Box::pin(deliveries.start(1, Box::pin(async { true })).recorded());
        assert!(polled(&mut ended).await.is_none() && polled(&mut waiting).await.is_none());
        drop(ended);
        assert_eq!(lost(), 2);
        assert!(first.try_recv().is_err());
        // The request of the first one has ended too.
        drop(first);
        release.send(()).unwrap();
        assert!(waiting.await);
        deliveries.flush().await;
        assert_eq!((deliveries.len(), lost()), (0, 2));
    }

    /// Polls a future once.
    async fn polled<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }

    #[test]
    fn events_have_a_share_of_the_room() {
        for (size, expected) in [(0, 1), (UNIT, 1), (UNIT + 1, 2), (usize::MAX, (MAX_BYTES / UNIT) as u32)] {
            assert_eq!(units(size), expected, "{size}");
        }
    }
}
