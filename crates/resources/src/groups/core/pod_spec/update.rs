//! Validation of pod updates (upstream: `ValidatePodUpdate`).

use std::collections::HashSet;

use nave_machinery::{FieldError, Map, Value};

use super::{annotations, containers, scheduling, validation};
use crate::validate::{At, Errors};

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const REQUIRED_TERMS: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Validates an update of a pod.
pub(crate) fn pod(pod: &Value, old: &Value) -> Errors {
    let mut errors = validation::pod_again(pod);
    annotations::validate_update(pod, old, &mut errors);
    let (root, old_root) = (At::root(pod), At::root(old));
    let (spec, old_spec) = (root.field("spec"), old_root.field("spec"));
    for kind in ["containers", "initContainers"] {
        if spec.field(kind).len() != old_spec.field(kind).len() {
            errors.push(spec.field(kind).forbidden("pod updates may not add or remove containers"));
            return errors;
        }
        for container in spec.field(kind).items() {
            if container.field("image").text().is_empty() {
                errors.push(container.field("image").required(""));
            }
            containers::padded_image(container, &mut errors);
        }
    }
    if !deadline(spec, old_spec, &mut errors) {
        return errors;
    }
    tolerations(spec, old_spec, &mut errors);
    gates(spec, old_spec, &mut errors);
    if let (Some(new), Some(old)) = (spec.map(), old_spec.map()) {
        let is_gated = old_spec.field("schedulingGates").len() > 0;
        if is_gated {
            node_selector(spec, old_spec, &mut errors);
            node_affinity(spec, old_spec, &mut errors);
        }
        if !same_spec(new, old, is_gated) {
            errors.push(spec.forbidden(FIXED));
        }
    }
    errors
}

/// Checks that the active deadline is only set or reduced. Returns whether to continue with other checks.
fn deadline(spec: At, old: At, errors: &mut Errors) -> bool {
    let (at, old) = (spec.field("activeDeadlineSeconds"), old.field("activeDeadlineSeconds").int());
    let max = i64::from(i32::MAX);
    match (at.int(), old) {
        (Some(new), _) if new < 0 || new > max => {
            errors.push(at.invalid(format!("must be between 0 and {max}, inclusive")));
            false
        }
        (Some(new), Some(old)) if new > old => {
            errors.push(at.invalid("must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(&at.path(), Value::Null, detail));
            true
        }
        _ => true,
    }
}

/// Checks that an update only adds tolerations or changes their duration.
fn tolerations(spec: At, old: At, errors: &mut Errors) {
    let (list, old_list) = (spec.field("tolerations"), old.field("tolerations"));
    let kept: HashSet<_> = list.items().map(fixed_fields).collect();
    if !old_list.items().all(|toleration| kept.contains(&fixed_fields(toleration))) {
        errors.push(list.forbidden("existing toleration can not be modified except its tolerationSeconds"));
        return;
    }
    // Upstream repeats this check here.
    scheduling::tolerations(list, errors);
}

/// Returns the immutable fields of a toleration.
fn fixed_fields<'v>(toleration: At<'_, 'v>) -> Vec<(&'v str, &'v Value)> {
    toleration
        .map()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "tolerationSeconds")
        .map(|(name, value)| (name.as_str(), value))
        .collect()
}

/// Checks that scheduling gates are only removed.
fn gates(spec: At, old: At, errors: &mut Errors) {
    let (gates, old_gates) = (spec.field("schedulingGates"), old.field("schedulingGates"));
    let before: HashSet<_> = old_gates.items().map(|gate| gate.field("name").text()).collect();
    for gate in gates.items() {
        let name = gate.field("name");
        if !before.contains(name.text()) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{}'", name.text());
            errors.push(name.forbidden(why));
        }
    }
}

/// Checks that the node selector of a gated pod only becomes stricter.
fn node_selector(spec: At, old: At, errors: &mut Errors) {
    let (new, before) = (spec.field("nodeSelector"), old.field("nodeSelector"));
    let is_kept = |(key, value): (&str, At)| new.key(key).is_set() && new.key(key).text() == value.text();
    if !before.entries().all(is_kept) {
        let shown = new.value().cloned().unwrap_or_default();
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid(&new.path(), shown, why));
    }
}

fn node_affinity(spec: At, old: At, errors: &mut Errors) {
    let (affinity, old_affinity) = (spec.field("affinity"), old.field("affinity"));
    let (nodes, old_nodes) = (affinity.field("nodeAffinity"), old_affinity.field("nodeAffinity"));
    let (required, old_required) = (nodes.field(REQUIRED_TERMS), old_nodes.field(REQUIRED_TERMS));
    let (terms, old_terms) = (required.field("nodeSelectorTerms"), old_required.field("nodeSelectorTerms"));
    if old_terms.len() == 0 {
        return;
    }
    let invalid = |at: At, why: &str| {
        let shown = at.value().cloned().unwrap_or_default();
        FieldError::invalid(&at.path(), shown, why)
    };
    if terms.len() != old_terms.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(invalid(terms, why));
        return;
    }
    for (term, old) in terms.items().zip(old_terms.items()) {
        if !only_adds(term, old) {
            errors.push(invalid(term, "only additions are allowed (no mutations or deletions)"));
        }
    }
}

/// Returns whether a term keeps all expressions of the old term and only appends new expressions.
fn only_adds(term: At, old: At) -> bool {
    let lists = ["matchExpressions", "matchFields"];
    let is_empty = |term: At| lists.iter().all(|list| term.field(list).len() == 0);
    if is_empty(old) {
        return is_empty(term);
    }
    lists.iter().all(|list| {
        let (new, old) = (elements(term.field(list).value()), elements(old.field(list).value()));
        new.starts_with(old)
    })
}

/// Returns whether two specs differ only in mutable fields.
fn same_spec(new: &Map, old: &Map, is_gated: bool) -> bool {
    let same = |field: &str| match field {
        "activeDeadlineSeconds" | "tolerations" | "schedulingGates" => true,
        "nodeSelector" if is_gated => true,
        "affinity" if is_gated => same_but_nodes(new.get(field), old.get(field)),
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

fn same_but_nodes(new: Option<&Value>, old: Option<&Value>) -> bool {
    ["podAffinity", "podAntiAffinity"].into_iter().all(|field| {
        let of = |affinity: Option<&'_ Value>| affinity.and_then(|it| it.get(field)).cloned();
        of(new) == of(old)
    })
}

fn same_containers(new: Option<&Value>, old: Option<&Value>) -> bool {
    let (new, old) = (elements(new), elements(old));
    new.len() == old.len()
        && new.iter().zip(old).all(|(new, old)| same_but(new.as_object(), old.as_object(), &["image"]))
}

fn elements(list: Option<&Value>) -> &[Value] {
    list.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns whether two objects are equal, ignoring the fields in `but`.
pub(crate) fn same_but(new: Option<&Map>, old: Option<&Map>, but: &[&str]) -> bool {
    let (Some(new), Some(old)) = (new, old) else { return new.is_none() && old.is_none() };
    new.keys()
        .chain(old.keys())
        .all(|field| but.contains(&field.as_str()) || new.get(field) == old.get(field))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::validation::fixtures::pod_with;
    use super::*;

    fn fields(new: Value, old: Value) -> Vec<String> {
        pod(&pod_with(new), &pod_with(old)).iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn rejects_changes_of_immutable_fields() {
        for (new, old, expected) in [
            (json!({"activeDeadlineSeconds": 5}), json!({}), &[][..]),
            (
                json!({"activeDeadlineSeconds": 5}),
                json!({"activeDeadlineSeconds": 4}),
                &["spec.activeDeadlineSeconds"],
            ),
            (json!({}), json!({"activeDeadlineSeconds": 4}), &["spec.activeDeadlineSeconds"]),
            (json!({"terminationGracePeriodSeconds": 1}), json!({"terminationGracePeriodSeconds": -1}), &[]),
            (json!({"hostname": "a"}), json!({}), &["spec"]),
            (json!({"nodeSelector": {"a": "b"}}), json!({}), &["spec"]),
            (json!({"containers": []}), json!({}), &["spec.containers", "spec.containers"]),
            (json!({"tolerations": [{"key": "a", "operator": "Exists"}]}), json!({}), &[]),
            (json!({}), json!({"tolerations": [{"key": "a", "operator": "Exists"}]}), &["spec.tolerations"]),
        ] {
            assert_eq!(fields(new.clone(), old.clone()), expected, "{old} -> {new}");
        }
    }

    #[test]
    fn gated_pod_may_get_stricter_node_selection() {
        let gated = |more: Value| {
            let mut spec = json!({"schedulingGates": [{"name": "z"}]});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        let term = |keys: &[&str]| {
            let list: Vec<_> = keys.iter().map(|key| json!({"key": key, "operator": "Exists"})).collect();
            gated(
                json!({"affinity": {"nodeAffinity": {REQUIRED_TERMS: {"nodeSelectorTerms": [{"matchExpressions": list}]}}}}),
            )
        };
        let path =
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
        for (new, old, expected) in [
            (gated(json!({"nodeSelector": {"a": "b"}})), gated(json!({})), &[][..]),
            (
                gated(json!({"nodeSelector": {"a": "c"}})),
                gated(json!({"nodeSelector": {"a": "b"}})),
                &["spec.nodeSelector"],
            ),
            (json!({}), gated(json!({})), &[]),
            (gated(json!({})), json!({}), &["spec.schedulingGates[0].name"]),
            (term(&["a"]), gated(json!({})), &[]),
            (term(&["a", "b"]), term(&["a"]), &[]),
            (term(&["b"]), term(&["a"]), &[path]),
            (gated(json!({"affinity": {"podAffinity": {}}})), gated(json!({})), &["spec"]),
        ] {
            assert_eq!(fields(new.clone(), old.clone()), expected, "{old} -> {new}");
        }
    }
}
