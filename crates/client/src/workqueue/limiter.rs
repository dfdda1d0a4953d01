//! Rate limiters for retries.

use std::collections::HashMap;
use std::time::Duration;

use nave_machinery::backoff::Backoff;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Key;

/// Determines the delay before a key is retried.
pub trait RateLimiter<T>: Send + Sync + 'static {
    /// Counts a failure and returns the delay.
    fn when(&self, key: &T) -> Duration;

    /// Resets the failures of a key. Call it after a success or after the last retry.
    fn forget(&self, key: &T);

    /// Returns the number of failures since the last reset.
    fn num_requeues(&self, key: &T) -> u32;
}

/// Creates client-go's default rate limiter for controllers. The delay is the longer of an exponential delay per
/// key (5 ms to 1,000 s) and the delay of a token bucket for all keys (10 per second, burst of 100).
pub fn default_rate_limiter<T: Key>() -> impl RateLimiter<T> {
    MaxOf(
        ExponentialLimiter::new(Duration::from_millis(5), Duration::from_secs(1_000)),
        BucketRateLimiter::new(10.0, 100),
    )
}

/// Doubles the delay with each failure of a key.
pub struct ExponentialLimiter<T> {
    backoff: Backoff,
    failures: Mutex<HashMap<T, u32>>,
}

impl<T: Key> ExponentialLimiter<T> {
    /// Creates a limiter with delays from `base` to `max`.
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { backoff: Backoff::doubling(base, max), failures: Mutex::default() }
    }
}

impl<T: Key> RateLimiter<T> for ExponentialLimiter<T> {
    fn when(&self, key: &T) -> Duration {
        let mut failures = self.failures.lock();
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        self.backoff.after(*count)
    }

    fn forget(&self, key: &T) {
        self.failures.lock().remove(key);
    }

    fn num_requeues(&self, key: &T) -> u32 {
        self.failures.lock().get(key).copied().unwrap_or(0)
    }
}

/// A token bucket for all keys.
pub struct BucketRateLimiter {
    per_second: f64,
    burst: f64,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    /// Negative if future tokens are reserved.
    tokens: f64,
    at: Instant,
}

impl BucketRateLimiter {
    /// Creates a limiter that allows `per_second` retries per second after a burst.
    pub fn new(per_second: f64, burst: u32) -> Self {
        let burst = f64::from(burst);
        Self { per_second, burst, bucket: Mutex::new(Bucket { tokens: burst, at: Instant::now() }) }
    }

    fn reserve(&self) -> Duration {
        let mut bucket = self.bucket.lock();
        let now = Instant::now();
        let gained = (now - bucket.at).as_secs_f64() * self.per_second;
        bucket.tokens = (bucket.tokens + gained).min(self.burst) - 1.0;
        bucket.at = now;
        Duration::from_secs_f64((-bucket.tokens / self.per_second).max(0.0))
    }
}

impl<T> RateLimiter<T> for BucketRateLimiter {
    fn when(&self, _: &T) -> Duration {
        self.reserve()
    }

    fn forget(&self, _: &T) {}

    fn num_requeues(&self, _: &T) -> u32 {
        0
    }
}

/// Uses the longer delay of two limiters.
pub struct MaxOf<A, B>(pub A, pub B);

impl<T, A: RateLimiter<T>, B: RateLimiter<T>> RateLimiter<T> for MaxOf<A, B> {
    fn when(&self, key: &T) -> Duration {
        self.0.when(key).max(self.1.when(key))
    }

    fn forget(&self, key: &T) {
        self.0.forget(key);
        self.1.forget(key);
    }

    fn num_requeues(&self, key: &T) -> u32 {
        self.0.num_requeues(key).max(self.1.num_requeues(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_with_each_failure_up_to_a_maximum() {
        let limiter = ExponentialLimiter::new(Duration::from_millis(5), Duration::from_secs(1));
        let waits: Vec<_> = (0..10).map(|_| limiter.when(&"a").as_millis()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
        assert_eq!((limiter.num_requeues(&"a"), limiter.when(&"b").as_millis()), (10, 5));
        limiter.forget(&"a");
        assert_eq!((limiter.num_requeues(&"a"), limiter.when(&"a").as_millis()), (0, 5));
        (0..100).for_each(|_| assert!(limiter.when(&"c") <= Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn bucket_allows_a_burst_and_then_a_rate() {
        let limiter = BucketRateLimiter::new(10.0, 3);
        let waits: Vec<_> = (0..5).map(|_| limiter.when(&()).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(limiter.when(&()).as_millis(), 50);
        tokio::time::advance(Duration::from_hours(1)).await;
        let waits: Vec<_> = (0..4).map(|_| limiter.when(&()).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100]);
    }
}
