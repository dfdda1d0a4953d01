//! Reads of old revisions, and watches.

use crate::{Range, StoreError, Txn};

use super::{Fixture, commit, delete_event, events, keys, kv, next, put, put_event};

/// A past state stays readable at its revision.
pub async fn old_revisions_stay_readable(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let empty = store.current_revision().await.unwrap();
    let first = put(&*store, "/a", "1").await;
    let other = put(&*store, "/b", "b").await;
    let second = put(&*store, "/a", "2").await;
    let deleted = commit(&*store, Txn::delete("/a")).await;
    let again = put(&*store, "/a", "3").await;
    let expected = [
        (empty, None),
        (first, Some(kv("/a", "1", first))),
        (other, Some(kv("/a", "1", first))),
        (second, Some(kv("/a", "2", second))),
        (deleted, None),
        (again, Some(kv("/a", "3", again))),
    ];
    for (revision, version) in expected {
        assert_eq!(store.get("/a", Some(revision)).await.unwrap(), version, "at {revision}");
    }
    let range = store.range(Range { revision: Some(deleted), ..Range::all("/") }).await.unwrap();
    assert_eq!((keys(&range.items), range.revision), (vec!["/b"], deleted));
}

/// A future revision cannot be read or compacted.
pub async fn future_revisions_fail(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let current = put(&*store, "/a", "1").await;
    let future = current + 1;
    let expected =
        |error| matches!(error, StoreError::FutureRevision { requested, .. } if requested == future);
    assert!(expected(store.get("/a", Some(future)).await.unwrap_err()));
    let range = Range { revision: Some(future), ..Range::all("/") };
    assert!(expected(store.range(range).await.unwrap_err()));
    assert!(expected(store.compact(future).await.unwrap_err()));
}

/// States below the compacted revision cannot be read; later states can.
pub async fn compaction_hides_old_states(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let first = put(&*store, "/a", "1").await;
    let second = put(&*store, "/a", "2").await;
    put(&*store, "/gone", "x").await;
    let deleted = commit(&*store, Txn::delete("/gone")).await;
    let third = put(&*store, "/a", "3").await;
    store.compact(deleted).await.unwrap();
    assert_eq!(store.compacted_revision().await.unwrap(), deleted);
    for revision in [first, second, deleted - 1] {
        let error = store.get("/a", Some(revision)).await.unwrap_err();
        assert!(matches!(error, StoreError::Compacted { compacted } if compacted == deleted), "{error}");
        let error = store.range(Range { revision: Some(revision), ..Range::all("/") }).await.unwrap_err();
        assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
        assert!(matches!(store.compact(revision).await, Err(StoreError::Compacted { .. })));
    }
    assert!(matches!(store.compact(deleted).await, Err(StoreError::Compacted { .. })));
    assert_eq!(store.get("/a", Some(deleted)).await.unwrap(), Some(kv("/a", "2", second)));
    assert_eq!(store.get("/gone", Some(deleted)).await.unwrap(), None);
    assert_eq!(store.get("/a", None).await.unwrap(), Some(kv("/a", "3", third)));
    store.compact(third).await.unwrap();
    assert_eq!(store.get("/a", None).await.unwrap(), Some(kv("/a", "3", third)));
    assert_eq!(put(&*store, "/a", "4").await, third + 1);
}

/// A watch starts with the event of the requested revision, past or future.
pub async fn watch_starts_at_the_requested_revision(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let mut from_now = store.watch("/", 0).await.unwrap();
    let first = put(&*store, "/a", "1").await;
    let second = put(&*store, "/a", "2").await;
    let mut from_second = store.watch("/", second).await.unwrap();
    let deleted = commit(&*store, Txn::delete("/a")).await;
    let created = put_event(kv("/a", "1", first));
    let updated = put_event(kv("/a", "2", second));
    let removed = delete_event("/a", deleted);
    assert_eq!(events(&mut from_now, 3).await, [created, updated.clone(), removed.clone()]);
    assert_eq!(events(&mut from_second, 2).await, [updated, removed]);
    // A delivered event is readable.
    assert_eq!(store.get("/a", Some(second)).await.unwrap(), Some(kv("/a", "2", second)));
}

/// Events of other prefixes are not delivered.
pub async fn watch_delivers_only_its_prefix(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let start = store.current_revision().await.unwrap() + 1;
    let mut live = store.watch("/b/", start).await.unwrap();
    for key in ["/a/1", "/b", "/b/1", "/b0", "/c/1", "/b/2"] {
        put(&*store, key, "x").await;
    }
    let mut replayed = store.watch("/b/", start).await.unwrap();
    for watch in [&mut live, &mut replayed] {
        let seen = events(watch, 2).await;
        assert_eq!(seen.iter().map(|event| &*event.kv.key).collect::<Vec<_>>(), ["/b/1", "/b/2"]);
    }
}

/// A watch from a future revision delivers no events before that revision.
pub async fn watch_waits_for_a_future_revision(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let current = store.current_revision().await.unwrap();
    let mut watch = store.watch("/", current + 3).await.unwrap();
    for value in ["1", "2", "3", "4"] {
        put(&*store, "/a", value).await;
    }
    let revisions: Vec<u64> = events(&mut watch, 2).await.iter().map(|event| event.kv.mod_revision).collect();
    assert_eq!(revisions, [current + 3, current + 4]);
}

/// A watch from below the compacted revision ends with an error.
pub async fn compacted_watch_fails(fixture: &dyn Fixture) {
    use futures_util::StreamExt;
    let store = fixture.open().await;
    let first = put(&*store, "/a", "1").await;
    put(&*store, "/a", "2").await;
    let third = put(&*store, "/a", "3").await;
    store.compact(third).await.unwrap();
    let mut watch = store.watch("/", first).await.unwrap();
    let error = next(&mut watch).await.unwrap_err();
    assert!(matches!(error, StoreError::Compacted { compacted } if compacted == third), "{error}");
    assert!(watch.next().await.is_none(), "an error is the last item");
    let mut watch = store.watch("/", third + 1).await.unwrap();
    let fourth = put(&*store, "/a", "4").await;
    assert_eq!(events(&mut watch, 1).await[0].kv.mod_revision, fourth);
}

/// A watch that is not read during thousands of changes delivers all changes later, in order.
pub async fn slow_watch_misses_nothing(fixture: &dyn Fixture) {
    const WRITERS: usize = 50;
    const EACH: usize = 120;
    let store = fixture.open().await;
    let start = store.current_revision().await.unwrap() + 1;
    let mut watch = store.watch("/", start).await.unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for turn in 0..EACH {
                    put(&*store, &format!("/{writer}"), &format!("{turn}")).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let mut turns = [0; WRITERS];
    for (offset, event) in events(&mut watch, WRITERS * EACH).await.into_iter().enumerate() {
        assert_eq!(event.kv.mod_revision, start + offset as u64);
        let writer: usize = event.kv.key[1..].parse().unwrap();
        assert_eq!(event.kv.value, format!("{}", turns[writer]));
        turns[writer] += 1;
    }
}

/// A watch without events reports progress on request.
pub async fn progress_is_reported_on_request(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let mut watch = store.watch("/quiet/", 0).await.unwrap();
    for value in ["1", "2", "3"] {
        put(&*store, "/busy/a", value).await;
    }
    let wanted = store.current_revision().await.unwrap();
    store.request_progress("/quiet/").await.unwrap();
    loop {
        let batch = next(&mut watch).await.unwrap();
        assert!(batch.events.is_empty());
        if batch.revision >= wanted {
            break;
        }
    }
}

/// A watch without events does not expire while other prefixes are written and compacted.
pub async fn quiet_watch_survives_compaction(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let mut watch = store.watch("/quiet/", 0).await.unwrap();
    for value in 0..100 {
        put(&*store, "/busy/a", &value.to_string()).await;
    }
    store.compact(store.current_revision().await.unwrap()).await.unwrap();
    let written = put(&*store, "/quiet/a", "1").await;
    assert_eq!(events(&mut watch, 1).await, [put_event(kv("/quiet/a", "1", written))]);
}
