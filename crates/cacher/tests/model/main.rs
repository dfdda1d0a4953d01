//! Random writers, store faults and readers, compared with an oracle that replays the store's log.
//!
//! Each watcher must get exactly the events of the log that match its selector, in order, without gaps or duplicates,
//! until it ends for a valid reason. Each list and each page must show the state at its revision.
//!
//! A failing schedule is shrunk and printed with the seed of its run. To repeat it, run
//! `PROPTEST_RNG_SEED=… cargo nextest run -p nave-cacher --test model`. Failures are also saved in
//! `proptest-regressions`; later runs try them first. `PROPTEST_CASES` sets the number of schedules.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test helpers may panic")]

mod oracle;
mod readers;
mod selection;
#[path = "../support/mod.rs"]
mod support;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use nave_cacher::{Cacher, CacherConfig, WatchError, WatchRequest, WatchStart, WindowBounds};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::time::Instant;

use oracle::{Model, Oracle};
use readers::{Pager, Watch};
use selection::{LABELS, Selection};
use support::{FakeStore, PREFIX, TextDecoder};

#[derive(Clone, Debug)]
enum Op {
    Put { key: u8, node: u8, labels: [Option<u8>; 2] },
    Damage { key: u8 },
    Delete { key: u8 },
    WriteElsewhere,
    Release { events: u8 },
    Cut,
    FailRange,
    Compact { back: u8 },
    Watch { back: i8, selection: Selection, bookmarks: bool, seconds: Option<u8> },
    WatchState { selection: Selection, bookmarks: bool },
    Step { watcher: u8 },
    Drain { watcher: u8 },
    Leave { watcher: u8 },
    List { selection: Selection },
    ListAt { back: u8, keep: bool },
    Page { selection: Selection, limit: u8 },
    NextPage { pager: u8 },
    Wait { ahead: i8 },
    DropEncodings,
    Pass { millis: u32 },
}

fn op() -> impl Strategy<Value = Op> {
    let label = || prop::option::of(0..3_u8);
    let selection = Selection::any;
    prop_oneof![
        12 => (0..8_u8, 0..3_u8, [label(), label()])
            .prop_map(|(key, node, labels)| Op::Put { key, node, labels }),
        1 => (0..8_u8).prop_map(|key| Op::Damage { key }),
        5 => (0..8_u8).prop_map(|key| Op::Delete { key }),
        2 => Just(Op::WriteElsewhere),
        8 => (0..12_u8).prop_map(|events| Op::Release { events }),
        1 => Just(Op::Cut),
        1 => Just(Op::FailRange),
        1 => (0..6_u8).prop_map(|back| Op::Compact { back }),
        4 => (-3..12_i8, selection(), any::<bool>(), prop::option::weighted(0.2, 1..200_u8))
            .prop_map(|(back, selection, bookmarks, seconds)| Op::Watch { back, selection, bookmarks, seconds }),
        2 => (selection(), any::<bool>())
            .prop_map(|(selection, bookmarks)| Op::WatchState { selection, bookmarks }),
        4 => (0..8_u8).prop_map(|watcher| Op::Step { watcher }),
        4 => (0..8_u8).prop_map(|watcher| Op::Drain { watcher }),
        1 => (0..8_u8).prop_map(|watcher| Op::Leave { watcher }),
        2 => selection().prop_map(|selection| Op::List { selection }),
        3 => (0..12_u8, any::<bool>()).prop_map(|(back, keep)| Op::ListAt { back, keep }),
        2 => (selection(), 1..4_u8).prop_map(|(selection, limit)| Op::Page { selection, limit }),
        4 => (0..8_u8).prop_map(|pager| Op::NextPage { pager }),
        1 => (-3..3_i8).prop_map(|ahead| Op::Wait { ahead }),
        1 => Just(Op::DropEncodings),
        10 => prop_oneof![8 => Just(1_u32), 1 => Just(100), 1 => Just(61_000)]
            .prop_map(|millis| Op::Pass { millis }),
    ]
}

const WINDOW: WindowBounds =
    WindowBounds { min: 4, max: 8, max_bytes: 1 << 20, fresh: Duration::from_secs(75) };

struct World {
    store: FakeStore,
    cacher: Arc<Cacher>,
    watches: Vec<Watch>,
    pagers: Vec<Pager>,
}

impl World {
    async fn run(ops: &[Op], batch: usize, page_size: usize) {
        let store = FakeStore::default();
        store.with(|inner| inner.batch = batch);
        let config = CacherConfig {
            window: WINDOW,
            page_size,
            kept_snapshots: 3,
            indexed_fields: vec![0],
            ..CacherConfig::new("pods", PREFIX, true)
        };
        let cacher = Cacher::start(config, Arc::new(store.clone()), Arc::new(TextDecoder));
        let mut world = Self { store, cacher, watches: Vec::new(), pagers: Vec::new() };
        for op in ops {
            world.apply(op).await;
        }
        world.finish().await;
    }

    async fn apply(&mut self, op: &Op) {
        match op {
            Op::Put { .. } | Op::Damage { .. } | Op::Delete { .. } | Op::WriteElsewhere => self.write(op),
            Op::Release { .. } | Op::Cut | Op::FailRange | Op::Compact { .. } => self.disturb(op),
            Op::Watch { back, selection, bookmarks, seconds } => {
                let revision = self.cacher.revision().saturating_add_signed(-i64::from(*back));
                let seconds = seconds.map(|seconds| Duration::from_secs(seconds.into()));
                let deadline = seconds.map(|seconds| Instant::now() + seconds);
                self.watch(WatchStart::After(revision), selection, *bookmarks, deadline);
            }
            Op::WatchState { selection, bookmarks } => {
                self.watch(WatchStart::State(self.cacher.snapshot()), selection, *bookmarks, None);
            }
            Op::Step { watcher } => self.step(*watcher, 1),
            Op::Drain { watcher } => self.step(*watcher, usize::MAX),
            Op::Leave { watcher } => {
                if let Some(at) = usize::from(*watcher).checked_rem(self.watches.len()) {
                    self.watches.swap_remove(at);
                }
            }
            Op::List { selection } => self.check_list(selection),
            Op::ListAt { back, keep } => self.check_list_at(u64::from(*back), *keep),
            Op::Page { selection, limit } => {
                let oracle = Oracle(&self.store);
                let pager = Pager::start(&self.cacher, &oracle, selection.clone(), usize::from(*limit));
                self.pagers.push(pager);
            }
            Op::NextPage { pager } => self.next_page(*pager),
            Op::Wait { ahead } => self.wait(i64::from(*ahead)).await,
            Op::DropEncodings => self.cacher.drop_encodings(),
            Op::Pass { millis } => tokio::time::sleep(Duration::from_millis((*millis).into())).await,
        }
    }

    fn write(&self, op: &Op) {
        // Both namespaces have the same names.
        let key = |key: &u8| format!("{PREFIX}ns{}/pod{}", key % 2, key / 2);
        match op {
            Op::Put { key: k, node, labels } => {
                let labels = LABELS.iter().zip(labels);
                let labels = labels.filter_map(|(label, value)| Some(format!("{label}={}", (*value)?)));
                let labels = labels.collect::<Vec<_>>().join(",");
                self.store.put(&key(k), format!("node{node};{labels}"));
            }
            Op::Damage { key: k } => {
                self.store.put(&key(k), "!");
            }
            Op::Delete { key: k } => {
                let key = key(k);
                if self.store.with(|inner| inner.state_at(u64::MAX).contains_key(&*key)) {
                    self.store.delete(&key);
                }
            }
            _ => {
                self.store.put("/registry/nodes/n", "");
            }
        }
    }

    fn disturb(&self, op: &Op) {
        match *op {
            Op::Release { events } => self.store.with(|inner| {
                inner.released = (inner.released + u64::from(events)).min(inner.revision());
            }),
            Op::Compact { back } => self.store.with(|inner| {
                inner.compacted = inner.compacted.max(inner.revision().saturating_sub(u64::from(back)));
            }),
            Op::FailRange => self.store.with(|inner| inner.failing_ranges = 1),
            _ => self.store.cut(),
        }
    }

    fn watch(
        &mut self,
        start: WatchStart,
        selection: &Selection,
        bookmarks: bool,
        deadline: Option<Instant>,
    ) {
        let (after, initial) = match &start {
            WatchStart::After(revision) => (*revision, Vec::new()),
            WatchStart::State(snapshot) => {
                (snapshot.revision(), Oracle(&self.store).selected_at(snapshot.revision(), selection))
            }
        };
        let request = WatchRequest { start, filter: selection.filter(), bookmarks, deadline };
        match self.cacher.watch(request) {
            Ok(watcher) => {
                let lists = self.cacher.stats().initializations.get();
                let (selection, delivered, ended) = (selection.clone(), Vec::new(), false);
                self.watches.push(Watch {
                    watcher,
                    selection,
                    after,
                    initial,
                    bookmarks,
                    deadline,
                    delivered,
                    ended,
                    lists,
                });
            }
            Err(WatchError::Expired { oldest, .. }) => {
                assert!(after < oldest || !self.cacher.is_ready(), "history reaches back to {oldest}");
            }
        }
    }

    fn step(&mut self, watcher: u8, steps: usize) {
        let Some(at) = usize::from(watcher).checked_rem(self.watches.len()) else { return };
        let lists = self.cacher.stats().initializations.get();
        self.watches[at].poll(&Oracle(&self.store), steps, lists);
    }

    fn next_page(&mut self, pager: u8) {
        let Some(at) = usize::from(pager).checked_rem(self.pagers.len()) else { return };
        if !self.pagers[at].next(&self.cacher, &Oracle(&self.store)) {
            self.pagers.swap_remove(at);
        }
    }

    /// Checks that a waiting reader gets a correct answer in time.
    async fn wait(&self, ahead: i64) {
        let revision = self.cacher.revision().saturating_add_signed(ahead);
        let (began, patience) = (Instant::now(), Duration::from_secs(1));
        let reached = self.cacher.wait_until(revision, patience).await;
        assert_eq!(reached.is_ok(), self.cacher.revision() >= revision.max(1));
        assert!(reached.is_ok() || began.elapsed() >= patience);
    }

    fn check_list(&self, selection: &Selection) {
        let (snapshot, filter) = (self.cacher.snapshot(), selection.filter());
        let expected = Oracle(&self.store).selected_at(snapshot.revision(), selection);
        let listed: Vec<_> =
            snapshot.select(&filter, None).map(|object| Model::from_object(object)).collect();
        assert_eq!(listed, expected);
        for (position, model) in expected.iter().enumerate() {
            let rest = snapshot.select(&filter, Some(&model.key)).map(|object| Model::from_object(object));
            assert_eq!(rest.collect::<Vec<_>>(), expected[position + 1..]);
            assert_eq!(
                snapshot.get(&model.key).map(|object| Model::from_object(object)).as_ref(),
                Some(model)
            );
        }
    }

    fn check_list_at(&self, back: u64, keep: bool) {
        let revision = self.cacher.revision().saturating_sub(back);
        let oldest = self.cacher.introspect().window.oldest;
        let Some(snapshot) = self.cacher.snapshot_at(revision) else {
            assert!(revision < oldest, "revision {revision} lies in the window, which starts at {oldest}");
            return;
        };
        assert_eq!(snapshot.revision(), revision);
        let listed: Vec<_> = snapshot.range(PREFIX, None).map(|object| Model::from_object(object)).collect();
        assert_eq!(listed, Oracle(&self.store).selected_at(revision, &Selection::default()));
        if keep {
            self.cacher.keep(&snapshot);
        }
    }

    /// Checks that every watcher that has not ended has received all its events once the store is complete and idle.
    async fn finish(&mut self) {
        self.store.with(|inner| inner.failing_ranges = 0);
        self.store.release();
        let revision = self.store.with(|inner| inner.revision());
        let reached = self.cacher.wait_until(revision, Duration::from_mins(1)).await;
        assert_eq!(reached, Ok(()));
        self.check_list(&Selection::default());
        let lists = self.cacher.stats().initializations.get();
        let oracle = Oracle(&self.store);
        for watch in &mut self.watches {
            self.cacher.drop_encodings();
            watch.poll(&oracle, usize::MAX, lists);
            if !watch.ended {
                assert_eq!(watch.delivered, oracle.events_after(watch.after, &watch.selection));
                assert_eq!(watch.watcher.reached(), revision);
            }
        }
        for pager in &mut self.pagers {
            while pager.next(&self.cacher, &oracle) {}
        }
        self.watches.clear();
        assert!(self.cacher.introspect().watchers.is_empty());
    }
}

/// Sets the number of schedules and the seed, and prints the seed.
fn config() -> ProptestConfig {
    let mut config = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(3000),
    };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(0),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    eprintln!("PROPTEST_RNG_SEED={seed} runs these schedules again");
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn readers_agree_with_the_log(
        ops in prop::collection::vec(op(), 1..120),
        batch in 0..4_usize,
        page_size in 1..6_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(World::run(&ops, batch, page_size));
    }
}
