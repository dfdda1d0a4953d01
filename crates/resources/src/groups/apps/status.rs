//! Validation of the status of workloads (upstream: `pkg/apis/apps/validation`).

use nave_machinery::{FieldError, Value};

use crate::validate::{At, Errors, NOT_NEGATIVE};

/// Checks the counts of a status: no count is negative, no count in `of_replicas` exceeds `replicas`, and
/// `collisionCount` does not decrease.
pub(super) fn validate(workload: &Value, old: &Value, of_replicas: &[&'static str]) -> Errors {
    let root = At::root(workload);
    let status = root.field("status");
    let mut errors = Errors::new();
    for (name, value) in status.map().into_iter().flatten() {
        if value.as_i64().is_some_and(|number| number < 0) {
            errors.push(FieldError::invalid(&status.path().child(name), value.clone(), NOT_NEGATIVE));
        }
    }
    let count = |field: &'static str| status.field(field).int().unwrap_or_default();
    for field in of_replicas {
        if count(field) > count("replicas") {
            errors.push(status.field(field).invalid("cannot be greater than status.replicas"));
        }
    }
    if !of_replicas.is_empty() && count("availableReplicas") > count("readyReplicas") {
        // Upstream's text for stateful sets, the only ones that count current replicas, has the whole path.
        let parent = if of_replicas.contains(&"currentReplicas") { "status." } else { "" };
        let why = format!("cannot be greater than {parent}readyReplicas");
        errors.push(status.field("availableReplicas").invalid(why));
    }
    let collisions = |workload: &Value| workload.pointer("/status/collisionCount").and_then(Value::as_i64);
    if collisions(old).is_some_and(|old| collisions(workload).is_none_or(|new| new < old)) {
        let path = status.path().child("collisionCount");
        let shown = collisions(workload).unwrap_or_default();
        errors.push(FieldError::invalid(&path, shown, "cannot be decremented"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_the_other_count_as_upstream() {
        let status = json!({"status": {"replicas": 2, "availableReplicas": 1}});
        for (counts, name) in [
            (&["readyReplicas"][..], "readyReplicas"),
            (&["readyReplicas", "currentReplicas"], "status.readyReplicas"),
        ] {
            let errors = validate(&status, &json!({}), counts);
            let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
            let text = format!("status.availableReplicas: Invalid value: 1: cannot be greater than {name}");
            assert_eq!(texts, [text]);
        }
    }

    #[test]
    fn counts_are_consistent() {
        const PARTS: [&str; 2] = ["readyReplicas", "availableReplicas"];
        for (status, expected) in [
            (
                json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1, "collisionCount": 3}),
                &[][..],
            ),
            (
                json!({"replicas": -1, "collisionCount": 3}),
                &["status.replicas", "status.readyReplicas", "status.availableReplicas"],
            ),
            (
                json!({"replicas": 1, "readyReplicas": 2, "collisionCount": 2}),
                &["status.readyReplicas", "status.collisionCount"],
            ),
            (
                json!({"replicas": 3, "availableReplicas": 1}),
                &["status.availableReplicas", "status.collisionCount"],
            ),
        ] {
            let old = json!({"status": {"collisionCount": 3}});
            let errors = validate(&json!({"status": status}), &old, &PARTS);
            let told: Vec<_> = errors.iter().map(|error| error.field.to_string()).collect();
            assert_eq!(told, expected, "{status}");
        }
    }
}
