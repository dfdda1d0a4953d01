//! Encodings made on demand are given up where they are of no use, or memory is.

use std::convert::Infallible;
use std::time::Duration;

use super::Storages;

/// How often it is looked after.
const INTERVAL: Duration = Duration::from_secs(5);

/// Gives up the encodings made on demand when memory is short, and when others are wanted than those that are kept:
/// once as many bytes could not be kept as there is room for, it is given to what is asked for now. Never ends.
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
        let (bytes, reason) = (encodings.used(), if short { "memory is short" } else { "others are wanted" });
        for storage in storages.all() {
            storage.cacher().drop_encodings();
        }
        refused = 0;
        tracing::info!(bytes, reason, "encodings made on demand were given up");
    }
}
