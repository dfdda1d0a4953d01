//! Static defaults for absent fields.

use nave_machinery::limits::{Budget, LimitError, cost};
use nave_machinery::{Map, Value};

use crate::types::{Field, SchemaSet, Shape, TypeId};

/// Sets the static defaults in `object`, top-down, including the defaults inside defaults.
///
/// A field is absent if it is missing or `null`. Visits existing lists and maps, but does not create absent ones.
///
/// ```
/// let set = nave_schema::builtin();
/// let id = set.find("io.k8s.api.core.v1.ServiceSpec").unwrap();
/// let mut spec = serde_json::json!({"ports": [{"port": 80}]});
/// nave_schema::defaulting::apply(set, id, &mut spec)?;
/// assert_eq!(spec["ports"][0]["protocol"], "TCP");
/// # Ok::<(), nave_machinery::limits::LimitError>(())
/// ```
///
/// # Errors
/// The defaults exceed the memory limit of an object.
pub fn apply(set: &SchemaSet, id: TypeId, object: &mut Value) -> Result<(), LimitError> {
    match object {
        Value::Object(map) => structure(set, id, map, &mut Budget::default()),
        _ => Ok(()),
    }
}

fn structure(set: &SchemaSet, id: TypeId, map: &mut Map, added: &mut Budget) -> Result<(), LimitError> {
    for field in set.defaulted(id) {
        if let Some(value) = map.get_mut(&field.name).filter(|value| !value.is_null()) {
            walk(set, &field.shape, value, added)?;
        } else if let Some(default) = effective(field) {
            let node = if map.is_empty() { cost::OBJECT } else { 0 };
            added.charge(node + cost::FIELD + cost::text(field.name.len()))?;
            added.charge_tree(default, usize::MAX)?;
            let mut value = default.clone();
            walk(set, &field.shape, &mut value, added)?;
            map.insert(field.name.clone(), value);
        }
    }
    Ok(())
}

fn walk(set: &SchemaSet, shape: &Shape, value: &mut Value, added: &mut Budget) -> Result<(), LimitError> {
    match (shape, value) {
        (Shape::Struct(id), Value::Object(map)) => structure(set, *id, map, added),
        (Shape::List { items, .. }, Value::Array(list)) => {
            list.iter_mut().try_for_each(|item| walk(set, items, item, added))
        }
        (Shape::Map { values, .. }, Value::Object(map)) => {
            map.values_mut().try_for_each(|item| walk(set, values, item, added))
        }
        _ => Ok(()),
    }
}

/// Returns the field's default; `None` if encoding would omit it.
fn effective(field: &Field) -> Option<&Value> {
    let default = &field.default.as_ref()?.0;
    let zero = *default == "" || *default == 0 || *default == false;
    (!(zero && field.wire.omit_zero)).then_some(default)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin::parse;

    fn run(table: &str, mut object: Value) -> Value {
        let set = parse(table).unwrap();
        apply(&set, TypeId(0), &mut object).unwrap();
        object
    }

    #[test]
    fn sets_absent_fields() {
        let table = "type a.A\n  b bool ptr default=false\n  n int32 default=0\n  s string default=\"x\"";
        assert_eq!(run(table, json!({})), json!({"b": false, "s": "x"}));
        assert_eq!(run(table, json!({"b": true, "n": 5, "s": ""})), json!({"b": true, "n": 5, "s": ""}));
        assert_eq!(run(table, json!({"s": null, "b": null})), json!({"b": false, "s": "x"}));
    }

    #[test]
    fn sets_defaults_within_defaults() {
        let table = "type a.A\n  o a.B default={}\n  absent a.B\n  list [a.B]\n  map {[a.B]}\n\ntype a.B\n  s string default=\"x\"";
        let object = json!({"list": [{}, {"s": "y"}], "map": {"k": [{}]}});
        let expected = json!({"o": {"s": "x"}, "list": [{"s": "x"}, {"s": "y"}], "map": {"k": [{"s": "x"}]}});
        assert_eq!(run(table, object), expected);
    }

    #[test]
    fn limits_the_memory_of_defaults() {
        let set = parse("type a.A\n  list [a.B]\n\ntype a.B\n  s string default=\"x\"").unwrap();
        let mut object = json!({"list": vec![json!({}); 500_000]});
        assert_eq!(apply(&set, TypeId(0), &mut object), Err(LimitError::TooLarge));
    }

    #[test]
    fn ignores_values_of_another_type() {
        let table = "type a.A\n  o a.B\n\ntype a.B\n  s string default=\"x\"";
        assert_eq!(run(table, json!({"o": [1]})), json!({"o": [1]}));
    }
}
