//! [`EventHandler`]: who is told what happens to objects, and the usual ones.

use std::marker::PhantomData;

use crate::{Deleted, Object};

/// Told by a [`SharedInformer`](crate::SharedInformer) what happens to its objects, on a task of its own: one call at
/// a time, each object's events in order. It should do little, such as put a key into a work queue, and must not block.
///
/// What it is told, for one key: an add, any number of updates, a deletion, an add, … A handler that lags is told of
/// several updates as one, from the first's old state to the last's new one, or of an add with the state after them;
/// should more than 10,000 objects come and go while it does nothing, it does not hear of the oldest of these. After a gap in the watch an object that was replaced by another of its name is told of as an
/// update between objects with different uids.
pub trait EventHandler<K = nave_machinery::Value>: Send + Sync + 'static {
    /// There is an object. `is_in_initial_list`: it was there when the informer started, or when the handler was added
    /// to a running one.
    fn on_add(&self, object: &Object<K>, is_in_initial_list: bool);

    /// It has changed; or nothing has (both are the same version) and a resync is due.
    fn on_update(&self, old: &Object<K>, new: &Object<K>);

    /// It is gone.
    fn on_delete(&self, deleted: &Deleted<K>);
}

/// Calls `f` with the object of each event: the new state of an update, the last known one of a deletion.
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

/// As [`on_each`], and with the old state of an update too where it changed labels: for handlers that look for what
/// selects, or did select, an object.
pub fn on_each_labelling<K, F>(f: F) -> impl EventHandler<K>
where
    K: 'static,
    F: Fn(&Object<K>) + Send + Sync + 'static,
{
    OnEachLabelling(OnEach(f, PhantomData))
}

/// Calls `f` with the last state known of each object that is gone.
pub fn on_delete<K, F>(f: F) -> impl EventHandler<K>
where
    K: 'static,
    F: Fn(&Object<K>) + Send + Sync + 'static,
{
    OnDelete(f, PhantomData)
}

/// Calls `f` with each object that is new or gone, and with the new state of one in which something differs.
pub fn on_change<K, D, F>(differs: D, f: F) -> impl EventHandler<K>
where
    K: 'static,
    D: Fn(&Object<K>, &Object<K>) -> bool + Send + Sync + 'static,
    F: Fn(&Object<K>) + Send + Sync + 'static,
{
    OnChange { differs, on_each: OnEach(f, PhantomData), sees_new: true }
}

/// The same, except for objects that are new.
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

/// Tells `handler` of the objects that `filter` lets through only. An object that begins to pass is told of as added,
/// one that no longer does as deleted (client-go's `FilteringResourceEventHandler`).
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

/// A handler of `K` as one of objects of any kind.
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
