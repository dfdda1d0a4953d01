//! Faults that the embedded engine survives: kill -9, a second process, a full disk, a damaged file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nave_store::embedded::faults::{Fault, Faults};
use nave_store::embedded::{Embedded, Options};
use nave_store::{Expect, Range, Store, StoreError, Txn, TxnOutcome};

const WRITER: &str = env!("CARGO_BIN_EXE_store-writer");

fn open(folder: &Path) -> Embedded {
    Embedded::open(folder, &Options::default()).unwrap()
}

/// Parses `acknowledged KEY REVISION` into (revision, key).
fn acknowledged(line: &str) -> Option<(u64, String)> {
    let (key, revision) = line.strip_prefix("acknowledged ")?.split_once(' ')?;
    Some((revision.parse().ok()?, key.to_owned()))
}

/// Checks that every acknowledged key has its value and that the next write gets the next revision.
async fn check(folder: &Path, acknowledged: &BTreeMap<u64, String>) {
    let store = open(folder);
    for (revision, key) in acknowledged {
        let found =
            store.get(key, None).await.unwrap().unwrap_or_else(|| panic!("{key} at {revision} is lost"));
        assert_eq!(found.mod_revision, *revision, "{key}");
        assert_eq!(found.value, key.repeat(200).as_bytes(), "{key}");
    }
    let current = store.current_revision().await.unwrap();
    assert!(current >= *acknowledged.keys().last().unwrap());
    let all = store.range(Range::all("/")).await.unwrap();
    assert_eq!(all.items.len() as u64, current - 1, "every revision was a creation");
    let outcome = store.txn(Txn::put("/after", "x").expecting(Expect::Absent)).await.unwrap();
    assert_eq!(outcome, TxnOutcome::Committed { revision: current + 1 });
}

#[tokio::test]
async fn kill_9_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(WRITER).arg(folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = BTreeMap::new();
    while seen.len() < 3000 {
        let line = lines.next().expect("the writer is running").unwrap();
        seen.extend(acknowledged(&line));
    }
    // SIGKILL during the writes.
    child.kill().unwrap();
    child.wait().unwrap();
    seen.extend(lines.map_while(Result::ok).filter_map(|line| acknowledged(&line)));
    check(folder.path(), &seen).await;
}

/// Rounds write into the same folder and start where the last kill left it. Kills hit the opening and repair of the file,
/// commits, and acknowledgements.
#[tokio::test]
async fn kill_9_at_200_random_points_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(0x5eed_2026);
    let (mut current, mut all) = (1, BTreeMap::new());
    for round in 0..200 {
        let prefix = format!("/{round}");
        let mut child =
            Command::new(WRITER).arg(folder.path()).arg(&prefix).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = BTreeMap::new();
        if random.below(4) == 0 {
            // Before or while the file is opened.
            std::thread::sleep(Duration::from_micros(random.below(20_000)));
        } else {
            let wanted = random.below(100) as usize;
            assert_eq!(lines.next().as_deref(), Some("open"), "round {round}");
            while seen.len() < wanted {
                let line = lines.next().expect("the writer is running");
                seen.extend(acknowledged(&line));
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        seen.extend(lines.filter_map(|line| acknowledged(&line)));
        let store = open(folder.path());
        let found = store.range(Range::all(format!("{prefix}/"))).await.unwrap().items;
        for item in &found {
            assert_eq!(item.value, item.key.repeat(200).as_bytes(), "round {round}: {} is damaged", item.key);
        }
        current += found.len() as u64;
        assert_eq!(store.current_revision().await.unwrap(), current, "round {round}");
        let found: BTreeMap<u64, String> =
            found.into_iter().map(|item| (item.mod_revision, item.key.to_string())).collect();
        for (revision, key) in &seen {
            assert_eq!(found.get(revision), Some(key), "round {round}: {key} is lost");
        }
        all.extend(found);
    }
    check(folder.path(), &all).await;
}

/// Writes fail at random points of commits, as torn writes, failed syncs or a full disk, while others wait. Then the file
/// works again.
#[tokio::test]
async fn failed_writes_leave_acknowledged_ones_only() {
    let mut random = Random(0x5eed_2027);
    for round in 0..60 {
        let folder = tempfile::tempdir().unwrap();
        let faults = Arc::new(Faults::default());
        let options = Options::default();
        let store = Embedded::open_with_faults(folder.path(), &options, Arc::clone(&faults)).unwrap();
        let store = Arc::new(store);
        let fault = [Fault::ShortWrite, Fault::SyncFails, Fault::NoSpace][round % 3];
        faults.inject(fault, random.below(if fault == Fault::SyncFails { 12 } else { 120 }));
        let writers: Vec<_> =
            (0..8).map(|writer| tokio::spawn(write_until_failure(Arc::clone(&store), writer))).collect();
        let mut seen = BTreeMap::new();
        for writer in writers {
            let (written, error) = writer.await.unwrap();
            let is_full = matches!(error, StoreError::NoSpace(_));
            assert!(fault != Fault::NoSpace || is_full || matches!(error, StoreError::Recovering), "{error}");
            seen.extend(written);
        }
        assert_eq!(
            store.status().await.unwrap().no_space,
            fault == Fault::NoSpace,
            "round {round}: {fault:?}"
        );
        faults.clear();
        let again = async {
            loop {
                match store.txn(Txn::create("/again", "/again".repeat(200))).await {
                    Ok(TxnOutcome::Committed { revision }) => return revision,
                    // A write whose outcome was unknown.
                    Ok(TxnOutcome::Failed { current, .. }) => return current.unwrap().mod_revision,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let revision =
            tokio::time::timeout(Duration::from_mins(1), again).await.expect("writes succeed again");
        seen.insert(revision, "/again".to_owned());
        assert!(!store.status().await.unwrap().no_space);
        drop(store);
        // An unacknowledged write may be there, but only complete.
        let store = open(folder.path());
        for item in store.range(Range::all("/")).await.unwrap().items {
            assert_eq!(item.value, item.key.repeat(200).as_bytes(), "round {round}: {} is damaged", item.key);
        }
        drop(store);
        check(folder.path(), &seen).await;
    }
}

async fn write_until_failure(store: Arc<Embedded>, writer: usize) -> (Vec<(u64, String)>, StoreError) {
    let mut written = Vec::new();
    for turn in 0_u64.. {
        let key = format!("/{writer}/{turn}");
        match store.txn(Txn::create(key.as_str(), key.repeat(200))).await {
            Ok(TxnOutcome::Committed { revision }) => written.push((revision, key)),
            Ok(failed) => panic!("{failed:?}"),
            Err(error) => return (written, error),
        }
    }
    unreachable!("writes fail")
}

/// A generator of numbers (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[tokio::test]
async fn rejects_a_second_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let child = Command::new(WRITER).arg(folder.path()).output().unwrap();
    let said = String::from_utf8(child.stdout).unwrap();
    assert_eq!(child.status.code(), Some(3), "{said}");
    assert!(said.contains(&folder.path().display().to_string()), "names the folder: {said}");
    assert!(said.contains(&format!("pid {}", std::process::id())), "names the process: {said}");
    drop(store);
    open(folder.path());
}

#[tokio::test]
async fn full_disk_fails_only_writes() {
    let folder = tempfile::tempdir().unwrap();
    // Limits files to 4 MiB. Ignores SIGXFSZ, so that writes fail with an error.
    let script = "trap '' XFSZ; ulimit -S -f 8192; exec \"$0\" \"$1\"";
    let mut child = Command::new("sh")
        .args(["-c", script, WRITER])
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said: Vec<String> = Vec::new();
    while !said.last().is_some_and(|line| line.starts_with("read ") || line.starts_with("failed ")) {
        said.push(lines.next().expect("the writer ends with a read"));
    }
    let mut seen: BTreeMap<_, _> = said.iter().filter_map(|line| acknowledged(line)).collect();
    assert!(seen.len() > 100, "it wrote until the disk was full");
    assert_eq!(said.iter().filter(|line| line.starts_with("full ")).count(), 32, "each writer got the error");
    assert!(!said.iter().any(|line| line.starts_with("failed")), "reads still work: {:?}", said.last());
    assert!(said.contains(&format!("count {}", seen.len())), "nothing else was written");

    let unlimited =
        Command::new("prlimit").args(["--pid", &child.id().to_string(), "--fsize=unlimited"]).status();
    assert!(unlimited.expect("prlimit, of util-linux").success());
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let again: BTreeMap<_, _> = lines.filter_map(|line| acknowledged(&line)).collect();
    assert_eq!(again.values().collect::<Vec<_>>(), ["/again"], "writes succeed again when there is space");
    assert!(child.wait().unwrap().success());
    seen.extend(again);
    check(folder.path(), &seen).await;
}

#[tokio::test]
async fn damaged_file_fails_to_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for key in 0..200 {
        store.txn(Txn::put(format!("/{key}"), vec![b'x'; 10_000])).await.unwrap();
    }
    drop(store);
    let file = folder.path().join("store.redb");
    let whole = std::fs::read(&file).unwrap();
    for damaged in [&whole[..whole.len() / 2], &whole[..100], &vec![0xAA; whole.len()][..]] {
        std::fs::write(&file, damaged).unwrap();
        match Embedded::open(folder.path(), &Options::default()) {
            Err(StoreError::Corrupt(_) | StoreError::Io(_)) => {}
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("opened a file of {} damaged bytes", damaged.len()),
        }
    }
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(open(folder.path()).count("/").await.unwrap(), 200);
}
