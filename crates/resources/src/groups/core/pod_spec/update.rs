//! What may change in a pod once it is there (upstream: `ValidatePodUpdate`).

use nave_machinery::{FieldError, FieldPath, Value};

use super::{CONTAINERS, validation};
use crate::validate::Errors;

/// What a pod's owner may change after it was created.
const RULE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What is wrong with a change of a pod.
pub(crate) fn pod(new: &Value, old: &Value) -> Errors {
    let mut errors = validation::pod(new);
    let spec = FieldPath::new("spec");
    for kind in ["containers", "initContainers"] {
        if count(new, kind) != count(old, kind) {
            errors.push(FieldError::forbidden(
                &spec.child(kind),
                "pod updates may not add or remove containers",
            ));
            return errors;
        }
    }
    if !tolerations_only_grow(new, old) {
        let at = spec.child("tolerations");
        errors.push(FieldError::forbidden(
            &at,
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    let mut allowed = new.clone();
    let (Some(changed), Some(before)) = (allowed.get_mut("spec"), old.get("spec")) else { return errors };
    for field in ["activeDeadlineSeconds", "tolerations"] {
        take_over(changed, before, field);
    }
    for kind in CONTAINERS {
        let before = before.get(kind).and_then(Value::as_array);
        let changed = changed.get_mut(kind).and_then(Value::as_array_mut);
        for (changed, before) in changed.into_iter().flatten().zip(before.into_iter().flatten()) {
            take_over(changed, before, "image");
        }
    }
    if &*changed != before {
        errors.push(FieldError::forbidden(&spec, RULE));
    }
    errors
}

fn count(pod: &Value, kind: &str) -> usize {
    pod.pointer("/spec").and_then(|spec| spec.get(kind)?.as_array()).map_or(0, Vec::len)
}

/// Gives `object` the `field` of `other`.
fn take_over(object: &mut Value, other: &Value, field: &str) {
    let Some(fields) = object.as_object_mut() else { return };
    match other.get(field) {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}

fn tolerations_only_grow(new: &Value, old: &Value) -> bool {
    let of =
        |pod: &Value| pod.pointer("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let same = |one: &Value, other: &Value| {
        ["key", "operator", "value", "effect"].into_iter().all(|field| one.get(field) == other.get(field))
    };
    let new = of(new);
    of(old).iter().all(|kept| new.iter().any(|toleration| same(toleration, kept)))
}
