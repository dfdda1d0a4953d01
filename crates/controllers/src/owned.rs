//! Objects owned by a controller: an index by controller UID, and an event handler that enqueues the owners.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nave_client::{Deleted, EventHandler, Lister, Object, ObjectName, OwnerRef, SharedInformer, Workqueue};
use nave_machinery::selector::LabelSelector;

use crate::expectations::Expectations;
use crate::selectors::SelectorIndex;

/// Index of objects by the UID of their controller. Objects without a controller have the key `/NAMESPACE`, which
/// cannot be a UID.
const BY_CONTROLLER: &str = "controller";

/// Adds the index to an informer.
pub fn index<K: 'static>(informer: &SharedInformer<K>) {
    informer.add_index(BY_CONTROLLER, |object| {
        vec![match object.controller_of() {
            Some(controller) => controller.uid.to_owned(),
            None => format!("/{}", object.namespace()),
        }]
    });
}

/// Returns the objects whose controller has this UID.
pub fn by_controller<K>(lister: &Lister<K>, uid: &str) -> Vec<Object<K>> {
    lister.by_index(BY_CONTROLLER, uid).unwrap_or_default()
}

/// Returns the objects that an owner may claim: the objects it controls, and the objects in its namespace that have
/// no controller and match its selector.
pub fn candidates<K>(lister: &Lister<K>, owner: &ObjectMeta, selector: &LabelSelector) -> Vec<Object<K>> {
    let mut found = by_controller(lister, owner.uid.as_deref().unwrap_or_default());
    if !selector.is_empty() {
        let orphans = by_controller(lister, &format!("/{}", owner.namespace.as_deref().unwrap_or_default()));
        found.extend(orphans.into_iter().filter(|orphan| orphan.is_selected_by(selector)));
    }
    found
}

/// Decodes the objects that an owner may claim.
///
/// # Errors
/// The error of `decode`.
pub fn decode_candidates<K, E>(
    lister: &Lister<K>,
    owner: &ObjectMeta,
    selector: &LabelSelector,
    decode: impl Fn(&Object<K>) -> Result<K, E>,
) -> Result<Vec<K>, E> {
    candidates(lister, owner, selector).iter().map(decode).collect()
}

/// Returns the controller of an object if the controller has this group and kind.
pub fn controller_of_kind<'a, K>(object: &'a Object<K>, group: &str, kind: &str) -> Option<OwnerRef<'a>> {
    let controller = object.controller_of()?;
    let of_group = controller.api_version.split_once('/').map_or("", |(group, _)| group) == group;
    (of_group && controller.kind == kind).then_some(controller)
}

/// Returns the key of an object's controller.
pub fn key_of<K>(object: &Object<K>, controller: &OwnerRef<'_>) -> ObjectName {
    ObjectName::new(object.namespace(), controller.name)
}

/// Returns the key of an object's controller if the controller has this group and kind.
pub fn key_of_controller<K>(object: &Object<K>, group: &str, kind: &str) -> Option<ObjectName> {
    controller_of_kind(object, group, kind).map(|controller| key_of(object, &controller))
}

/// Returns whether the labels or the controller have changed, so that another owner may claim the object.
fn claim_changed<K>(old: &Object<K>, new: &Object<K>) -> bool {
    old.controller_of().map(|owner| owner.uid) != new.controller_of().map(|owner| owner.uid)
        || !old.labels().eq(new.labels())
}

/// Event handler for objects owned by kind `O`. Enqueues the owner of an object, or the possible adopters if the
/// object has no controller. Records observed creations and deletions.
#[derive(Clone)]
pub struct DependentHandler<O> {
    queue: Workqueue,
    group: &'static str,
    kind: &'static str,
    adopters: Arc<SelectorIndex<O>>,
    expectations: Arc<Expectations>,
}

impl<O: 'static> DependentHandler<O> {
    /// Creates a handler that enqueues owners of this kind. `adopters` finds the owners whose selector matches an
    /// object.
    pub fn new(
        queue: Workqueue,
        (group, kind): (&'static str, &'static str),
        adopters: SelectorIndex<O>,
        expectations: Arc<Expectations>,
    ) -> Self {
        Self { queue, group, kind, adopters: Arc::new(adopters), expectations }
    }

    /// Calls `note` with the UID of the owner, then enqueues the owner. Returns whether the object has a controller
    /// of any kind.
    fn enqueue_owner<K>(&self, object: &Object<K>, note: impl FnOnce(&str)) -> bool {
        if let Some(controller) = controller_of_kind(object, self.group, self.kind) {
            note(controller.uid);
            self.queue.add(key_of(object, &controller));
        }
        object.controller_of().is_some()
    }

    fn enqueue_adopters<K>(&self, object: &Object<K>) {
        for owner in self.adopters.selecting(object) {
            self.queue.add(owner.key());
        }
    }

    fn deletion_observed<K>(&self, object: &Object<K>) {
        self.enqueue_owner(object, |owner| self.expectations.deletion_observed(owner, object.uid()));
    }
}

impl<K, O: 'static> EventHandler<K> for DependentHandler<O> {
    fn on_add(&self, object: &Object<K>, _: bool) {
        if object.is_being_deleted() {
            // After a restart, the first event of an object may show a deletion timestamp.
            self.deletion_observed(object);
        } else if !self.enqueue_owner(object, |owner| self.expectations.creation_observed(owner)) {
            self.enqueue_adopters(object);
        }
    }

    fn on_update(&self, old: &Object<K>, new: &Object<K>) {
        if old.is_same_version(new) {
            return;
        }
        let claim_changed = claim_changed(old, new);
        if old.uid() != new.uid() {
            self.deletion_observed(old);
        } else if claim_changed {
            self.enqueue_owner(old, |_| {});
        }
        // A deletion counts as observed when it is requested, before the kubelet has completed it.
        if new.is_being_deleted() {
            self.deletion_observed(new);
        } else if !self.enqueue_owner(new, |_| {}) && claim_changed {
            self.enqueue_adopters(new);
        }
    }

    fn on_delete(&self, deleted: &Deleted<K>) {
        self.deletion_observed(deleted.object());
    }
}
