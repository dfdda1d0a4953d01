//! What one handler is yet to be told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{Deleted, EventHandler, Object, ObjectName};

/// Something a handler is to be told.
#[derive(Clone, Debug)]
pub(crate) enum Notification {
    Add {
        object: Object,
        initial: bool,
    },
    Update {
        old: Object,
        new: Object,
    },
    Delete(Deleted),
    /// An object that came and went before the handler heard of it.
    Life {
        object: Object,
        initial: bool,
        deleted: Deleted,
    },
}

/// The way to one handler. Whoever sends never waits: what the handler has not heard is kept, in a bounded form.
///
/// For each key it keeps what changed between what the handler was told and what is: updates of one object become one.
/// So it holds no more than a few events for each object that there is or that the handler knows of, and [`MAX_LIVES`] objects that came and went in between,
/// of which the oldest are forgotten.
pub(crate) struct Delivery {
    handler: Arc<dyn EventHandler>,
    pending: Mutex<Pending>,
    wake: Notify,
    synced: watch::Sender<bool>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Pending {
    /// In the order in which they are told.
    entries: BTreeMap<u64, Notification>,
    next: u64,
    /// The last entry of each key.
    last: HashMap<ObjectName, u64>,
    /// Entries that are lives, oldest first, and some that are told already.
    lives: VecDeque<u64>,
    /// Objects of the initial list that are not told yet.
    initial: usize,
    /// Whether no more of the initial list comes.
    initial_complete: bool,
}

impl Delivery {
    pub(crate) fn new(handler: Arc<dyn EventHandler>) -> Self {
        Self {
            handler,
            pending: Mutex::default(),
            wake: Notify::new(),
            synced: watch::Sender::new(false),
            stop: CancellationToken::new(),
        }
    }

    /// Keeps something that the handler is to be told when it is [woken](Self::wake) next.
    pub(crate) fn send(&self, notification: Notification) {
        self.pending.lock().push(notification);
    }

    /// Has the handler told of what was sent.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// No more of the initial list comes.
    pub(crate) fn complete_initial(&self) {
        self.pending.lock().initial_complete = true;
        self.wake();
    }

    pub(crate) fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Calls the handler until stopped.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        loop {
            let woken = self.wake.notified();
            while !stop.is_cancelled() && self.tell_some() {
                tokio::task::yield_now().await;
            }
            tokio::select! {
                () = woken => {}
                () = stop.cancelled() => return,
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Tells the handler what it has not heard, up to a number; whether that was anything.
    fn tell_some(&self) -> bool {
        let some: Vec<_> = {
            let mut pending = self.pending.lock();
            (0..TOLD_AT_ONCE).map_while(|_| pending.take()).collect()
        };
        for notification in some.iter().take_while(|_| !self.is_stopped()) {
            self.tell(notification);
        }
        let mut pending = self.pending.lock();
        pending.initial -= some.iter().filter(|notification| notification.is_initial()).count();
        if pending.initial == 0 && pending.initial_complete {
            drop(pending);
            self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        }
        !some.is_empty()
    }

    /// A handler that panics loses this one event, and no other.
    fn tell(&self, notification: &Notification) {
        let handler = &self.handler;
        let call = || match notification {
            Notification::Add { object, initial } => handler.on_add(object, *initial),
            Notification::Update { old, new } => handler.on_update(old, new),
            Notification::Delete(deleted) => handler.on_delete(deleted),
            Notification::Life { object, initial, deleted } => {
                handler.on_add(object, *initial);
                handler.on_delete(deleted);
            }
        };
        if catch_unwind(AssertUnwindSafe(call)).is_err() {
            tracing::error!(key = %notification.key(), "an event handler panicked");
        }
    }
}

impl Notification {
    fn key(&self) -> ObjectName {
        match self {
            Self::Add { object, .. } | Self::Update { new: object, .. } | Self::Life { object, .. } => {
                object.key()
            }
            Self::Delete(deleted) => deleted.object().key(),
        }
    }

    fn is_initial(&self) -> bool {
        matches!(self, Self::Add { initial: true, .. } | Self::Life { initial: true, .. })
    }

    /// This and the `next` about the same key as one, where that leaves nothing out that a handler must know.
    fn merged(&self, next: &Self) -> Option<Self> {
        match (self, next) {
            (Self::Add { object, initial }, Self::Update { new, .. }) if object.uid() == new.uid() => {
                Some(Self::Add { object: new.clone(), initial: *initial })
            }
            (Self::Update { old, new: between }, Self::Update { new, .. }) if between.uid() == new.uid() => {
                Some(Self::Update { old: old.clone(), new: new.clone() })
            }
            (Self::Add { object, initial }, Self::Delete(deleted)) => {
                Some(Self::Life { object: object.clone(), initial: *initial, deleted: deleted.clone() })
            }
            _ => None,
        }
    }
}

impl Pending {
    fn push(&mut self, notification: Notification) {
        let key = notification.key();
        self.initial += usize::from(notification.is_initial());
        let waiting = self.last.get(&key).copied();
        let merged = waiting.and_then(|seq| Some((seq, self.entries.get(&seq)?.merged(&notification)?)));
        let Some((seq, merged)) = merged else {
            self.entries.insert(self.next, notification);
            self.last.insert(key, self.next);
            self.next += 1;
            return;
        };
        let is_life = matches!(merged, Notification::Life { .. });
        self.entries.insert(seq, merged);
        if is_life {
            self.lives.push_back(seq);
            self.forget_lives();
        }
    }

    fn take(&mut self) -> Option<Notification> {
        let (seq, notification) = self.entries.pop_first()?;
        self.unlink(seq, &notification);
        while self.lives.front().is_some_and(|life| !self.entries.contains_key(life)) {
            self.lives.pop_front();
        }
        if self.entries.is_empty() {
            // What a long list needed is not kept for the few events that follow.
            self.last.shrink_to(KEPT);
        }
        Some(notification)
    }

    fn forget_lives(&mut self) {
        while self.lives.len() > MAX_LIVES {
            let Some(seq) = self.lives.pop_front() else { return };
            if let Some(life) = self.entries.remove(&seq) {
                self.initial -= usize::from(life.is_initial());
                self.unlink(seq, &life);
            }
        }
    }

    fn unlink(&mut self, seq: u64, notification: &Notification) {
        let key = notification.key();
        if self.last.get(&key) == Some(&seq) {
            self.last.remove(&key);
        }
    }
}

/// Objects that came and went while a handler lagged, of which it is still told.
pub(crate) const MAX_LIVES: usize = 10_000;

/// Calls before other tasks get their turn.
const TOLD_AT_ONCE: usize = 64;

/// Room for so many keys is kept when all is told.
const KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use parking_lot::Mutex as Locked;
    use serde_json::json;

    use super::*;

    /// Writes down what it is told.
    struct Lines(Arc<Locked<Vec<String>>>);

    impl EventHandler for Lines {
        fn on_add(&self, object: &Object, _: bool) {
            self.0.lock().push(format!("add {object:?}"));
        }

        fn on_update(&self, old: &Object, new: &Object) {
            self.0.lock().push(format!("update {old:?} {new:?}"));
        }

        fn on_delete(&self, deleted: &Deleted) {
            self.0.lock().push(format!("delete {:?}", deleted.object()));
        }
    }

    fn object(name: &str, version: u32) -> Object {
        let metadata = json!({"name": name, "uid": name, "resourceVersion": version.to_string()});
        Object::from_value(&json!({"metadata": metadata})).unwrap()
    }

    fn add(name: &str, version: u32) -> Notification {
        Notification::Add { object: object(name, version), initial: false }
    }

    fn update(name: &str, old: u32, new: u32) -> Notification {
        Notification::Update { old: object(name, old), new: object(name, new) }
    }

    fn delete(name: &str, version: u32) -> Notification {
        Notification::Delete(Deleted::Known(object(name, version)))
    }

    /// What a handler hears that has not listened while these were sent.
    fn told(notifications: impl IntoIterator<Item = Notification>) -> Vec<String> {
        let lines = Arc::default();
        let delivery = Delivery::new(Arc::new(Lines(Arc::clone(&lines))));
        notifications.into_iter().for_each(|notification| delivery.send(notification));
        while delivery.tell_some() {}
        let pending = delivery.pending.lock();
        assert!(pending.entries.is_empty() && pending.last.is_empty() && pending.lives.is_empty());
        lines.lock().clone()
    }

    #[test]
    fn updates_become_one_and_nothing_else_is_left_out() {
        assert_eq!(told([update("a", 1, 2), update("a", 2, 3), update("a", 3, 4)]), ["update a@1 a@4"]);
        assert_eq!(told([add("a", 1), update("a", 1, 2)]), ["add a@2"]);
        assert_eq!(told([update("a", 1, 2), delete("a", 3)]), ["update a@1 a@2", "delete a@3"]);
        assert_eq!(told([add("a", 1), delete("a", 2)]), ["add a@1", "delete a@2"]);
        let lives = [delete("a", 2), add("a", 3), delete("a", 4), add("a", 5), update("a", 5, 6)];
        assert_eq!(told(lives), ["delete a@2", "add a@3", "delete a@4", "add a@6"]);
    }

    #[test]
    fn each_keys_order_is_kept_and_keys_come_as_they_came() {
        let sent = [add("a", 1), add("b", 2), update("a", 1, 3), delete("b", 4), add("c", 5), add("b", 6)];
        assert_eq!(told(sent), ["add a@3", "add b@2", "delete b@4", "add c@5", "add b@6"]);
    }

    #[test]
    fn of_objects_that_came_and_went_the_newest_are_told() {
        let more = 5;
        let names: Vec<_> = (0..MAX_LIVES + more).map(|n| format!("life-{n}")).collect();
        let sent = names.iter().flat_map(|name| [add(name, 1), delete(name, 2)]);
        let told = told([add("stays", 1)].into_iter().chain(sent));
        assert_eq!(told.len(), 1 + 2 * MAX_LIVES);
        assert_eq!((told[0].as_str(), told[1].as_str()), ("add stays@1", "add life-5@1"));
    }
}
