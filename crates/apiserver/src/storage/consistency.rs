//! Compares watch caches with the store, like upstream's consistency checker: at the same revision, both must have the
//! same versions of the same objects. A difference is a bug. It is logged and counted, but not repaired.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use nave_cacher::{Counter, Decoder, Snapshot};
use nave_store::{Range, Store, StoreError};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{Latest, ResourceStorage};
use crate::catalog::Catalogs;

/// Interval of the checks, as upstream.
const INTERVAL: Duration = Duration::from_mins(5);
/// Number of objects per read from the store.
const PAGE: usize = 500;

/// Counts comparisons of a watch cache with the store, by result.
#[derive(Debug, Default)]
pub struct ConsistencyChecks {
    /// Comparisons without a difference.
    pub successes: Counter,
    /// Comparisons with a difference.
    pub failures: Counter,
    /// Comparisons that failed because the store could not be read.
    pub errors: Counter,
}

/// Compares all watch caches with the store at intervals, one after the other. Never returns.
pub async fn check_consistency(catalogs: &Catalogs) -> Infallible {
    let mut rounds = interval_at(Instant::now() + INTERVAL, INTERVAL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let catalog = catalogs.load();
        for storage in catalog.storages().all() {
            storage.check_consistency().await;
        }
    }
}

impl ResourceStorage {
    /// Compares the watch cache with the store and counts the result.
    pub async fn check_consistency(&self) {
        let resource = &self.cacher.config().resource;
        let checks = self.consistency();
        let mut compared = self.compare(&self.cacher.snapshot()).await;
        // The cache of a quiet resource can be older than the store's history.
        if matches!(compared, Err(StoreError::Compacted { .. }))
            && let Ok(Latest::Memory(latest)) = self.latest().await
        {
            compared = self.compare(&latest).await;
        }
        match compared {
            Ok(None) => checks.successes.add(1),
            Ok(Some(key)) => {
                tracing::error!(%resource, key = &*key, "the watch cache differs from the store");
                checks.failures.add(1);
            }
            Err(error) => {
                tracing::warn!(%resource, %error, "the watch cache could not be compared with the store");
                checks.errors.add(1);
            }
        }
    }

    async fn compare(&self, cached: &Snapshot) -> Result<Option<Arc<str>>, StoreError> {
        difference(cached, &*self.store, &*self.codec, &self.cacher.config().prefix).await
    }
}

/// Returns the first key whose version in a cache snapshot differs from the one in the store at the snapshot's
/// revision.
async fn difference(
    cached: &Snapshot,
    store: &dyn Store,
    decoder: &impl Decoder,
    prefix: &Arc<str>,
) -> Result<Option<Arc<str>>, StoreError> {
    let mut objects = cached.range("", None).peekable();
    let mut range =
        Range { limit: PAGE, revision: Some(cached.revision()), ..Range::all(Arc::clone(prefix)) };
    loop {
        let page = store.range(range.clone()).await?;
        for stored in &page.items {
            let same = objects.next_if(|object| {
                *object.key() == stored.key && object.resource_version() == stored.mod_revision
            });
            // The cache omits objects that cannot be decoded.
            if same.is_none() && decoder.decode(stored).is_ok() {
                return Ok(Some(Arc::clone(&stored.key)));
            }
        }
        if !page.more {
            return Ok(objects.next().map(|object| Arc::clone(object.key())));
        }
        range.start_after = page.items.last().map(|stored| Arc::clone(&stored.key));
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::GroupVersionResource;
    use nave_resources::Registry;
    use nave_store::Txn;
    use nave_store::embedded::{Embedded, Options};
    use serde_json::json;

    use super::*;
    use crate::storage::{Storages, WatchCacheSizes};

    fn open(folder: &tempfile::TempDir) -> Arc<dyn Store> {
        Arc::new(Embedded::open(folder.path(), &Options::default()).unwrap())
    }

    #[tokio::test]
    async fn finds_a_difference_in_any_page() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [ours, other] = [open(&folders[0]), open(&folders[1])];
        let registry = Registry::builtin(nave_schema::builtin());
        let storages = Storages::open(registry, Arc::clone(&ours), &WatchCacheSizes::default());
        storages.wait_ready().await;
        let maps = storages.get(&GroupVersionResource::new("", "v1", "configmaps")).unwrap();
        let prefix = &maps.cacher().config().prefix;
        let compare = async |store: &dyn Store| {
            maps.wait_until(ours.current_revision().await.unwrap()).await.unwrap();
            difference(&maps.cacher().snapshot(), store, maps.codec(), prefix).await
        };
        let write = async |store: &Arc<dyn Store>, name: &str| {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "a", "name": name}});
            store
                .txn(Txn::put(format!("{prefix}a/{name}"), maps.codec().encode(&map).unwrap()))
                .await
                .unwrap();
        };
        // More objects than fit into a page, and some that cannot be decoded.
        for number in 0..PAGE + 10 {
            write(&ours, &format!("map-{number:04}")).await;
            write(&other, &format!("map-{number:04}")).await;
        }
        for store in [&ours, &other] {
            store.txn(Txn::put(format!("{prefix}a/map-0007x"), "nonsense")).await.unwrap();
        }
        assert_eq!(compare(&*ours).await.unwrap(), None);
        assert_eq!(compare(&*other).await.unwrap(), None);

        write(&ours, "map-0003").await;
        write(&other, "map-0508").await;
        assert_eq!(compare(&*other).await.unwrap().as_deref(), Some("/registry/configmaps/a/map-0003"));
        write(&ours, "more").await;
        other.txn(Txn::delete(format!("{prefix}a/map-0000"))).await.unwrap();
        assert_eq!(compare(&*other).await.unwrap().as_deref(), Some("/registry/configmaps/a/map-0001"));

        maps.check_consistency().await;
        let checks = maps.consistency();
        assert_eq!([checks.successes.get(), checks.failures.get(), checks.errors.get()], [1, 0, 0]);
    }

    #[tokio::test]
    async fn compares_a_cache_that_is_older_than_the_history() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let registry = Registry::builtin(nave_schema::builtin());
        let storages = Storages::open(registry, Arc::clone(&store), &WatchCacheSizes::default());
        storages.wait_ready().await;
        let maps = storages.get(&GroupVersionResource::new("", "v1", "configmaps")).unwrap();
        let before = maps.cacher().snapshot().revision();
        for value in ["1", "2"] {
            store.txn(Txn::put("/elsewhere", value)).await.unwrap();
        }
        store.compact(before + 2).await.unwrap();
        maps.check_consistency().await;
        let checks = maps.consistency();
        assert_eq!([checks.successes.get(), checks.failures.get(), checks.errors.get()], [1, 0, 0]);
    }
}
