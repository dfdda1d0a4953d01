//! Attempts with growing pauses between them.

use std::time::Duration;

/// When to try again, and how often: upstream's `WebhookRetryBackoff` by default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The pause after the first attempt.
    pub first: Duration,
    /// What a pause is multiplied by for the next.
    pub factor: f64,
    /// A pause is longer by up to this part of it, so that many callers do not return at once.
    pub jitter: f64,
    /// Attempts in all.
    pub attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), factor: 1.5, jitter: 0.2, attempts: 5 }
    }
}

impl Backoff {
    /// Runs an attempt until one succeeds, fails for good, or was the last.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn retry<T, E, F>(
        &self,
        is_transient: impl Fn(&E) -> bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut pause = self.first;
        for _ in 1..self.attempts {
            match attempt().await {
                Err(error) if is_transient(&error) => {}
                settled => return settled,
            }
            tokio::time::sleep(pause.mul_f64(1.0 + self.jitter * rand::random::<f64>())).await;
            pause = pause.mul_f64(self.factor);
        }
        attempt().await
    }
}
