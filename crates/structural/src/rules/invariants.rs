//! Checks of the structure of a schema (upstream: `validateStructuralInvariants`).

use nave_machinery::{FieldPath, Map, Value};
use serde_json::json;

use super::{Errors, map, values};
use crate::compile::{flag, present, text};

/// The position of a schema in its parent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Root,
    Item,
    Field,
}

const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

pub(super) fn check(schema: &Map, level: Level, path: &FieldPath, errors: &mut Errors) {
    let kind = text(schema, "type").unwrap_or_default();
    match present(schema, "items") {
        None | Some(Value::Array(_)) if kind == "array" => {
            errors.required(&path.child("items"), "must be specified");
        }
        Some(Value::Object(items)) => check(items, Level::Item, &path.child("items"), errors),
        _ => {}
    }
    for (name, property) in map(schema, "properties").into_iter().flatten() {
        if let Value::Object(property) = property {
            check(property, Level::Field, &path.child("properties").key(name), errors);
        }
    }
    let additional = present(schema, "additionalProperties");
    if additional.is_some() && level == Level::Root {
        errors.forbidden(&path.child("additionalProperties"), "must not be used at the root");
    }
    if let Some(Value::Object(additional)) = additional {
        check(additional, Level::Field, &path.child("additionalProperties"), errors);
    }
    extensions(schema, path, errors);
    let any_of = is_int_or_string(schema.get("anyOf"));
    let first = schema.get("allOf").and_then(|all| all.get(0));
    let first_any_of = first.is_some_and(|first| is_int_or_string(first.get("anyOf")));
    values::check(schema, values::Skip { any_of, first_any_of }, path, errors);
    resource(schema, kind, level, path, errors);
}

/// Returns whether `anyOf` allows an integer or a string and has no other keywords.
fn is_int_or_string(any_of: Option<&Value>) -> bool {
    any_of == Some(&json!([{"type": "integer"}, {"type": "string"}]))
}

fn extensions(schema: &Map, path: &FieldPath, errors: &mut Errors) {
    if flag(schema, INT_OR_STRING) {
        for other in [PRESERVE, EMBEDDED] {
            if flag(schema, other) {
                errors.invalid(&path.child(other), true, format!("must be false if {INT_OR_STRING} is true"));
            }
        }
    }
}

/// Checks the type, and the requirements of embedded resources and the root.
fn resource(schema: &Map, kind: &str, level: Level, path: &FieldPath, errors: &mut Errors) {
    let is_embedded = flag(schema, EMBEDDED);
    let at = path.child("type");
    if is_embedded && kind != "object" {
        let why = format!("must be object if {EMBEDDED} is true");
        if kind.is_empty() { errors.required(&at, why) } else { errors.invalid(&at, kind, why) }
    } else if kind.is_empty() && !flag(schema, INT_OR_STRING) && !flag(schema, PRESERVE) {
        let place = match level {
            Level::Root => "at the root",
            Level::Item => "for specified array items",
            Level::Field => "for specified object fields",
        };
        errors.required(&at, format!("must not be empty {place}"));
    }
    if is_embedded && present(schema, "additionalProperties").is_some() {
        let why = format!("must not be used if {EMBEDDED} is set");
        errors.forbidden(&path.child("additionalProperties"), &why);
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.invalid(&at, kind, "must be object at the root");
    }
    let properties = map(schema, "properties");
    let is_resource = level == Level::Root || is_embedded;
    for name in ["kind", "apiVersion"] {
        if let Some(Value::Object(property)) =
            properties.and_then(|all| all.get(name)).filter(|_| is_resource)
        {
            let kind = text(property, "type").unwrap_or_default();
            if kind != "string" {
                errors.invalid(&path.child("properties").key(name).child("type"), kind, "must be string");
            }
        }
    }
    if let Some(Value::Object(metadata)) = properties.and_then(|all| all.get("metadata")) {
        self::metadata(metadata, is_resource, level, &path.child("properties").key("metadata"), errors);
    }
    if is_embedded && !flag(schema, PRESERVE) && properties.is_none_or(Map::is_empty) {
        let why = format!("must not be empty if {EMBEDDED} is true without {PRESERVE}");
        errors.required(&path.child("properties"), why);
    }
}

/// Checks that the root's metadata restricts only `name` and `generateName`.
fn metadata(schema: &Map, is_resource: bool, level: Level, path: &FieldPath, errors: &mut Errors) {
    let kind = text(schema, "type").unwrap_or_default();
    if is_resource && kind != "object" {
        errors.invalid(&path.child("type"), kind, "must be object");
    }
    let is_name = |name: &String| name == "name" || name == "generateName";
    let says_more = schema.iter().any(|(keyword, value)| match (keyword.as_str(), value) {
        ("type" | "default", _) | (_, Value::Null | Value::Bool(false)) => false,
        ("properties", Value::Object(properties)) => !properties.keys().all(is_name),
        (_, Value::String(text)) => !text.is_empty(),
        (_, Value::Array(list)) => !list.is_empty(),
        _ => true,
    });
    if level == Level::Root && says_more {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.forbidden(path, why);
    }
}
