//! Random writers, faults of the store and readers against an oracle that replays the store's log.
//!
//! A failing schedule is shrunk and printed; its seed goes to `proptest-regressions` and is run first from then
//! on. `PROPTEST_CASES` sets the number of schedules.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use nave_cacher::{
    CachedObject, Cacher, CacherConfig, Delivery, End, EventType, FieldRef, FieldTerm, Filter, Step,
    WatchError, WatchRequest, WatchStart, Watcher, WindowBounds,
};
use nave_machinery::selector::LabelSelector;
use nave_store::EventKind;
use proptest::prelude::*;
use support::{FakeStore, PREFIX, TextDecoder};

#[derive(Clone, Debug)]
enum Op {
    Put { key: u8, node: u8, tier: u8 },
    Damage { key: u8 },
    Delete { key: u8 },
    WriteElsewhere,
    Release { events: u8 },
    Cut,
    FailRange,
    Compact { back: u8 },
    Watch { back: i8, filter: u8 },
    WatchState { filter: u8 },
    Step { watcher: u8 },
    Drain { watcher: u8 },
    Leave { watcher: u8 },
    List { filter: u8 },
    ListAt { back: u8, keep: bool },
    Pass { millis: u16 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..8_u8, 0..3_u8, 0..3_u8).prop_map(|(key, node, tier)| Op::Put { key, node, tier }),
        1 => (0..8_u8).prop_map(|key| Op::Damage { key }),
        5 => (0..8_u8).prop_map(|key| Op::Delete { key }),
        2 => Just(Op::WriteElsewhere),
        8 => (0..12_u8).prop_map(|events| Op::Release { events }),
        1 => Just(Op::Cut),
        1 => Just(Op::FailRange),
        1 => (0..6_u8).prop_map(|back| Op::Compact { back }),
        4 => (-3..12_i8, 0..8_u8).prop_map(|(back, filter)| Op::Watch { back, filter }),
        2 => (0..8_u8).prop_map(|filter| Op::WatchState { filter }),
        4 => (0..8_u8).prop_map(|watcher| Op::Step { watcher }),
        4 => (0..8_u8).prop_map(|watcher| Op::Drain { watcher }),
        1 => (0..8_u8).prop_map(|watcher| Op::Leave { watcher }),
        2 => (0..8_u8).prop_map(|filter| Op::List { filter }),
        3 => (0..12_u8, any::<bool>()).prop_map(|(back, keep)| Op::ListAt { back, keep }),
        10 => prop_oneof![8 => Just(1_u16), 1 => Just(100), 1 => Just(61_000)].prop_map(|millis| Op::Pass { millis }),
    ]
}

/// An object as the oracle knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    key: Arc<str>,
    revision: u64,
    node: String,
    tier: String,
}

impl Model {
    /// Looks at the object the other way round from the cache: from its text.
    fn matches(&self, filter: u8) -> bool {
        let mut segments = self.key.strip_prefix(PREFIX).unwrap().split('/');
        let (namespace, name) = (segments.next().unwrap(), segments.next().unwrap());
        match filter {
            1 => namespace == "ns1",
            2 => self.node == "node1",
            3 => namespace == "ns0" && name == "pod2",
            4 => self.tier == "1",
            5 => self.node != "node0" && self.tier != "2",
            6 => namespace == "ns1" && self.node == "node2" && self.tier == "0",
            7 => name == "pod4",
            _ => true,
        }
    }

    fn of(object: &CachedObject) -> Self {
        let json = std::str::from_utf8(object.json()).unwrap();
        let (version, text) = json
            .strip_prefix(r#"{"metadata":{"resourceVersion":""#)
            .and_then(|rest| rest.strip_suffix(r#""}"#)?.split_once(r#""},"is":""#))
            .unwrap();
        assert_eq!(version, object.resource_version().to_string());
        Self::parse(object.key(), object.resource_version(), text).unwrap()
    }

    fn parse(key: &Arc<str>, revision: u64, text: &str) -> Option<Self> {
        let (node, tier) = text.split_once(";tier=")?;
        Some(Self { key: Arc::clone(key), revision, node: node.into(), tier: tier.into() })
    }
}

/// The same selections as [`Model::matches`] makes.
fn filter(filter: u8) -> Filter {
    let tier = |selector: &str| LabelSelector::parse(selector).unwrap();
    let (all, node) = (Filter::all(), FieldRef::Declared(0));
    match filter {
        1 => all.in_namespace("ns1"),
        2 => all.with_field(node, "node1"),
        3 => all.in_namespace("ns0").named("pod2"),
        4 => all.with_labels(tier("tier=1")),
        5 => all
            .with_term(FieldTerm { field: node, negated: true, value: "node0".into() })
            .with_labels(tier("tier!=2")),
        6 => all.in_namespace("ns1").with_field(node, "node2").with_labels(tier("tier in (0)")),
        7 => all.named("pod4"),
        _ => all,
    }
}

/// What a watcher may be told: type and object, with the event's revision in it.
type Told = (EventType, Model);

/// One committed change of the resource.
struct Change {
    revision: u64,
    key: Arc<str>,
    old: Option<Model>,
    new: Option<Model>,
}

/// Replays the store's log.
struct Oracle<'a>(&'a FakeStore);

impl Oracle<'_> {
    fn state_at(&self, revision: u64) -> BTreeMap<Arc<str>, Model> {
        let mut state = BTreeMap::new();
        for Change { key, new, .. } in self.changes().into_iter().filter(|change| change.revision <= revision)
        {
            match new {
                Some(new) => state.insert(key, new),
                None => state.remove(&key),
            };
        }
        state
    }

    fn selected_at(&self, revision: u64, filter: u8) -> Vec<Model> {
        self.state_at(revision).into_values().filter(|model| model.matches(filter)).collect()
    }

    /// What a watch after `revision` is to be told.
    fn told_after(&self, revision: u64, filter: u8) -> Vec<Told> {
        let told = |Change { revision, old, new, .. }: Change| {
            let old = old.filter(|old| old.matches(filter));
            let new = new.filter(|new| new.matches(filter));
            match (old, new) {
                (None, None) => None,
                (None, Some(new)) => Some((EventType::Added, new)),
                (Some(_), Some(new)) => Some((EventType::Modified, new)),
                (Some(old), None) => Some((EventType::Deleted, Model { revision, ..old })),
            }
        };
        self.changes().into_iter().filter(|change| change.revision > revision).filter_map(told).collect()
    }

    fn changes(&self) -> Vec<Change> {
        let mut state: BTreeMap<Arc<str>, Model> = BTreeMap::new();
        let mut changes = Vec::new();
        for event in self.0.with(|inner| inner.log.clone()) {
            if !event.kv.key.starts_with(PREFIX) {
                continue;
            }
            let text = std::str::from_utf8(&event.kv.value).unwrap();
            let new = Some(text).filter(|_| event.kind == EventKind::Put);
            let new = new.and_then(|text| Model::parse(&event.kv.key, event.kv.mod_revision, text));
            let old = match &new {
                Some(new) => state.insert(Arc::clone(&event.kv.key), new.clone()),
                None => state.remove(&event.kv.key),
            };
            changes.push(Change { revision: event.kv.mod_revision, key: event.kv.key, old, new });
        }
        changes
    }
}

/// A watcher and what it has been told so far.
struct Client {
    watcher: Watcher,
    filter: u8,
    /// The revision after which events are wanted.
    after: u64,
    /// Objects to come before the events.
    initial: Vec<Model>,
    told: Vec<Told>,
    ended: bool,
    /// Lists the cache had made when the watch began.
    lists: u64,
}

const WINDOW: WindowBounds =
    WindowBounds { min: 4, max: 8, max_bytes: 1 << 20, fresh: Duration::from_secs(75) };

struct World {
    store: FakeStore,
    cacher: Arc<Cacher>,
    clients: Vec<Client>,
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
        let mut world = Self { store, cacher, clients: Vec::new() };
        for op in ops {
            world.apply(op).await;
        }
        world.finish().await;
    }

    async fn apply(&mut self, op: &Op) {
        let key = |key: u8| format!("{PREFIX}ns{}/pod{key}", key % 2);
        match *op {
            Op::Put { key: k, node, tier } => {
                self.store.put(&key(k), format!("node{node};tier={tier}"));
            }
            Op::Damage { key: k } => {
                self.store.put(&key(k), "!");
            }
            Op::Delete { key: k } => {
                let key = key(k);
                let exists = self.store.with(|inner| inner.state_at(u64::MAX).contains_key(&*key));
                if exists {
                    self.store.delete(&key);
                }
            }
            Op::WriteElsewhere => {
                self.store.put("/registry/nodes/n", "");
            }
            Op::Release { events } => self.store.with(|inner| {
                inner.released = (inner.released + u64::from(events)).min(inner.revision());
            }),
            Op::Cut => self.store.cut(),
            Op::FailRange => self.store.with(|inner| inner.failing_ranges = 1),
            Op::Compact { back } => self.store.with(|inner| {
                inner.compacted = inner.compacted.max(inner.revision().saturating_sub(u64::from(back)));
            }),
            Op::Watch { back, filter } => {
                let revision = self.cacher.revision().saturating_add_signed(-i64::from(back));
                self.watch(WatchStart::After(revision), filter);
            }
            Op::WatchState { filter } => self.watch(WatchStart::State(self.cacher.snapshot()), filter),
            Op::Step { watcher } => self.step(watcher, 1),
            Op::Drain { watcher } => self.step(watcher, usize::MAX),
            Op::Leave { watcher } => {
                if let Some(at) = usize::from(watcher).checked_rem(self.clients.len()) {
                    self.clients.swap_remove(at);
                }
            }
            Op::List { filter } => self.check_list(filter),
            Op::ListAt { back, keep } => self.check_list_at(u64::from(back), keep),
            Op::Pass { millis } => tokio::time::sleep(Duration::from_millis(millis.into())).await,
        }
    }

    fn watch(&mut self, start: WatchStart, number: u8) {
        let (after, initial) = match &start {
            WatchStart::After(revision) => (*revision, Vec::new()),
            WatchStart::State(snapshot) => {
                (snapshot.revision(), Oracle(&self.store).selected_at(snapshot.revision(), number))
            }
        };
        let request = WatchRequest { start, filter: filter(number), bookmarks: true, deadline: None };
        match self.cacher.watch(request) {
            Ok(watcher) => {
                let lists = self.cacher.stats().initializations.get();
                let (told, ended) = (Vec::new(), false);
                self.clients.push(Client { watcher, filter: number, after, initial, told, ended, lists });
            }
            Err(WatchError::Expired { oldest, .. }) => {
                assert!(after < oldest || !self.cacher.is_ready(), "history reaches back to {oldest}");
            }
        }
    }

    fn step(&mut self, watcher: u8, steps: usize) {
        let Some(at) = usize::from(watcher).checked_rem(self.clients.len()) else { return };
        let lists = self.cacher.stats().initializations.get();
        self.clients[at].poll(&Oracle(&self.store), steps, lists);
    }

    fn check_list(&self, number: u8) {
        let (snapshot, filter) = (self.cacher.snapshot(), filter(number));
        let expected = Oracle(&self.store).selected_at(snapshot.revision(), number);
        let listed: Vec<_> = snapshot.select(&filter, None).map(|object| Model::of(object)).collect();
        assert_eq!(listed, expected);
        for (position, model) in expected.iter().enumerate() {
            let rest = snapshot.select(&filter, Some(&model.key)).map(|object| Model::of(object));
            assert_eq!(rest.collect::<Vec<_>>(), expected[position + 1..]);
            assert_eq!(snapshot.get(&model.key).map(|object| Model::of(object)).as_ref(), Some(model));
        }
    }

    fn check_list_at(&self, back: u64, keep: bool) {
        let revision = self.cacher.revision().saturating_sub(back);
        let oldest = self.cacher.introspect().window.oldest;
        match self.cacher.snapshot_at(revision) {
            None => {
                assert!(
                    revision < oldest,
                    "revision {revision} lies in the window, which starts at {oldest}"
                );
            }
            Some(snapshot) => {
                assert_eq!(snapshot.revision(), revision);
                let listed: Vec<_> = snapshot.range(PREFIX, None).map(|object| Model::of(object)).collect();
                assert_eq!(listed, Oracle(&self.store).selected_at(revision, 0));
                if keep {
                    self.cacher.keep(&snapshot);
                }
            }
        }
    }

    /// Once the store is whole and quiet, every watcher that has not ended has been told everything.
    async fn finish(&mut self) {
        self.store.with(|inner| inner.failing_ranges = 0);
        self.store.release();
        let revision = self.store.with(|inner| inner.revision());
        let reached = self.cacher.wait_until(revision, Duration::from_mins(1)).await;
        assert_eq!(reached, Ok(()));
        for number in 0..8 {
            self.check_list(number);
        }
        let lists = self.cacher.stats().initializations.get();
        let oracle = Oracle(&self.store);
        for client in &mut self.clients {
            client.poll(&oracle, usize::MAX, lists);
            if !client.ended {
                assert_eq!(client.told, oracle.told_after(client.after, client.filter));
                assert_eq!(client.watcher.reached(), revision);
            }
        }
    }
}

impl Client {
    /// Takes at most `steps` steps and holds each against the oracle.
    fn poll(&mut self, oracle: &Oracle<'_>, steps: usize, lists: u64) {
        for _ in 0..steps {
            // A watcher that passes over others' events gives way now and then.
            let ready = (0..50).find_map(|_| self.watcher.next().now_or_never());
            match ready {
                None => return,
                Some(Step::Events(deliveries)) => deliveries.iter().for_each(|it| self.check(it, oracle)),
                Some(Step::InitialEventsEnd(revision)) => {
                    assert_eq!((revision, self.initial.len()), (self.after, 0));
                }
                Some(Step::Bookmark(revision)) => {
                    assert!(revision >= self.after);
                    self.check_complete(oracle, revision);
                }
                Some(Step::End(end)) => {
                    assert_eq!(end, End::Expired);
                    // Either history was lost, or more has happened than the window holds.
                    let behind = oracle.told_after(self.watcher.reached(), 0).len();
                    assert!(
                        self.ended || lists > self.lists || behind > WINDOW.min,
                        "{behind} events behind"
                    );
                    self.ended = true;
                    return;
                }
            }
            self.check_complete(oracle, self.watcher.reached());
        }
    }

    fn check(&mut self, delivery: &Delivery, oracle: &Oracle<'_>) {
        let object = Model::of(delivery.object());
        let frame = format!(
            "{{\"type\":\"{}\",\"object\":{}}}\n",
            delivery.kind.as_str(),
            std::str::from_utf8(delivery.object().json()).unwrap()
        );
        assert_eq!(delivery.json_frame(), frame.as_bytes());
        if !self.initial.is_empty() {
            assert_eq!((delivery.kind, object), (EventType::Added, self.initial.remove(0)));
            return;
        }
        let expected = oracle.told_after(self.after, self.filter);
        let told = (delivery.kind, object);
        assert_eq!(Some(&told), expected.get(self.told.len()));
        self.told.push(told);
    }

    /// Everything up to `revision` has been told.
    fn check_complete(&self, oracle: &Oracle<'_>, revision: u64) {
        let expected = oracle.told_after(self.after, self.filter);
        let due = expected.iter().filter(|(_, model)| model.revision <= revision).count();
        assert!(self.told.len() >= due || !self.initial.is_empty(), "{revision} promised too early");
    }
}

fn config() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(2000),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn readers_see_what_the_log_says(
        ops in prop::collection::vec(op(), 1..120),
        batch in 0..4_usize,
        page_size in 1..6_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(World::run(&ops, batch, page_size));
    }
}
