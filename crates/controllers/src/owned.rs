//! What belongs to a controller's object, found by index rather than by looking at everything.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nave_client::{Lister, Object, ObjectName, OwnerRef, SharedInformer};
use nave_machinery::selector::LabelSelector;

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

/// Whether labels or controller are others than before, so that other owners may claim the object.
pub fn moved<K>(old: &Object<K>, new: &Object<K>) -> bool {
    let controller = |object: &Object<K>| object.controller_of().map(|owner| owner.uid.to_owned());
    controller(old) != controller(new) || !old.labels().eq(new.labels())
}
