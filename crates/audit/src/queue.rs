//! The queue between requests and a backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

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
    buffered: Arc<AtomicUsize>,
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
        self.buffered.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// The sending side of a queue.
pub(crate) struct Queue {
    sender: mpsc::Sender<Entry>,
    buffered: Arc<AtomicUsize>,
    losses: Losses,
}

impl Queue {
    pub(crate) fn new(capacity: usize, metrics: &Metrics) -> (Self, mpsc::Receiver<Entry>) {
        let (sender, receiver) = mpsc::channel(capacity.clamp(1, MAX_EVENTS));
        (Self { sender, buffered: Arc::default(), losses: metrics.losses("buffered") }, receiver)
    }

    /// Adds an event without waiting. Counts it as lost if the buffer is full.
    pub(crate) fn offer(&self, event: &Arc<Event>) {
        let size = event.size();
        if self.buffered.load(Ordering::Relaxed) + size > MAX_BYTES {
            return self.losses.add(1, &"audit buffer is full: too many bytes");
        }
        if let Err(error) = self.sender.try_send(self.entry(Some(Arc::clone(event)), size, None)) {
            let why = match error {
                mpsc::error::TrySendError::Full(_) => "audit buffer is full: too many events",
                mpsc::error::TrySendError::Closed(_) => "audit backend stopped",
            };
            self.losses.add(1, &why);
        }
    }

    /// Adds an event and waits until it is recorded; returns false if it cannot be recorded.
    pub(crate) async fn record(&self, event: &Arc<Event>) -> bool {
        self.send(Some(Arc::clone(event))).await
    }

    /// Waits until all events in the queue are recorded.
    pub(crate) async fn flush(&self) {
        self.send(None).await;
    }

    async fn send(&self, event: Option<Arc<Event>>) -> bool {
        let (done, recorded) = oneshot::channel();
        let size = event.as_ref().map_or(0, |event| event.size());
        if self.sender.send(self.entry(event, size, Some(done))).await.is_err() {
            self.losses.add(1, &"audit backend stopped");
            return false;
        }
        recorded.await.unwrap_or(false)
    }

    fn entry(&self, event: Option<Arc<Event>>, size: usize, done: Option<oneshot::Sender<bool>>) -> Entry {
        self.buffered.fetch_add(size, Ordering::Relaxed);
        Entry { event, done, size, buffered: Arc::clone(&self.buffered) }
    }
}

/// Maximum size of the events in a buffer, in bytes, including those that are being sent.
const MAX_BYTES: usize = 64 << 20;
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
        assert_eq!(lost(&registry), 3);
        drop((receiver.recv().await, receiver.recv().await));
        assert_eq!(queue.buffered.load(Ordering::Relaxed), 0);
        let large = Body::encoded(&json!("x".repeat(MAX_BYTES)));
        queue.offer(&Arc::new(Event { request_object: Some(large), ..event("a") }));
        assert_eq!(lost(&registry), 4);
        queue.offer(&Arc::new(event("a")));
        drop(receiver);
        queue.offer(&Arc::new(event("a")));
        assert_eq!(lost(&registry), 5);
        assert!(!queue.record(&Arc::new(event("a"))).await);
    }
}
