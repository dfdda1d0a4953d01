//! A handler that writes down what it is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use nave_client::{Deleted, EventHandler, Object};
use parking_lot::Mutex;
use tokio::sync::watch;

/// What a handler was told; clones are the same record.
#[derive(Clone)]
pub(crate) struct Recorder {
    told: Arc<Mutex<Vec<Told>>>,
    count: watch::Sender<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum Told {
    Add(Object, bool),
    Update(Object, Object),
    Delete(Deleted),
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { told: Arc::default(), count: watch::Sender::new(0) }
    }

    /// What was told since this was last asked, a line each, once there are so many.
    pub(crate) async fn next(&self, count: usize) -> Vec<String> {
        let mut counts = self.count.subscribe();
        let enough = counts.wait_for(|told| *told >= count);
        let waited = tokio::time::timeout(std::time::Duration::from_mins(10), enough).await.is_ok();
        assert!(waited, "only {:?} of {count}", self.told.lock());
        self.count.send_replace(0);
        std::mem::take(&mut *self.told.lock()).iter().map(line).collect()
    }

    pub(crate) fn len(&self) -> usize {
        *self.count.borrow()
    }

    pub(crate) fn all(&self) -> Vec<Told> {
        self.told.lock().clone()
    }

    fn note(&self, told: Told) {
        let mut all = self.told.lock();
        all.push(told);
        self.count.send_replace(all.len());
    }
}

impl EventHandler for Recorder {
    fn on_add(&self, object: &Object, is_in_initial_list: bool) {
        self.note(Told::Add(object.clone(), is_in_initial_list));
    }

    fn on_update(&self, old: &Object, new: &Object) {
        self.note(Told::Update(old.clone(), new.clone()));
    }

    fn on_delete(&self, deleted: &Deleted) {
        self.note(Told::Delete(deleted.clone()));
    }
}

fn line(told: &Told) -> String {
    match told {
        Told::Add(object, true) => format!("initial {object:?}"),
        Told::Add(object, false) => format!("add {object:?}"),
        Told::Update(old, new) if old.uid() != new.uid() => format!("replace {old:?} {new:?}"),
        Told::Update(old, new) => format!("update {old:?} {new:?}"),
        Told::Delete(Deleted::Known(object)) => format!("delete {object:?}"),
        Told::Delete(Deleted::FinalStateUnknown { object, .. }) => format!("vanish {object:?}"),
    }
}

/// What an informer promises of any history, for each key: adds and deletions alternate, an update starts from what was
/// told before, a deletion is of the object that was told of. What the handler thinks there is at the end: uid and
/// version of each.
pub(crate) fn check_history(told: &[Told]) -> Vec<String> {
    let mut known: BTreeMap<String, Object> = BTreeMap::new();
    for event in told {
        match event {
            Told::Add(object, _) => {
                let before = known.insert(object.key().to_string(), object.clone());
                assert!(before.is_none(), "an add of what is there: {event:?} in {told:?}");
            }
            Told::Update(old, new) => {
                let before = known.insert(new.key().to_string(), new.clone());
                assert!(before.is_some_and(|before| before.is_same_version(old)), "{event:?} in {told:?}");
            }
            Told::Delete(deleted) => {
                let before = known.remove(deleted.object().key().as_str());
                assert!(before.is_some(), "a deletion of what is not there: {event:?} in {told:?}");
            }
        }
    }
    known.values().map(|object| format!("{} {object:?}", object.uid())).collect()
}
