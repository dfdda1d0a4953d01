//! Removes fields from an object (upstream: `structured-merge-diff/typed.RemoveItems`).

use nave_machinery::{Map, Value};

use super::path::PathElement;
use super::schema::{Kind, ListType, MapType, Relation, TypeRef};
use super::set::{FieldSet, Node};

/// Removes fields from an object. Parents of removed fields stay, even if they are empty. Fields within an atomic value
/// cannot be removed individually, so the whole value is emptied.
pub(super) fn remove_items(ty: TypeRef<'_>, object: Value, fields: &FieldSet) -> Value {
    let kind = ty.kind(Some(&object));
    match (kind, object) {
        (Kind::Scalar, scalar) => scalar,
        (Kind::List, Value::Array(items)) => match ty.list() {
            Some(list) if list.relation != Relation::Atomic => remove_from_list(list, items, fields),
            _ => Value::Null,
        },
        (Kind::Map, Value::Object(entries)) => match ty.map() {
            Some(map) if !map.is_atomic => remove_from_map(map, entries, fields),
            _ => Value::Null,
        },
        _ => Value::Null,
    }
}

fn remove_from_map(map: MapType<'_>, entries: Map, fields: &FieldSet) -> Value {
    let mut holds_removed = false;
    let mut kept = Map::new();
    for (name, value) in entries {
        let Some(node) = fields.get_field(&name) else {
            kept.insert(name, value);
            continue;
        };
        if node.member {
            continue;
        }
        holds_removed = true;
        let ty = map.entry(&name).unwrap_or(TypeRef::Untyped);
        kept.insert(name, remove_within(ty, value, node));
    }
    if kept.is_empty() && !holds_removed { Value::Null } else { Value::Object(kept) }
}

fn remove_from_list(list: ListType<'_>, items: Vec<Value>, fields: &FieldSet) -> Value {
    let mut holds_removed = false;
    let mut kept = Vec::with_capacity(items.len());
    for item in items {
        let element: Option<PathElement> = list.element(&item).ok();
        match element.as_ref().and_then(|element| fields.get(element)) {
            None => kept.push(item),
            Some(node) if node.member => {}
            Some(node) => {
                holds_removed = true;
                kept.push(remove_within(list.items, item, node));
            }
        }
    }
    if kept.is_empty() && !holds_removed { Value::Null } else { Value::Array(kept) }
}

fn remove_within(ty: TypeRef<'_>, value: Value, node: &Node) -> Value {
    let empty = match &value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    };
    match remove_items(ty, value, &node.children) {
        Value::Null => empty,
        rest => rest,
    }
}
