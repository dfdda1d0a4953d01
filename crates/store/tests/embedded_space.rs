//! The embedded engine on a full disk, and files that an interrupted start leaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nave_store::embedded::faults::Faults;
use nave_store::embedded::{Embedded, Options};
use nave_store::{Store, StoreError, Txn, TxnOutcome};

const PATIENCE: Duration = Duration::from_secs(30);
const KEYS: usize = 2000;

/// Opens a store of 12 MB on a disk, fills the disk, and returns the store.
async fn full_store(folder: &Path, faults: &Arc<Faults>) -> Embedded {
    let options = Options { history: None, ..Options::default() };
    let store = Embedded::open_with_faults(folder, &options, Arc::clone(faults)).unwrap();
    for key in 0..KEYS {
        store.txn(Txn::put(format!("/{key}"), vec![b'x'; 6000])).await.unwrap();
    }
    faults.limit_disk(&folder.join("store.redb"), 1 << 20).unwrap();
    let error = loop {
        if let Err(error) = store.txn(Txn::put("/more", vec![b'x'; 100_000])).await {
            break error;
        }
    };
    assert!(matches!(error, StoreError::NoSpace(_)), "{error}");
    store
}

async fn until_writes_succeed(store: &Embedded) {
    let writes = async {
        while store.txn(Txn::put("/again", "x")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, writes).await.expect("writes succeed again");
    assert!(!store.status().await.unwrap().no_space);
}

/// As etcd under its alarm, a full disk takes deletions, and no other writes that would use up their space.
#[tokio::test]
async fn deletions_succeed_on_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let store = full_store(folder.path(), &faults).await;
    for key in 0..KEYS / 2 {
        let deleted = store.txn(Txn::delete(format!("/{key}"))).await.unwrap();
        assert!(matches!(deleted, TxnOutcome::Committed { .. }));
        // Other writes take the space that is left, but not that of deletions.
        match store.txn(Txn::put("/more", vec![b'x'; 100_000])).await {
            Ok(_) | Err(StoreError::NoSpace(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    faults.free_space(64 << 20);
    until_writes_succeed(&store).await;
    assert_eq!(store.count("/").await.unwrap() as usize, KEYS / 2 + 2);
}

/// Deletions that share a commit with other writes are not refused with them.
#[tokio::test]
async fn deletions_are_committed_without_the_writes_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let options = Options { history: None, ..Options::default() };
    let store = Arc::new(Embedded::open_with_faults(folder.path(), &options, Arc::clone(&faults)).unwrap());
    for key in 0..40 {
        store.txn(Txn::put(format!("/{key}"), "x")).await.unwrap();
    }
    let before = store.current_revision().await.unwrap();
    faults.limit_disk(&folder.path().join("store.redb"), 64 << 10).unwrap();
    // Holds the writer, so that what follows shares a commit.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let holder = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let mut is_first = true;
            let hold = store.transact(move |transaction| {
                if std::mem::take(&mut is_first) {
                    held.recv().expect("the sender is there");
                }
                Ok(Ok::<_, Infallible>(transaction.revision()))
            });
            hold.await
        }
    });
    let writes: Vec<_> = (0..40)
        .map(|key| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let put = store.txn(Txn::put(format!("/{key}"), vec![b'x'; 80_000]));
                let delete = store.txn(Txn::delete(format!("/{key}")));
                let more = store.transact(move |transaction| {
                    transaction.put(&format!("/{key}/more"), vec![b'x'; 5000].into(), 0);
                    Ok(Ok::<_, Infallible>(()))
                });
                // In this order.
                let other = store.transact(move |transaction| {
                    transaction.delete(&format!("/{key}").into());
                    Ok(Ok::<_, Infallible>(transaction.revision()))
                });
                if key % 2 == 0 {
                    let (put, deleted, more) = tokio::join!(put, delete, more);
                    (put.map(drop), deleted.map(drop), more.map(drop))
                } else {
                    let (put, deleted, more) = tokio::join!(put, other, more);
                    (put.map(drop), deleted.map(drop), more.map(drop))
                }
            })
        })
        .collect();
    // The tasks have queued their writes once they wait for the answers.
    tokio::task::yield_now().await;
    release.send(()).unwrap();
    holder.await.unwrap().unwrap().unwrap();
    for write in writes {
        let (put, deleted, more) = write.await.unwrap();
        assert!(matches!(put, Err(StoreError::NoSpace(_))), "{put:?}");
        assert!(matches!(more, Err(StoreError::NoSpace(_))), "{more:?}");
        assert!(deleted.is_ok(), "{deleted:?}");
    }
    assert_eq!(store.count("/").await.unwrap(), 0);
    assert_eq!(store.current_revision().await.unwrap(), before + 40);
    assert!(store.status().await.unwrap().no_space);
    faults.free_space(64 << 20);
    until_writes_succeed(&store).await;
}

/// Pages that a compaction frees in the file are space for other writes.
#[tokio::test]
async fn a_compaction_makes_room_on_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let store = full_store(folder.path(), &faults).await;
    for key in 0..KEYS {
        store.txn(Txn::delete(format!("/{key}"))).await.unwrap();
    }
    store.compact(store.current_revision().await.unwrap()).await.unwrap();
    until_writes_succeed(&store).await;
}

#[tokio::test]
async fn an_empty_file_is_not_a_new_store() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("store.redb"), "").unwrap();
    match Embedded::open(folder.path(), &Options::default()) {
        Err(StoreError::Corrupt(why)) => assert!(why.contains("empty"), "{why}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("opened an empty file"),
    }
}

/// The first start is interrupted before the file is complete.
#[tokio::test]
async fn an_interrupted_creation_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for leftover in ["store.redb.new", "store.redb.partial"] {
        std::fs::write(folder.path().join(leftover), "incomplete").unwrap();
    }
    let store = Embedded::open(folder.path(), &Options::default()).unwrap();
    store.txn(Txn::put("/a", "x")).await.unwrap();
    drop(store);
    let store = Embedded::open(folder.path(), &Options::default()).unwrap();
    assert_eq!(store.count("/").await.unwrap(), 1);
    assert!(!folder.path().join("store.redb.new").exists());
}
