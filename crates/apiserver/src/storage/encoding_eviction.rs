//! Evicts encodings that were made on demand.

use std::convert::Infallible;
use std::time::Duration;

use crate::catalog::Catalogs;

/// Interval of the checks.
const INTERVAL: Duration = Duration::from_secs(5);

/// Evicts the encodings made on demand if memory is short, or once more bytes have been refused than the budget allows,
/// so that the budget follows current requests. Never returns.
pub async fn evict_encodings(catalogs: &Catalogs, memory_is_short: impl Fn() -> bool) -> Infallible {
    let mut rounds = tokio::time::interval(INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut refused = 0;
    loop {
        rounds.tick().await;
        let catalog = catalogs.load();
        let storages = catalog.storages();
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
