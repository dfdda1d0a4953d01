//! [`Waits`]: how long to wait before the next try.

use std::time::Duration;

use nave_machinery::backoff::{Backoff, Pauses};
use tokio::time::Instant;

/// The pauses of a [`Backoff`], which begin again after two minutes without a failure.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    pauses: Pauses,
    last: Option<Instant>,
}

impl Waits {
    /// Begins to count failures.
    pub fn new(backoff: Backoff) -> Self {
        Self { pauses: backoff.pauses(), last: None }
    }

    /// Counts a failure, and returns how long to wait.
    pub fn next_wait(&mut self) -> Duration {
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last > RESET_AFTER) {
            self.pauses.reset();
        }
        self.last = Some(now);
        self.pauses.next_pause()
    }
}

/// client-go's time without a failure after which reflectors begin again.
const RESET_AFTER: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_begin_again_after_a_time_without_failures() {
        let mut waits = Waits::new(Backoff { jitter: 0.0, ..Backoff::REFLECTOR });
        let seen: Vec<_> = (0..3).map(|_| waits.next_wait().as_millis()).collect();
        assert_eq!(seen, [800, 1_600, 3_200]);
        tokio::time::advance(RESET_AFTER + Duration::from_secs(1)).await;
        assert_eq!(waits.next_wait().as_millis(), 800);
    }
}
