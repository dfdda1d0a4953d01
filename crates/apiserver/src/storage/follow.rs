//! Followers of watch caches within the process. A follower builds its own index of a resource's objects without
//! copying them.

use std::sync::Arc;

use nave_cacher::{CachedObject, Cacher, Delivery, End, Filter, WatchItem, WatchRequest, WatchStart};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Follows the objects of a resource. The methods are called sequentially, in order.
pub trait Follower: Send + Sync + 'static {
    /// Replaces the whole state with these objects.
    fn replace(&self, objects: &[Arc<CachedObject>]);

    /// Applies changes, in order.
    fn apply(&self, changes: &[Delivery]);

    /// Reports that previous calls included all changes up to this revision.
    fn reached(&self, revision: u64) {
        let _ = revision;
    }
}

/// A running follower, stopped on drop.
#[derive(Debug)]
pub struct Following {
    task: AbortHandle,
    synced: watch::Receiver<bool>,
}

impl Following {
    /// Starts a follower on a watch cache. Must be called within a Tokio runtime.
    pub fn start(cacher: Arc<Cacher>, follower: Arc<dyn Follower>) -> Self {
        let (sender, synced) = watch::channel(false);
        let supervisor = cacher.config().supervisor.clone();
        let task = async move {
            // Each run starts with all objects, which replaces the incomplete state after a panic.
            let run = || follow(&cacher, &*follower, &sender);
            supervisor.supervise("watch cache follower", &cacher.config().resource, run).await;
        };
        Self { task: tokio::spawn(task).abort_handle(), synced }
    }

    /// Waits until the follower has received all objects that existed when it started.
    pub async fn synced(&self) {
        // An error means that the task and the watch cache have ended, so the wait ends too.
        let _ = self.synced.clone().wait_for(|synced| *synced).await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reports the current state, then watches for changes. If the history is lost, starts again with the current state.
async fn follow(cacher: &Cacher, follower: &dyn Follower, synced: &watch::Sender<bool>) {
    loop {
        cacher.wait_ready().await;
        let snapshot = cacher.snapshot();
        let start = WatchStart::After(snapshot.revision());
        let request = WatchRequest { start, filter: Filter::all(), bookmarks: false, deadline: None };
        let Ok(mut watcher) = cacher.watch(request) else { continue };
        follower.replace(&snapshot.range("", None).cloned().collect::<Vec<_>>());
        follower.reached(snapshot.revision());
        synced.send_replace(true);
        loop {
            match watcher.next().await {
                WatchItem::Events(events) => follower.apply(&events),
                WatchItem::InitialEventsEnd(_) | WatchItem::Bookmark(_) => {}
                WatchItem::End(End::Closed) => return,
                WatchItem::End(End::Expired | End::TimedOut) => break,
            }
        }
        tracing::info!(resource = %cacher.config().resource, "watch history lost; listing all objects again");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nave_machinery::{GroupVersionResource, meta};
    use nave_resources::Registry;
    use nave_store::embedded::{Embedded, Options};
    use parking_lot::Mutex;
    use serde_json::json;
    use tokio::sync::Notify;

    use super::*;
    use crate::storage::{Storages, WatchCacheSizes};

    /// Records the names of all objects. Panics once for certain objects.
    #[derive(Default)]
    struct Names {
        seen: Mutex<BTreeSet<String>>,
        panics: Mutex<BTreeSet<String>>,
        changed: Notify,
    }

    impl Names {
        fn see(&self, object: &CachedObject) {
            assert!(!self.panics.lock().remove(object.name()), "a follower panics");
            self.seen.lock().insert(object.name().to_owned());
            self.changed.notify_one();
        }

        async fn wait_for(&self, names: &[&str]) {
            while !self.seen.lock().iter().eq(names) {
                self.changed.notified().await;
            }
        }
    }

    impl Follower for Names {
        fn replace(&self, objects: &[Arc<CachedObject>]) {
            self.seen.lock().clear();
            for object in objects {
                self.see(object);
            }
        }

        fn apply(&self, changes: &[Delivery]) {
            for change in changes {
                self.see(&change.object());
            }
        }
    }

    #[tokio::test]
    async fn a_follower_gets_all_objects_again_after_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(folder.path(), &Options::default()).unwrap());
        let registry = Registry::builtin(nave_schema::builtin());
        let storages = Storages::open(registry, store, &WatchCacheSizes::default());
        let maps = storages.get(&GroupVersionResource::new("", "v1", "configmaps")).unwrap();
        maps.cacher().wait_ready().await;
        let create = async |name: &str| {
            let metadata = json!({"namespace": "ns", "name": name});
            let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
            let key = nave_resources::storage_key(maps.def(), Some("ns"), meta::name(&map)).unwrap();
            maps.create(&key, name, &mut map).await.unwrap();
        };
        let names = Arc::new(Names::default());
        names.panics.lock().extend(["a", "c"].map(str::to_owned));
        create("a").await;
        maps.wait_until(maps.current_revision().await.unwrap()).await.unwrap();
        let following = Following::start(Arc::clone(maps.cacher()), Arc::clone(&names) as _);
        following.synced().await;
        names.wait_for(&["a"]).await;
        for (name, seen) in [("b", &["a", "b"][..]), ("c", &["a", "b", "c"]), ("d", &["a", "b", "c", "d"])] {
            create(name).await;
            names.wait_for(seen).await;
        }
        let restarts = storages.shared().supervisor.restarts();
        assert!(restarts.contains(&("watch cache follower", 2)), "{restarts:?}");
    }
}
