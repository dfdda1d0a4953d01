//! Lets watch caches forget the states that the store has compacted (upstream: `storage/cacher/compactor.go`). Without
//! it, a resource without changes would serve the pages of a list for ever, and pages of other servers would expire.

use std::convert::Infallible;
use std::time::Duration;

use nave_store::Store;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::Storages;
use crate::catalog::Catalogs;

/// Interval at which the stores are asked for their compacted revisions.
const INTERVAL: Duration = Duration::from_secs(10);
/// Timeout of a store's answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Lets all watch caches forget compacted states, at intervals. Never returns.
pub async fn forget_compacted_states(catalogs: &Catalogs) -> Infallible {
    let mut rounds = interval_at(Instant::now() + INTERVAL, INTERVAL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        catalogs.load().storages().forget_compacted_states().await;
    }
}

impl Storages {
    /// Lets the watch caches forget the states that their stores have compacted.
    pub async fn forget_compacted_states(&self) {
        let stores = self.stores();
        let main = compacted(&**stores.main()).await;
        for storage in self.all() {
            let is_main = !stores.has_override(&storage.resource());
            let revision = if is_main { main } else { compacted(&**storage.store()).await };
            if let Some(revision) = revision {
                storage.cacher().forget_states_before(revision);
            }
        }
    }
}

/// Returns the compacted revision of a store; `None` if it does not answer. The next round asks again.
async fn compacted(store: &dyn Store) -> Option<u64> {
    timeout(TIMEOUT, store.compacted_revision()).await.ok()?.ok()
}
