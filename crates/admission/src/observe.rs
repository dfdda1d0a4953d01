//! Plugins that keep their own form of stored objects, such as compiled policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use nave_machinery::{GroupResource, Object};
use parking_lot::Mutex;

/// Follows the stored objects of a resource. The methods are called sequentially, in order, soon after each change.
/// Objects are in the resource's storage version. An object that cannot be decoded is reported as removed.
pub trait Observer: Send + Sync {
    /// Replaces the whole state with these objects.
    fn replace(&self, objects: Vec<Object>);

    /// Applies changes, in order.
    fn apply(&self, changes: Vec<ObjectChange>);
}

/// A change of an object.
#[derive(Clone, Debug)]
pub struct ObjectChange {
    /// The namespace; empty for cluster-scoped resources.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The new state; `None` if the object was removed.
    pub object: Option<Object>,
}

/// An observer and its resource.
#[derive(Clone)]
pub struct Observation {
    /// The resource.
    pub resource: GroupResource,
    /// The observer.
    pub observer: Arc<dyn Observer>,
}

/// The objects of a cluster-scoped resource, each compiled once per change, and a summary of all of them.
pub struct Compiled<T, S> {
    compile: Box<dyn Fn(&Object) -> T + Send + Sync>,
    summarize: fn(&BTreeMap<String, Arc<T>>) -> S,
    by_name: Mutex<BTreeMap<String, Arc<T>>>,
    summary: ArcSwap<S>,
}

impl<T, S> Compiled<T, S> {
    /// Creates an empty collection. `summarize` gets the compiled objects by name.
    pub fn new(
        compile: impl Fn(&Object) -> T + Send + Sync + 'static,
        summarize: fn(&BTreeMap<String, Arc<T>>) -> S,
    ) -> Self {
        let by_name = BTreeMap::new();
        let summary = ArcSwap::from_pointee(summarize(&by_name));
        Self { compile: Box::new(compile), summarize, by_name: Mutex::new(by_name), summary }
    }

    /// Returns the current summary. Readers take no lock.
    pub fn load(&self) -> arc_swap::Guard<Arc<S>> {
        self.summary.load()
    }

    /// Returns the current summary, to keep while waiting.
    pub fn load_full(&self) -> Arc<S> {
        self.summary.load_full()
    }

    fn publish(&self, by_name: &BTreeMap<String, Arc<T>>) {
        self.summary.store(Arc::new((self.summarize)(by_name)));
    }
}

impl<T: Send + Sync, S: Send + Sync> Observer for Compiled<T, S> {
    fn replace(&self, objects: Vec<Object>) {
        let compiled = objects.iter().map(|it| (it.name().to_owned(), Arc::new((self.compile)(it))));
        let by_name = &mut *self.by_name.lock();
        *by_name = compiled.collect();
        self.publish(by_name);
    }

    fn apply(&self, changes: Vec<ObjectChange>) {
        let by_name = &mut *self.by_name.lock();
        for ObjectChange { name, object, .. } in changes {
            match object {
                Some(object) => by_name.insert(name, Arc::new((self.compile)(&object))),
                None => by_name.remove(&name),
            };
        }
        self.publish(by_name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, value: i64) -> Object {
        Object::try_from(json!({"metadata": {"name": name}, "value": value})).unwrap()
    }

    #[test]
    fn a_summary_follows_the_objects_by_name() {
        let values = Compiled::new(
            |object| object.i64_at(&["value"]).unwrap_or_default(),
            |by_name| by_name.values().map(|value| **value).collect::<Vec<_>>(),
        );
        let change =
            |name: &str, object| ObjectChange { namespace: String::new(), name: name.into(), object };
        values.replace(vec![object("b", 2), object("a", 1)]);
        assert_eq!(**values.load(), [1, 2]);
        values.apply(vec![change("a", None), change("c", Some(object("c", 3)))]);
        assert_eq!(**values.load(), [2, 3]);
        values.replace(vec![object("a", 4)]);
        assert_eq!(**values.load(), [4]);
    }
}
