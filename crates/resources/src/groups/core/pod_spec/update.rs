//! What may change in a pod (upstream: `ValidatePodUpdate`).

use std::collections::HashSet;

use nave_machinery::{Map, Value};

use super::{annotations, validation};
use crate::validate::{At, Errors};

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What is wrong with an update of a pod.
pub(crate) fn pod(pod: &Value, old: &Value) -> Errors {
    let mut errors = annotations::validate_update(pod, old);
    errors.extend(validation::pod_again(pod));
    let (root, old_root) = (At::root(pod), At::root(old));
    let (spec, old_spec) = (root.field("spec"), old_root.field("spec"));
    for kind in ["containers", "initContainers"] {
        if spec.field(kind).len() != old_spec.field(kind).len() {
            errors.push(spec.field(kind).forbidden("pod updates may not add or remove containers"));
            return errors;
        }
    }
    deadline(spec, old_spec, &mut errors);
    tolerations(spec, old_spec, &mut errors);
    if let (Some(new), Some(old)) = (spec.map(), old_spec.map())
        && !same_spec(new, old)
    {
        errors.push(spec.forbidden(FIXED));
    }
    errors
}

/// A deadline may be set and brought nearer.
fn deadline(spec: At, old: At, errors: &mut Errors) {
    let (at, old) = (spec.field("activeDeadlineSeconds"), old.field("activeDeadlineSeconds").int());
    match (at.int(), old) {
        (Some(new), Some(old)) if new > old => {
            errors.push(at.invalid("must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(nave_machinery::FieldError::invalid(&at.path(), Value::Null, detail));
        }
        _ => {}
    }
}

/// Tolerations may be added, and the time of one may change.
fn tolerations(spec: At, old: At, errors: &mut Errors) {
    let (list, old_list) = (spec.field("tolerations"), old.field("tolerations"));
    let kept: HashSet<_> = list.items().map(fixed_fields).collect();
    if !old_list.items().all(|toleration| kept.contains(&fixed_fields(toleration))) {
        errors.push(list.forbidden("existing toleration can not be modified except its tolerationSeconds"));
    }
}

/// The fields of a toleration that may not change.
fn fixed_fields<'v>(toleration: At<'_, 'v>) -> Vec<(&'v str, &'v Value)> {
    let fields = toleration.map().into_iter().flatten();
    let fields = fields.filter(|(name, _)| *name != "tolerationSeconds");
    fields.map(|(name, value)| (name.as_str(), value)).collect()
}

/// Whether two specs differ in nothing but what may change.
fn same_spec(new: &Map, old: &Map) -> bool {
    let gated = old.get("schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty());
    let same = |field: &str| match field {
        "activeDeadlineSeconds" | "tolerations" => true,
        // A pod that waits at a gate may be told more narrowly where to go.
        "schedulingGates" | "nodeSelector" | "affinity" if gated => true,
        "containers" | "initContainers" => same_containers(new.get(field), old.get(field)),
        "terminationGracePeriodSeconds" => {
            new.get(field) == old.get(field)
                || (new.get(field).and_then(Value::as_i64) == Some(1)
                    && old.get(field).and_then(Value::as_i64).is_some_and(|seconds| seconds < 0))
        }
        _ => new.get(field) == old.get(field),
    };
    new.keys().chain(old.keys()).all(|field| same(field))
}

fn same_containers(new: Option<&Value>, old: Option<&Value>) -> bool {
    let (new, old) = (elements(new), elements(old));
    new.len() == old.len()
        && new.iter().zip(old).all(|(new, old)| same_but(new.as_object(), old.as_object(), &["image"]))
}

fn elements(list: Option<&Value>) -> &[Value] {
    list.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn same_but(new: Option<&Map>, old: Option<&Map>, but: &[&str]) -> bool {
    let (Some(new), Some(old)) = (new, old) else { return new.is_none() && old.is_none() };
    new.keys()
        .chain(old.keys())
        .all(|field| but.contains(&field.as_str()) || new.get(field) == old.get(field))
}
