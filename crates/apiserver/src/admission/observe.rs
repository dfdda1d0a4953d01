//! Reports the objects of watch caches to the admission plugins that observe them.

use std::sync::Arc;

use nave_admission::{Chain, ObjectChange, Observation, Observer};
use nave_cacher::{CachedObject, Delivery, EventType};
use nave_machinery::{Object, Value};

use crate::storage::{Follower, Following, Storages};

/// Starts reporting stored objects to the plugins of a chain.
pub fn follow_observed(storages: &Storages, chain: &Chain) -> Vec<Following> {
    let follow = |observation: &Observation| {
        let def = storages.registry().all().find(|def| def.group_resource() == observation.resource)?;
        let cacher = Arc::clone(storages.for_resource(def)?.cacher());
        let follower = ObserverFollower { observer: Arc::clone(&observation.observer) };
        Some(Following::start(cacher, Arc::new(follower)))
    };
    chain.observations().iter().filter_map(follow).collect()
}

struct ObserverFollower {
    observer: Arc<dyn Observer>,
}

impl Follower for ObserverFollower {
    fn replace(&self, objects: &[Arc<CachedObject>]) {
        self.observer.replace(objects.iter().filter_map(|object| decode(object)).collect());
    }

    fn apply(&self, changes: &[Delivery]) {
        let change = |delivery: &Delivery| {
            let object = delivery.object();
            ObjectChange {
                namespace: object.namespace().to_owned(),
                name: object.name().to_owned(),
                object: if delivery.kind == EventType::Deleted { None } else { decode(&object) },
            }
        };
        self.observer.apply(changes.iter().map(change).collect());
    }
}

fn decode(cached: &CachedObject) -> Option<Object> {
    let object =
        serde_json::from_slice(&cached.json()).ok().and_then(|value: Value| Object::try_from(value).ok());
    if object.is_none() {
        tracing::error!(key = %cached.key(), "object cannot be decoded; admission ignores it");
    }
    object
}
