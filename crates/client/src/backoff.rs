//! [`Backoff`]: how long to wait before the next try.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

/// Waiting times that grow with each failure, spread by chance, and begin anew after a time without failures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first wait.
    pub initial: Duration,
    /// The longest wait, before it is spread.
    pub max: Duration,
    /// What each failure multiplies the wait by.
    pub factor: f64,
    /// A wait of `d` becomes one between `d` and `d × (1 + jitter)`.
    pub jitter: f64,
    /// Without a failure for so long, it begins anew.
    pub reset_after: Duration,
}

impl Backoff {
    /// client-go's for reflectors: from 0.8 s to 30 s, doubled, up to twice as long by chance, anew after 2 minutes.
    pub const REFLECTOR: Self = Self {
        initial: Duration::from_millis(800),
        max: Duration::from_secs(30),
        factor: 2.0,
        jitter: 1.0,
        reset_after: Duration::from_mins(2),
    };

    /// Begins to count.
    pub fn start(self) -> Waits {
        Waits { backoff: self, next: self.initial, last: None }
    }
}

/// Where one [`Backoff`] stands.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    backoff: Backoff,
    next: Duration,
    last: Option<Instant>,
}

impl Waits {
    /// There was a failure: how long to wait.
    pub fn next_wait(&mut self) -> Duration {
        let Backoff { initial, max, factor, jitter, reset_after } = self.backoff;
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last > reset_after) {
            self.next = initial;
        }
        self.last = Some(now);
        let wait = self.next;
        self.next = wait.mul_f64(factor.max(1.0)).min(max);
        jittered(wait.min(max), jitter)
    }
}

/// Between `wait` and `wait × (1 + jitter)`.
pub fn jittered(wait: Duration, jitter: f64) -> Duration {
    wait.mul_f64(1.0 + rand::rng().random::<f64>() * jitter.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_the_longest_and_begin_anew() {
        let mut waits = Backoff { jitter: 0.0, ..Backoff::REFLECTOR }.start();
        let seen: Vec<_> = (0..8).map(|_| waits.next_wait().as_millis()).collect();
        assert_eq!(seen, [800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        tokio::time::advance(Duration::from_secs(121)).await;
        assert_eq!(waits.next_wait().as_millis(), 800);
    }

    #[test]
    fn chance_makes_waits_longer_by_no_more_than_said() {
        let wait = Duration::from_secs(1);
        for _ in 0..1_000 {
            let spread = jittered(wait, 1.0);
            assert!(wait <= spread && spread < 2 * wait, "{spread:?}");
        }
    }
}
