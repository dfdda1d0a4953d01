//! Changes of the resource and the events delivered to watchers.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::filter::Filter;
use crate::memo::{Encoding, EncodingBudget, Memo};
use crate::object::CachedObject;

/// The type of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// The object is new to the watcher: created, or changed to match its filter.
    Added,
    /// The object matched the filter before and still matches.
    Modified,
    /// The object was deleted or no longer matches. The event carries its last state.
    Deleted,
}

impl EventType {
    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    /// Returns the event type for a watcher, depending on whether it selects the old and the new state.
    fn between(old: bool, new: bool) -> Option<Self> {
        match (old, new) {
            (false, false) => None,
            (false, true) => Some(Self::Added),
            (true, true) => Some(Self::Modified),
            (true, false) => Some(Self::Deleted),
        }
    }
}

/// The effect of a transaction on an object.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Created(Arc<CachedObject>),
    Updated { old: Arc<CachedObject>, new: Arc<CachedObject> },
    Deleted(Arc<CachedObject>),
}

impl Change {
    /// Returns the change from `old` to `new`; `None` if both are `None`.
    pub(crate) fn between(old: Option<Arc<CachedObject>>, new: Option<Arc<CachedObject>>) -> Option<Self> {
        match (old, new) {
            (None, None) => None,
            (None, Some(new)) => Some(Self::Created(new)),
            (Some(old), Some(new)) => Some(Self::Updated { old, new }),
            (Some(old), None) => Some(Self::Deleted(old)),
        }
    }

    pub(crate) fn old(&self) -> Option<&Arc<CachedObject>> {
        match self {
            Self::Created(_) => None,
            Self::Updated { old, .. } | Self::Deleted(old) => Some(old),
        }
    }

    pub(crate) fn current(&self) -> Option<&Arc<CachedObject>> {
        match self {
            Self::Created(new) | Self::Updated { new, .. } => Some(new),
            Self::Deleted(_) => None,
        }
    }

    /// Returns the new state; for a deletion, the old state.
    pub(crate) fn latest(&self) -> &Arc<CachedObject> {
        match self {
            Self::Created(object) | Self::Updated { new: object, .. } | Self::Deleted(object) => object,
        }
    }
}

/// One change in the window. All watchers that it concerns share it.
#[derive(Debug)]
pub struct Event {
    revision: u64,
    change: Change,
    /// Copy of the old state with this event's revision, for watchers that no longer see the object. Kept as long as
    /// the frames.
    last: Mutex<Option<Arc<CachedObject>>>,
    frames: Memo<(EventType, Encoding)>,
}

impl Event {
    pub(crate) fn new(revision: u64, change: Change, budget: &Arc<EncodingBudget>) -> Self {
        Self { revision, change, last: Mutex::new(None), frames: Memo::new(Arc::clone(budget)) }
    }

    /// Returns the revision of the transaction.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the event type for a watcher with `filter`, depending on whether the old and the new state match.
    pub fn type_for(&self, filter: &Filter) -> Option<EventType> {
        let before = self.change.old().is_some_and(|old| filter.matches(old));
        let after = self.change.current().is_some_and(|new| filter.matches(new));
        EventType::between(before, after)
    }

    /// Returns the object of an event of type `kind`.
    pub fn object(&self, kind: EventType) -> Arc<CachedObject> {
        match (kind, self.change.old()) {
            (EventType::Deleted, Some(old)) => self.last_state(old),
            _ => Arc::clone(self.change.latest()),
        }
    }

    /// Returns the wire form of the event as `kind`. While the event is recent, it is encoded once for all watchers.
    /// JSON frames are built here; `encode` builds frames of other encodings.
    pub fn frame<E>(
        &self,
        kind: EventType,
        encoding: Encoding,
        encode: impl FnOnce(EventType, &CachedObject) -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        self.frames.get_or_make((kind, encoding), || frame(kind, &self.object(kind), encoding, encode))
    }

    pub(crate) fn change(&self) -> &Change {
        &self.change
    }

    /// Drops the frames, their source, and other encodings of the replaced state.
    pub(crate) fn drop_encodings(&self) {
        self.frames.clear();
        if let Some(old) = self.change.old() {
            old.drop_encodings();
        }
        let last = self.last.lock().take();
        drop(last);
    }

    /// Copies without a lock. Concurrent callers may each make a copy; one copy is kept.
    fn last_state(&self, old: &CachedObject) -> Arc<CachedObject> {
        if let Some(last) = &*self.last.lock() {
            return Arc::clone(last);
        }
        let copy = Arc::new(old.with_resource_version(self.revision));
        Arc::clone(self.last.lock().get_or_insert(copy))
    }

    /// Returns the bytes that only this event keeps in memory.
    pub(crate) fn retained(&self) -> usize {
        size_of::<Self>() + self.change.old().map_or(0, |old| old.size())
    }
}

/// One event delivered to one watcher.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The event type for this watcher.
    pub kind: EventType,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Initial(Arc<CachedObject>),
    Event(Arc<Event>),
}

impl Delivery {
    /// Creates the delivery of an object of the initial state of a watch.
    pub(crate) fn initial(object: Arc<CachedObject>) -> Self {
        Self { kind: EventType::Added, source: Source::Initial(object) }
    }

    pub(crate) fn event(kind: EventType, event: Arc<Event>) -> Self {
        Self { kind, source: Source::Event(event) }
    }

    /// Returns the object of the event.
    pub fn object(&self) -> Arc<CachedObject> {
        match &self.source {
            Source::Initial(object) => Arc::clone(object),
            Source::Event(event) => event.object(self.kind),
        }
    }

    /// Returns the wire form. See [`Event::frame`].
    pub fn frame<E>(
        &self,
        encoding: Encoding,
        encode: impl FnOnce(EventType, &CachedObject) -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        match &self.source {
            Source::Initial(object) => frame(self.kind, object, encoding, encode),
            Source::Event(event) => event.frame(self.kind, encoding, encode),
        }
    }

    /// Returns the old and the new state, as far as the watcher's filter selects them.
    pub fn states(&self) -> (Option<&Arc<CachedObject>>, Option<&Arc<CachedObject>>) {
        match &self.source {
            Source::Initial(object) => (None, Some(object)),
            Source::Event(event) => {
                let old = event.change.old().filter(|_| self.kind != EventType::Added);
                (old, Some(event.change.latest()).filter(|_| self.kind != EventType::Deleted))
            }
        }
    }

    /// Returns the delivery to a watcher that selects the old and the new state as told; `None` if it selects neither.
    #[must_use]
    pub fn narrowed(&self, old: bool, new: bool) -> Option<Self> {
        Some(Self { kind: EventType::between(old, new)?, source: self.source.clone() })
    }

    /// Returns whether the object is part of the initial state of a watch.
    pub fn is_initial(&self) -> bool {
        matches!(self.source, Source::Initial(_))
    }

    /// Returns the wire form if the event keeps it.
    pub fn kept_frame(&self, encoding: Encoding) -> Option<Bytes> {
        match &self.source {
            Source::Initial(_) => None,
            Source::Event(event) => event.frames.get_or_make((self.kind, encoding), || Err(())).ok(),
        }
    }

    /// Returns the wire form in JSON: one line.
    pub fn json_frame(&self) -> Bytes {
        let never = |kind, object: &CachedObject| Ok::<_, std::convert::Infallible>(json_frame(kind, object));
        let Ok(frame) = self.frame(Encoding::JSON, never);
        frame
    }
}

fn frame<E>(
    kind: EventType,
    object: &CachedObject,
    encoding: Encoding,
    encode: impl FnOnce(EventType, &CachedObject) -> Result<Bytes, E>,
) -> Result<Bytes, E> {
    match encoding {
        Encoding::JSON => Ok(json_frame(kind, object)),
        _ => encode(kind, object),
    }
}

fn json_frame(kind: EventType, object: &CachedObject) -> Bytes {
    let parts: [&[u8]; 5] =
        [br#"{"type":""#, kind.as_str().as_bytes(), br#"","object":"#, &object.json(), b"}\n"];
    parts.concat().into()
}
