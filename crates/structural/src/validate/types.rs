//! Types of values, and the names of values and sizes in errors.

use nave_machinery::{FieldError, FieldErrorKind, FieldPath, Value};

use super::number::{self, Num, is_safe_integer};
use crate::formats::Format;
use crate::node::{Kind, Node};

/// Returns whether the schema allows the type of a value; false if the schema specifies no type.
pub(super) fn has_type(node: &Node, value: &Value) -> bool {
    let is_integer = |number: &serde_json::Number| match number.as_i64() {
        Some(_) => true,
        None => is_safe_integer(number.as_f64().unwrap_or(f64::NAN)),
    };
    if node.int_or_string {
        return match value {
            Value::Number(number) => is_integer(number),
            value => value.is_string(),
        };
    }
    match (node.kind, value) {
        (Some(Kind::Integer), Value::Number(number)) => is_integer(number),
        (Some(Kind::Object), Value::Object(_))
        | (Some(Kind::Array), Value::Array(_))
        | (Some(Kind::String), Value::String(_))
        | (Some(Kind::Number), Value::Number(_))
        | (Some(Kind::Boolean), Value::Bool(_)) => true,
        _ => false,
    }
}

pub(super) fn type_names(node: &Node) -> String {
    if node.int_or_string {
        return "integer,string".to_owned();
    }
    node.kind.map_or("", Kind::as_str).to_owned()
}

pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Returns the format of a value, as upstream derives it from the Go type.
pub(super) fn format_of(value: &Value) -> &'static str {
    match value {
        Value::Number(number) if number.is_i64() => Format::Int64.as_str(),
        Value::Number(_) => "float64",
        _ => "",
    }
}

/// Returns whether two values are equal. Compares numbers by value.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || Num::new(a).same(Num::new(b)),
        _ => a == b,
    }
}

pub(super) fn shown_in_enum(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number::go_json(number),
        other => other.to_string(),
    }
}

pub(super) fn too_long(max: i64) -> String {
    match max {
        1 => "may not be more than 1 byte".to_owned(),
        max if max >= 0 => format!("may not be more than {max} bytes"),
        _ => "value is too long".to_owned(),
    }
}

pub(super) fn too_many(path: &FieldPath, actual: i64, max: i64) -> FieldError {
    let detail = match max {
        1 => "must have at most 1 item".to_owned(),
        max if max >= 0 => format!("must have at most {max} items"),
        _ => "has too many items".to_owned(),
    };
    FieldError::with(FieldErrorKind::TooMany, path, Value::from(actual), detail)
}

pub(super) fn number_value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}
