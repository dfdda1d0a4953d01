//! Behaviour of the embedded engine beyond the contract: limits, background compaction, space, snapshots.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use nave_store::embedded::{Embedded, History, Options};
use nave_store::{Range, Store, StoreError, Txn};

const PATIENCE: Duration = Duration::from_secs(30);

fn open(folder: &Path, history: Option<History>) -> Embedded {
    Embedded::open(folder, &Options { history, ..Options::default() }).unwrap()
}

/// Polls until the condition holds.
async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let asking = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("timeout waiting until {what}"));
}

#[tokio::test]
async fn rejects_too_large_keys_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), None);
    let before = store.current_revision().await.unwrap();
    let error = store.txn(Txn::put("/a", vec![0; (3 << 20) + 1])).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { what: "value", .. }), "{error}");
    let error = store.txn(Txn::put("/".repeat(4097), "")).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { what: "key", .. }), "{error}");
    assert_eq!(store.current_revision().await.unwrap(), before);
    store.txn(Txn::put("/".repeat(4096), vec![1; 3 << 20])).await.unwrap();
}

#[tokio::test]
async fn compacts_history_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let time = Duration::from_millis(20);
    let store = open(folder.path(), Some(History { time, ..History::default() }));
    for value in 0..10 {
        store.txn(Txn::put("/a", format!("{value}"))).await.unwrap();
    }
    let current = store.current_revision().await.unwrap();
    until("compaction", async || store.compacted_revision().await.unwrap() == current).await;
    let latest = store.get("/a", None).await.unwrap().unwrap();
    assert_eq!((&latest.value[..], latest.mod_revision), (&b"9"[..], current));
}

#[tokio::test]
async fn compacts_history_by_number() {
    const REVISIONS: u64 = 500;
    let folder = tempfile::tempdir().unwrap();
    let history = History { time: Duration::from_hours(1), revisions: REVISIONS };
    let store = Arc::new(open(folder.path(), Some(history)));
    let writers: Vec<_> = (0..50)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for turn in 0..50 {
                    store.txn(Txn::put(format!("/{writer}"), format!("{turn}"))).await.unwrap();
                    store.txn(Txn::put(format!("/{writer}/{turn}"), "")).await.unwrap();
                    store.txn(Txn::delete(format!("/{writer}/{turn}"))).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    until("compaction", async || store.compacted_revision().await.unwrap() > 0).await;
    let (newest, oldest) =
        (store.current_revision().await.unwrap(), store.compacted_revision().await.unwrap());
    assert!(newest - oldest >= REVISIONS, "{oldest} of {newest}");
    let range = |revision| Range { revision: Some(revision), ..Range::all("/") };
    assert!(store.range(range(oldest)).await.is_ok());
    assert!(matches!(store.range(range(oldest - 1)).await, Err(StoreError::Compacted { .. })));
    assert_eq!(store.count("/").await.unwrap(), 50);
    // A restart finds the same history.
    let before = store.range(range(oldest)).await.unwrap();
    drop(store);
    let store = open(folder.path(), None);
    assert_eq!(store.range(range(oldest)).await.unwrap(), before);
    assert_eq!(store.compacted_revision().await.unwrap(), oldest);
}

#[tokio::test]
async fn freed_space_is_reused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), None);
    let value = vec![b'x'; 50_000];
    for round in 0..20 {
        for key in 0..20 {
            store.txn(Txn::put(format!("/{key}"), value.clone())).await.unwrap();
        }
        if round > 0 {
            store.compact(store.current_revision().await.unwrap()).await.unwrap();
        }
    }
    let live = 20 * value.len() as u64;
    let cleaned = async || store.status().await.unwrap().size_in_use < live + live / 10;
    until("old versions are removed", cleaned).await;
    let status = store.status().await.unwrap();
    // 20 MB were written.
    assert!(status.size_on_disk < 8 << 20, "{status:?}");
}

#[tokio::test]
async fn snapshot_during_writes_has_one_revision() {
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(open(folder.path(), None));
    for turn in 0..100 {
        store.txn(Txn::put(format!("/{}", turn % 10), format!("{turn}"))).await.unwrap();
    }
    store.compact(50).await.unwrap();
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for turn in 100..200 {
                store.txn(Txn::put(format!("/{}", turn % 10), format!("{turn}"))).await.unwrap();
            }
        }
    });
    let copy = copies.path().join("copy");
    store.snapshot(&copy).await.unwrap();
    writer.await.unwrap();
    let again = store.snapshot(&copy).await.unwrap_err();
    assert!(matches!(again, StoreError::Io(_)), "{again}");

    let copied = open(&copy, None);
    let revision = copied.current_revision().await.unwrap();
    assert_eq!(copied.compacted_revision().await.unwrap(), 50);
    for at in [60, revision] {
        let range = Range { revision: Some(at), ..Range::all("/") };
        let (ours, theirs) = (store.range(range.clone()).await.unwrap(), copied.range(range).await.unwrap());
        assert_eq!(ours.items, theirs.items, "at {at}");
    }
}

#[tokio::test]
async fn closing_ends_watches_and_unlocks_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), None);
    let mut watch = store.watch("/", 0).await.unwrap();
    drop(store);
    assert!(matches!(watch.next().await, Some(Err(StoreError::Closed))));
    assert!(watch.next().await.is_none());
    // The stream is still open.
    open(folder.path(), None);
}

#[tokio::test]
async fn files_are_readable_only_by_the_owner() {
    rustix::process::umask(rustix::fs::Mode::empty());
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let set = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("store");
    std::fs::create_dir(&folder).unwrap();
    set(&folder, 0o755);
    for _ in 0..2 {
        let store = Embedded::open(&folder, &Options::default()).unwrap();
        let copy = tempfile::tempdir_in(parent.path()).unwrap();
        set(copy.path(), 0o755);
        store.snapshot(copy.path()).await.unwrap();
        assert_eq!(mode(&folder), 0o700);
        let files = [&folder, copy.path()].map(|folder| folder.read_dir().unwrap());
        let files: Vec<_> = files.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 4, "{files:?}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
        drop(store);
        // Sets modes that older versions may have left.
        set(&folder, 0o755);
        for file in folder.read_dir().unwrap() {
            set(&file.unwrap().path(), 0o644);
        }
    }
}
