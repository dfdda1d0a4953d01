//! Messages of the conversion of an untyped map into a typed object.
//!
//! kube-apiserver converts the result of a strategic merge patch without a text in between, so that a value of a wrong
//! type has another message than in a JSON document (upstream: `apimachinery/pkg/runtime/converter.go`).

use nave_machinery::Value;

use crate::types::{Scalar, SchemaSet, Shape, TypeId};

/// Returns the message for the first value of a wrong type in an object, in the order of the names of the fields. Returns
/// `None` if all types are right, or if Go reads the value from its JSON (times, quantities).
pub fn mismatch(set: &SchemaSet, id: TypeId, object: &Value) -> Option<String> {
    let Value::Object(map) = object else {
        return Some(format!("cannot restore struct from: {}", kind_of(object)));
    };
    set.get(id).fields.iter().find_map(|field| of_shape(set, &field.shape, map.get(&field.name)?))
}

fn of_shape(set: &SchemaSet, shape: &Shape, value: &Value) -> Option<String> {
    match (shape, value) {
        (_, Value::Null) | (Shape::Any, _) => None,
        (Shape::Struct(id), value) => mismatch(set, *id, value),
        (Shape::List { items, .. }, Value::Array(list)) => {
            list.iter().find_map(|item| of_shape(set, items, item))
        }
        (Shape::List { .. }, value) => Some(format!("cannot restore slice from {}", kind_of(value))),
        (Shape::Map { values, .. }, Value::Object(map)) => {
            map.values().find_map(|value| of_shape(set, values, value))
        }
        (Shape::Map { .. }, value) => Some(format!("cannot restore map from {}", kind_of(value))),
        (Shape::Scalar(scalar), value) => of_scalar(*scalar, value),
    }
}

fn of_scalar(scalar: Scalar, value: &Value) -> Option<String> {
    let wanted = match scalar {
        Scalar::String => "string",
        Scalar::Bool => "bool",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Double => "float64",
        Scalar::Bytes
        | Scalar::Time
        | Scalar::MicroTime
        | Scalar::Duration
        | Scalar::Quantity
        | Scalar::IntOrString => return None,
    };
    match (scalar, value) {
        (Scalar::String, Value::String(_)) | (Scalar::Bool, Value::Bool(_)) => None,
        (Scalar::Int32 | Scalar::Int64 | Scalar::Double, Value::Number(number)) => {
            let is_exact = scalar == Scalar::Double || number.as_f64().is_some_and(|it| it.fract() == 0.0);
            (!is_exact).then(|| format!("cannot convert float64 to {wanted}"))
        }
        // Go converts numbers to texts in principle, but this conversion does not.
        (Scalar::String, Value::Number(_)) => Some(format!("cannot convert {} to string", kind_of(value))),
        _ => Some(format!("unrecognized type: {wanted}")),
    }
}

/// Returns Go's kind of a decoded value.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_the_first_value_of_a_wrong_type() {
        let set = crate::builtin();
        let pod = set.find("io.k8s.api.core.v1.Pod").unwrap();
        for (object, message) in [
            (json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a"}]}}), None),
            (json!({"metadata": {"labels": "invalid"}}), Some("cannot restore map from string")),
            (json!({"metadata": {"labels": ["a"]}}), Some("cannot restore map from slice")),
            (json!({"metadata": {"labels": {"a": 1}}}), Some("cannot convert int64 to string")),
            (json!({"metadata": {"labels": {"a": true}}}), Some("unrecognized type: string")),
            (json!({"metadata": {"finalizers": "a"}}), Some("cannot restore slice from string")),
            (json!({"metadata": "a"}), Some("cannot restore struct from: string")),
            (json!({"spec": {"activeDeadlineSeconds": "x"}}), Some("unrecognized type: int64")),
            (json!({"spec": {"activeDeadlineSeconds": 1.5}}), Some("cannot convert float64 to int64")),
            (json!({"spec": {"activeDeadlineSeconds": 2.0}}), None),
            (json!({"spec": {"hostNetwork": "x"}}), Some("unrecognized type: bool")),
            (json!({"spec": {"containers": [{"resources": {"limits": {"cpu": []}}}]}}), None),
            (json!([]), Some("cannot restore struct from: slice")),
        ] {
            assert_eq!(mismatch(set, pod, &object).as_deref(), message, "{object}");
        }
    }
}
