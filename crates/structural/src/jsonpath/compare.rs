//! Comparisons in filters. As in Go templates, only scalars of the same kind can be compared.

use std::cmp::Ordering;

use nave_machinery::Value;

use super::JsonPathError;

/// Returns whether `left operator right` holds.
pub(super) fn holds(left: &Value, operator: &str, right: &Value) -> Result<bool, JsonPathError> {
    match operator {
        "==" => equal(left, right),
        "!=" => equal(left, right).map(|is_equal| !is_equal),
        "<" => less(left, right),
        "<=" => Ok(less(left, right)? || equal(left, right)?),
        ">" => Ok(!less(left, right)? && !equal(left, right)?),
        ">=" => less(left, right).map(|is_less| !is_less),
        other => Err(JsonPathError::new(format!("unrecognized filter operator {other}"))),
    }
}

fn equal(left: &Value, right: &Value) -> Result<bool, JsonPathError> {
    if let (Value::Bool(left), Value::Bool(right)) = (left, right) {
        return Ok(left == right);
    }
    order(left, right).map(|order| order == Some(Ordering::Equal))
}

fn less(left: &Value, right: &Value) -> Result<bool, JsonPathError> {
    if left.is_boolean() && right.is_boolean() {
        return Err(JsonPathError::new("invalid type for comparison"));
    }
    order(left, right).map(|order| order == Some(Ordering::Less))
}

fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, JsonPathError> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Ok(Some(left.cmp(right))),
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Ok(Some(left.cmp(&right))),
            (None, None) => Ok(left.as_f64().partial_cmp(&right.as_f64())),
            _ => Err(incompatible()),
        },
        (Value::Null | Value::Array(_) | Value::Object(_), _)
        | (_, Value::Null | Value::Array(_) | Value::Object(_)) => {
            Err(JsonPathError::new("invalid type for comparison"))
        }
        _ => Err(incompatible()),
    }
}

fn incompatible() -> JsonPathError {
    JsonPathError::new("incompatible types for comparison")
}
