//! Structural validation: types, required fields, enumerations.

use nave_machinery::{FieldError, FieldErrorKind, FieldPath, Value};

use crate::types::{Field, Scalar, SchemaSet, Shape, TypeId};

/// Maximum number of findings for one object.
const FINDINGS_MAX: usize = 100;

/// Returns the structural errors of `object`, at most 100.
///
/// `null` counts as absent. Formats (times, quantities, base64) are not checked: for built-in kinds,
/// [`normalize`](crate::normalize::normalize) has already made them canonical.
pub fn structural(set: &SchemaSet, id: TypeId, object: &Value) -> Vec<FieldError> {
    let mut found = Vec::new();
    value(set, &Shape::Struct(id), object, &FieldPath::new(""), &mut found);
    found
}

fn value(set: &SchemaSet, shape: &Shape, value: &Value, path: &FieldPath, found: &mut Vec<FieldError>) {
    if found.len() >= FINDINGS_MAX || value.is_null() {
        return;
    }
    match (shape, value) {
        (Shape::Struct(id), Value::Object(map)) => {
            for field in &set.get(*id).fields {
                match map.get(&field.name) {
                    Some(value) if !value.is_null() => {
                        member(set, field, value, &path.child(&field.name), found);
                    }
                    _ if field.required => {
                        found.push(error(
                            FieldErrorKind::Required,
                            path.child(&field.name),
                            &Value::Null,
                            "",
                        ));
                    }
                    _ => {}
                }
            }
        }
        (Shape::List { items, .. }, Value::Array(list)) => {
            for (at, item) in list.iter().enumerate() {
                self::value(set, items, item, &path.index(at), found);
            }
        }
        (Shape::Map { values, .. }, Value::Object(map)) => {
            for (key, item) in map {
                self::value(set, values, item, &path.key(key), found);
            }
        }
        (Shape::Any, _) => {}
        (Shape::Scalar(scalar), _) if holds(*scalar, value) => {}
        _ => {
            let detail = format!("must be of type {}: \"{}\"", name_of(shape), kind_of(value));
            found.push(error(FieldErrorKind::TypeInvalid, path.clone(), value, &detail));
        }
    }
}

fn member(set: &SchemaSet, field: &Field, value: &Value, path: &FieldPath, found: &mut Vec<FieldError>) {
    self::value(set, &field.shape, value, path, found);
    let Some(text) = value.as_str().filter(|_| !field.enumeration.is_empty()) else { return };
    if !field.enumeration.iter().any(|known| known == text) && found.len() < FINDINGS_MAX {
        let known: Vec<String> = field.enumeration.iter().map(|known| format!("\"{known}\"")).collect();
        let detail = format!("supported values: {}", known.join(", "));
        found.push(error(FieldErrorKind::NotSupported, path.clone(), value, &detail));
    }
}

fn holds(scalar: Scalar, value: &Value) -> bool {
    match scalar {
        Scalar::Bool => value.is_boolean(),
        Scalar::Int32 => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        Scalar::Int64 => value.is_i64() || value.is_u64(),
        Scalar::Double => value.is_number(),
        Scalar::IntOrString => value.is_string() || value.is_i64() || value.is_u64(),
        Scalar::Quantity => value.is_string() || value.is_number(),
        Scalar::String | Scalar::Bytes | Scalar::Time | Scalar::MicroTime | Scalar::Duration => {
            value.is_string()
        }
    }
}

/// Returns JSON schema's name of the type.
fn name_of(shape: &Shape) -> &'static str {
    match shape {
        Shape::Struct(_) | Shape::Map { .. } | Shape::Any => "object",
        Shape::List { .. } => "array",
        Shape::Scalar(Scalar::Bool) => "boolean",
        Shape::Scalar(Scalar::Int32 | Scalar::Int64) => "integer",
        Shape::Scalar(Scalar::Double) => "number",
        Shape::Scalar(_) => "string",
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn error(kind: FieldErrorKind, field: FieldPath, value: &Value, detail: &str) -> FieldError {
    FieldError { kind, field, value: value.clone(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin;

    #[test]
    fn errors_have_paths_and_kinds() {
        let id = builtin().find("io.k8s.api.core.v1.ServiceSpec").unwrap();
        let spec = json!({"type": 1, "ports": [{"port": 80, "targetPort": true}, {}], "selector": {"a": {}}});
        let found = structural(builtin(), id, &spec);
        let places: Vec<_> = found.iter().map(|error| (error.field.as_str(), error.kind)).collect();
        assert_eq!(
            places,
            [
                ("ports[0].targetPort", FieldErrorKind::TypeInvalid),
                ("ports[1].port", FieldErrorKind::Required),
                ("selector[a]", FieldErrorKind::TypeInvalid),
                ("type", FieldErrorKind::TypeInvalid),
            ]
        );
    }

    #[test]
    fn limits_the_number_of_errors() {
        let id = builtin().find("io.k8s.api.core.v1.ServiceSpec").unwrap();
        let ports: Vec<Value> = (0..1000).map(|_| json!({})).collect();
        assert_eq!(structural(builtin(), id, &json!({"ports": ports})).len(), FINDINGS_MAX);
    }
}
