use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use nave_client::{Deleted, EventHandler, Object, Registration, SharedInformer};
use parking_lot::{Mutex, RwLock};

/// The handlers of all controllers, one for each type as far as informers are concerned: an event is queued, and a task
/// woken, once for all of them. They do no more than to look at metadata and to queue keys, so that none holds the others
/// up.
#[derive(Clone, Default)]
pub(super) struct FanOuts(Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send>>>>);

/// The handlers of one type, and their place in its informer.
type Entry<K> = (FanOut<K>, Registration);

/// Tells several handlers of each event, in the order in which they came.
struct FanOut<K>(Arc<RwLock<Vec<Box<dyn EventHandler<K>>>>>);

impl FanOuts {
    /// Adds a handler to those of an informer. It must not run yet: what has happened before is not told again.
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
            // An entry is of the type that it is found by.
            None => informer.add_event_handler(handler),
        }
    }
}

impl<K: 'static> FanOut<K> {
    /// A handler that panics does not keep an event from the others.
    fn tell(&self, tell: impl Fn(&dyn EventHandler<K>)) {
        for handler in self.0.read().iter() {
            if catch_unwind(AssertUnwindSafe(|| tell(&**handler))).is_err() {
                tracing::error!(kind = std::any::type_name::<K>(), "an event handler panicked");
            }
        }
    }
}

impl<K: 'static> EventHandler<K> for FanOut<K> {
    fn on_add(&self, object: &Object<K>, is_in_initial_list: bool) {
        self.tell(|handler| handler.on_add(object, is_in_initial_list));
    }

    fn on_update(&self, old: &Object<K>, new: &Object<K>) {
        self.tell(|handler| handler.on_update(old, new));
    }

    fn on_delete(&self, deleted: &Deleted<K>) {
        self.tell(|handler| handler.on_delete(deleted));
    }
}

#[cfg(test)]
mod tests {
    use nave_client::on_each;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_handler_that_panics_keeps_nothing_from_the_others() {
        let told = Arc::new(Mutex::new(0));
        let count = Arc::clone(&told);
        let handlers: Vec<Box<dyn EventHandler<Value>>> = vec![
            Box::new(on_each(|_| std::panic::panic_any("a test's panic"))),
            Box::new(on_each(move |_| *count.lock() += 1)),
        ];
        let fan_out = FanOut(Arc::new(RwLock::new(handlers)));
        let object = Object::from_value(&json!({"metadata": {"name": "a"}})).unwrap();
        fan_out.on_add(&object, true);
        fan_out.on_update(&object, &object);
        fan_out.on_delete(&Deleted::Known(object));
        assert_eq!(*told.lock(), 3);
    }
}
