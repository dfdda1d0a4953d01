//! [`DeltaFifo`]: what has happened to each object and is yet to be processed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::reflector::ReflectorStore;
use crate::{Indexer, Object, ObjectName};

/// Something that has happened to an object.
#[derive(Clone, Debug)]
pub enum Delta {
    /// It was created.
    Added(Object),
    /// It was changed.
    Updated(Object),
    /// It was in a list, which says nothing about what happened before.
    Replaced(Object),
    /// Nothing happened: a look at the cache's state is due.
    Sync(Object),
    /// It was deleted.
    Deleted(Deleted),
}

/// How an object's deletion became known.
pub enum Deleted<K = nave_machinery::Value> {
    /// By an event, with its last state.
    Known(Object<K>),
    /// By its absence from a list. What is known is an earlier state (`DeletedFinalStateUnknown`); the object may have
    /// changed, been deleted and even been made again under its name several times since.
    FinalStateUnknown {
        /// Its key.
        key: ObjectName,
        /// The last state that was seen.
        object: Object<K>,
    },
}

impl<K> Deleted<K> {
    /// The last state known.
    pub fn object(&self) -> &Object<K> {
        match self {
            Self::Known(object) | Self::FinalStateUnknown { object, .. } => object,
        }
    }

    /// The same, read as another type.
    pub fn cast<L>(self) -> Deleted<L> {
        match self {
            Self::Known(object) => Deleted::Known(object.cast()),
            Self::FinalStateUnknown { key, object } => {
                Deleted::FinalStateUnknown { key, object: object.cast() }
            }
        }
    }

    /// Whether the last state known is the last there was.
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
    /// The object, in its last known state.
    pub fn object(&self) -> &Object {
        match self {
            Self::Added(object) | Self::Updated(object) | Self::Replaced(object) | Self::Sync(object) => {
                object
            }
            Self::Deleted(deleted) => deleted.object(),
        }
    }
}

/// All that has happened to one object since it was last processed.
#[derive(Clone, Debug)]
pub struct Deltas {
    /// The object's key.
    pub key: ObjectName,
    /// What happened, in order; never empty.
    pub deltas: Vec<Delta>,
    /// Whether the object was there when the queue was first filled.
    pub is_in_initial_list: bool,
}

/// A queue of objects with what has happened to each, filled by a reflector and emptied by one consumer.
///
/// Objects come out in the order in which they came in, each with all its deltas. The consumer keeps a cache
/// of what it has processed ("known objects"), from which the queue learns what a list no longer holds:
/// [`replace`](ReflectorStore::replace) then queues [`Deleted::FinalStateUnknown`] for it.
///
/// What it holds is bounded by the objects there are and, for events, by its filler: a reflector waits when more than
/// [`MAX_QUEUED_EVENTS`] are queued, until they are processed.
#[derive(Debug)]
pub struct DeltaFifo {
    known: Arc<Indexer>,
    queue: Mutex<Queue>,
    /// Something was queued, or the queue was closed.
    filled: Notify,
    /// Something was taken.
    emptied: Notify,
    /// Whether all objects of the first list have been processed.
    synced: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Queue {
    items: HashMap<ObjectName, Vec<Delta>>,
    order: VecDeque<ObjectName>,
    /// Deltas in all items.
    length: usize,
    /// Whether anything has ever come in.
    populated: bool,
    /// Objects of the first list that have not been processed.
    initial: usize,
    closed: bool,
}

impl DeltaFifo {
    /// A queue whose consumer keeps what it has processed in `known`.
    pub fn new(known: Arc<Indexer>) -> Self {
        Self {
            known,
            queue: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            synced: watch::Sender::new(false),
        }
    }

    /// Waits for the next object and calls `process` with what happened to it; `None` once the queue is closed and
    /// empty. `process` must bring the known objects up to date. It runs within the queue's lock, so that no list can
    /// come between, and must not use the queue.
    pub async fn pop<R>(&self, process: impl FnOnce(Deltas) -> R) -> Option<R> {
        loop {
            // From here on a wake-up is not missed.
            let filled = self.filled.notified();
            {
                let mut queue = self.queue.lock();
                if let Some(deltas) = queue.take() {
                    let done = process(deltas);
                    self.note_sync(&queue);
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

    /// Whether all objects of the first list have been processed.
    pub fn has_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until [`has_synced`](Self::has_synced).
    pub async fn wait_for_sync(&self) {
        // An error would mean that the sender is gone; we hold it.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// How many objects are queued.
    pub fn len(&self) -> usize {
        self.queue.lock().order.len()
    }

    /// Whether none is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets the consumer come to an end when it has taken what is queued.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.filled.notify_one();
    }

    fn push(&self, delta: Delta) {
        let key = delta.object().key();
        let mut queue = self.queue.lock();
        queue.populated = true;
        queue.push(key, delta);
        self.note_sync(&queue);
        drop(queue);
        self.filled.notify_one();
    }

    fn note_sync(&self, queue: &Queue) {
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

    /// Of an object that nobody has heard of, nothing is queued.
    fn delete(&self, object: Object) {
        let key = object.key();
        let mut queue = self.queue.lock();
        queue.populated = true;
        self.note_sync(&queue);
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
        let vanished = vanished(&queue, &self.known, &listed);
        let initial = listed.len() + vanished.len();
        for (key, object) in vanished {
            queue.push(key.clone(), Delta::Deleted(Deleted::FinalStateUnknown { key, object }));
        }
        if !queue.populated {
            queue.populated = true;
            queue.initial = initial;
        }
        self.note_sync(&queue);
        drop(queue);
        self.filled.notify_one();
    }

    /// Queues a look at each known object of which nothing is queued.
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

    async fn room(&self) {
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
            // One deletion is told of once, with its final state if that is known.
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
        if self.order.is_empty() && self.order.capacity() > KEPT {
            // What a long list needed is not kept for the few events that follow.
            (self.items, self.order) = (HashMap::new(), VecDeque::new());
        }
        Some(Deltas { key, deltas, is_in_initial_list })
    }
}

/// What is queued or known and was not listed, in its last state.
fn vanished(queue: &Queue, known: &Indexer, listed: &HashSet<ObjectName>) -> Vec<(ObjectName, Object)> {
    let queued = queue.items.iter().filter(|(key, _)| !listed.contains(*key));
    let queued = queued.filter_map(|(key, deltas)| Some((key.clone(), deltas.last()?.object().clone())));
    let known = known.list().into_iter().map(|object| (object.key(), object));
    let known = known.filter(|(key, _)| !listed.contains(key) && !queue.items.contains_key(key));
    queued.chain(known).collect()
}

/// So many deltas are queued before a reflector waits.
pub const MAX_QUEUED_EVENTS: usize = 10_000;

/// Room for so many objects is kept when the queue is empty.
const KEPT: usize = 256;
