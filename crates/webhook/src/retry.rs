//! Retries with exponential backoff.

use nave_machinery::backoff::Backoff;

/// Maximum number of attempts (upstream's value).
pub(crate) const ATTEMPTS: u32 = 5;

/// Runs an attempt until it succeeds, fails with a permanent error, or no attempts are left.
pub(crate) async fn retry<T, E, F>(
    backoff: Backoff,
    attempts: u32,
    is_transient: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut pauses = backoff.pauses();
    for _ in 1..attempts {
        match attempt().await {
            Err(error) if is_transient(&error) => {}
            settled => return settled,
        }
        tokio::time::sleep(pauses.next_pause()).await;
    }
    attempt().await
}
