//! Validation of scheduling: tolerations, gates, topology spread.

use std::collections::BTreeSet;

use nave_machinery::{FieldError, names};

use super::affinity::match_label_keys;
use crate::validate::{At, Errors, absent_or_one_of, checked, label_selector, one_of};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const UNSATISFIABLE: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
const NODE_POLICIES: [&str; 2] = ["Honor", "Ignore"];

/// Checks tolerations of a pod or runtime class.
pub(crate) fn tolerations(list: At, errors: &mut Errors) {
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
        let invalid = |why: &str| FieldError::invalid(&operator.path(), value.text(), why);
        match operator.text() {
            "" | "Equal" => {
                let found = names::is_valid_label_value(value.text());
                errors.extend((!found.is_empty()).then(|| invalid(&found.join(";"))));
            }
            "Exists" if value.text().is_empty() => {}
            "Exists" => errors.push(invalid("value must be empty when `operator` is 'Exists'")),
            "Lt" | "Gt" => errors.push(operator.not_supported(&["Equal", "Exists", "Lt", "Gt"])),
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
        let name = gate.field("name").text();
        errors.extend(
            names::is_qualified_name(name)
                .into_iter()
                .map(|why| FieldError::invalid(&gate.path(), name, why)),
        );
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&gate.path(), name));
        }
    }
}

pub(super) fn spread(list: At, errors: &mut Errors) {
    let mut later = BTreeSet::new();
    let mut repeated = BTreeSet::new();
    // Upstream reports the first of two duplicate constraints.
    for (index, constraint) in list.items().collect::<Vec<_>>().into_iter().enumerate().rev() {
        let pair = (constraint.field("topologyKey").text(), constraint.field("whenUnsatisfiable").text());
        if !later.insert(pair) {
            repeated.insert(index);
        }
    }
    for (index, constraint) in list.items().enumerate() {
        let (skew, key, when) = (
            constraint.field("maxSkew"),
            constraint.field("topologyKey"),
            constraint.field("whenUnsatisfiable"),
        );
        positive(skew, errors);
        if key.text().is_empty() {
            errors.push(key.required("can not be empty"));
        }
        one_of(when, &UNSATISFIABLE, errors);
        if repeated.contains(&index) {
            let shown = format!("{{{}, {}}}", key.text(), when.text());
            let path = constraint.path().child("{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(&path, shown));
        }
        let domains = constraint.field("minDomains");
        if domains.is_set() {
            positive(domains, errors);
            if when.text() != "DoNotSchedule" {
                let why = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    when.text()
                );
                errors.push(domains.invalid(why));
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            absent_or_one_of(constraint.field(policy), &NODE_POLICIES, errors);
        }
        match_label_keys(constraint, errors);
        label_selector(constraint.field("labelSelector"), errors);
    }
}

fn positive(at: At, errors: &mut Errors) {
    let number = at.int().unwrap_or_default();
    if number <= 0 {
        errors.push(FieldError::invalid(&at.path(), number, "must be greater than zero"));
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;

    fn fields(check: fn(At, &mut Errors), value: Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(At::named("l", Some(&value)), &mut errors);
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn rejects_invalid_tolerations() {
        for (toleration, expected) in [
            (json!({"operator": "Exists"}), &[][..]),
            (json!({}), &["l[0].operator"]),
            (json!({"key": "a", "value": "_"}), &["l[0].operator"]),
            (json!({"key": "a", "operator": "Exists", "value": "b"}), &["l[0].operator"]),
            (json!({"key": "a", "operator": "Lt", "value": "1"}), &["l[0].operator"]),
            (json!({"key": "a", "tolerationSeconds": 1, "effect": "NoSchedule"}), &["l[0].effect"]),
            (json!({"key": "a", "effect": "x"}), &["l[0].effect"]),
        ] {
            assert_eq!(fields(tolerations, json!([toleration])), expected, "{toleration}");
        }
    }

    #[test]
    fn scheduling_gates_are_unique() {
        assert_eq!(fields(gates, json!([{"name": "a"}, {"name": "a"}, {"name": "a b"}])), ["l[1]", "l[2]"]);
    }

    #[test]
    fn rejects_invalid_spread_constraints() {
        let constraint = |more: Value| {
            let mut all = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        for (more, expected) in [
            (json!({}), &[][..]),
            (json!({"maxSkew": 0, "topologyKey": ""}), &["l[0].maxSkew", "l[0].topologyKey"]),
            (json!({"minDomains": 0}), &["l[0].minDomains"]),
            (json!({"minDomains": 1, "whenUnsatisfiable": "ScheduleAnyway"}), &["l[0].minDomains"]),
            (json!({"nodeTaintsPolicy": "x"}), &["l[0].nodeTaintsPolicy"]),
            (json!({"matchLabelKeys": ["a"]}), &["l[0].matchLabelKeys"]),
        ] {
            assert_eq!(fields(spread, json!([constraint(more.clone())])), expected, "{more}");
        }
        let twice = json!([constraint(json!({})), constraint(json!({}))]);
        assert_eq!(fields(spread, twice), ["l[0].{topologyKey, whenUnsatisfiable}"]);
    }
}
