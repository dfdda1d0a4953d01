//! The cache on the embedded engine: checks that both agree on the contract.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use nave_cacher::{Cacher, CacherConfig, EventType, Filter, WatchItem, WatchRequest, WatchStart};
use nave_store::embedded::{Embedded, Options};
use nave_store::{Store, Txn};
use support::{PREFIX, TextDecoder};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn lists_watches_and_progress_agree_with_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path(), &Options::default()).unwrap());
    let put = async |key: &str, value: &'static str| store.txn(Txn::put(key, value)).await.unwrap();
    for pod in 0..25 {
        put(&format!("{PREFIX}default/p{pod:02}"), "n;").await;
    }
    let config = CacherConfig { page_size: 10, ..CacherConfig::new("pods", PREFIX, true) };
    let cacher = Cacher::start(config, Arc::clone(&store), Arc::new(TextDecoder));
    cacher.wait_ready().await;
    assert_eq!(cacher.snapshot().len(), 25);

    let start = WatchStart::After(cacher.revision());
    let request = WatchRequest { start, filter: Filter::all(), bookmarks: false, deadline: None };
    let mut watcher = cacher.watch(request).unwrap();
    put(&format!("{PREFIX}default/p00"), "n;later").await;
    put(&format!("{PREFIX}default/new"), "n;").await;
    store.txn(Txn::delete(format!("{PREFIX}default/p01"))).await.unwrap();
    let mut delivered = Vec::new();
    while delivered.len() < 3 {
        match tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap() {
            WatchItem::Events(events) => {
                delivered.extend(events.iter().map(|event| (event.kind, event.object().resource_version())));
            }
            other => panic!("{other:?}"),
        }
    }
    let last = store.current_revision().await.unwrap();
    assert_eq!(
        delivered,
        [(EventType::Modified, last - 2), (EventType::Added, last - 1), (EventType::Deleted, last)]
    );

    // Writes of other resources advance the store. A consistent read must not wait for a periodic progress report.
    put("/registry/minions/n", "").await;
    let revision = store.current_revision().await.unwrap();
    assert_eq!(cacher.wait_until(revision, PATIENCE).await, Ok(()));
    let listed = store.range(nave_store::Range::all(PREFIX)).await.unwrap();
    let keys: Vec<_> = cacher.snapshot().range(PREFIX, None).map(|object| Arc::clone(object.key())).collect();
    assert_eq!(keys, listed.items.iter().map(|kv| Arc::clone(&kv.key)).collect::<Vec<_>>());
}
