//! [`DeltaFifo`]: the queue of object changes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::reflector::ReflectorStore;
use crate::{Indexer, Object, ObjectName};

/// A change of an object.
#[derive(Clone, Debug)]
pub enum Delta {
    /// The object was created.
    Added(Object),
    /// The object was changed.
    Updated(Object),
    /// The object is in a list. It may have changed before the list.
    Replaced(Object),
    /// A resync: the object has not changed.
    Sync(Object),
    /// The object was deleted.
    Deleted(Deleted),
}

/// A deleted object, with the way in which the deletion was observed.
pub enum Deleted<K = nave_machinery::Value> {
    /// A delete event, with the final state.
    Known(Object<K>),
    /// A list that lacks the object. Contains the last known state (`DeletedFinalStateUnknown`); the object may
    /// have been changed, deleted and recreated several times since.
    FinalStateUnknown {
        /// The object's key.
        key: ObjectName,
        /// The last known state.
        object: Object<K>,
    },
}

impl<K> Deleted<K> {
    /// The last known state.
    pub fn object(&self) -> &Object<K> {
        match self {
            Self::Known(object) | Self::FinalStateUnknown { object, .. } => object,
        }
    }

    /// Converts to another object type.
    pub fn cast<L>(self) -> Deleted<L> {
        match self {
            Self::Known(object) => Deleted::Known(object.cast()),
            Self::FinalStateUnknown { key, object } => {
                Deleted::FinalStateUnknown { key, object: object.cast() }
            }
        }
    }

    /// Returns whether the last known state is the final state.
    pub fn is_final_state_known(&self) -> bool {
        matches!(self, Self::Known(_))
    }
}

impl<K> Clone for Deleted<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Known(object) => Self::Known(object.clone()),
            Self::FinalStateUnknown { key, object } => {
                Self::FinalStateUnknown { key: key.clone(), object: object.clone() }
            }
        }
    }
}

impl<K> std::fmt::Debug for Deleted<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(object) => f.debug_tuple("Known").field(object).finish(),
            Self::FinalStateUnknown { object, .. } => {
                f.debug_tuple("FinalStateUnknown").field(object).finish()
            }
        }
    }
}

impl Delta {
    /// Returns the object in its last known state.
    pub fn object(&self) -> &Object {
        match self {
            Self::Added(object) | Self::Updated(object) | Self::Replaced(object) | Self::Sync(object) => {
                object
            }
            Self::Deleted(deleted) => deleted.object(),
        }
    }
}

/// The changes of an object since it was last processed.
#[derive(Clone, Debug)]
pub struct Deltas {
    /// The object's key.
    pub key: ObjectName,
    /// The changes in order; never empty.
    pub deltas: Vec<Delta>,
    /// True if the object was in the first list.
    pub is_in_initial_list: bool,
}

/// A queue of objects with their changes. A reflector fills it, and one consumer reads it.
///
/// Objects leave the queue in the order in which they entered it, each with all its deltas. The consumer maintains
/// a cache of processed objects ("known objects"). [`replace`](ReflectorStore::replace) compares a list with this
/// cache, and queues [`Deleted::FinalStateUnknown`] for missing objects.
///
/// The number of objects and back pressure bound the size of the queue: a reflector waits while more than
/// [`MAX_QUEUED_EVENTS`] deltas are queued.
#[derive(Debug)]
pub struct DeltaFifo {
    known: Arc<Indexer>,
    queue: Mutex<Queue>,
    /// Notified when an object is queued or the queue is closed.
    filled: Notify,
    /// Notified when an object is taken.
    emptied: Notify,
    /// True if all objects of the first list have been processed.
    synced: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Queue {
    items: HashMap<ObjectName, Vec<Delta>>,
    order: VecDeque<ObjectName>,
    /// The number of deltas for all objects.
    length: usize,
    /// True if the queue has ever been filled.
    populated: bool,
    /// The number of unprocessed objects of the first list.
    initial: usize,
    closed: bool,
}

impl DeltaFifo {
    /// Creates a queue. The consumer stores the processed objects in `known`.
    pub fn new(known: Arc<Indexer>) -> Self {
        Self {
            known,
            queue: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            synced: watch::Sender::new(false),
        }
    }

    /// Waits for the next object and calls `process` with its deltas. Returns `None` once the queue is closed and
    /// empty. `process` must update the known objects. It runs under the queue's lock, so that no list is applied
    /// meanwhile, and must not use the queue.
    pub async fn pop<R>(&self, process: impl FnOnce(Deltas) -> R) -> Option<R> {
        loop {
            // Must be registered before the check, so that no notification is missed.
            let filled = self.filled.notified();
            {
                let mut queue = self.queue.lock();
                if let Some(deltas) = queue.take() {
                    let done = process(deltas);
                    self.update_synced(&queue);
                    self.emptied.notify_waiters();
                    return Some(done);
                }
                if queue.closed {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// Returns whether all objects of the first list have been processed.
    pub fn has_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until [`has_synced`](Self::has_synced) returns true.
    pub async fn wait_for_sync(&self) {
        // Cannot fail: `self` holds the sender.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Returns the number of queued objects.
    pub fn len(&self) -> usize {
        self.queue.lock().order.len()
    }

    /// Returns whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the queue. The consumer stops after the queued objects.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.filled.notify_one();
    }

    fn push(&self, delta: Delta) {
        let key = delta.object().key();
        let mut queue = self.queue.lock();
        queue.populated = true;
        queue.push(key, delta);
        self.update_synced(&queue);
        drop(queue);
        self.filled.notify_one();
    }

    fn update_synced(&self, queue: &Queue) {
        if queue.populated && queue.initial == 0 && !self.has_synced() {
            self.synced.send_replace(true);
        }
    }
}

#[async_trait::async_trait]
impl ReflectorStore for DeltaFifo {
    fn add(&self, object: Object) {
        self.push(Delta::Added(object));
    }

    fn update(&self, object: Object) {
        self.push(Delta::Updated(object));
    }

    /// Queues a deletion. Ignores deletions of unknown objects.
    fn delete(&self, object: Object) {
        let key = object.key();
        let mut queue = self.queue.lock();
        queue.populated = true;
        self.update_synced(&queue);
        if queue.items.contains_key(&key) || self.known.get(key.as_str()).is_some() {
            queue.push(key, Delta::Deleted(Deleted::Known(object)));
            drop(queue);
            self.filled.notify_one();
        }
    }

    fn replace(&self, objects: Vec<Object>, _: &str) {
        let mut queue = self.queue.lock();
        let mut listed = HashSet::with_capacity(objects.len());
        for object in objects {
            let key = object.key();
            listed.insert(key.clone());
            queue.push(key, Delta::Replaced(object));
        }
        let missing_objects = missing_objects(&queue, &self.known, &listed);
        let initial = listed.len() + missing_objects.len();
        for (key, object) in missing_objects {
            queue.push(key.clone(), Delta::Deleted(Deleted::FinalStateUnknown { key, object }));
        }
        if !queue.populated {
            queue.populated = true;
            queue.initial = initial;
        }
        self.update_synced(&queue);
        drop(queue);
        self.filled.notify_one();
    }

    /// Queues a [`Delta::Sync`] for each known object that is not queued.
    fn resync(&self) {
        let mut queue = self.queue.lock();
        for object in self.known.list() {
            let key = object.key();
            if !queue.items.contains_key(&key) {
                queue.push(key, Delta::Sync(object));
            }
        }
        drop(queue);
        self.filled.notify_one();
    }

    async fn wait_for_capacity(&self) {
        loop {
            let emptied = self.emptied.notified();
            {
                let queue = self.queue.lock();
                if queue.length < MAX_QUEUED_EVENTS || queue.closed {
                    return;
                }
            }
            emptied.await;
        }
    }
}

impl Queue {
    fn push(&mut self, key: ObjectName, delta: Delta) {
        let deltas = match self.items.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                self.order.push_back(entry.key().clone());
                entry.insert(Vec::with_capacity(1))
            }
        };
        self.length += 1;
        match (deltas.last_mut(), delta) {
            // Merges consecutive deletions, and prefers a deletion with the final state.
            (Some(Delta::Deleted(last)), Delta::Deleted(deleted)) => {
                self.length -= 1;
                if deleted.is_final_state_known() {
                    *last = deleted;
                }
            }
            (_, delta) => deltas.push(delta),
        }
    }

    fn take(&mut self) -> Option<Deltas> {
        let key = self.order.pop_front()?;
        let deltas = self.items.remove(&key)?;
        self.length -= deltas.len();
        let is_in_initial_list = self.initial > 0;
        self.initial = self.initial.saturating_sub(1);
        if self.order.is_empty() && self.order.capacity() > RETAINED_CAPACITY {
            // Releases the memory that a large list needed.
            (self.items, self.order) = (HashMap::new(), VecDeque::new());
        }
        Some(Deltas { key, deltas, is_in_initial_list })
    }
}

/// Returns the last states of the queued or known objects that are not in the list.
fn missing_objects(
    queue: &Queue,
    known: &Indexer,
    listed: &HashSet<ObjectName>,
) -> Vec<(ObjectName, Object)> {
    let queued = queue.items.iter().filter(|(key, _)| !listed.contains(*key));
    let queued = queued.filter_map(|(key, deltas)| Some((key.clone(), deltas.last()?.object().clone())));
    let known = known.list().into_iter().map(|object| (object.key(), object));
    let known = known.filter(|(key, _)| !listed.contains(key) && !queue.items.contains_key(key));
    queued.chain(known).collect()
}

/// A reflector waits while more deltas than this are queued.
pub const MAX_QUEUED_EVENTS: usize = 10_000;

/// The capacity that is kept when the queue is empty.
const RETAINED_CAPACITY: usize = 256;
