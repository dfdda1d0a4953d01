//! Validation of node selectors and affinity.

use nave_machinery::{FieldError, names};

use crate::validate::{At, Errors, checked, label_selector};

pub(super) fn all(affinity: At, errors: &mut Errors) {
    node_affinity(affinity.field("nodeAffinity"), errors);
    for kind in ["podAffinity", "podAntiAffinity"] {
        let at = affinity.field(kind);
        for term in at.field("requiredDuringSchedulingIgnoredDuringExecution").items() {
            pod_term(term, errors);
        }
        for preferred in at.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(preferred, errors);
            pod_term(preferred.field("podAffinityTerm"), errors);
        }
    }
}

fn weight(preferred: At, errors: &mut Errors) {
    let weight = preferred.field("weight");
    let number = weight.int().unwrap_or_default();
    if !(1..=100).contains(&number) {
        errors.push(FieldError::invalid(&weight.path(), number, "must be in the range 1-100"));
    }
}

fn pod_term(term: At, errors: &mut Errors) {
    let selector = term.field("labelSelector");
    label_selector(selector, errors);
    label_selector(term.field("namespaceSelector"), errors);
    for namespace in term.field("namespaces").items() {
        // Upstream reports the list, and spells it in the singular.
        let path = term.path().child("namespace");
        let found = names::is_dns1123_label(namespace.text());
        errors.extend(found.into_iter().map(|why| FieldError::invalid(&path, namespace.text(), why)));
    }
    match_label_keys(term, errors);
    let key = term.field("topologyKey");
    if key.text().is_empty() {
        errors.push(key.required("can not be empty"));
    }
    checked(key, names::is_qualified_name, errors);
}

/// Checks `matchLabelKeys` and `mismatchLabelKeys`, which depend on the term's selector.
pub(super) fn match_label_keys(term: At, errors: &mut Errors) {
    let selector = term.field("labelSelector");
    let (keys, others) = (term.field("matchLabelKeys"), term.field("mismatchLabelKeys"));
    for list in [keys, others] {
        if list.len() > 0 && !selector.is_set() {
            errors.push(list.forbidden("must not be specified when labelSelector is not set"));
            continue;
        }
        list.items().for_each(|key| checked(key, names::is_qualified_name, errors));
    }
    let labels = selector.field("matchLabels");
    let mut selected: Vec<&str> = labels.entries().map(|(key, _)| key).collect();
    for expression in selector.field("matchExpressions").items() {
        let key = expression.field("key").text();
        let index = keys.items().position(|it| it.text() == key);
        // A single expression for the key is accepted, because the server generates it.
        if let Some(index) = index.filter(|_| selected.contains(&key)) {
            let path = term.path().index(index);
            errors.push(FieldError::invalid(&path, key, "exists in both matchLabelKeys and labelSelector"));
        }
        selected.push(key);
    }
    for key in keys.items().filter(|key| others.items().any(|other| other.text() == key.text())) {
        errors.push(key.invalid("exists in both matchLabelKeys and mismatchLabelKeys"));
    }
}

fn node_affinity(at: At, errors: &mut Errors) {
    let required = at.field("requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_set() {
        node_selector(required, errors);
    }
    for preferred in at.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(preferred, errors);
        node_term(preferred.field("preference"), false, errors);
    }
}

/// Checks a node selector of a pod or persistent volume.
pub(crate) fn node_selector(selector: At, errors: &mut Errors) {
    let terms = selector.field("nodeSelectorTerms");
    if terms.len() == 0 {
        errors.push(terms.required("must have at least one node selector term"));
    }
    terms.items().for_each(|term| node_term(term, true, errors));
}

/// Checks a node selector term. Values of a preferred term need not be valid label values.
fn node_term(term: At, checks_values: bool, errors: &mut Errors) {
    for expression in term.field("matchExpressions").items() {
        node_expression(expression, checks_values, errors);
    }
    for expression in term.field("matchFields").items() {
        node_field(expression, errors);
    }
}

fn node_expression(expression: At, checks_values: bool, errors: &mut Errors) {
    let (operator, values) = (expression.field("operator"), expression.field("values"));
    match operator.text() {
        "In" | "NotIn" => {
            if values.len() == 0 {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
        }
        "Exists" | "DoesNotExist" => {
            if values.len() > 0 {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(values.forbidden(why));
            }
        }
        "Gt" | "Lt" => {
            if values.len() != 1 {
                let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(values.required(why));
            }
        }
        _ => errors.push(operator.invalid_text("not a valid selector operator")),
    }
    checked(expression.field("key"), names::is_qualified_name, errors);
    if checks_values {
        values.items().for_each(|value| checked(value, names::is_valid_label_value, errors));
    }
}

/// Checks a field requirement. The only supported node field is the name.
fn node_field(expression: At, errors: &mut Errors) {
    let (key, operator, values) =
        (expression.field("key"), expression.field("operator"), expression.field("values"));
    match operator.text() {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(values.required(why));
        }
        _ => errors.push(operator.invalid_text("not a valid selector operator")),
    }
    if key.text() == "metadata.name" {
        values.items().for_each(|value| checked(value, names::is_dns1123_subdomain, errors));
    } else {
        errors.push(key.invalid_text("not a valid field selector key"));
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;

    fn fields(check: fn(At, &mut Errors), value: Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(At::named("t", Some(&value)), &mut errors);
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn rejects_invalid_node_terms() {
        let field = |key: &str, operator: &str, values: Value| json!({"matchFields": [{"key": key, "operator": operator, "values": values}]});
        let check = |at: At, errors: &mut Errors| node_term(at, true, errors);
        for (term, expected) in [
            (json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}), &[][..]),
            (
                json!({"matchExpressions": [{"key": "a b", "operator": "In", "values": ["_"]}]}),
                &["t.matchExpressions[0].key", "t.matchExpressions[0].values[0]"],
            ),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "Gt"}]}),
                &["t.matchExpressions[0].values"],
            ),
            (field("metadata.name", "In", json!(["a"])), &[]),
            (field("metadata.name", "In", json!(["a", "b"])), &["t.matchFields[0].values"]),
            (
                field("metadata.uid", "Exists", json!(["a"])),
                &["t.matchFields[0].operator", "t.matchFields[0].key"],
            ),
        ] {
            assert_eq!(fields(check, term.clone()), expected, "{term}");
        }
    }

    #[test]
    fn rejects_invalid_pod_terms() {
        for (term, expected) in [
            (json!({"topologyKey": "a"}), &[][..]),
            (json!({}), &["t.topologyKey", "t.topologyKey", "t.topologyKey"]),
            (json!({"topologyKey": "a", "namespaces": ["A"]}), &["t.namespace"]),
            (json!({"topologyKey": "a", "matchLabelKeys": ["x"]}), &["t.matchLabelKeys"]),
            (
                json!({"topologyKey": "a", "labelSelector": {}, "matchLabelKeys": ["x"], "mismatchLabelKeys": ["x"]}),
                &["t.matchLabelKeys[0]"],
            ),
            (
                json!({"topologyKey": "a", "matchLabelKeys": ["x"],
                    "labelSelector": {"matchLabels": {"x": "y"}, "matchExpressions": [{"key": "x", "operator": "In", "values": ["z"]}]}}),
                &["t[0]"],
            ),
        ] {
            assert_eq!(fields(pod_term, term.clone()), expected, "{term}");
        }
    }
}
