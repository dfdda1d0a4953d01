//! [`Indexer`], a cache of objects with named indexes, and [`Lister`], the typed way to read it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use nave_machinery::selector::LabelSelector;
use parking_lot::{Mutex, RwLock};

use crate::reflector::ReflectorStore;
use crate::{Object, ObjectName};

/// The name of the index that every cache has: by namespace (client-go's `NamespaceIndex`).
pub const NAMESPACE_INDEX: &str = "namespace";

/// The values an object has in an index.
pub type IndexFn<K = nave_machinery::Value> = dyn Fn(&Object<K>) -> Vec<String> + Send + Sync;

/// There is no index of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no index {0:?}")]
pub struct NoSuchIndex(pub String);

/// A thread-safe cache of objects by [`ObjectName`], with indexes.
///
/// The lock that readers take is held while pointers are read or written, never while an object is decoded or an index
/// function runs: a list of 20,000 objects holds the writer up for some 100 µs. Writers wait for each other.
pub struct Indexer {
    /// Held by whoever writes.
    functions: Mutex<Vec<(Arc<str>, Arc<IndexFn>)>>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    objects: HashMap<ObjectName, Object>,
    indexes: HashMap<Arc<str>, Index>,
}

/// The keys of the objects that have a value.
type Index = HashMap<Box<str>, HashSet<ObjectName>>;

impl Indexer {
    /// An empty cache with the index by namespace.
    pub fn new() -> Self {
        let cache = Self { functions: Mutex::default(), state: RwLock::default() };
        cache.add_index(NAMESPACE_INDEX, Arc::new(|object: &Object| vec![object.namespace().to_owned()]));
        cache
    }

    /// Adds an index, in place of one of the same name. Objects that are there are put into it.
    pub fn add_index(&self, name: &str, function: Arc<IndexFn>) {
        let mut functions = self.functions.lock();
        let name: Arc<str> = name.into();
        let objects: Vec<_> = self.state.read().objects.iter().map(|(k, o)| (k.clone(), o.clone())).collect();
        let mut index = Index::new();
        for (key, object) in objects {
            for value in function(&object) {
                index.entry(value.into()).or_default().insert(key.clone());
            }
        }
        functions.retain(|(other, _)| *other != name);
        functions.push((Arc::clone(&name), function));
        self.state.write().indexes.insert(name, index);
    }

    /// Puts an object in, and hands back the one it replaces.
    pub fn put(&self, object: Object) -> Option<Object> {
        let functions = self.functions.lock();
        let key = object.key();
        let old = self.get(key.as_str());
        let changes = changes(&functions, old.as_ref(), Some(&object));
        let mut state = self.state.write();
        state.reindex(&key, changes);
        state.objects.insert(key, object)
    }

    /// Takes an object out, and hands it back.
    pub fn remove(&self, key: &ObjectName) -> Option<Object> {
        let functions = self.functions.lock();
        let old = self.get(key.as_str())?;
        let changes = changes(&functions, Some(&old), None);
        let mut state = self.state.write();
        state.reindex(key, changes);
        state.objects.remove(key)
    }

    /// Holds these objects and no others.
    pub fn replace_all(&self, objects: Vec<Object>) {
        let functions = self.functions.lock();
        let mut state = State::default();
        for (name, _) in functions.iter() {
            state.indexes.insert(Arc::clone(name), Index::new());
        }
        for object in objects {
            let key = object.key();
            let changes = changes(&functions, state.objects.get(&key), Some(&object));
            state.reindex(&key, changes);
            state.objects.insert(key, object);
        }
        let old = std::mem::replace(&mut *self.state.write(), state);
        // Large: released here, after the lock.
        drop(old);
    }

    /// The object with this key, in client-go's form.
    pub fn get(&self, key: &str) -> Option<Object> {
        self.state.read().objects.get(key).cloned()
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Object> {
        self.state.read().objects.values().cloned().collect()
    }

    /// The keys of all objects, in no order.
    pub fn keys(&self) -> Vec<ObjectName> {
        self.state.read().objects.keys().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects that have `value` in an index, in no order.
    pub fn by_index(&self, index: &str, value: &str) -> Result<Vec<Object>, NoSuchIndex> {
        let state = self.state.read();
        let keys = state.index(index)?.get(value);
        Ok(keys.into_iter().flatten().filter_map(|key| state.objects.get(key).cloned()).collect())
    }

    /// The keys of the objects that have `value` in an index, in no order.
    pub fn index_keys(&self, index: &str, value: &str) -> Result<Vec<ObjectName>, NoSuchIndex> {
        let state = self.state.read();
        Ok(state.index(index)?.get(value).into_iter().flatten().cloned().collect())
    }

    /// The values that objects have in an index, in no order.
    pub fn index_values(&self, index: &str) -> Result<Vec<String>, NoSuchIndex> {
        Ok(self.state.read().index(index)?.keys().map(|value| value.clone().into_string()).collect())
    }
}

impl State {
    fn index(&self, name: &str) -> Result<&Index, NoSuchIndex> {
        self.indexes.get(name).ok_or_else(|| NoSuchIndex(name.to_owned()))
    }

    fn reindex(&mut self, key: &ObjectName, changes: Vec<IndexChange>) {
        for IndexChange { name, gone, new } in changes {
            let Some(index) = self.indexes.get_mut(&name) else { continue };
            for value in gone {
                let Some(keys) = index.get_mut(&*value) else { continue };
                keys.remove(key);
                if keys.is_empty() {
                    index.remove(&*value);
                }
            }
            for value in new {
                index.entry(value.into()).or_default().insert(key.clone());
            }
        }
    }
}

impl Default for Indexer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Indexer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Indexer").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl ReflectorStore for Indexer {
    fn add(&self, object: Object) {
        self.put(object);
    }

    fn update(&self, object: Object) {
        self.put(object);
    }

    fn delete(&self, object: Object) {
        self.remove(&object.key());
    }

    fn replace(&self, objects: Vec<Object>, _: &str) {
        self.replace_all(objects);
    }
}

/// What a write does to one index.
struct IndexChange {
    name: Arc<str>,
    gone: Vec<String>,
    new: Vec<String>,
}

/// Most writes change no index.
fn changes(
    functions: &[(Arc<str>, Arc<IndexFn>)],
    old: Option<&Object>,
    new: Option<&Object>,
) -> Vec<IndexChange> {
    let change = |(name, function): &(Arc<str>, Arc<IndexFn>)| {
        let values = |object: Option<&Object>| object.map(|object| function(object)).unwrap_or_default();
        let (mut gone, mut new) = (values(old), values(new));
        if gone == new {
            return None;
        }
        // A function may give a value twice.
        let (before, after): (HashSet<_>, HashSet<_>) =
            (gone.iter().cloned().collect(), new.iter().cloned().collect());
        gone.retain(|value| !after.contains(value));
        new.retain(|value| !before.contains(value));
        Some(IndexChange { name: Arc::clone(name), gone, new })
    };
    functions.iter().filter_map(change).collect()
}

/// Reads a cache, as objects of type `K`. A pointer; clones read the same cache.
///
/// What it hands out is shared with everybody who reads the cache, and nobody can change it.
pub struct Lister<K = nave_machinery::Value> {
    cache: Arc<Indexer>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Lister<K> {
    /// Reads `cache`.
    pub fn new(cache: Arc<Indexer>) -> Self {
        Self { cache, kind: PhantomData }
    }

    /// The object called `name` in `namespace`, which is empty where the kind has none.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Object<K>> {
        self.get_by_key(&ObjectName::new(namespace, name))
    }

    /// The object with this key.
    pub fn get_by_key(&self, key: &ObjectName) -> Option<Object<K>> {
        self.cache.get(key.as_str()).map(Object::cast)
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Object<K>> {
        cast_all(self.cache.list())
    }

    /// The objects of a namespace, in no order.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Object<K>> {
        self.by_index(NAMESPACE_INDEX, namespace).unwrap_or_default()
    }

    /// The objects of a namespace whose labels are selected, in no order.
    pub fn select(&self, namespace: &str, selector: &LabelSelector) -> Vec<Object<K>> {
        let mut objects = self.list_namespace(namespace);
        objects.retain(|object| object.is_selected_by(selector));
        objects
    }

    /// The objects that have `value` in an index, in no order.
    pub fn by_index(&self, index: &str, value: &str) -> Result<Vec<Object<K>>, NoSuchIndex> {
        self.cache.by_index(index, value).map(cast_all)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// The cache itself.
    pub fn indexer(&self) -> &Arc<Indexer> {
        &self.cache
    }
}

impl<K> Clone for Lister<K> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.cache))
    }
}

impl<K> fmt::Debug for Lister<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.cache, f)
    }
}

fn cast_all<K>(objects: Vec<Object>) -> Vec<Object<K>> {
    objects.into_iter().map(Object::cast).collect()
}
