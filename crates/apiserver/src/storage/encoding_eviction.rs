//! Evicts encodings that were made on demand.

use std::convert::Infallible;
use std::time::Duration;

use super::Storages;

/// Interval of the checks.
const INTERVAL: Duration = Duration::from_secs(5);

/// Evicts all encodings made on demand if memory is short, or if the kept ones are no longer those in demand: encodings
/// as large as the whole budget have been refused since the last eviction. Never returns.
pub async fn evict_encodings(storages: &Storages, memory_is_short: impl Fn() -> bool) -> Infallible {
    let mut rounds = tokio::time::interval(INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut refused = 0;
    loop {
        rounds.tick().await;
        let encodings = &storages.shared().encodings;
        refused += encodings.take_refused();
        let short = memory_is_short();
        if encodings.used() == 0 || !short && refused <= encodings.limit() {
            continue;
        }
        let (bytes, reason) = (encodings.used(), if short { "memory is short" } else { "budget is full" });
        for storage in storages.all() {
            storage.cacher().drop_encodings();
        }
        refused = 0;
        tracing::info!(bytes, reason, "encodings evicted");
    }
}
