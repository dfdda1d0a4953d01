//! The embedded engine's operations for etcd's API against a model: transactions of several writes, versions, ranges,
//! leases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use nave_store::embedded::{Content, Embedded, Entry, KeyRange, Options, Query};
use nave_store::{EventKind, Store, StoreError, Txn};

fn open(folder: &Path) -> Embedded {
    Embedded::open(folder, &Options { history: None, ..Options::default() }).unwrap()
}

fn all() -> Query {
    Query { range: KeyRange::new(b"\0", b"\0"), revision: None, limit: 0, content: Content::Full }
}

async fn put(store: &Embedded, key: &'static str, value: &'static str, lease: i64) -> u64 {
    let work = move |transaction: &mut nave_store::embedded::Transaction<'_>| {
        transaction.put(key, value.into(), lease);
        Ok(Ok::<_, Infallible>(transaction.revision()))
    };
    store.transact(work).await.unwrap().unwrap()
}

fn summary(entries: &[Entry]) -> Vec<(&str, u64, u64, u64)> {
    let summary = entries.iter().map(|entry| {
        (&*entry.kv.key, entry.lineage.create_revision, entry.kv.mod_revision, entry.lineage.version)
    });
    summary.collect()
}

#[tokio::test]
async fn versions_count_the_writes_since_the_creation() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put(&store, "/a", "1", 0).await;
    store.txn(Txn::put("/a", "2")).await.unwrap();
    put(&store, "/b", "1", 0).await;
    store.txn(Txn::delete("/b")).await.unwrap();
    store.txn(Txn::create("/b", "2")).await.unwrap();
    let expected = [("/a", 2, 3, 2), ("/b", 6, 6, 1)];
    assert_eq!(summary(&store.query(all()).await.unwrap().entries), expected);
    let old = Query { revision: Some(2), ..all() };
    assert_eq!(summary(&store.query(old).await.unwrap().entries), [("/a", 2, 2, 1)]);
    drop(store);
    let store = open(folder.path());
    assert_eq!(summary(&store.query(all()).await.unwrap().entries), expected);
    put(&store, "/a", "3", 0).await;
    assert_eq!(summary(&store.query(all()).await.unwrap().entries)[0], ("/a", 2, 7, 3));
}

#[tokio::test]
async fn transactions_see_their_writes_and_commit_together() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for key in ["/a", "/b", "/c"] {
        put(&store, key, "old", 0).await;
    }
    let work = |transaction: &mut nave_store::embedded::Transaction<'_>| {
        transaction.put("/b", "new".into(), 0);
        let deleted = transaction.get("/a")?.unwrap().kv.key;
        transaction.delete(&deleted);
        transaction.put("/d", "new".into(), 0);
        let found = transaction.query(&Query { limit: 2, ..all() })?;
        let count = transaction.query(&Query { content: Content::CountOnly, ..all() })?;
        assert!(count.entries.is_empty());
        Ok(Ok::<_, Infallible>((found, count.count)))
    };
    let (found, count) = store.transact(work).await.unwrap().unwrap();
    assert_eq!(summary(&found.entries), [("/b", 3, 5, 2), ("/c", 4, 4, 1)]);
    assert_eq!((found.count, count, found.revision), (3, 3, 5));
    let mut watch = store.watch_entries(KeyRange::new(b"/a", b"/e"), 5, true);
    let batch = watch.next().await.unwrap().unwrap();
    let seen = batch.events.iter().map(|(event, previous)| {
        let previous = previous.as_ref().map(|entry| entry.kv.mod_revision);
        (event.kind, &*event.entry.kv.key, event.entry.kv.mod_revision, previous)
    });
    let expected = [
        (EventKind::Put, "/b", 5, Some(3)),
        (EventKind::Delete, "/a", 5, Some(2)),
        (EventKind::Put, "/d", 5, None),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn refused_transactions_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let refused = store.transact(|transaction| {
        transaction.put("/a", "1".into(), 0);
        Ok(Err::<(), _>("refused"))
    });
    assert_eq!(refused.await.unwrap(), Err("refused"));
    let failed = store.transact(|transaction| {
        transaction.put("/a", "1".into(), 0);
        transaction.query(&Query { revision: Some(99), ..all() }).map(Ok::<_, Infallible>)
    });
    assert!(matches!(failed.await, Err(StoreError::FutureRevision { .. })));
    assert_eq!(store.current_revision().await.unwrap(), 1);
    assert_eq!(put(&store, "/a", "1", 0).await, 2);
}

#[tokio::test]
async fn leases_delete_their_keys_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.grant_lease(7, Duration::from_hours(1)).await.unwrap();
    store.grant_lease(8, Duration::from_hours(1)).await.unwrap();
    put(&store, "/a", "1", 7).await;
    put(&store, "/b", "1", 7).await;
    put(&store, "/c", "1", 8).await;
    put(&store, "/b", "2", 0).await;
    let copy = folder.path().join("copy");
    store.snapshot(&copy).await.unwrap();
    drop(store);
    for place in [folder.path(), &copy] {
        let store = open(place);
        assert_eq!(store.leases(), [7, 8]);
        assert_eq!(store.lease(7).unwrap().keys, ["/a".into()]);
        store.revoke_lease(7).await.unwrap();
        let left = store.query(all()).await.unwrap().entries;
        let left: Vec<_> = left.iter().map(|entry| (&*entry.kv.key, entry.lease)).collect();
        assert_eq!(left, [("/b", 0), ("/c", 8)]);
    }
}

#[tokio::test]
async fn ended_leases_are_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.grant_lease(7, Duration::from_secs(1)).await.unwrap();
    let written = put(&store, "/a", "1", 7).await;
    let mut watch = store.watch_entries(KeyRange::new(b"/a", b""), written + 1, false);
    loop {
        let batch = watch.next().await.unwrap().unwrap();
        if let Some((event, _)) = batch.events.first() {
            assert_eq!((event.kind, event.entry.kv.mod_revision), (EventKind::Delete, written + 1));
            break;
        }
    }
    assert_eq!(store.lease_count(), 0);
}
