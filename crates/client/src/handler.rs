//! [`EventHandler`]: receives the events of an informer, with common implementations.

use std::marker::PhantomData;

use crate::{Deleted, Object};

/// Receives the events of a [`SharedInformer`](crate::SharedInformer) on its own task. Calls do not overlap, and
/// the events of an object arrive in order. Calls should be short, such as enqueueing a key, and must not block.
///
/// The calls for one key are an add, any number of updates, a deletion, another add, and so on. For a slow handler,
/// consecutive updates are merged into one update from the first old state to the last new state, and updates after
/// an add are merged into the add. If more than 10,000 objects are added and deleted while the handler is busy, it
/// misses the oldest of these objects. After a gap in the watch, an object that was deleted and recreated appears
/// as an update between objects with different UIDs.
pub trait EventHandler<K = nave_machinery::Value>: Send + Sync + 'static {
    /// Called when an object is added. `is_in_initial_list` is true if the object existed when the informer
    /// started, or when the handler was added to a running informer.
    fn on_add(&self, object: &Object<K>, is_in_initial_list: bool);

    /// Called when the object has changed. Also called on a resync, with two objects of the same version.
    fn on_update(&self, old: &Object<K>, new: &Object<K>);

    /// Called when the object is deleted.
    fn on_delete(&self, deleted: &Deleted<K>);
}

/// Calls `f` with the object of each event: the new state of an update, or the last known state of a deletion.
///
/// ```
/// use k8s_openapi::api::core::v1::Pod;
/// use nave_client::{SharedInformer, Workqueue, on_each};
///
/// fn watch(pods: &SharedInformer<Pod>, queue: Workqueue<nave_client::ObjectName>) {
///     pods.add_event_handler(on_each(move |pod| queue.add(pod.key())));
/// }
/// ```
pub fn on_each<K, F>(f: F) -> impl EventHandler<K>
where
    K: 'static,
    F: Fn(&Object<K>) + Send + Sync + 'static,
{
    OnEach(f, PhantomData)
}

/// Like [`on_each`], but also calls `f` with the old state of an update that changes labels. Useful for handlers
/// that look up the selectors that match or matched an object.
pub fn on_each_labelling<K, F>(f: F) -> impl EventHandler<K>
where
    K: 'static,
    F: Fn(&Object<K>) + Send + Sync + 'static,
{
    OnEachLabelling(OnEach(f, PhantomData))
}

/// Calls `f` with the last known state of each deleted object.
pub fn on_delete<K, F>(f: F) -> impl EventHandler<K>
where
    K: 'static,
    F: Fn(&Object<K>) + Send + Sync + 'static,
{
    OnDelete(f, PhantomData)
}

/// Calls `f` with each added or deleted object, and with the new state of each update for which `differs` returns
/// true.
pub fn on_change<K, D, F>(differs: D, f: F) -> impl EventHandler<K>
where
    K: 'static,
    D: Fn(&Object<K>, &Object<K>) -> bool + Send + Sync + 'static,
    F: Fn(&Object<K>) + Send + Sync + 'static,
{
    OnChange { differs, on_each: OnEach(f, PhantomData), sees_new: true }
}

/// Like [`on_change`], but ignores added objects.
pub fn on_change_or_delete<K, D, F>(differs: D, f: F) -> impl EventHandler<K>
where
    K: 'static,
    D: Fn(&Object<K>, &Object<K>) -> bool + Send + Sync + 'static,
    F: Fn(&Object<K>) + Send + Sync + 'static,
{
    OnChange { differs, on_each: OnEach(f, PhantomData), sees_new: false }
}

struct OnChange<K, D, F> {
    differs: D,
    on_each: OnEach<K, F>,
    sees_new: bool,
}

impl<K, D, F> EventHandler<K> for OnChange<K, D, F>
where
    K: 'static,
    D: Fn(&Object<K>, &Object<K>) -> bool + Send + Sync + 'static,
    F: Fn(&Object<K>) + Send + Sync + 'static,
{
    fn on_add(&self, object: &Object<K>, is_in_initial_list: bool) {
        if self.sees_new {
            self.on_each.on_add(object, is_in_initial_list);
        }
    }

    fn on_update(&self, old: &Object<K>, new: &Object<K>) {
        if (self.differs)(old, new) {
            self.on_each.on_update(old, new);
        }
    }

    fn on_delete(&self, deleted: &Deleted<K>) {
        self.on_each.on_delete(deleted);
    }
}

struct OnDelete<K, F>(F, PhantomData<fn() -> K>);

impl<K, F> EventHandler<K> for OnDelete<K, F>
where
    K: 'static,
    F: Fn(&Object<K>) + Send + Sync + 'static,
{
    fn on_add(&self, _: &Object<K>, _: bool) {}

    fn on_update(&self, _: &Object<K>, _: &Object<K>) {}

    fn on_delete(&self, deleted: &Deleted<K>) {
        (self.0)(deleted.object());
    }
}

struct OnEachLabelling<K, F>(OnEach<K, F>);

impl<K, F> EventHandler<K> for OnEachLabelling<K, F>
where
    K: 'static,
    F: Fn(&Object<K>) + Send + Sync + 'static,
{
    fn on_add(&self, object: &Object<K>, is_in_initial_list: bool) {
        self.0.on_add(object, is_in_initial_list);
    }

    fn on_update(&self, old: &Object<K>, new: &Object<K>) {
        self.0.on_update(old, new);
        if !old.labels().eq(new.labels()) {
            (self.0.0)(old);
        }
    }

    fn on_delete(&self, deleted: &Deleted<K>) {
        self.0.on_delete(deleted);
    }
}

struct OnEach<K, F>(F, PhantomData<fn() -> K>);

impl<K, F> EventHandler<K> for OnEach<K, F>
where
    K: 'static,
    F: Fn(&Object<K>) + Send + Sync + 'static,
{
    fn on_add(&self, object: &Object<K>, _: bool) {
        (self.0)(object);
    }

    fn on_update(&self, _: &Object<K>, new: &Object<K>) {
        (self.0)(new);
    }

    fn on_delete(&self, deleted: &Deleted<K>) {
        (self.0)(deleted.object());
    }
}

/// Passes the objects for which `filter` returns true to `handler`. An object that starts to match is reported as
/// an add, and an object that stops matching as a deletion (client-go's `FilteringResourceEventHandler`).
pub fn filtered<K, F, H>(filter: F, handler: H) -> impl EventHandler<K>
where
    K: 'static,
    F: Fn(&Object<K>) -> bool + Send + Sync + 'static,
    H: EventHandler<K>,
{
    Filtered { filter, handler, kind: PhantomData }
}

struct Filtered<K, F, H> {
    filter: F,
    handler: H,
    kind: PhantomData<fn() -> K>,
}

impl<K, F, H> EventHandler<K> for Filtered<K, F, H>
where
    K: 'static,
    F: Fn(&Object<K>) -> bool + Send + Sync + 'static,
    H: EventHandler<K>,
{
    fn on_add(&self, object: &Object<K>, is_in_initial_list: bool) {
        if (self.filter)(object) {
            self.handler.on_add(object, is_in_initial_list);
        }
    }

    fn on_update(&self, old: &Object<K>, new: &Object<K>) {
        match ((self.filter)(old), (self.filter)(new)) {
            (true, true) => self.handler.on_update(old, new),
            (false, true) => self.handler.on_add(new, false),
            (true, false) => self.handler.on_delete(&Deleted::Known(old.clone())),
            (false, false) => {}
        }
    }

    fn on_delete(&self, deleted: &Deleted<K>) {
        if (self.filter)(deleted.object()) {
            self.handler.on_delete(deleted);
        }
    }
}

/// Adapts a handler of `K` to untyped objects.
pub(crate) struct Typed<K, H>(pub(crate) H, pub(crate) PhantomData<fn() -> K>);

impl<K: 'static, H: EventHandler<K>> EventHandler for Typed<K, H> {
    fn on_add(&self, object: &Object, is_in_initial_list: bool) {
        self.0.on_add(&object.clone().cast(), is_in_initial_list);
    }

    fn on_update(&self, old: &Object, new: &Object) {
        self.0.on_update(&old.clone().cast(), &new.clone().cast());
    }

    fn on_delete(&self, deleted: &Deleted) {
        self.0.on_delete(&deleted.clone().cast());
    }
}
