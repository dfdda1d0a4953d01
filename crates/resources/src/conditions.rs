//! Validation of `metav1.Condition` lists (upstream: `apimachinery/pkg/apis/meta/v1/validation`).

use std::collections::HashSet;

use nave_machinery::{FieldError, names};

use crate::validate::{At, Errors, one_of, required_text};

const REASON_MAX: usize = 1024;
const MESSAGE_MAX: usize = 32 * 1024;
const REASON_RULE: &str =
    "must be a condition reason: a letter, then letters, digits or '_,:', a letter, digit or '_' at its end";

/// Checks a list of conditions with unique types.
pub(crate) fn conditions(list: At, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for condition in list.items() {
        let kind = condition.field("type");
        if !seen.insert(kind.text()) {
            errors.push(FieldError::duplicate(&kind.path(), kind.text()));
        }
        self::condition(condition, errors);
    }
}

fn condition(condition: At, errors: &mut Errors) {
    let (kind, observed) = (condition.field("type"), condition.field("observedGeneration"));
    let found = names::is_qualified_name(kind.text());
    errors.extend(found.into_iter().map(|why| kind.invalid_text(why)));
    one_of(condition.field("status"), &["False", "True", "Unknown"], errors);
    if observed.int().is_some_and(|generation| generation < 0) {
        errors.push(observed.invalid("must be greater than or equal to zero"));
    }
    required_text(condition.field("lastTransitionTime"), errors);
    let (reason, message) = (condition.field("reason"), condition.field("message"));
    if required_text(reason, errors) && !is_reason(reason.text()) {
        errors.push(reason.invalid(REASON_RULE));
    }
    for (at, max) in [(reason, REASON_MAX), (message, MESSAGE_MAX)] {
        if at.text().len() > max {
            errors.push(FieldError::too_long(&at.path(), max));
        }
    }
}

fn is_reason(reason: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    reason.starts_with(|first: char| first.is_ascii_alphabetic())
        && reason.bytes().last().is_some_and(is_word)
        && reason.bytes().all(|byte| is_word(byte) || matches!(byte, b',' | b':'))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn conditions_are_complete_and_unique() {
        let whole = json!({
            "type": "a.com/Ready", "status": "True", "reason": "A_b:c", "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let with = |field: &str, value: Value| {
            let mut condition = whole.clone();
            condition[field] = value;
            json!({"conditions": [condition]})
        };
        for (object, expected) in [
            (json!({"conditions": [whole]}), &[][..]),
            (json!({"conditions": [whole, whole]}), &["conditions[1].type"]),
            (with("status", json!("true")), &["conditions[0].status"]),
            (with("observedGeneration", json!(-1)), &["conditions[0].observedGeneration"]),
            (with("lastTransitionTime", Value::Null), &["conditions[0].lastTransitionTime"]),
            (with("reason", json!("")), &["conditions[0].reason"]),
            (with("reason", json!("a b")), &["conditions[0].reason"]),
            (with("reason", json!("a".repeat(1025))), &["conditions[0].reason"]),
            (with("message", json!("a".repeat(32 * 1024 + 1))), &["conditions[0].message"]),
        ] {
            let mut errors = Errors::new();
            let root = At::root(&object);
            conditions(root.field("conditions"), &mut errors);
            let fields: Vec<_> = errors.iter().map(|error| error.field.to_string()).collect();
            assert_eq!(fields, expected, "{object}");
        }
    }
}
