use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use nave_client::{Deleted, EventHandler, Object, Registration, SharedInformer};
use parking_lot::{Mutex, RwLock};

/// One informer handler per type, which forwards events to the handlers of all controllers. An event is queued and
/// wakes a task once, instead of once per controller. Handlers only read metadata and enqueue keys, so they do not
/// delay each other.
#[derive(Clone, Default)]
pub(super) struct FanOuts(Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send>>>>);

/// The handlers of a type and their registration with its informer.
type Entry<K> = (FanOut<K>, Registration);

/// Forwards each event to several handlers, in the order in which they were added.
struct FanOut<K>(Arc<RwLock<Vec<Box<dyn EventHandler<K>>>>>);

impl FanOuts {
    /// Adds a handler to an informer. The informer must not have started: earlier events are not repeated.
    pub(super) fn add<K: 'static>(
        &self,
        informer: &SharedInformer<K>,
        handler: impl EventHandler<K>,
    ) -> Registration {
        let mut all = self.0.lock();
        let entry = all.entry(TypeId::of::<K>()).or_insert_with(|| {
            let handlers = FanOut::<K>(Arc::default());
            let registration = informer.add_event_handler(FanOut(Arc::clone(&handlers.0)));
            Box::<Entry<K>>::new((handlers, registration))
        });
        match entry.downcast_ref::<Entry<K>>() {
            Some((handlers, registration)) => {
                handlers.0.write().push(Box::new(handler));
                registration.clone()
            }
            // Unreachable: entries are keyed by their type.
            None => informer.add_event_handler(handler),
        }
    }
}

impl<K: 'static> FanOut<K> {
    /// Calls each handler. A panic in one handler does not affect the others.
    fn notify_each(&self, notify: impl Fn(&dyn EventHandler<K>)) {
        for handler in self.0.read().iter() {
            if catch_unwind(AssertUnwindSafe(|| notify(&**handler))).is_err() {
                tracing::error!(kind = std::any::type_name::<K>(), "an event handler panicked");
            }
        }
    }
}

impl<K: 'static> EventHandler<K> for FanOut<K> {
    fn on_add(&self, object: &Object<K>, is_in_initial_list: bool) {
        self.notify_each(|handler| handler.on_add(object, is_in_initial_list));
    }

    fn on_update(&self, old: &Object<K>, new: &Object<K>) {
        self.notify_each(|handler| handler.on_update(old, new));
    }

    fn on_delete(&self, deleted: &Deleted<K>) {
        self.notify_each(|handler| handler.on_delete(deleted));
    }
}

#[cfg(test)]
mod tests {
    use nave_client::on_each;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_panicking_handler_does_not_keep_events_from_other_handlers() {
        let calls = Arc::new(Mutex::new(0));
        let count = Arc::clone(&calls);
        let handlers: Vec<Box<dyn EventHandler<Value>>> = vec![
            Box::new(on_each(|_| std::panic::panic_any("a test's panic"))),
            Box::new(on_each(move |_| *count.lock() += 1)),
        ];
        let fan_out = FanOut(Arc::new(RwLock::new(handlers)));
        let object = Object::from_value(&json!({"metadata": {"name": "a"}})).unwrap();
        fan_out.on_add(&object, true);
        fan_out.on_update(&object, &object);
        fan_out.on_delete(&Deleted::Known(object));
        assert_eq!(*calls.lock(), 3);
    }
}
