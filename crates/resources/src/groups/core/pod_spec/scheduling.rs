//! Where pods may run: tolerations, affinity, spreading.

use std::collections::BTreeSet;

use nave_machinery::{FieldError, names};

use crate::validate::{At, Errors, checked, label_selector, one_of, required_checked};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const UNSATISFIABLE: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
const NODE_POLICIES: [&str; 2] = ["Honor", "Ignore"];

pub(super) fn tolerations(list: At, errors: &mut Errors) {
    for toleration in list.items() {
        let (key, operator) = (toleration.field("key"), toleration.field("operator"));
        let (value, effect) = (toleration.field("value"), toleration.field("effect"));
        if !key.text().is_empty() {
            checked(key, names::is_qualified_name, errors);
        } else if operator.text() != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(operator.invalid_text(detail));
        }
        if toleration.field("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            errors.push(effect.invalid_text("effect must be 'NoExecute' when `tolerationSeconds` is set"));
        }
        match operator.text() {
            "" | "Equal" => checked(value, names::is_valid_label_value, errors),
            "Exists" => {
                if !value.text().is_empty() {
                    errors.push(FieldError::invalid(
                        &operator.path(),
                        value.text(),
                        "value must be empty when `operator` is 'Exists'",
                    ));
                }
            }
            _ => errors.push(operator.not_supported(&["Equal", "Exists"])),
        }
        if !effect.text().is_empty() {
            one_of(effect, &EFFECTS, errors);
        }
    }
}

pub(super) fn gates(list: At, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for gate in list.items() {
        let name = gate.field("name");
        checked(name, names::is_qualified_name, errors);
        if !seen.insert(name.text()) {
            errors.push(FieldError::duplicate(&gate.path(), name.text()));
        }
    }
}

pub(super) fn spread(list: At, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for constraint in list.items() {
        let (skew, key, when) = (
            constraint.field("maxSkew"),
            constraint.field("topologyKey"),
            constraint.field("whenUnsatisfiable"),
        );
        if skew.int().unwrap_or_default() <= 0 {
            let found = skew.int().unwrap_or_default();
            errors.push(FieldError::invalid(&skew.path(), found, "must be greater than zero"));
        }
        if key.text().is_empty() {
            errors.push(key.required("can not be empty"));
        } else {
            checked(key, names::is_qualified_name, errors);
        }
        one_of(when, &UNSATISFIABLE, errors);
        let pair = (key.text(), when.text());
        if !seen.insert(pair) {
            let shown = format!("{{{}, {}}}", pair.0, pair.1);
            errors.push(FieldError::duplicate(
                &constraint.path().child("{topologyKey, whenUnsatisfiable}"),
                shown,
            ));
        }
        let domains = constraint.field("minDomains");
        if domains.int().is_some_and(|number| number <= 0) {
            errors.push(domains.invalid("must be greater than zero"));
        } else if domains.is_set() && when.text() != "DoNotSchedule" {
            let detail = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway";
            errors.push(domains.invalid(detail));
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if constraint.field(policy).is_set() {
                one_of(constraint.field(policy), &NODE_POLICIES, errors);
            }
        }
        label_selector(constraint.field("labelSelector"), errors);
    }
}

pub(super) fn affinity(affinity: At, errors: &mut Errors) {
    if !affinity.is_set() {
        return;
    }
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
    label_selector(term.field("labelSelector"), errors);
    label_selector(term.field("namespaceSelector"), errors);
    for namespace in term.field("namespaces").items() {
        checked(namespace, names::is_dns1123_label, errors);
    }
    let key = term.field("topologyKey");
    if key.text().is_empty() {
        errors.push(key.required("can not be empty"));
    } else {
        checked(key, names::is_qualified_name, errors);
    }
}

fn node_affinity(at: At, errors: &mut Errors) {
    let required = at.field("requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_set() {
        node_selector(required, errors);
    }
    for preferred in at.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(preferred, errors);
        node_term(preferred.field("preference"), errors);
    }
}

/// Checks a node selector, of a pod or of a persistent volume.
pub(crate) fn node_selector(selector: At, errors: &mut Errors) {
    let terms = selector.field("nodeSelectorTerms");
    if terms.len() == 0 {
        errors.push(terms.required("must have at least one node selector term"));
    }
    for term in terms.items() {
        node_term(term, errors);
    }
}

fn node_term(term: At, errors: &mut Errors) {
    for expression in term.field("matchExpressions").items() {
        let (operator, values) = (expression.field("operator"), expression.field("values"));
        match operator.text() {
            "In" | "NotIn" => {
                if values.len() == 0 {
                    errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
                }
            }
            "Exists" | "DoesNotExist" => {
                if values.len() > 0 {
                    let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    errors.push(values.forbidden(detail));
                }
            }
            "Gt" | "Lt" => {
                if values.len() != 1 {
                    errors.push(
                        values.required("must be specified single value when `operator` is 'Lt' or 'Gt'"),
                    );
                }
            }
            _ => errors.push(operator.invalid_text("not a valid selector operator")),
        }
        required_checked(expression.field("key"), names::is_qualified_name, errors);
    }
}
