//! The queue between requests and a backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::deliveries::{Deliveries, Outcome};
use crate::event::Event;
use crate::metrics::{Losses, Metrics};

/// The options of batch mode (upstream: `buffered.BatchConfig`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchOptions {
    /// Maximum number of events in the buffer. The buffer also has a limit in bytes.
    pub buffer_size: usize,
    /// Maximum number of events in a batch.
    pub max_size: usize,
    /// Maximum time to wait for a full batch.
    pub max_wait: Duration,
    /// Limit on the rate of batches; `None` for no limit.
    pub throttle: Option<Throttle>,
}

/// A limit on the rate of batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// Batches per second, on average.
    pub qps: f32,
    /// Number of batches without delay after an idle time.
    pub burst: usize,
}

/// An event in a queue, or a marker that asks to flush everything before it.
pub(crate) struct Entry {
    pub(crate) event: Option<Arc<Event>>,
    done: Option<oneshot::Sender<bool>>,
    size: usize,
    buffered: Arc<Buffered>,
}

/// The events that a backend has not recorded yet.
#[derive(Debug, Default)]
struct Buffered {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

impl Entry {
    /// Reports whether the event was recorded.
    pub(crate) fn finish(mut self, recorded: bool) {
        if let Some(done) = self.done.take() {
            // The request may have ended.
            let _ = done.send(recorded);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.buffered.events.fetch_sub(usize::from(self.event.is_some()), Ordering::Relaxed);
        self.buffered.bytes.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// The sending side of a queue.
pub(crate) struct Queue {
    sender: mpsc::Sender<Entry>,
    buffered: Arc<Buffered>,
    losses: Arc<Losses>,
}

impl Queue {
    pub(crate) fn new(capacity: usize, metrics: &Metrics) -> (Self, mpsc::Receiver<Entry>) {
        let (sender, receiver) = mpsc::channel(capacity.clamp(1, MAX_EVENTS));
        (Self { sender, buffered: Arc::default(), losses: Arc::new(metrics.losses("buffered")) }, receiver)
    }

    /// Adds an event without waiting. Counts it as lost if the buffer is full.
    pub(crate) fn offer(&self, event: &Arc<Event>) {
        let size = event.size();
        if self.buffered.bytes.load(Ordering::Relaxed) + size > MAX_BYTES {
            return self.losses.add(1, &"audit buffer is full: too many bytes");
        }
        if let Err(error) = self.sender.try_send(self.entry(Some(Arc::clone(event)), size, None)) {
            let why = match error {
                mpsc::error::TrySendError::Full(_) => "audit buffer is full: too many events",
                mpsc::error::TrySendError::Closed(_) => STOPPED,
            };
            self.losses.add(1, &why);
        }
    }

    /// Adds an event that a request may wait for. If the queue is full, in events or in bytes, the event waits as a
    /// delivery.
    pub(crate) fn submit<'d>(&self, event: &Arc<Event>, deliveries: &'d Deliveries) -> Outcome<'d> {
        let (done, recorded) = oneshot::channel();
        let size = event.size();
        let is_full = self.buffered.bytes.load(Ordering::Relaxed).saturating_add(size) > MAX_BYTES;
        let entry = self.entry(Some(Arc::clone(event)), size, Some(done));
        let sent =
            if is_full { Err(mpsc::error::TrySendError::Full(entry)) } else { self.sender.try_send(entry) };
        match sent {
            Ok(()) => Outcome::Started(recorded),
            Err(mpsc::error::TrySendError::Full(entry)) => {
                let (sender, losses) = (self.sender.clone(), Arc::clone(&self.losses));
                // Has a share of the deliveries' bytes until the event is recorded.
                let delivery = async move {
                    if sender.send(entry).await.is_err() {
                        losses.add(1, &STOPPED);
                    }
                    recorded.await.unwrap_or(false)
                };
                deliveries.start(size, Box::pin(delivery))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.losses.add(1, &STOPPED);
                Outcome::Known(false)
            }
        }
    }

    /// Returns the number of events that are not recorded yet.
    pub(crate) fn len(&self) -> usize {
        self.buffered.events.load(Ordering::Relaxed)
    }

    /// Waits until all events in the queue are recorded.
    pub(crate) async fn flush(&self) {
        let (done, recorded) = oneshot::channel();
        if self.sender.send(self.entry(None, 0, Some(done))).await.is_ok() {
            // A backend that has stopped has nothing to flush.
            let _ = recorded.await;
        }
    }

    fn entry(&self, event: Option<Arc<Event>>, size: usize, done: Option<oneshot::Sender<bool>>) -> Entry {
        self.buffered.events.fetch_add(usize::from(event.is_some()), Ordering::Relaxed);
        self.buffered.bytes.fetch_add(size, Ordering::Relaxed);
        Entry { event, done, size, buffered: Arc::clone(&self.buffered) }
    }
}

/// Maximum size of the events in a buffer, in bytes, including those that are being sent.
const MAX_BYTES: usize = 64 << 20;
/// The reason of losses after the end of the backend.
const STOPPED: &str = "audit backend stopped";
/// Maximum number of events in a buffer, whatever the flags say.
const MAX_EVENTS: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use serde_json::json;

    use super::*;
    use crate::body::Body;
    use crate::event::tests::event;

    fn lost(registry: &Registry) -> u64 {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == "apiserver_audit_error_total").unwrap();
        family.get_metric().iter().map(|metric| metric.get_counter().get_value() as u64).sum()
    }

    #[tokio::test]
    async fn events_over_the_limits_are_lost_and_counted() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let (queue, mut receiver) = Queue::new(2, &metrics);
        for _ in 0..5 {
            queue.offer(&Arc::new(event("a")));
        }
        assert_eq!((lost(&registry), queue.len()), (3, 2));
        drop((receiver.recv().await, receiver.recv().await));
        assert_eq!((queue.len(), queue.buffered.bytes.load(Ordering::Relaxed)), (0, 0));
        let large = Body::encoded(&json!("x".repeat(MAX_BYTES)));
        queue.offer(&Arc::new(Event { request_object: Some(large), ..event("a") }));
        assert_eq!(lost(&registry), 4);
        queue.offer(&Arc::new(event("a")));
        drop(receiver);
        queue.offer(&Arc::new(event("a")));
        assert_eq!(lost(&registry), 5);
        let deliveries = Deliveries::new(&metrics);
        assert!(!queue.submit(&Arc::new(event("a")), &deliveries).recorded().await);
        assert_eq!(lost(&registry), 6);
    }

    #[tokio::test]
    async fn large_events_of_requests_wait_for_the_bytes_before_them() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let (queue, mut receiver) = Queue::new(10, &metrics);
        let deliveries = Deliveries::new(&metrics);
        let large = Some(Body::encoded(&json!("x".repeat(MAX_BYTES * 2 / 3))));
        let large = Arc::new(Event { request_object: large, ..event("a") });
        // In the queue, as a delivery, and within its request.
        let mut outcomes: Vec<_> = (0..3).map(|_| queue.submit(&large, &deliveries)).collect();
        assert!(matches!(outcomes.pop(), Some(Outcome::Waiting(_))));
        assert_eq!((deliveries.len(), lost(&registry)), (1, 1), "nobody waits for the last one");
        assert!(matches!(&outcomes[..], [Outcome::Started(_), Outcome::Started(_)]));
        for outcome in outcomes {
            receiver.recv().await.unwrap().finish(true);
            assert!(outcome.recorded().await);
        }
        deliveries.flush().await;
        let small = queue.submit(&Arc::new(event("a")), &deliveries);
        receiver.recv().await.unwrap().finish(true);
        assert!(small.recorded().await);
        assert_eq!((queue.len(), queue.buffered.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn events_wait_for_a_place_even_if_their_requests_end() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let (queue, mut receiver) = Queue::new(1, &metrics);
        let deliveries = Deliveries::new(&metrics);
        for _ in 0..5 {
            drop(queue.submit(&Arc::new(event("a")), &deliveries));
        }
        for _ in 0..5 {
            receiver.recv().await.unwrap().finish(true);
        }
        deliveries.flush().await;
        assert_eq!((lost(&registry), queue.len()), (0, 0));
    }
}
