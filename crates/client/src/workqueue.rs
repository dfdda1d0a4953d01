//! [`Workqueue`]: a queue of keys, each processed by one worker at a time.

mod limiter;
mod metrics;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

pub use self::limiter::{BucketRateLimiter, ExponentialLimiter, MaxOf, RateLimiter, default_rate_limiter};
use self::metrics::QueueMetrics;
pub use self::metrics::WorkqueueMetrics;

/// The maximum delay. Callers may compute a longer delay from a field of an object. Adding it to the current time
/// would overflow.
const LONGEST_WAIT: Duration = Duration::from_hours(100 * 365 * 24);

/// The bounds that a key must satisfy.
pub trait Key: Clone + Eq + Hash + Send + Sync + 'static {}

impl<T: Clone + Eq + Hash + Send + Sync + 'static> Key for T {}

/// A queue of keys. Clones share the queue.
///
/// - A key that is added while it is queued is only queued once.
/// - A key that is added during processing is queued again after [`done`](Self::done). Two workers never process it at
///   once.
/// - [`add_after`](Self::add_after) adds a key after a delay. The earliest of several due times counts.
/// - [`add_rate_limited`](Self::add_rate_limited) adds a key after a failure. Its delays grow until
///   [`forget`](Self::forget) is called.
///
/// The number of distinct keys bounds the size of the queue.
pub struct Workqueue<T = crate::ObjectName> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    limiter: Box<dyn RateLimiter<T>>,
    /// Notified when a key is ready, when an earlier delay is added, or when the queue shuts down.
    changed: Notify,
    /// Notified when a key is done.
    key_done: Notify,
}

struct State<T> {
    order: VecDeque<T>,
    /// Keys that need processing: the keys in `order`, and the keys that were added again during processing.
    dirty: HashSet<T>,
    processing: HashSet<T>,
    waiting: Waiting<T>,
    is_shut_down: bool,
    metrics: QueueMetrics<T>,
}

/// The delayed keys, without duplicates.
struct Waiting<T> {
    times: HashMap<T, Place>,
    order: BTreeMap<Place, T>,
    next: u64,
}

/// The due time, and a sequence number that orders equal times.
type Place = (Instant, u64);

impl<T: Key> Workqueue<T> {
    /// Creates a queue with client-go's default rate limits and without metrics.
    pub fn new() -> Self {
        Self::with_rate_limiter(default_rate_limiter(), None)
    }

    /// Creates a queue with these rate limits, and metrics under a name.
    pub fn with_rate_limiter(
        limiter: impl RateLimiter<T>,
        metrics: Option<(&WorkqueueMetrics, &str)>,
    ) -> Self {
        let state = State {
            order: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            waiting: Waiting { times: HashMap::new(), order: BTreeMap::new(), next: 0 },
            is_shut_down: false,
            metrics: QueueMetrics::new(metrics),
        };
        let shared = Shared {
            state: Mutex::new(state),
            limiter: Box::new(limiter),
            changed: Notify::new(),
            key_done: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Adds a key.
    pub fn add(&self, key: T) {
        if self.shared.state.lock().add(key) {
            self.shared.changed.notify_one();
        }
    }

    /// Adds a key after a delay.
    pub fn add_after(&self, key: T, after: Duration) {
        if after.is_zero() {
            return self.add(key);
        }
        let mut state = self.shared.state.lock();
        if state.is_shut_down {
            return;
        }
        state.metrics.retried();
        if state.waiting.add(key, Instant::now() + after.min(LONGEST_WAIT)) {
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    /// Adds a key after the delay that the rate limiter determines.
    pub fn add_rate_limited(&self, key: T) {
        let after = self.shared.limiter.when(&key);
        self.add_after(key, after);
    }

    /// Resets the failures of a key.
    pub fn forget(&self, key: &T) {
        self.shared.limiter.forget(key);
    }

    /// Returns the number of rate-limited adds since the key was last forgotten.
    pub fn num_requeues(&self, key: &T) -> u32 {
        self.shared.limiter.num_requeues(key)
    }

    /// Waits for a key. The caller must call [`done`](Self::done) after processing it. Returns `None` when the
    /// queue is shut down and empty. Dropping the future does not lose a key.
    pub async fn get(&self) -> Option<T> {
        loop {
            // Must be registered before the check, so that no notification is missed.
            let changed = self.shared.changed.notified();
            let next = {
                let mut state = self.shared.state.lock();
                state.admit_due();
                if let Some(key) = state.take() {
                    if !state.order.is_empty() {
                        // Notifies the next worker, as one notification may stand for several keys.
                        self.shared.changed.notify_one();
                    }
                    return Some(key);
                }
                if state.is_shut_down {
                    // Notifies the other workers, so that they end too.
                    self.shared.changed.notify_one();
                    return None;
                }
                state.waiting.earliest()
            };
            match next {
                Some(at) => tokio::select! { () = changed => {} () = sleep_until(at) => {} },
                None => changed.await,
            }
        }
    }

    /// Marks a key as processed. Queues it again if it was added during processing.
    pub fn done(&self, key: &T) {
        let mut state = self.shared.state.lock();
        let again = state.done(key);
        drop(state);
        if again {
            self.shared.changed.notify_one();
        }
        self.shared.key_done.notify_waiters();
    }

    /// Returns the number of keys that are ready.
    pub fn len(&self) -> usize {
        let mut state = self.shared.state.lock();
        state.admit_due();
        state.order.len()
    }

    /// Returns whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stops accepting keys. Queued keys are still returned. Delayed keys are dropped.
    pub fn shut_down(&self) {
        let mut state = self.shared.state.lock();
        state.is_shut_down = true;
        state.waiting.clear();
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Shuts down the queue, and waits until all queued keys are processed.
    pub async fn shut_down_with_drain(&self) {
        self.shut_down();
        loop {
            let key_done = self.shared.key_done.notified();
            {
                let state = self.shared.state.lock();
                if state.processing.is_empty() && state.order.is_empty() {
                    return;
                }
            }
            key_done.await;
        }
    }

    /// Returns whether the queue is shut down.
    pub fn is_shut_down(&self) -> bool {
        self.shared.state.lock().is_shut_down
    }
}

impl<T: Key> State<T> {
    /// Adds a key. Returns whether the key was appended to the ready keys.
    fn add(&mut self, key: T) -> bool {
        if self.is_shut_down || !self.dirty.insert(key.clone()) {
            return false;
        }
        self.metrics.added(&key);
        if self.processing.contains(&key) {
            return false;
        }
        self.order.push_back(key);
        self.metrics.depth(self.order.len());
        true
    }

    fn take(&mut self) -> Option<T> {
        let key = self.order.pop_front()?;
        self.metrics.depth(self.order.len());
        self.metrics.taken(&key);
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }

    fn done(&mut self, key: &T) -> bool {
        if !self.processing.remove(key) {
            return false;
        }
        self.metrics.done(key);
        let again = self.dirty.contains(key);
        if again {
            self.order.push_back(key.clone());
            self.metrics.depth(self.order.len());
        }
        again
    }

    fn admit_due(&mut self) {
        let now = Instant::now();
        while let Some(key) = self.waiting.take_due(now) {
            self.add(key);
        }
    }
}

impl<T: Key> Waiting<T> {
    /// Adds a delayed key. Returns whether the earliest due time is the time of this key.
    fn add(&mut self, key: T, at: Instant) -> bool {
        if let Some(place) = self.times.get(&key).copied() {
            if place.0 <= at {
                return false;
            }
            self.order.remove(&place);
        }
        let place = (at, self.next);
        self.next += 1;
        self.times.insert(key.clone(), place);
        self.order.insert(place, key);
        self.earliest() == Some(at)
    }

    fn earliest(&self) -> Option<Instant> {
        self.order.first_key_value().map(|((at, _), _)| *at)
    }

    fn take_due(&mut self, now: Instant) -> Option<T> {
        self.earliest().filter(|at| *at <= now)?;
        let (_, key) = self.order.pop_first()?;
        self.times.remove(&key);
        Some(key)
    }

    fn clear(&mut self) {
        self.times.clear();
        self.order.clear();
    }
}

impl<T: Key> Default for Workqueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Workqueue<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T: Key> fmt::Debug for Workqueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workqueue").field("len", &self.len()).finish_non_exhaustive()
    }
}
