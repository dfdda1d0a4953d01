//! Comparison of tolerations (upstream: `pkg/util/tolerations`).

use nave_machinery::Value;

use super::pods::text;

const EXISTS: &str = "Exists";
const EQUAL: &str = "Equal";

/// Returns whether the toleration `wide` covers the toleration `narrow`.
pub(super) fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let (operator, narrow_operator) = (text(wide, "operator"), text(narrow, "operator"));
    // An empty key with the operator Exists matches all keys and values.
    if text(narrow, "key") != text(wide, "key") && !(text(wide, "key").is_empty() && operator == EXISTS) {
        return false;
    }
    let effect = text(wide, "effect");
    if text(narrow, "effect") != effect && !effect.is_empty() {
        return false;
    }
    if effect == "NoExecute"
        && let Some(seconds) = seconds(wide)
        && self::seconds(narrow).is_none_or(|narrow| narrow > seconds)
    {
        return false;
    }
    match operator {
        EQUAL | "" => narrow_operator == EQUAL && text(narrow, "value") == text(wide, "value"),
        EXISTS => true,
        _ => false,
    }
}

/// Merges two lists; drops tolerations that another toleration covers.
pub(super) fn merge(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged: Vec<&Value> = Vec::new();
    for (at, toleration) in all.iter().enumerate() {
        let is_covered = merged.iter().any(|kept| covers(kept, toleration));
        // Equal tolerations cover each other; the first is kept.
        let covered_later =
            || all[at + 1..].iter().any(|later| later != toleration && covers(later, toleration));
        if !is_covered && !covered_later() {
            merged.push(toleration);
        }
    }
    merged.into_iter().cloned().collect()
}

/// Returns whether the list `by` covers each toleration. An empty list covers all tolerations.
pub(super) fn are_covered(tolerations: &[Value], by: &[Value]) -> bool {
    by.is_empty() || tolerations.iter().all(|toleration| by.iter().any(|wide| covers(wide, toleration)))
}

fn seconds(toleration: &Value) -> Option<i64> {
    toleration.get("tolerationSeconds").and_then(Value::as_i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn covers_keys_effects_values_and_seconds() {
        let all = json!({"operator": "Exists"});
        let key = json!({"key": "a", "operator": "Exists"});
        let value = json!({"key": "a", "operator": "Equal", "value": "1", "effect": "NoSchedule"});
        let short = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let long = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10});
        for (wide, narrow, expected) in [
            (&all, &value, true),
            (&all, &short, true),
            (&key, &value, true),
            (&value, &key, false),
            (&key, &all, false),
            (&long, &short, true),
            (&short, &long, false),
            (&short, &key, false),
            (&value, &value, true),
        ] {
            assert_eq!(covers(wide, narrow), expected, "{wide} {narrow}");
        }
        assert_eq!(merge(&[value.clone(), short.clone()], &[all.clone()]), [all.clone()]);
        assert_eq!(merge(&[all.clone()], &[value.clone()]), [all]);
        assert_eq!(merge(&[value.clone()], &[short.clone(), value.clone()]), [value.clone(), short.clone()]);
        assert!(are_covered(&[value.clone()], &[]) && are_covered(&[value.clone()], &[key.clone()]));
        assert!(!are_covered(&[key], &[value]));
    }
}
