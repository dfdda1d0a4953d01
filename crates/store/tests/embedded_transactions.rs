//! Transactions of several writes at one revision, against a model: reads at revisions, watches, compaction, leases,
//! restarts and copies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use nave_store::embedded::{
    Content, Embedded, KeyRange, MAX_WRITES, Options, Query, Transaction, maintenance,
};
use nave_store::{EventKind, Store, StoreError, Txn};
use proptest::prelude::*;
use tempfile::TempDir;

const KEYS: [&str; 6] = ["/a", "/a/1", "/a/2", "/b", "/b/1", "/c"];
const PREFIXES: [&str; 4] = ["/", "/a", "/b/", "/c"];
const LEASES: [i64; 2] = [7, 8];

/// A key, and a put with a value and maybe a lease, or a deletion.
type KeyWrite = (usize, Option<(u8, Option<usize>)>);

/// One operation. Numbers choose among the possibilities of the moment.
#[derive(Clone, Debug)]
enum Step {
    /// Writes keys in one transaction.
    Write(Vec<KeyWrite>),
    Single(usize, u8),
    Revoke(usize),
    Compact(u16),
    ReadAt(u16),
    /// Watches a prefix from a revision, and again from one that it has seen.
    Watch(u16, usize, u16),
    Restart,
    Snapshot,
    Defragment,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write =
        (0..KEYS.len(), prop::option::of((any::<u8>(), prop::option::weighted(0.3, 0..LEASES.len()))));
    let step = prop_oneof![
        8 => prop::collection::vec(write, 0..6).prop_map(Step::Write),
        2 => (0..KEYS.len(), any::<u8>()).prop_map(|(key, value)| Step::Single(key, value)),
        1 => (0..LEASES.len()).prop_map(Step::Revoke),
        1 => any::<u16>().prop_map(Step::Compact),
        4 => any::<u16>().prop_map(Step::ReadAt),
        4 => (any::<u16>(), 0..PREFIXES.len(), any::<u16>()).prop_map(|(at, prefix, again)| Step::Watch(at, prefix, again)),
        1 => Just(Step::Restart),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Defragment),
    ];
    prop::collection::vec(step, 1..40)
}

/// A version of a key: value, revision of the creation, revision, version, lease.
type Version = (String, u64, u64, u64, i64);
/// A change: key, revision, and the value unless it is a deletion.
type Change = (&'static str, u64, Option<String>);

/// Every state and every change since the start, and the store.
struct World {
    folder: TempDir,
    store: Option<Embedded>,
    /// States by revision, from revision 1 on.
    states: Vec<BTreeMap<&'static str, Version>>,
    changes: Vec<Change>,
    compacted: u64,
}

fn open(folder: &Path) -> Embedded {
    Embedded::open(folder, &Options { history: None, ..Options::default() }).unwrap()
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        for lease in LEASES {
            store.grant_lease(lease, Duration::from_hours(1)).await.unwrap();
        }
        Self { folder, store: Some(store), states: vec![BTreeMap::new()], changes: Vec::new(), compacted: 0 }
    }

    fn store(&self) -> &Embedded {
        self.store.as_ref().unwrap()
    }

    fn revision(&self) -> u64 {
        self.states.len() as u64
    }

    fn state(&self, revision: u64) -> &BTreeMap<&'static str, Version> {
        &self.states[revision as usize - 1]
    }

    /// Returns a revision from `first` to the current one.
    fn choose(&self, number: u16, first: u64) -> u64 {
        first + u64::from(number) % (self.revision() + 1 - first)
    }

    /// Adds a revision with these changes: each key with its value and lease, or a deletion.
    fn apply(&mut self, writes: &[(&'static str, Option<(String, i64)>)]) {
        if writes.is_empty() {
            return;
        }
        let (mut state, revision) = (self.state(self.revision()).clone(), self.revision() + 1);
        for (key, write) in writes {
            let before = state.remove(key);
            self.changes.push((key, revision, write.as_ref().map(|(value, _)| value.clone())));
            if let Some((value, lease)) = write {
                let (created, version) =
                    before.map_or((revision, 1), |(_, created, _, version, _)| (created, version + 1));
                state.insert(key, (value.clone(), created, revision, version, *lease));
            }
        }
        self.states.push(state);
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Write(writes) => self.write(writes).await,
            Step::Single(key, value) => {
                self.store().txn(Txn::put(KEYS[key], value.to_string())).await.unwrap();
                self.apply(&[(KEYS[key], Some((value.to_string(), 0)))]);
            }
            Step::Revoke(lease) => {
                let lease = LEASES[lease];
                self.store().revoke_lease(lease).await.unwrap();
                let held = self.state(self.revision()).iter().filter(|(_, version)| version.4 == lease);
                let deletions: Vec<_> = held.map(|(key, _)| (*key, None)).collect();
                self.apply(&deletions);
                self.store().grant_lease(lease, Duration::from_hours(1)).await.unwrap();
            }
            Step::Compact(number) => {
                let revision = self.choose(number, 1);
                match self.store().compact(revision).await {
                    Ok(()) => self.compacted = revision,
                    Err(StoreError::Compacted { compacted }) => {
                        assert!(revision <= self.compacted && compacted == self.compacted);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Step::ReadAt(number) => {
                let revision = self.choose(number, self.compacted.max(1));
                self.check_state(self.store(), revision).await;
            }
            Step::Watch(number, prefix, again) => self.watch(number, PREFIXES[prefix], again).await,
            Step::Restart => {
                self.store = None;
                self.store = Some(open(self.folder.path()));
                self.check(self.store()).await;
            }
            Step::Snapshot => {
                let copy = tempfile::tempdir().unwrap();
                self.store().snapshot(copy.path()).await.unwrap();
                self.check(&open(copy.path())).await;
            }
            Step::Defragment => {
                self.store = None;
                maintenance::check(self.folder.path()).unwrap();
                maintenance::defragment(self.folder.path()).unwrap();
                self.store = Some(open(self.folder.path()));
                self.check(self.store()).await;
            }
        }
    }

    async fn write(&mut self, writes: Vec<KeyWrite>) {
        let mut kept: Vec<(&'static str, Option<(String, i64)>)> = Vec::new();
        for (key, write) in writes {
            let key = KEYS[key];
            let is_deletable = self.state(self.revision()).contains_key(key);
            if kept.iter().any(|(other, _)| *other == key) || (write.is_none() && !is_deletable) {
                continue;
            }
            let write =
                write.map(|(value, lease)| (value.to_string(), lease.map_or(0, |lease| LEASES[lease])));
            kept.push((key, write));
        }
        let requested = kept.clone();
        let work = move |transaction: &mut Transaction<'_>| {
            for (key, write) in &requested {
                match write {
                    Some((value, lease)) => transaction.put(key, value.clone().into(), *lease),
                    None => transaction.delete(&(*key).into()),
                }
            }
            Ok(Ok::<_, Infallible>(transaction.revision()))
        };
        let revision = self.store().transact(work).await.unwrap().unwrap();
        self.apply(&kept);
        assert_eq!(revision, self.revision());
    }

    async fn check(&self, store: &Embedded) {
        assert_eq!(store.current_revision().await.unwrap(), self.revision());
        assert_eq!(store.compacted_revision().await.unwrap(), self.compacted);
        for revision in self.compacted.max(1)..=self.revision() {
            self.check_state(store, revision).await;
        }
        for lease in LEASES {
            let held = self.state(self.revision()).iter().filter(|(_, version)| version.4 == lease);
            let held: Vec<&str> = held.map(|(key, _)| *key).collect();
            let keys = store.lease(lease).unwrap().keys;
            assert_eq!(keys.iter().map(|key| &**key).collect::<Vec<_>>(), held);
        }
    }

    async fn check_state(&self, store: &Embedded, revision: u64) {
        let range = KeyRange::new(b"\0", b"\0");
        let query = Query { range, revision: Some(revision), limit: 0, content: Content::Full };
        let found = store.query(query).await.unwrap();
        let found: BTreeMap<_, Version> = found
            .entries
            .iter()
            .map(|entry| {
                let value = String::from_utf8(entry.kv.value.to_vec()).unwrap();
                let lineage = entry.lineage;
                let version =
                    (value, lineage.create_revision, entry.kv.mod_revision, lineage.version, entry.lease);
                (&*entry.kv.key, version)
            })
            .collect();
        assert_eq!(found, *self.state(revision), "at {revision}");
        for key in KEYS {
            let found = store.get(key, Some(revision)).await.unwrap();
            let expected =
                self.state(revision).get(key).map(|(value, _, revision, ..)| (value.as_bytes(), *revision));
            assert_eq!(
                found.as_ref().map(|kv| (&*kv.value, kv.mod_revision)),
                expected,
                "{key} at {revision}"
            );
        }
    }

    /// Reads a watch up to the current revision: first from one revision, then again from after one of its batches.
    async fn watch(&self, number: u16, prefix: &'static str, again: u16) {
        let mut from = self.compacted
            + 1
            + u64::from(number) % (self.revision() + 1 - self.compacted.min(self.revision()));
        for _ in 0..2 {
            let expected: Vec<_> = self
                .changes
                .iter()
                .filter(|(key, revision, _)| *revision >= from && key.starts_with(prefix))
                .cloned()
                .collect();
            let mut watch = self.store().watch(prefix, from).await.unwrap();
            let (mut seen, mut reached) = (Vec::new(), Vec::new());
            while seen.len() < expected.len() {
                let batch = watch.next().await.unwrap().unwrap();
                for event in batch.events {
                    let key = KEYS.into_iter().find(|key| *key == &*event.kv.key).unwrap();
                    let value = (event.kind == EventKind::Put)
                        .then(|| String::from_utf8(event.kv.value.to_vec()).unwrap());
                    seen.push((key, event.kv.mod_revision, value));
                }
                let last = seen.last().map_or(0, |(_, revision, _)| *revision);
                assert!(last <= batch.revision);
                let whole = expected.iter().filter(|(_, revision, _)| *revision <= batch.revision).count();
                assert_eq!(seen.len(), whole, "a batch ends with a whole revision");
                reached.push(batch.revision);
            }
            assert_eq!(seen, expected, "{prefix} from {from}");
            let Some(revision) = reached.get(usize::from(again) % reached.len().max(1)) else { return };
            from = revision + 1;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn agree_with_the_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.run(step).await;
            }
            world.run(Step::Restart).await;
        });
    }
}

/// Writes keys in one transaction.
async fn write_many(store: &Embedded, prefix: &'static str, keys: usize) -> u64 {
    let work = move |transaction: &mut Transaction<'_>| {
        for key in 0..keys {
            transaction.put(&format!("{prefix}{key:05}"), "x".into(), 0);
        }
        Ok(Ok::<_, Infallible>(transaction.revision()))
    };
    store.transact(work).await.unwrap().unwrap()
}

/// More events than the window of the newest ones has, than a step of a watch takes, and than a read of the log does.
#[tokio::test]
async fn revisions_of_any_size_are_watched_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let sizes = [1, 1023, 2, 1500, 3000, 4096, 1, 4500, 9000, 1];
    let mut live = store.watch("/", 0).await.unwrap();
    let mut revisions = Vec::new();
    for size in sizes {
        revisions.push(write_many(&store, "/", size).await);
    }
    let resumed = store.watch("/", revisions[0]).await.unwrap();
    for watch in [&mut live, &mut { resumed }] {
        let (mut seen, mut size) = (BTreeMap::new(), 0);
        while size < sizes.iter().sum::<usize>() {
            let batch = watch.next().await.unwrap().unwrap();
            size += batch.events.len();
            for event in batch.events {
                *seen.entry(event.kv.mod_revision).or_insert(0) += 1;
            }
            assert!(seen.iter().zip(sizes).all(|((_, seen), size)| *seen == size), "{seen:?}");
        }
        assert_eq!(seen.into_keys().collect::<Vec<_>>(), revisions);
    }
}

#[tokio::test]
async fn the_largest_transaction_is_committed_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let revision = write_many(&store, "/", MAX_WRITES).await;
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.current_revision().await.unwrap(), revision);
    assert_eq!(store.count("/").await.unwrap() as usize, MAX_WRITES);
    let work = |transaction: &mut Transaction<'_>| {
        for key in transaction.keys(&KeyRange::new(b"/", b"0"), MAX_WRITES) {
            transaction.delete(&key);
        }
        Ok(Ok::<_, Infallible>(transaction.revision()))
    };
    assert_eq!(store.transact(work).await.unwrap().unwrap(), revision + 1);
    assert_eq!(store.count("/").await.unwrap(), 0);
    assert_eq!(write_many(&store, "/", 1).await, revision + 2);
    store.compact(revision + 2).await.unwrap();
    drop(store);
    maintenance::defragment(folder.path()).unwrap();
    let store = open(folder.path());
    assert_eq!(store.count("/").await.unwrap(), 1);
    let size = store.status().await.unwrap().size_in_use;
    assert!(size < 1000, "{size} bytes for one key: rows are left over");
}

/// A transaction that writes a key again leaves one version of it.
#[tokio::test]
async fn a_later_write_of_a_key_replaces_the_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let work = |transaction: &mut Transaction<'_>| {
        transaction.put("/a", "1".into(), 0);
        transaction.put("/b", "1".into(), 0);
        transaction.put("/a", "2".into(), 0);
        transaction.delete(&"/b".into());
        Ok(Ok::<_, Infallible>(transaction.get("/a")?.unwrap().lineage.version))
    };
    assert_eq!(store.transact(work).await.unwrap(), Ok(1));
    let found = store.get("/a", None).await.unwrap().unwrap();
    assert_eq!((&*found.value, found.mod_revision, store.count("/").await.unwrap()), (&b"2"[..], 2, 1));
}
