//! Semantic equality (upstream: `apimachinery/pkg/api/equality`).

use nave_machinery::{Map, Value};

/// Returns whether two values are equal. An absent field equals an empty field: `null`, `false`, or an empty string,
/// list or object.
pub(crate) fn is_equal(one: Option<&Value>, other: Option<&Value>) -> bool {
    match (one, other) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            has_equal(one, other) && has_equal(other, one)
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| is_equal(Some(one), Some(other)))
        }
        _ => one == other || (one.is_none_or(is_empty) && other.is_none_or(is_empty)),
    }
}

fn has_equal(one: &Map, other: &Map) -> bool {
    one.iter().all(|(name, value)| is_equal(Some(value), other.get(name)))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn empty_values_equal_absent_ones() {
        for (one, other, expected) in [
            (json!({"a": 1, "b": null, "c": {}}), json!({"a": 1, "d": ""}), true),
            (json!({"a": [{"b": false}]}), json!({"a": [{}]}), true),
            (json!({"a": [1]}), json!({"a": [1, null]}), false),
            (json!({"a": {"b": false}}), json!({}), true),
            (json!({"a": 0}), json!({}), false),
            (json!("a"), json!("b"), false),
        ] {
            assert_eq!(is_equal(Some(&one), Some(&other)), expected, "{one} {other}");
            assert_eq!(is_equal(Some(&other), Some(&one)), expected, "{other} {one}");
        }
    }
}
