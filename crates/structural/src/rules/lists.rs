//! `x-kubernetes-list-type`, `x-kubernetes-list-map-keys` and `x-kubernetes-map-type`.

use std::collections::HashSet;

use nave_machinery::{FieldError, FieldPath, Map, Value};

use super::{Errors, Requirements, list, map};
use crate::compile::{flag, present, text};

const LIST_TYPE: &str = "x-kubernetes-list-type";
const MAP_TYPE: &str = "x-kubernetes-map-type";
const MAP_KEYS: &str = "x-kubernetes-list-map-keys";

pub(super) fn map_type(schema: &Map, path: &FieldPath, errors: &mut Errors) {
    let Some(kind) = schema.get(MAP_TYPE).and_then(Value::as_str) else { return };
    wrong_type(schema, "object", MAP_TYPE, path, errors);
    if !matches!(kind, "atomic" | "granular") {
        errors.push(FieldError::not_supported(&path.child(MAP_TYPE), kind, &["atomic", "granular"]));
    }
}

/// Reports a schema without the type that a keyword requires. Returns whether an error was reported.
fn wrong_type(schema: &Map, needed: &str, keyword: &str, path: &FieldPath, errors: &mut Errors) -> bool {
    let kind = text(schema, "type").unwrap_or_default();
    let why = format!("must be {needed} if {keyword} is specified");
    match kind {
        kind if kind == needed => return false,
        "" => errors.required(&path.child("type"), why),
        kind => errors.invalid(&path.child("type"), kind, why),
    }
    true
}

pub(super) fn list_type(schema: &Map, path: &FieldPath, requirements: Requirements, errors: &mut Errors) {
    let kind = schema.get(LIST_TYPE).and_then(Value::as_str);
    if let Some(kind) = kind {
        let is_wrong = wrong_type(schema, "array", LIST_TYPE, path, errors);
        if !is_wrong && requirements.atomic_sets {
            set_items(schema, path, errors);
        }
        if !matches!(kind, "atomic" | "set" | "map") {
            errors.push(FieldError::not_supported(&path.child(LIST_TYPE), kind, &["atomic", "set", "map"]));
        }
    }
    if !list(schema, MAP_KEYS).is_empty() && kind != Some("map") {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        match kind {
            None => errors.required(&path.child(LIST_TYPE), why),
            Some(kind) => errors.invalid(&path.child(LIST_TYPE), kind, why),
        }
    }
    if kind == Some("map") {
        map_list(schema, path, errors);
    }
}

/// Checks that the items of a set are atomic.
fn set_items(schema: &Map, path: &FieldPath, errors: &mut Errors) {
    if !has_non_atomic_items(schema) {
        return;
    }
    let Some(items) = map(schema, "items") else { return };
    let keyword = if text(items, "type") == Some("array") { LIST_TYPE } else { MAP_TYPE };
    // Upstream shows the list type in both errors.
    let shown = items.get(LIST_TYPE).cloned().unwrap_or(Value::Null);
    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
    errors.invalid(&path.child("items").child(keyword), shown, why);
}

/// Returns whether a schema is a set whose items are merged.
pub(super) fn has_non_atomic_items(schema: &Map) -> bool {
    let Some(items) = map(schema, "items").filter(|_| text(schema, LIST_TYPE) == Some("set")) else {
        return false;
    };
    match text(items, "type") {
        Some("array") => text(items, LIST_TYPE).is_some_and(|kind| kind != "atomic"),
        Some("object") => text(items, MAP_TYPE) != Some("atomic"),
        _ => false,
    }
}

fn map_list(schema: &Map, path: &FieldPath, errors: &mut Errors) {
    let keys = list(schema, MAP_KEYS);
    if keys.is_empty() {
        errors.required(&path.child(MAP_KEYS), "must not be empty if x-kubernetes-list-type is map");
    }
    let items = match present(schema, "items") {
        None => {
            errors.required(&path.child("items"), "must have a schema if x-kubernetes-list-type is map");
            return;
        }
        Some(Value::Object(items)) => items,
        Some(other) => {
            let why = "must only have a single schema if x-kubernetes-list-type is map";
            errors.invalid(&path.child("items"), other.clone(), why);
            return;
        }
    };
    let kind = text(items, "type").unwrap_or_default();
    if kind != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.invalid(&path.child("items").child("type"), kind, why);
        return;
    }
    scalar_keys(keys, items, path, errors);
    let at = path.child(MAP_KEYS);
    let names: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
    let properties = map(items, "properties");
    if !names.iter().all(|name| properties.is_some_and(|all| all.contains_key(*name))) {
        errors.invalid(&at, keys, "entries must all be names of item properties");
    }
    if names.iter().collect::<HashSet<_>>().len() < names.len() {
        errors.invalid(&at, keys, "must not contain duplicate entries");
    }
}

/// Checks that the keys of a list of type map are scalars.
fn scalar_keys(keys: &[Value], items: &Map, path: &FieldPath, errors: &mut Errors) {
    for key in keys.iter().filter_map(Value::as_str) {
        let property = map(items, "properties").and_then(|all| all.get(key));
        if matches!(property.and_then(|it| it.get("type")?.as_str()), Some("array" | "object")) {
            let at = path.child("items").child("properties").key(key).child("type");
            errors.invalid(
                &at,
                "object",
                "must be a scalar type if parent array's x-kubernetes-list-type is map",
            );
        }
    }
}

/// Checks that items of sets and maps are not nullable, and that keys of maps are required or have a default (upstream:
/// `validateMapListKeysMapSet`).
pub(super) fn map_keys(schema: &Map, path: &FieldPath, errors: &mut Errors) {
    let Some(kind @ ("set" | "map")) = text(schema, LIST_TYPE) else { return };
    let Some(items) = map(schema, "items") else { return };
    let at = path.child("items");
    if flag(items, "nullable") {
        errors.forbidden(
            &at.child("nullable"),
            &format!("cannot be nullable when x-kubernetes-list-type is {kind}"),
        );
    }
    if kind == "set" {
        return;
    }
    let required = list(items, "required");
    for key in list(schema, MAP_KEYS).iter().filter_map(Value::as_str) {
        let Some(Value::Object(property)) = map(items, "properties").and_then(|all| all.get(key)) else {
            continue;
        };
        let at = at.child("properties").key(key);
        if !required.iter().any(|name| name == key) && present(property, "default").is_none() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&at.child("default"), why);
        }
        if flag(property, "nullable") {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&at.child("nullable"), why);
        }
    }
}
