//! Time to live and restarts.

use std::time::Duration;

use crate::{Range, Txn};

use super::{Fixture, commit, delete_event, events, keys, kv, put};

/// One second: the shortest lease that every engine supports.
const TTL: Duration = Duration::from_secs(1);

/// Expiry deletes the key by an ordinary transaction with its own revision.
pub async fn ttl_ends_in_a_delete_event(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let written = commit(&*store, Txn::put("/a", "1").with_ttl(TTL)).await;
    let mut watch = store.watch("/", written + 1).await.unwrap();
    let deleted = events(&mut watch, 1).await.remove(0);
    assert_eq!(deleted, delete_event("/a", written + 1));
    assert_eq!(store.get("/a", None).await.unwrap(), None);
}

/// A later put replaces the time to live.
pub async fn later_put_replaces_ttl(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    commit(&*store, Txn::put("/kept", "1").with_ttl(TTL)).await;
    let kept = put(&*store, "/kept", "2").await;
    let marker = commit(&*store, Txn::put("/marker", "x").with_ttl(TTL)).await;
    // The marker is written last, so it expires after the original time to live would have.
    let mut watch = store.watch("/", marker + 1).await.unwrap();
    assert_eq!(&*events(&mut watch, 1).await[0].kv.key, "/marker");
    let there = store.get("/kept", None).await.unwrap().expect("key has no time to live any more");
    assert_eq!(there.mod_revision, kept);
}

/// A time to live continues across a restart.
pub async fn ttl_survives_a_restart(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let written = commit(&*store, Txn::put("/a", "1").with_ttl(TTL)).await;
    drop(store);
    let store = fixture.open().await;
    let mut watch = store.watch("/", written + 1).await.unwrap();
    assert_eq!(events(&mut watch, 1).await[0], delete_event("/a", written + 1));
}

/// A restart does not change data, history, compaction or revisions.
pub async fn restart_loses_nothing(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    put(&*store, "/a", "1").await;
    put(&*store, "/b", "b").await;
    let second = put(&*store, "/a", "2").await;
    let third = put(&*store, "/a", "3").await;
    let deleted = commit(&*store, Txn::delete("/b")).await;
    store.compact(second).await.unwrap();
    drop(store);

    let store = fixture.open().await;
    assert_eq!(store.current_revision().await.unwrap(), deleted);
    assert_eq!(store.compacted_revision().await.unwrap(), second);
    assert_eq!(store.get("/a", Some(second)).await.unwrap(), Some(kv("/a", "2", second)));
    assert_eq!(store.get("/a", None).await.unwrap(), Some(kv("/a", "3", third)));
    assert_eq!(keys(&store.range(Range::all("/")).await.unwrap().items), ["/a"]);
    let mut watch = store.watch("/", third).await.unwrap();
    assert_eq!(events(&mut watch, 2).await[1].kv.mod_revision, deleted);
    store.compact(deleted).await.unwrap();
    drop(store);

    let store = fixture.open().await;
    assert_eq!(
        put(&*store, "/c", "c").await,
        deleted + 1,
        "revisions continue even if the last one was a deletion"
    );
}
