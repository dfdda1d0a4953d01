//! Pruning: drops the fields that are not in the schema.

use nave_machinery::{Map, Value};

use crate::types::{SchemaSet, Shape, TypeId};

/// Drops unknown fields from `object` and returns whether any were dropped. Leaves values of the wrong type to
/// validation.
pub fn prune(set: &SchemaSet, id: TypeId, object: &mut Value) -> bool {
    match object {
        Value::Object(map) => structure(set, id, map),
        _ => false,
    }
}

fn structure(set: &SchemaSet, id: TypeId, map: &mut Map) -> bool {
    let ty = set.get(id);
    let before = map.len();
    let mut dropped = false;
    map.retain(|name, value| {
        let field = ty.field(name);
        dropped |= field.is_some_and(|field| walk(set, &field.shape, value));
        field.is_some()
    });
    dropped || map.len() < before
}

fn walk(set: &SchemaSet, shape: &Shape, value: &mut Value) -> bool {
    match (shape, value) {
        (Shape::Struct(id), Value::Object(map)) => structure(set, *id, map),
        (Shape::List { items, .. }, Value::Array(list)) => {
            list.iter_mut().filter_map(|item| walk(set, items, item).then_some(())).count() > 0
        }
        (Shape::Map { values, .. }, Value::Object(map)) => {
            map.values_mut().filter_map(|item| walk(set, values, item).then_some(())).count() > 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin::parse;

    #[test]
    fn drops_unknown_fields_at_every_depth() {
        let set = parse("type a.A\n  any any\n  list [a.A]\n  map {a.A}\n  s string").unwrap();
        let mut object = json!({"x": 1, "s": "", "any": {"x": 1}, "list": [{"x": 1}, 2], "map": {"x": {"s": null, "y": 1}}});
        assert!(prune(&set, TypeId(0), &mut object));
        assert_eq!(object, json!({"s": "", "any": {"x": 1}, "list": [{}, 2], "map": {"x": {"s": null}}}));
        assert!(!prune(&set, TypeId(0), &mut object));
    }
}
