//! Static defaults: what a schema puts into fields that are absent.

use nave_machinery::{Map, Value};

use crate::types::{Field, SchemaSet, Shape, TypeId};

/// Puts the static defaults into `object`, top-down: a default that is an object gets its own defaults in turn.
///
/// A field is absent when it is missing or `null`. Lists and maps are walked, nothing is put into what is not there.
///
/// ```
/// let set = nave_schema::builtin();
/// let id = set.find("io.k8s.api.core.v1.ServiceSpec").unwrap();
/// let mut spec = serde_json::json!({"ports": [{"port": 80}]});
/// nave_schema::defaulting::apply(set, id, &mut spec);
/// assert_eq!(spec["ports"][0]["protocol"], "TCP");
/// ```
pub fn apply(set: &SchemaSet, id: TypeId, object: &mut Value) {
    if let Value::Object(map) = object {
        structure(set, id, map);
    }
}

fn structure(set: &SchemaSet, id: TypeId, map: &mut Map) {
    if !set.has_defaults(id) {
        return;
    }
    for field in &set.get(id).fields {
        if let Some(default) = effective(field)
            && map.get(&field.name).is_none_or(Value::is_null)
        {
            map.insert(field.name.clone(), default.clone());
        }
        if leads_on(set, &field.shape)
            && let Some(value) = map.get_mut(&field.name)
        {
            walk(set, &field.shape, value);
        }
    }
}

fn walk(set: &SchemaSet, shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct(id), Value::Object(map)) => structure(set, *id, map),
        (Shape::List { items, .. }, Value::Array(list)) => {
            for item in list {
                walk(set, items, item);
            }
        }
        (Shape::Map { values, .. }, Value::Object(map)) => {
            for item in map.values_mut() {
                walk(set, values, item);
            }
        }
        _ => {}
    }
}

/// The default, unless encoding would leave it out again.
fn effective(field: &Field) -> Option<&Value> {
    let default = &field.default.as_ref()?.0;
    let zero = *default == "" || *default == 0 || *default == false;
    (!(zero && field.wire.omit_zero)).then_some(default)
}

fn leads_on(set: &SchemaSet, shape: &Shape) -> bool {
    shape.target().is_some_and(|id| set.has_defaults(id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin::parse;

    fn run(table: &str, mut object: Value) -> Value {
        let set = parse(table).unwrap();
        apply(&set, TypeId(0), &mut object);
        object
    }

    #[test]
    fn absent_fields_are_filled() {
        let table = "type a.A\n  b bool ptr default=false\n  n int32 default=0\n  s string default=\"x\"";
        assert_eq!(run(table, json!({})), json!({"b": false, "s": "x"}));
        assert_eq!(run(table, json!({"b": true, "n": 5, "s": ""})), json!({"b": true, "n": 5, "s": ""}));
        assert_eq!(run(table, json!({"s": null, "b": null})), json!({"b": false, "s": "x"}));
    }

    #[test]
    fn defaults_are_defaulted_themselves() {
        let table = "type a.A\n  o a.B default={}\n  absent a.B\n  list [a.B]\n  map {[a.B]}\n\ntype a.B\n  s string default=\"x\"";
        let object = json!({"list": [{}, {"s": "y"}], "map": {"k": [{}]}});
        let expected = json!({"o": {"s": "x"}, "list": [{"s": "x"}, {"s": "y"}], "map": {"k": [{"s": "x"}]}});
        assert_eq!(run(table, object), expected);
    }

    #[test]
    fn values_of_another_type_are_left() {
        let table = "type a.A\n  o a.B\n\ntype a.B\n  s string default=\"x\"";
        assert_eq!(run(table, json!({"o": [1]})), json!({"o": [1]}));
    }
}
