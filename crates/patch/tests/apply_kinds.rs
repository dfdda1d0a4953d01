//! Properties of apply for generated objects of every built-in kind: a repeated apply changes nothing, applies of two
//! managers that agree commute, and an empty apply removes everything that its manager applied.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

mod generated;

use nave_machinery::{Map, Value};
use nave_patch::managed_fields::{FieldManager, FieldSet, TypeRef, Versions};
use nave_schema::{Field, ListTopology, Shape, TypeId, builtin};
use proptest::prelude::*;
use serde_json::json;

use self::generated::{Choices, DEPTH, kinds};

/// The metadata fields that managers own.
const OWNED_METADATA: [&str; 4] = ["annotations", "finalizers", "labels", "ownerReferences"];

/// A kind in one version.
struct Kind(TypeId);

impl Versions for Kind {
    fn type_of(&self, _: &str) -> Option<TypeRef<'_>> {
        Some(TypeRef::Struct(builtin(), self.0))
    }

    fn convert(&self, object: &Value, _: &str) -> Result<Value, String> {
        Ok(object.clone())
    }

    fn reset_fields(&self, _: &str) -> Option<&FieldSet> {
        None
    }
}

impl Kind {
    /// Returns an object with these fields and a name. Omits empty structs, lists and maps: their manager owns them,
    /// but the server does not store them.
    fn configuration(mut fields: Map) -> Value {
        let mut metadata = fields.remove("metadata").unwrap_or_default();
        let metadata = metadata.as_object_mut().map(std::mem::take).unwrap_or_default();
        let kept = metadata.into_iter().filter(|(name, _)| OWNED_METADATA.contains(&name.as_str()));
        let mut metadata: Map = kept.collect();
        metadata.insert("name".to_owned(), json!("x"));
        fields.insert("metadata".to_owned(), Value::Object(metadata));
        fields.insert("apiVersion".to_owned(), json!("g/v1"));
        fields.insert("kind".to_owned(), json!("K"));
        let mut configuration = Value::Object(fields);
        drop_empty(&mut configuration);
        configuration
    }

    fn apply(&self, live: Option<&Value>, manager: &str, configuration: &Value) -> Value {
        let empty = json!({"apiVersion": "g/v1", "kind": "K"});
        let (api_version, now) = ("g/v1", "2026-01-02T03:04:05Z");
        let fields =
            FieldManager { versions: self, api_version, kind: "K", subresource: "", now, empty: &empty };
        let shown = || format!("{}\n{configuration}\napplied to\n{live:?}", builtin().get(self.0).name);
        fields
            .apply(live, configuration, manager, false)
            .unwrap_or_else(|error| panic!("{error}: {}", shown()))
    }
}

fn drop_empty(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        Value::Object(fields) => {
            fields.values_mut().for_each(drop_empty);
            fields.retain(|_, value| *value != json!({}) && *value != json!([]));
        }
        _ => {}
    }
}

/// Returns a part of a struct: some fields and some items of merged lists and maps. Atomic values stay whole.
fn part_of_struct(id: TypeId, object: &Map, choices: &mut Choices<'_>) -> Map {
    let kept = object.iter().filter_map(|(name, value)| {
        let field = builtin().get(id).field(name)?;
        (choices.next(2) == 0).then(|| (name.clone(), part(field, value, choices)))
    });
    kept.collect()
}

fn part(field: &Field, value: &Value, choices: &mut Choices<'_>) -> Value {
    match (&field.shape, value) {
        _ if field.declared_atomic => value.clone(),
        (Shape::Struct(id), Value::Object(object)) if !builtin().get(*id).atomic => {
            Value::Object(part_of_struct(*id, object, choices))
        }
        (Shape::Map { atomic: false, .. }, Value::Object(entries)) => entries
            .iter()
            .filter(|_| choices.next(2) == 0)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        (Shape::List { items, topology }, Value::Array(list)) if *topology != ListTopology::Atomic => {
            let kept = list.iter().filter(|_| choices.next(2) == 0).cloned().collect::<Vec<_>>();
            let (Shape::Struct(id), ListTopology::Map(keys)) = (items.as_ref(), topology) else {
                return Value::Array(kept);
            };
            if builtin().get(*id).atomic {
                return Value::Array(kept);
            }
            let part_of_item = |item: Value| {
                let whole = item.as_object().cloned().unwrap_or_default();
                let mut part = part_of_struct(*id, &whole, choices);
                part.extend(keys.iter().map(|key| (key.clone(), whole[key].clone())));
                Value::Object(part)
            };
            kept.into_iter().map(part_of_item).collect()
        }
        _ => value.clone(),
    }
}

/// Returns the object without its managed fields and with sorted lists, and its managed-field entries by manager.
fn contents(mut object: Value) -> (Value, Vec<String>) {
    fn sort(value: &mut Value) {
        match value {
            Value::Array(items) => {
                items.iter_mut().for_each(sort);
                items.sort_by_key(ToString::to_string);
            }
            Value::Object(fields) => fields.values_mut().for_each(sort),
            _ => {}
        }
    }
    let mut entries = object["metadata"].as_object_mut().unwrap().remove("managedFields").unwrap_or_default();
    // An entry has no time if its apply changed no value.
    for entry in entries.as_array_mut().into_iter().flatten() {
        entry.as_object_mut().unwrap().remove("time");
    }
    let mut entries: Vec<String> =
        entries.as_array().into_iter().flatten().map(ToString::to_string).collect();
    entries.sort();
    sort(&mut object);
    (object, entries)
}

/// Returns whether a value has more than emptied structs and maps.
fn has_contents(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().any(has_contents),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_repeated_apply_changes_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for id in kinds() {
            let configuration = Kind::configuration(Choices(&bytes).object(id, DEPTH));
            let once = Kind(id).apply(None, "one", &configuration);
            let twice = Kind(id).apply(Some(&once), "one", &configuration);
            prop_assert_eq!(twice, once, "{}", builtin().get(id).name);
        }
    }

    #[test]
    fn applies_that_agree_commute(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        first in prop::collection::vec(any::<u8>(), 0..60),
        second in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        for id in kinds() {
            let whole = Choices(&bytes).object(id, DEPTH);
            let part = |choices: &[u8]| Kind::configuration(part_of_struct(id, &whole, &mut Choices(choices)));
            let (a, b, kind) = (part(&first), part(&second), Kind(id));
            let ab = kind.apply(Some(&kind.apply(None, "a", &a)), "b", &b);
            let ba = kind.apply(Some(&kind.apply(None, "b", &b)), "a", &a);
            prop_assert_eq!(contents(ab), contents(ba), "{}\n{}\n{}", builtin().get(id).name, a, b);
        }
    }

    #[test]
    fn what_its_only_manager_gives_up_is_gone(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for id in kinds() {
            let configuration = Kind::configuration(Choices(&bytes).object(id, DEPTH));
            let kind = Kind(id);
            let live = kind.apply(None, "one", &configuration);
            let mut left = kind.apply(Some(&live), "one", &Kind::configuration(Map::new()));
            for (parent, name) in [("", "apiVersion"), ("", "kind"), ("/metadata", "name")] {
                left.pointer_mut(parent).and_then(Value::as_object_mut).unwrap().remove(name);
            }
            prop_assert!(!has_contents(&left), "{}\n{live}\nleft\n{left}", builtin().get(id).name);
        }
    }
}
