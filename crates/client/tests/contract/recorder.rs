//! A handler that records its calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use nave_client::{Deleted, EventHandler, Object};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The recorded calls. Clones share them.
#[derive(Clone)]
pub(crate) struct Recorder {
    calls: Arc<Mutex<Vec<Call>>>,
    count: watch::Sender<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum Call {
    Add(Object, bool),
    Update(Object, Object),
    Delete(Deleted),
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { calls: Arc::default(), count: watch::Sender::new(0) }
    }

    /// Waits for `count` calls, and returns the calls since the last use of this method, one per line.
    pub(crate) async fn next(&self, count: usize) -> Vec<String> {
        let mut counts = self.count.subscribe();
        let enough = counts.wait_for(|recorded| *recorded >= count);
        let waited = tokio::time::timeout(std::time::Duration::from_mins(10), enough).await.is_ok();
        assert!(waited, "only {:?} of {count}", self.calls.lock());
        self.count.send_replace(0);
        std::mem::take(&mut *self.calls.lock()).iter().map(line).collect()
    }

    pub(crate) fn len(&self) -> usize {
        *self.count.borrow()
    }

    pub(crate) fn all(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }

    fn note(&self, call: Call) {
        let mut all = self.calls.lock();
        all.push(call);
        self.count.send_replace(all.len());
    }
}

impl EventHandler for Recorder {
    fn on_add(&self, object: &Object, is_in_initial_list: bool) {
        self.note(Call::Add(object.clone(), is_in_initial_list));
    }

    fn on_update(&self, old: &Object, new: &Object) {
        self.note(Call::Update(old.clone(), new.clone()));
    }

    fn on_delete(&self, deleted: &Deleted) {
        self.note(Call::Delete(deleted.clone()));
    }
}

fn line(call: &Call) -> String {
    match call {
        Call::Add(object, true) => format!("initial {object:?}"),
        Call::Add(object, false) => format!("add {object:?}"),
        Call::Update(old, new) if old.uid() != new.uid() => format!("replace {old:?} {new:?}"),
        Call::Update(old, new) => format!("update {old:?} {new:?}"),
        Call::Delete(Deleted::Known(object)) => format!("delete {object:?}"),
        Call::Delete(Deleted::FinalStateUnknown { object, .. }) => format!("vanish {object:?}"),
    }
}

/// Checks the contract of an informer for each key: adds and deletions alternate, an update starts from the last
/// delivered state, and a deletion is about a known object. Returns the UID and version of each object that the
/// handler knows.
pub(crate) fn check_history(calls: &[Call]) -> Vec<String> {
    let mut known: BTreeMap<String, Object> = BTreeMap::new();
    for call in calls {
        match call {
            Call::Add(object, _) => {
                let before = known.insert(object.key().to_string(), object.clone());
                assert!(before.is_none(), "an add of a known object: {call:?} in {calls:?}");
            }
            Call::Update(old, new) => {
                let before = known.insert(new.key().to_string(), new.clone());
                assert!(before.is_some_and(|before| before.is_same_version(old)), "{call:?} in {calls:?}");
            }
            Call::Delete(deleted) => {
                let before = known.remove(deleted.object().key().as_str());
                assert!(before.is_some(), "a deletion of an unknown object: {call:?} in {calls:?}");
            }
        }
    }
    known.values().map(|object| format!("{} {object:?}", object.uid())).collect()
}
