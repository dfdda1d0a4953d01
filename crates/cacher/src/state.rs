//! The objects of a resource at one revision, in persistent maps. Copies are cheap and immutable.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use crate::event::Event;
use crate::filter::{FieldRef, Filter};
use crate::object::CachedObject;

/// The properties of a resource that never change.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) prefix: Arc<str>,
    pub(crate) namespaced: bool,
    pub(crate) indexed_fields: Box<[usize]>,
}

/// Objects by key and by the value of each indexed field.
#[derive(Clone, Debug)]
pub(crate) struct State {
    layout: Arc<Layout>,
    objects: OrdMap<Arc<str>, Arc<CachedObject>>,
    /// One index for each indexed field of the layout.
    indexes: Box<[OrdMap<IndexKey, Arc<CachedObject>>]>,
    /// Number of objects in each namespace.
    counts: OrdMap<Arc<str>, usize>,
    bytes: usize,
}

/// A position in an index: by value, then by key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct IndexKey {
    value: Arc<str>,
    key: Arc<str>,
}

impl State {
    pub(crate) fn new(layout: Arc<Layout>) -> Self {
        let indexes = layout.indexed_fields.iter().map(|_| OrdMap::new()).collect();
        Self { layout, objects: OrdMap::new(), indexes, counts: OrdMap::new(), bytes: 0 }
    }

    /// Sets the object at `key` (or removes it) and returns the previous one.
    pub(crate) fn set(
        &mut self,
        key: &Arc<str>,
        object: Option<&Arc<CachedObject>>,
    ) -> Option<Arc<CachedObject>> {
        let old = match object {
            Some(new) => self.objects.insert(Arc::clone(key), Arc::clone(new)),
            None => self.objects.remove(&**key),
        };
        self.count(old.as_deref(), object.map(AsRef::as_ref));
        self.bytes += object.map_or(0, |new| new.size());
        self.bytes -= old.as_ref().map_or(0, |old| old.size());
        for (&field, index) in self.layout.indexed_fields.iter().zip(&mut self.indexes) {
            set_indexed(index, field, key, old.as_deref(), object);
        }
        old
    }

    fn count(&mut self, old: Option<&CachedObject>, new: Option<&CachedObject>) {
        match (old, new) {
            (None, Some(new)) => match self.counts.get_mut(new.namespace()) {
                Some(count) => *count += 1,
                None => {
                    self.counts.insert(new.namespace().into(), 1);
                }
            },
            (Some(old), None) => match self.counts.get_mut(old.namespace()) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    self.counts.remove(old.namespace());
                }
            },
            _ => {}
        }
    }

    /// Undoes `event`, which must be the latest event.
    pub(crate) fn undo(&mut self, event: &Event) {
        let change = event.change();
        self.set(change.latest().key(), change.old());
    }

    pub(crate) fn objects(&self) -> &OrdMap<Arc<str>, Arc<CachedObject>> {
        &self.objects
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn set_indexed(
    index: &mut OrdMap<IndexKey, Arc<CachedObject>>,
    field: usize,
    key: &Arc<str>,
    old: Option<&CachedObject>,
    new: Option<&Arc<CachedObject>>,
) {
    let value_of = |object: &CachedObject| object.attributes().field(field).to_owned();
    let (before, after) = (old.map(value_of), new.map(|new| value_of(new)));
    if let Some(value) = before.filter(|before| after.as_ref() != Some(before)) {
        index.remove(&IndexKey { value: value.into(), key: Arc::clone(key) });
    }
    if let (Some(value), Some(new)) = (after, new) {
        let value = shared_value(index, value.into());
        index.insert(IndexKey { value, key: Arc::clone(key) }, Arc::clone(new));
    }
}

/// Returns the copy of this value that the index already holds, or the given one.
fn shared_value(index: &OrdMap<IndexKey, Arc<CachedObject>>, value: Arc<str>) -> Arc<str> {
    let start = IndexKey { value, key: Arc::from("") };
    match index.range::<_, IndexKey>(&start..).next() {
        Some((entry, _)) if entry.value == start.value => Arc::clone(&entry.value),
        _ => start.value,
    }
}

/// The objects of a resource at one revision. Immutable and cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshot {
    revision: u64,
    state: Arc<State>,
}

/// Objects of a snapshot, in key order.
pub type Objects<'a> = Box<dyn Iterator<Item = &'a Arc<CachedObject>> + Send + 'a>;

impl Snapshot {
    pub(crate) fn new(revision: u64, state: Arc<State>) -> Self {
        Self { revision, state }
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Returns the revision of the snapshot.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the number of objects.
    pub fn len(&self) -> usize {
        self.state.objects.len()
    }

    /// Returns the number of objects in a namespace, or in total if it is `None`, in O(log n).
    pub fn count(&self, namespace: Option<&str>) -> usize {
        namespace.map_or(self.len(), |namespace| self.state.counts.get(namespace).copied().unwrap_or(0))
    }

    /// Returns whether the snapshot has no objects.
    pub fn is_empty(&self) -> bool {
        self.state.objects.is_empty()
    }

    /// Returns the size of the objects in bytes.
    pub fn bytes(&self) -> usize {
        self.state.bytes
    }

    /// Returns the object with this storage key.
    pub fn get(&self, key: &str) -> Option<&Arc<CachedObject>> {
        self.state.objects.get(key)
    }

    /// Returns the objects whose key starts with `prefix`. If `start_after` is set, only those after this key.
    pub fn range<'a>(&'a self, prefix: &'a str, start_after: Option<&str>) -> Objects<'a> {
        let start = match start_after {
            Some(key) if key >= prefix => Bound::Excluded(key),
            _ => Bound::Included(prefix),
        };
        let objects = self.state.objects.range::<_, str>((start, Bound::Unbounded));
        Box::new(objects.take_while(move |(key, _)| key.starts_with(prefix)).map(|(_, object)| object))
    }

    /// Returns the objects whose selectable field `field` has `value`, without visiting other objects; `None` if the
    /// field is not indexed.
    pub fn by_field<'a>(
        &'a self,
        field: usize,
        value: &str,
        start_after: Option<&str>,
    ) -> Option<Objects<'a>> {
        let position = self.state.layout.indexed_fields.iter().position(|&indexed| indexed == field)?;
        let start = IndexKey { value: value.into(), key: start_after.unwrap_or_default().into() };
        let value = Arc::clone(&start.value);
        // Keys are never empty, so excluding the start excludes exactly the key `start_after`.
        let entries =
            self.state.indexes[position].range::<_, IndexKey>((Bound::Excluded(&start), Bound::Unbounded));
        Some(Box::new(entries.take_while(move |(at, _)| at.value == value).map(|(_, object)| object)))
    }

    /// Returns the objects that `filter` selects. If `start_after` is set, only those after this key. Uses the cheapest
    /// access path: the key, an index, the namespace, or a scan.
    pub fn select<'a>(&'a self, filter: &'a Filter, start_after: Option<&str>) -> Selection<'a> {
        let (candidates, index) = self.candidates(filter, start_after);
        Selection { candidates, filter, index, examined: 0 }
    }

    fn candidates<'a>(
        &'a self,
        filter: &'a Filter,
        start_after: Option<&str>,
    ) -> (Objects<'a>, Option<usize>) {
        let Layout { prefix, namespaced, indexed_fields } = &*self.state.layout;
        let namespace = filter.exact(FieldRef::Namespace).filter(|_| *namespaced);
        if let (Some(name), true) = (filter.exact(FieldRef::Name), namespace.is_some() || !namespaced) {
            let key = match namespace {
                Some(namespace) => format!("{prefix}{namespace}/{name}"),
                None => format!("{prefix}{name}"),
            };
            let past = start_after.is_some_and(|after| *key <= *after);
            return (Box::new(self.get(&key).filter(|_| !past).into_iter()), None);
        }
        if let Some((field, value)) = filter.first_exact(indexed_fields.iter().copied())
            && let Some(objects) = self.by_field(field, value, start_after)
        {
            return (objects, Some(field));
        }
        let Some(namespace) = namespace else { return (self.range(prefix, start_after), None) };
        let folder = format!("{prefix}{namespace}/");
        let start = start_after.filter(|after| **after >= *folder).unwrap_or(&folder);
        let objects = self.state.objects.range::<_, str>((Bound::Excluded(start), Bound::Unbounded));
        let objects = objects.take_while(move |(key, _)| key.starts_with(&*folder)).map(|(_, object)| object);
        (Box::new(objects), None)
    }
}

/// The objects of a snapshot that a filter selects, in key order. Evaluated lazily.
pub struct Selection<'a> {
    candidates: Objects<'a>,
    filter: &'a Filter,
    index: Option<usize>,
    examined: usize,
}

impl Selection<'_> {
    /// Returns the selectable field whose index is used, if any.
    pub fn index(&self) -> Option<usize> {
        self.index
    }

    /// Returns the number of objects examined so far.
    pub fn examined(&self) -> usize {
        self.examined
    }
}

impl<'a> Iterator for Selection<'a> {
    type Item = &'a Arc<CachedObject>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { candidates, filter, examined, .. } = self;
        let mut candidates = candidates.inspect(|_| *examined += 1);
        if filter.is_empty() { candidates.next() } else { candidates.find(|object| filter.matches(object)) }
    }
}
