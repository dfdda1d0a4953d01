//! Runs random operations on the store and on a model of it, and compares the results.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::{Event, Expect, KeyValue, Op, Range, Store, StoreError, Txn, TxnOutcome};

use super::random::{self, Random};
use super::{Fixture, delete_event, events, put_event};

/// Number of operations in one run.
const STEPS: usize = 600;
/// Number of runs in one test.
const RUNS: u64 = 3;

/// The model: every event since the start.
struct Model {
    start: u64,
    compacted: u64,
    events: Vec<Event>,
}

/// Compares random transactions, reads and watches at any revision, compactions and restarts with the model. Prints its
/// seed; `NAVE_SEED` repeats a run.
pub async fn agrees_with_the_model(fixture: &dyn Fixture) {
    let seed = random::seed();
    let mut store = fixture.open().await;
    for run in 0..RUNS {
        println!("NAVE_SEED={seed} run {run}");
        let mut random = Random::new(seed.wrapping_add(run));
        let mut model = Model::from_store(&*store).await;
        for _ in 0..STEPS {
            match random.below(100) {
                0..60 => model.write(&*store, &mut random).await,
                60..75 => model.read_key(&*store, &mut random).await,
                75..88 => model.read_range(&*store, &mut random).await,
                88..95 => model.read_watch(&*store, &mut random).await,
                95..98 => model.compact(&*store, &mut random).await,
                _ => {
                    drop(store);
                    store = fixture.open().await;
                    assert_eq!(store.current_revision().await.unwrap(), model.revision());
                }
            }
        }
    }
}

impl Model {
    /// Creates a model of the current content of the store.
    async fn from_store(store: &dyn Store) -> Self {
        let range = store.range(Range::all("/")).await.unwrap();
        for item in range.items {
            store.txn(Txn::delete(item.key)).await.unwrap();
        }
        let start = store.current_revision().await.unwrap();
        Self { start, compacted: start, events: Vec::new() }
    }

    fn revision(&self) -> u64 {
        self.start + self.events.len() as u64
    }

    /// Returns the live keys at `revision`.
    fn state(&self, revision: u64) -> BTreeMap<Arc<str>, KeyValue> {
        let mut state = BTreeMap::new();
        for event in self.events.iter().take_while(|event| event.kv.mod_revision <= revision) {
            match event.kind {
                crate::EventKind::Put => state.insert(event.kv.key.clone(), event.kv.clone()),
                crate::EventKind::Delete => state.remove(&event.kv.key),
            };
        }
        state
    }

    async fn write(&mut self, store: &dyn Store, random: &mut Random) {
        let key = any_key(random);
        let current = self.state(self.revision()).remove(&key);
        let expect = match random.below(4) {
            0 => Expect::Absent,
            1 => Expect::Revision(current.as_ref().map_or(self.revision(), |kv| kv.mod_revision)),
            2 => Expect::Revision(random.within(self.start, self.revision())),
            _ => Expect::Any,
        };
        let op = if random.below(3) == 0 {
            Op::Delete
        } else {
            Op::Put { value: format!("{}", random.number()).into(), ttl: None }
        };
        let outcome = store.txn(Txn { key: key.clone(), expect, op: op.clone() }).await.unwrap();
        assert_eq!(outcome, self.apply(key, expect, op, current));
    }

    fn apply(&mut self, key: Arc<str>, expect: Expect, op: Op, current: Option<KeyValue>) -> TxnOutcome {
        let holds = match expect {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Revision(revision) => current.as_ref().is_some_and(|kv| kv.mod_revision == revision),
        };
        if !holds {
            return TxnOutcome::Failed { current, revision: self.revision() };
        }
        let revision = self.revision() + 1;
        match (op, &current) {
            (Op::Put { value, .. }, _) => {
                self.events.push(put_event(KeyValue { key, value, mod_revision: revision }));
            }
            (Op::Delete, Some(_)) => self.events.push(delete_event(&key, revision)),
            (Op::Delete, None) => {}
        }
        TxnOutcome::Committed { revision: self.revision() }
    }

    async fn read_key(&self, store: &dyn Store, random: &mut Random) {
        let (key, revision) = (any_key(random), random.within(self.start, self.revision()));
        match store.get(&key, Some(revision)).await {
            Ok(found) => {
                assert!(revision >= self.compacted);
                assert_eq!(found, self.state(revision).remove(&key), "{key} at {revision}");
            }
            Err(error) => self.must_be_compacted(revision, &error),
        }
    }

    async fn read_range(&self, store: &dyn Store, random: &mut Random) {
        let revision = random.within(self.start, self.revision());
        let range = Range {
            prefix: ["/", "/a", "/a/", "/b/", "/x"][random.below(5) as usize].into(),
            start_after: (random.below(2) == 0).then(|| any_key(random)),
            limit: random.below(4) as usize,
            revision: Some(revision),
        };
        let found = match store.range(range.clone()).await {
            Ok(found) => found,
            Err(error) => return self.must_be_compacted(revision, &error),
        };
        let state = self.state(revision);
        let after = range.start_after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut expected: Vec<KeyValue> = state
            .range::<Arc<str>, _>((after, Bound::Unbounded))
            .filter(|(key, _)| key.starts_with(&*range.prefix))
            .map(|(_, kv)| kv.clone())
            .collect();
        let more = range.limit > 0 && expected.len() > range.limit;
        if more {
            expected.truncate(range.limit);
        }
        assert_eq!((found.items, found.more, found.revision), (expected, more, revision), "{range:?}");
    }

    async fn read_watch(&self, store: &dyn Store, random: &mut Random) {
        let from = random.within(self.compacted + 1, self.revision() + 1);
        let prefix = ["/", "/a/", "/b/", "/x"][random.below(4) as usize];
        let expected: Vec<Event> = self
            .events
            .iter()
            .filter(|event| event.kv.mod_revision >= from && event.kv.key.starts_with(prefix))
            .cloned()
            .collect();
        let mut watch = store.watch(prefix, from).await.unwrap();
        assert_eq!(events(&mut watch, expected.len()).await, expected, "{prefix} from {from}");
    }

    async fn compact(&mut self, store: &dyn Store, random: &mut Random) {
        let revision = random.within(self.start, self.revision());
        match store.compact(revision).await {
            Ok(()) => self.compacted = revision,
            Err(error) => {
                assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
                assert!(revision <= self.compacted, "{revision} can be compacted");
            }
        }
    }

    fn must_be_compacted(&self, revision: u64, error: &StoreError) {
        assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
        assert!(revision < self.compacted, "{revision} can be read");
    }
}

const KEYS: [&str; 8] = ["/a", "/a/1", "/a/2", "/a0", "/b/1", "/b/2", "/b/3", "/c"];

fn any_key(random: &mut Random) -> Arc<str> {
    KEYS[random.below(KEYS.len() as u64) as usize].into()
}
