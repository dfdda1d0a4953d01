//! What belongs to a controller's object: found by index rather than by looking at everything, and the handler that has
//! its owner looked at.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nave_client::{Deleted, EventHandler, Lister, Object, ObjectName, OwnerRef, SharedInformer, Workqueue};
use nave_machinery::selector::LabelSelector;

use crate::expectations::Expectations;
use crate::selectors::Selecting;

/// The index of objects by the uid of their controller; those without one are under their namespace, after a slash,
/// which no uid has.
const BY_CONTROLLER: &str = "controller";

/// Makes an informer find objects by their controller.
pub fn index<K: 'static>(informer: &SharedInformer<K>) {
    informer.add_index(BY_CONTROLLER, |object| {
        vec![match object.controller_of() {
            Some(controller) => controller.uid.to_owned(),
            None => format!("/{}", object.namespace()),
        }]
    });
}

/// The objects that have the controller with this uid.
pub fn by_controller<K>(lister: &Lister<K>, uid: &str) -> Vec<Object<K>> {
    lister.by_index(BY_CONTROLLER, uid).unwrap_or_default()
}

/// The objects that an owner may claim: those it controls, and those of its namespace that nobody controls and that
/// its selector selects.
pub fn candidates<K>(lister: &Lister<K>, owner: &ObjectMeta, selector: &LabelSelector) -> Vec<Object<K>> {
    let mut found = by_controller(lister, owner.uid.as_deref().unwrap_or_default());
    if !selector.is_empty() {
        let orphans = by_controller(lister, &format!("/{}", owner.namespace.as_deref().unwrap_or_default()));
        found.extend(orphans.into_iter().filter(|orphan| orphan.is_selected_by(selector)));
    }
    found
}

/// The controller of an object, if it is of this kind and group.
pub fn controller_of_kind<'a, K>(object: &'a Object<K>, group: &str, kind: &str) -> Option<OwnerRef<'a>> {
    let controller = object.controller_of()?;
    let of_group = controller.api_version.split_once('/').map_or("", |(group, _)| group) == group;
    (of_group && controller.kind == kind).then_some(controller)
}

/// The key of the controller of an object.
pub fn key_of<K>(object: &Object<K>, controller: &OwnerRef<'_>) -> ObjectName {
    ObjectName::new(object.namespace(), controller.name)
}

/// The key of the controller of an object, if it is of this kind and group.
pub fn key_of_controller<K>(object: &Object<K>, group: &str, kind: &str) -> Option<ObjectName> {
    controller_of_kind(object, group, kind).map(|controller| key_of(object, &controller))
}

/// Returns whether labels or controller are others than before, so that other owners may claim the object.
fn moved<K>(old: &Object<K>, new: &Object<K>) -> bool {
    old.controller_of().map(|owner| owner.uid) != new.controller_of().map(|owner| owner.uid)
        || !old.labels().eq(new.labels())
}

/// Told of the objects that owners of kind `O` have: has the owner looked at, or those that may adopt an object without
/// one, and notes what was expected.
#[derive(Clone)]
pub struct DependentHandler<O> {
    queue: Workqueue,
    group: &'static str,
    kind: &'static str,
    adopters: Arc<Selecting<O>>,
    expectations: Arc<Expectations>,
}

impl<O: 'static> DependentHandler<O> {
    /// Queues owners of this kind, which may adopt what they select.
    pub fn new(
        queue: Workqueue,
        (group, kind): (&'static str, &'static str),
        adopters: Selecting<O>,
        expectations: Arc<Expectations>,
    ) -> Self {
        Self { queue, group, kind, adopters: Arc::new(adopters), expectations }
    }

    /// Notes something about an object for its owner, and has the owner looked at; whether it has any controller.
    fn owner<K>(&self, object: &Object<K>, note: impl FnOnce(&str)) -> bool {
        if let Some(controller) = controller_of_kind(object, self.group, self.kind) {
            note(controller.uid);
            self.queue.add(key_of(object, &controller));
        }
        object.controller_of().is_some()
    }

    fn adopted<K>(&self, object: &Object<K>) {
        for owner in self.adopters.of(object) {
            self.queue.add(owner.key());
        }
    }

    fn gone<K>(&self, object: &Object<K>) {
        self.owner(object, |owner| self.expectations.deletion_observed(owner, object.uid()));
    }
}

impl<K, O: 'static> EventHandler<K> for DependentHandler<O> {
    fn on_add(&self, object: &Object<K>, _: bool) {
        if object.is_being_deleted() {
            // After a restart an object may be first seen under deletion.
            self.gone(object);
        } else if !self.owner(object, |owner| self.expectations.creation_observed(owner)) {
            self.adopted(object);
        }
    }

    fn on_update(&self, old: &Object<K>, new: &Object<K>) {
        if old.is_same_version(new) {
            return;
        }
        let moved = moved(old, new);
        if old.uid() != new.uid() {
            self.gone(old);
        } else if moved {
            self.owner(old, |_| {});
        }
        // Its end counts from the moment it is asked for, not when its node lets it go.
        if new.is_being_deleted() {
            self.gone(new);
        } else if !self.owner(new, |_| {}) && moved {
            self.adopted(new);
        }
    }

    fn on_delete(&self, deleted: &Deleted<K>) {
        self.gone(deleted.object());
    }
}
