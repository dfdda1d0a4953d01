//! Managed fields that admission leaves (upstream: `NewManagedFieldsValidatingAdmissionController`).

use nave_machinery::{Value, meta};
use nave_patch::managed_fields;

use crate::attributes::Attributes;

/// Restores the managed fields of an object if a mutation left invalid ones, and warns the client.
pub(crate) fn restore_if_invalid(attributes: &Attributes<'_>, patched: &mut Value, before: &Value) {
    let (new, old) = (meta::field(patched, "managedFields"), meta::field(before, "managedFields"));
    if new == old {
        return;
    }
    let Err(error) = managed_fields::validate(new.unwrap_or(&Value::Null)) else { return };
    match old.cloned() {
        Some(old) => meta::set(patched, "managedFields", old),
        None => drop(meta::remove(patched, "managedFields")),
    }
    attributes.notes.warn(format!(
        ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: {error}"
    ));
}
