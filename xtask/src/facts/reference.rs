//! Compares the table with the recorded types of a kube-apiserver (`openapi-v2-structure.json`), if a recording exists.

use std::fs;
use std::path::PathBuf;

use nave_schema::{AnyForm, Field, ListTopology, Scalar, SchemaSet, Shape};
use serde_json::{Value, json};

use crate::root;

/// Returns the differences between the table and the recording, one per line; `None` if no recording exists.
pub(crate) fn differences(set: &SchemaSet) -> Option<Vec<String>> {
    let text = fs::read_to_string(folder().join("openapi-v2-structure.json")).ok()?;
    let document: Value = serde_json::from_str(&text).ok()?;
    let mut found = Vec::new();
    for (name, definition) in document["definitions"].as_object()? {
        let Some(properties) = definition["properties"].as_object() else { continue };
        let Some(id) = set.find(name) else {
            found.push(format!("{name}: not in the table"));
            continue;
        };
        let ty = set.get(id);
        let mut complain = |what: &str, at: &str, theirs: &Value, ours: &Value| {
            if theirs != ours {
                found.push(format!("{name}{at}: {what}: {theirs} in the recording, {ours} in the table"));
            }
        };
        complain("map-type", "", &definition["x-kubernetes-map-type"], &atomic(ty.atomic));
        for field in &ty.fields {
            if !properties.contains_key(&field.name) {
                complain("field", &format!(".{}", field.name), &Value::Null, &json!(true));
            }
        }
        let required = definition["required"].as_array();
        for (key, property) in properties {
            let at = format!(".{key}");
            let Some(field) = ty.field(key) else {
                complain("field", &at, property, &Value::Null);
                continue;
            };
            let is_required = required.is_some_and(|list| list.iter().any(|name| name == key));
            complain("required", &at, &json!(is_required), &json!(field.required));
            for (what, ours) in extensions(field) {
                // Some fields set this explicitly, although it is the default.
                let says_nothing = property[what] == "granular" || property[what] == "replace";
                let theirs = if says_nothing { &Value::Null } else { &property[what] };
                complain(what, &at, theirs, &ours);
            }
            let theirs = resolve(property);
            complain("type", &at, &theirs, &shape(set, &field.shape, field.wire.any));
        }
    }
    Some(found)
}

/// Returns the type of a property in the recording. Resolves references to types that are not structs.
fn resolve(property: &Value) -> Value {
    if let Some(name) = property["$ref"].as_str().and_then(|path| path.strip_prefix("#/definitions/")) {
        let last = name.rsplit('.').next().unwrap_or(name);
        return match last {
            "RawExtension" | "FieldsV1" | "JSON" => json!("any"),
            _ if PLAIN.contains(&last) => json!(last),
            _ => json!(name),
        };
    }
    match (property["type"].as_str(), property["format"].as_str()) {
        (Some("array"), _) => json!([resolve(&property["items"])]),
        (Some("object"), _) if property["additionalProperties"].is_object() => {
            json!({ "values": resolve(&property["additionalProperties"]) })
        }
        (_, Some(format)) => json!(format),
        (ty, None) => json!(ty),
    }
}

/// Returns the type of a shape of the table in the same form.
fn shape(set: &SchemaSet, shape: &Shape, any: AnyForm) -> Value {
    match shape {
        Shape::Struct(id) => json!(set.get(*id).name),
        Shape::List { items, .. } => json!([self::shape(set, items, any)]),
        Shape::Map { values, .. } => json!({ "values": self::shape(set, values, any) }),
        Shape::Any => json!(match any {
            AnyForm::Raw | AnyForm::FieldsV1 => "any",
            AnyForm::SchemaOrBool => "JSONSchemaPropsOrBool",
            AnyForm::SchemaOrArray => "JSONSchemaPropsOrArray",
            AnyForm::SchemaOrStrings => "JSONSchemaPropsOrStringArray",
        }),
        Shape::Scalar(scalar) => json!(match scalar {
            Scalar::String => "string",
            Scalar::Bool => "boolean",
            Scalar::Int32 => "int32",
            Scalar::Int64 => "int64",
            Scalar::Double => "double",
            Scalar::Bytes => "byte",
            Scalar::Time => "Time",
            Scalar::MicroTime => "MicroTime",
            Scalar::Duration => "Duration",
            Scalar::Quantity => "Quantity",
            Scalar::IntOrString => "IntOrString",
        }),
    }
}

fn extensions(field: &Field) -> [(&'static str, Value); 5] {
    let topology = match &field.shape {
        Shape::List { topology, .. } => Some(topology),
        _ => None,
    };
    // Go represents bytes as a list.
    let is_bytes = field.shape == Shape::Scalar(Scalar::Bytes);
    let list_type = match topology {
        None if is_bytes => atomic(field.declared_atomic),
        Some(ListTopology::Set) => json!("set"),
        Some(ListTopology::Map(_)) => json!("map"),
        Some(ListTopology::Atomic) if field.declared_atomic => json!("atomic"),
        _ => Value::Null,
    };
    let keys = match topology {
        Some(ListTopology::Map(keys)) => json!(keys),
        _ => Value::Null,
    };
    let map_type = atomic(field.declared_atomic && topology.is_none() && !is_bytes);
    let strategy = match (field.patch.merge, field.patch.retain_keys) {
        (true, true) => json!("merge,retainKeys"),
        (true, false) => json!("merge"),
        (false, true) => json!("retainKeys"),
        (false, false) => Value::Null,
    };
    [
        ("x-kubernetes-list-type", list_type),
        ("x-kubernetes-list-map-keys", keys),
        ("x-kubernetes-map-type", map_type),
        ("x-kubernetes-patch-strategy", strategy),
        ("x-kubernetes-patch-merge-key", json!(field.patch.merge_key)),
    ]
}

fn atomic(on: bool) -> Value {
    if on { json!("atomic") } else { Value::Null }
}

fn folder() -> PathBuf {
    std::env::var_os("NAVE_REFERENCE").map_or_else(|| root().join("../shared/reference"), PathBuf::from)
}

/// Definitions without a type in the table.
const PLAIN: [&str; 8] = [
    "Time",
    "MicroTime",
    "Duration",
    "Quantity",
    "IntOrString",
    "JSONSchemaPropsOrArray",
    "JSONSchemaPropsOrBool",
    "JSONSchemaPropsOrStringArray",
];
