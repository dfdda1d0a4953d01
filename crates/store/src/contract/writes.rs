//! Transactions and reads of the latest state.

use std::collections::BTreeSet;

use crate::{Expect, Range, Txn, TxnOutcome};

use super::{Fixture, commit, keys, kv, put};

/// An empty store has a revision and no keys.
pub async fn empty_store_answers(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let revision = store.current_revision().await.unwrap();
    assert!(revision > 0, "0 means `any` in the API");
    assert_eq!(store.get("/a", None).await.unwrap(), None);
    assert_eq!(store.count("/").await.unwrap(), 0);
    let range = store.range(Range::all("/")).await.unwrap();
    assert_eq!((range.items.len(), range.revision, range.more), (0, revision, false));
    assert_eq!(store.status().await.unwrap().revision, revision);
}

/// With `Expect::Absent`, one of two creations succeeds and the other returns the existing version.
pub async fn creates_only_absent_keys(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let created = commit(&*store, Txn::create("/a", "1")).await;
    let outcome = store.txn(Txn::create("/a", "2")).await.unwrap();
    let there = kv("/a", "1", created);
    assert_eq!(outcome, TxnOutcome::Failed { current: Some(there.clone()), revision: created });
    assert_eq!(store.get("/a", None).await.unwrap(), Some(there));
    commit(&*store, Txn::delete("/a")).await;
    let again = commit(&*store, Txn::create("/a", "3")).await;
    assert_eq!(store.get("/a", None).await.unwrap(), Some(kv("/a", "3", again)));
}

/// `Expect::Revision` holds only for the key's exact mod revision, for puts and deletes.
pub async fn compares_mod_revision(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let missing = store.txn(Txn::put("/a", "x").expecting(Expect::Revision(1))).await.unwrap();
    assert!(matches!(missing, TxnOutcome::Failed { current: None, .. }));
    let first = put(&*store, "/a", "1").await;
    let second = commit(&*store, Txn::put("/a", "2").expecting(Expect::Revision(first))).await;
    let current = kv("/a", "2", second);
    for stale in [Txn::put("/a", "3"), Txn::delete("/a")] {
        let outcome = store.txn(stale.expecting(Expect::Revision(first))).await.unwrap();
        assert_eq!(outcome, TxnOutcome::Failed { current: Some(current.clone()), revision: second });
    }
    let outcome = store.txn(Txn::delete("/a").expecting(Expect::Revision(second))).await.unwrap();
    assert_eq!(outcome, TxnOutcome::Committed { revision: second + 1 });
    assert_eq!(store.get("/a", None).await.unwrap(), None);
}

/// `revision` returns the revision of the latest version, and `None` while the key does not exist.
pub async fn revision_is_the_latest(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    assert_eq!(store.revision("/a").await.unwrap(), None);
    for value in ["1", "2"] {
        let written = put(&*store, "/a", value).await;
        put(&*store, "/a/b", value).await;
        assert_eq!(store.revision("/a").await.unwrap(), Some(written));
    }
    commit(&*store, Txn::delete("/a")).await;
    assert_eq!(store.revision("/a").await.unwrap(), None);
}

/// A delete of an absent key commits nothing.
pub async fn absent_key_deletes_nothing(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let before = store.current_revision().await.unwrap();
    let outcome = store.txn(Txn::delete("/a")).await.unwrap();
    assert_eq!(outcome, TxnOutcome::Committed { revision: before });
    assert_eq!(store.current_revision().await.unwrap(), before);
}

/// Each committed transaction gets the next revision, for all writers.
pub async fn revisions_grow_by_one(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let before = store.current_revision().await.unwrap();
    let writers = (0..16).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            for turn in 0..16 {
                revisions.push(put(&*store, &format!("/{}/{}", writer % 4, turn % 3), "x").await);
            }
            assert!(revisions.is_sorted(), "a writer's own revisions go up");
            revisions
        })
    });
    let mut revisions = BTreeSet::new();
    for writer in writers.collect::<Vec<_>>() {
        revisions.extend(writer.await.unwrap());
    }
    assert_eq!(revisions, (before + 1..=before + 256).collect());
    assert_eq!(store.current_revision().await.unwrap(), before + 256);
}

/// A range returns exactly the keys with its prefix, in byte order, and pages of one revision fit together.
pub async fn ranges_page_in_byte_order(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for key in ["/b/1", "/b", "/b/é", "/b/2", "/b/10", "/c/1", "/a/1", "/b0", "/b/z"] {
        put(&*store, key, key).await;
    }
    let revision = store.current_revision().await.unwrap();
    let all = ["/b/1", "/b/10", "/b/2", "/b/z", "/b/é"];
    assert_eq!(keys(&store.range(Range::all("/b/")).await.unwrap().items), all);
    assert_eq!(store.count("/b/").await.unwrap(), 5);
    put(&*store, "/b/11", "too late for the pages").await;

    let mut range = Range { limit: 2, revision: Some(revision), ..Range::all("/b/") };
    let mut paged = Vec::new();
    for (more, remaining) in [(true, 3), (true, 1), (false, 0)] {
        let page = store.range(range.clone()).await.unwrap();
        assert_eq!((page.more, page.revision), (more, revision));
        assert!(page.remaining.is_none_or(|count| count == remaining), "{:?}", page.remaining);
        range.start_after = page.items.last().map(|item| item.key.clone());
        paged.extend(page.items);
    }
    assert_eq!(keys(&paged), all);
    assert!(paged.iter().all(|item| *item.value == *item.key.as_bytes()));
}
