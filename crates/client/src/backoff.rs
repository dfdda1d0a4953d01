//! [`BackoffTimer`]: the delays between retries.

use std::time::Duration;

use nave_machinery::backoff::{Backoff, Pauses};
use tokio::time::Instant;

/// A timer for the delays of a [`Backoff`]. Resets after two minutes without a failure.
#[derive(Clone, Copy, Debug)]
pub struct BackoffTimer {
    pauses: Pauses,
    last: Option<Instant>,
}

impl BackoffTimer {
    /// Creates a timer without failures.
    pub fn new(backoff: Backoff) -> Self {
        Self { pauses: backoff.pauses(), last: None }
    }

    /// Counts a failure and returns the delay before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last > RESET_AFTER) {
            self.pauses.reset();
        }
        self.last = Some(now);
        self.pauses.next_pause()
    }
}

/// client-go's reset interval of reflectors.
const RESET_AFTER: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delays_reset_after_a_time_without_failures() {
        let mut waits = BackoffTimer::new(Backoff { jitter: 0.0, ..Backoff::REFLECTOR });
        let seen: Vec<_> = (0..3).map(|_| waits.next_delay().as_millis()).collect();
        assert_eq!(seen, [800, 1_600, 3_200]);
        tokio::time::advance(RESET_AFTER + Duration::from_secs(1)).await;
        assert_eq!(waits.next_delay().as_millis(), 800);
    }
}
