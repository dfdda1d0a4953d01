//! The pending notifications of one event handler.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{Deleted, EventHandler, Object, ObjectName};

/// A pending notification.
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
    /// An object that was added and deleted before the handler was called.
    Life {
        object: Object,
        initial: bool,
        deleted: Deleted,
    },
}

/// Delivers notifications to one handler. Sending never blocks: pending notifications are kept and merged.
///
/// For each key, keeps the difference between the state that the handler has seen and the current state, and merges
/// consecutive updates of an object. So it keeps at most a few notifications for each object that exists or that
/// the handler knows. It also keeps up to [`MAX_LIVES`] objects that were added and deleted before delivery, and
/// drops the oldest of these.
pub(crate) struct Delivery {
    handler: Arc<dyn EventHandler>,
    pending: Mutex<Pending>,
    wake: Notify,
    synced: watch::Sender<bool>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Pending {
    /// Pending notifications in delivery order.
    entries: BTreeMap<u64, Notification>,
    next: u64,
    /// The last entry for each key.
    last: HashMap<ObjectName, u64>,
    /// The entries that are [`Notification::Life`], oldest first. May include entries that were already delivered.
    lives: VecDeque<u64>,
    /// The number of undelivered objects of the initial list.
    initial: usize,
    /// True if all objects of the initial list have been sent.
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

    /// Stores a notification until the next [`wake`](Self::wake).
    pub(crate) fn send(&self, notification: Notification) {
        self.pending.lock().push(notification);
    }

    /// Wakes the task that calls the handler.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Marks the initial list as complete.
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

    /// Calls the handler with pending notifications until it is stopped.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        loop {
            let woken = self.wake.notified();
            while !stop.is_cancelled() && self.deliver_some() {
                tokio::task::yield_now().await;
            }
            tokio::select! {
                () = woken => {}
                () = stop.cancelled() => return,
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Delivers a limited number of notifications. Returns whether any were pending.
    fn deliver_some(&self) -> bool {
        let some: Vec<_> = {
            let mut pending = self.pending.lock();
            (0..CALLS_PER_TURN).map_while(|_| pending.take()).collect()
        };
        for notification in some.iter().take_while(|_| !self.is_stopped()) {
            self.call_handler(notification);
        }
        let mut pending = self.pending.lock();
        pending.initial -= some.iter().filter(|notification| notification.is_initial()).count();
        if pending.initial == 0 && pending.initial_complete {
            drop(pending);
            self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        }
        !some.is_empty()
    }

    /// Calls the handler. A panic of the handler only loses this notification.
    fn call_handler(&self, notification: &Notification) {
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
            tracing::error!(key = %notification.key(), "event handler panicked");
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

    /// Merges two notifications about the same key, if the handler loses no information.
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
            self.drop_oldest_lives();
        }
    }

    fn take(&mut self) -> Option<Notification> {
        let (seq, notification) = self.entries.pop_first()?;
        self.unlink(seq, &notification);
        while self.lives.front().is_some_and(|life| !self.entries.contains_key(life)) {
            self.lives.pop_front();
        }
        if self.entries.is_empty() {
            // Releases the memory that a large initial list needed.
            self.last.shrink_to(RETAINED_CAPACITY);
        }
        Some(notification)
    }

    fn drop_oldest_lives(&mut self) {
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

/// The maximum number of kept objects that were added and deleted while a handler lagged.
pub(crate) const MAX_LIVES: usize = 10_000;

/// The number of calls before other tasks get a turn.
const CALLS_PER_TURN: usize = 64;

/// The capacity that is kept when all notifications are delivered.
const RETAINED_CAPACITY: usize = 256;

#[cfg(test)]
mod tests {
    use parking_lot::Mutex as Locked;
    use serde_json::json;

    use super::*;

    /// Records the calls.
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

    /// Returns the calls to a handler when these notifications are sent at once.
    fn calls_for(notifications: impl IntoIterator<Item = Notification>) -> Vec<String> {
        let lines = Arc::default();
        let delivery = Delivery::new(Arc::new(Lines(Arc::clone(&lines))));
        notifications.into_iter().for_each(|notification| delivery.send(notification));
        while delivery.deliver_some() {}
        let pending = delivery.pending.lock();
        assert!(pending.entries.is_empty() && pending.last.is_empty() && pending.lives.is_empty());
        lines.lock().clone()
    }

    #[test]
    fn merges_updates_and_keeps_everything_else() {
        assert_eq!(calls_for([update("a", 1, 2), update("a", 2, 3), update("a", 3, 4)]), ["update a@1 a@4"]);
        assert_eq!(calls_for([add("a", 1), update("a", 1, 2)]), ["add a@2"]);
        assert_eq!(calls_for([update("a", 1, 2), delete("a", 3)]), ["update a@1 a@2", "delete a@3"]);
        assert_eq!(calls_for([add("a", 1), delete("a", 2)]), ["add a@1", "delete a@2"]);
        let lives = [delete("a", 2), add("a", 3), delete("a", 4), add("a", 5), update("a", 5, 6)];
        assert_eq!(calls_for(lives), ["delete a@2", "add a@3", "delete a@4", "add a@6"]);
    }

    #[test]
    fn keeps_the_order_of_each_key_and_of_keys() {
        let sent = [add("a", 1), add("b", 2), update("a", 1, 3), delete("b", 4), add("c", 5), add("b", 6)];
        assert_eq!(calls_for(sent), ["add a@3", "add b@2", "delete b@4", "add c@5", "add b@6"]);
    }

    #[test]
    fn keeps_the_newest_of_short_lived_objects() {
        let more = 5;
        let names: Vec<_> = (0..MAX_LIVES + more).map(|n| format!("life-{n}")).collect();
        let sent = names.iter().flat_map(|name| [add(name, 1), delete(name, 2)]);
        let calls = calls_for([add("stays", 1)].into_iter().chain(sent));
        assert_eq!(calls.len(), 1 + 2 * MAX_LIVES);
        assert_eq!((calls[0].as_str(), calls[1].as_str()), ("add stays@1", "add life-5@1"));
    }
}
