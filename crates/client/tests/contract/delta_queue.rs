//! Model test of `DeltaFifo`. The model is a list of lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use nave_client::{Deleted, Delta, DeltaFifo, Deltas, Indexer, ReflectorStore};
use proptest::prelude::*;

use crate::objects::object;

#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    Update(u8),
    Delete(u8),
    Replace(Vec<u8>),
    Resync,
    Pop,
}

/// A delta in the model: its type and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Added(u64),
    Updated(u64),
    Replaced(u64),
    Sync(u64),
    Deleted(u64),
    Unknown(u64),
}

#[derive(Default)]
struct Model {
    known: BTreeMap<String, u64>,
    queue: Vec<(String, Vec<Entry>)>,
    populated: bool,
    initial: usize,
}

impl Model {
    fn push(&mut self, key: &str, entry: Entry) {
        let Some((_, entries)) = self.queue.iter_mut().find(|(queued, _)| queued == key) else {
            self.queue.push((key.to_owned(), vec![entry]));
            return;
        };
        match (entries.last_mut(), entry) {
            (Some(last @ (Entry::Deleted(_) | Entry::Unknown(_))), Entry::Deleted(_)) => *last = entry,
            (Some(Entry::Deleted(_) | Entry::Unknown(_)), Entry::Unknown(_)) => {}
            _ => entries.push(entry),
        }
    }

    fn is_queued(&self, key: &str) -> bool {
        self.queue.iter().any(|(queued, _)| queued == key)
    }

    fn replace(&mut self, listed: &[String], version: u64) {
        for key in listed {
            self.push(key, Entry::Replaced(version));
        }
        let absent = |key: &&String| !listed.contains(key);
        let mut gone: BTreeMap<String, u64> = self
            .known
            .iter()
            .filter(|(key, _)| absent(key))
            .map(|(key, version)| (key.clone(), *version))
            .collect();
        let queued = self.queue.iter().filter(|(key, _)| absent(&key));
        gone.extend(queued.map(|(key, entries)| (key.clone(), version_of(*entries.last().unwrap()))));
        if !self.populated {
            self.populated = true;
            let mut different = listed.to_vec();
            different.sort();
            different.dedup();
            self.initial = different.len() + gone.len();
        }
        // The order of these deletions is unspecified.
        for (key, version) in gone {
            self.push(&key, Entry::Unknown(version));
        }
    }
}

fn version_of(entry: Entry) -> u64 {
    match entry {
        Entry::Added(v)
        | Entry::Updated(v)
        | Entry::Replaced(v)
        | Entry::Sync(v)
        | Entry::Deleted(v)
        | Entry::Unknown(v) => v,
    }
}

fn entry(delta: &Delta) -> Entry {
    let version = delta.object().resource_version().parse().unwrap();
    match delta {
        Delta::Added(_) => Entry::Added(version),
        Delta::Updated(_) => Entry::Updated(version),
        Delta::Replaced(_) => Entry::Replaced(version),
        Delta::Sync(_) => Entry::Sync(version),
        Delta::Deleted(Deleted::Known(_)) => Entry::Deleted(version),
        Delta::Deleted(Deleted::FinalStateUnknown { .. }) => Entry::Unknown(version),
    }
}

/// The consumer: stores each object it receives.
fn process(known: &Indexer, deltas: &Deltas) {
    for delta in &deltas.deltas {
        match delta {
            Delta::Deleted(_) => drop(known.remove(&deltas.key)),
            other => drop(known.put(other.object().clone())),
        }
    }
}

struct Fixture {
    known: Arc<Indexer>,
    queue: DeltaFifo,
    model: Model,
    /// The objects according to the reflector.
    truth: BTreeMap<String, u64>,
    version: u64,
}

impl Fixture {
    fn new() -> Self {
        let known = Arc::new(Indexer::new());
        let queue = DeltaFifo::new(Arc::clone(&known));
        Self { known, queue, model: Model::default(), truth: BTreeMap::new(), version: 0 }
    }

    fn pop(&mut self) -> Option<Deltas> {
        let known = Arc::clone(&self.known);
        let popped = self.queue.pop(|deltas| {
            process(&known, &deltas);
            deltas
        });
        popped.now_or_never().flatten()
    }

    fn run(&mut self, step: &Step) {
        self.version += 1;
        let version = self.version;
        let name = |key: &u8| format!("ns/{key}");
        match step {
            Step::Add(key) | Step::Update(key) => {
                let object = object(&name(key), version);
                let entry = if let Step::Add(_) = step {
                    self.queue.add(object);
                    Entry::Added(version)
                } else {
                    self.queue.update(object);
                    Entry::Updated(version)
                };
                self.model.populated = true;
                self.model.push(&name(key), entry);
                self.truth.insert(name(key), version);
            }
            Step::Delete(key) => {
                self.queue.delete(object(&name(key), version));
                self.model.populated = true;
                if self.model.is_queued(&name(key)) || self.model.known.contains_key(&name(key)) {
                    self.model.push(&name(key), Entry::Deleted(version));
                }
                self.truth.remove(&name(key));
            }
            Step::Replace(keys) => {
                let names: Vec<_> = keys.iter().map(name).collect();
                self.queue.replace(names.iter().map(|name| object(name, version)).collect(), "");
                self.model.replace(&names, version);
                self.truth = names.into_iter().map(|name| (name, version)).collect();
            }
            Step::Resync => {
                self.queue.resync();
                let idle: Vec<_> = self
                    .model
                    .known
                    .clone()
                    .into_iter()
                    .filter(|(key, _)| !self.model.is_queued(key))
                    .collect();
                for (key, version) in idle {
                    self.model.push(&key, Entry::Sync(version));
                }
            }
            Step::Pop => self.compare_pop(),
        }
        assert_eq!(self.queue.has_synced(), self.model.populated && self.model.initial == 0);
        assert_eq!(self.queue.len(), self.model.queue.len());
    }

    fn compare_pop(&mut self) {
        let Some(popped) = self.pop() else {
            assert!(self.model.queue.is_empty());
            return;
        };
        let at =
            self.model.queue.iter().position(|(key, _)| *key == popped.key.as_str()).expect("it is queued");
        let (key, entries) = self.model.queue.remove(at);
        assert_eq!(popped.deltas.iter().map(entry).collect::<Vec<_>>(), entries, "{key}");
        assert_eq!(popped.is_in_initial_list, self.model.initial > 0);
        self.model.initial = self.model.initial.saturating_sub(1);
        match entries.last().unwrap() {
            Entry::Deleted(_) | Entry::Unknown(_) => drop(self.model.known.remove(&key)),
            other => drop(self.model.known.insert(key, version_of(*other))),
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..5_u8;
    let step = prop_oneof![
        3 => key.clone().prop_map(Step::Add),
        3 => key.clone().prop_map(Step::Update),
        3 => key.clone().prop_map(Step::Delete),
        2 => proptest::collection::vec(key, 0..5).prop_map(Step::Replace),
        1 => Just(Step::Resync),
        5 => Just(Step::Pop),
    ];
    proptest::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn matches_the_model_and_consumer_converges(steps in steps()) {
        let mut fixture = Fixture::new();
        for step in &steps {
            fixture.run(step);
        }
        while !fixture.queue.is_empty() {
            fixture.compare_pop();
        }
        let known: BTreeMap<_, _> = fixture
            .known
            .list()
            .into_iter()
            .map(|object| (object.key().to_string(), object.resource_version().parse().unwrap()))
            .collect();
        prop_assert_eq!(known, fixture.truth);
    }
}

#[test]
fn keys_leave_in_insertion_order() {
    let mut fixture = Fixture::new();
    for key in [3, 1, 2] {
        fixture.run(&Step::Add(key));
    }
    fixture.run(&Step::Update(3));
    let order: Vec<_> = std::iter::from_fn(|| fixture.pop()).map(|deltas| deltas.key.to_string()).collect();
    assert_eq!(order, ["ns/3", "ns/1", "ns/2"]);
}

#[tokio::test]
async fn closed_queue_ends_after_it_is_drained() {
    let queue = DeltaFifo::new(Arc::new(Indexer::new()));
    queue.add(object("ns/a", 1));
    queue.close();
    assert!(queue.pop(drop).await.is_some());
    assert!(queue.pop(drop).await.is_none());
}
