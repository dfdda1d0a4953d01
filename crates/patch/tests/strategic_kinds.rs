//! For generated objects of every built-in kind: the strategic merge patch between two objects turns the first into the
//! second (upstream: `strategicpatch.CreateTwoWayMergePatch`).

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

mod generated;

use nave_machinery::{Map, Value};
use nave_patch::strategic;
use nave_schema::{Field, Shape, TypeId, builtin};
use proptest::prelude::*;
use serde_json::json;

use self::generated::{Choices, DEPTH, kinds};

/// Creates the patch from one object to another. The choices decide which structs are replaced instead of merged.
struct Differ<'b>(Choices<'b>);

impl Differ<'_> {
    fn structs(&mut self, id: Option<TypeId>, old: &Map, new: &Map) -> Map {
        let mut patch = Map::new();
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            patch.insert(name.clone(), Value::Null);
        }
        for (name, value) in new {
            let field = id.and_then(|id| builtin().get(id).field(name));
            match old.get(name) {
                Some(before) if before == value => {}
                Some(before) => self.changed(field, name, before, value, &mut patch),
                None => drop(patch.insert(name.clone(), value.clone())),
            }
        }
        patch
    }

    fn changed(&mut self, field: Option<&Field>, name: &str, old: &Value, new: &Value, patch: &mut Map) {
        let change = match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                let id = field.and_then(|field| struct_of(&field.shape));
                Value::Object(self.object(id, field.is_some_and(|field| field.patch.retain_keys), old, new))
            }
            (Value::Array(old), Value::Array(new)) => match field.filter(|field| field.patch.merge) {
                Some(field) => return self.merged_list(field, old, new, patch),
                None => json!(new),
            },
            _ => new.clone(),
        };
        patch.insert(name.to_owned(), change);
    }

    fn object(&mut self, id: Option<TypeId>, retains_keys: bool, old: &Map, new: &Map) -> Map {
        match self.0.next(4) {
            0 => {
                let mut whole = new.clone();
                whole.insert("$patch".to_owned(), json!("replace"));
                whole
            }
            1 if new.is_empty() => Map::from_iter([("$patch".to_owned(), json!("delete"))]),
            2 => {
                let mut merged = self.structs(id, old, new);
                merged.insert("$patch".to_owned(), json!("merge"));
                merged
            }
            _ if retains_keys => {
                let mut merged = self.structs(id, old, new);
                merged.retain(|_, change| !change.is_null());
                merged.insert("$retainKeys".to_owned(), new.keys().cloned().collect());
                merged
            }
            _ => self.structs(id, old, new),
        }
    }

    fn merged_list(&mut self, field: &Field, old: &[Value], new: &[Value], patch: &mut Map) {
        let name = &field.name;
        let (changes, order): (Vec<Value>, Vec<Value>) = if let Some(key) = &field.patch.merge_key {
            if self.0.next(6) == 0 {
                let whole = new.iter().cloned().chain([json!({"$patch": "replace"})]);
                patch.insert(name.clone(), whole.collect());
                return;
            }
            let order = new.iter().map(|item| json!({ key: item[key] })).collect();
            (self.keyed_items(struct_of(&field.shape), key, old, new), order)
        } else {
            let removed: Vec<_> = old.iter().filter(|item| !new.contains(item)).collect();
            if !removed.is_empty() {
                patch.insert(format!("$deleteFromPrimitiveList/{name}"), json!(removed));
            }
            (new.iter().filter(|item| !old.contains(item)).cloned().collect(), new.to_vec())
        };
        if !order.is_empty() {
            patch.insert(format!("$setElementOrder/{name}"), Value::Array(order));
        }
        if !changes.is_empty() {
            patch.insert(name.clone(), Value::Array(changes));
        }
    }

    fn keyed_items(&mut self, id: Option<TypeId>, key: &str, old: &[Value], new: &[Value]) -> Vec<Value> {
        let item_of = |list: &[Value], like: &Value| list.iter().find(|item| item[key] == like[key]).cloned();
        let mut changes = Vec::new();
        for item in new {
            let fields = item.as_object().unwrap();
            let change = match item_of(old, item) {
                None => fields.clone(),
                Some(before) if before == *item => continue,
                Some(before) => {
                    let mut change = self.structs(id, before.as_object().unwrap(), fields);
                    change.insert(key.to_owned(), item[key].clone());
                    change
                }
            };
            changes.push(Value::Object(change));
        }
        let gone = old.iter().filter(|item| item_of(new, item).is_none());
        changes.extend(gone.map(|item| json!({ key: item[key], "$patch": "delete" })));
        changes
    }
}

/// Returns the struct type of a field or of the items of its list.
fn struct_of(shape: &Shape) -> Option<TypeId> {
    match shape {
        Shape::Struct(id) => Some(*id),
        Shape::List { items, .. } => struct_of(items),
        _ => None,
    }
}

fn check(id: TypeId, old: &[u8], new: &[u8], differ: &[u8]) -> Result<(), TestCaseError> {
    let object = |bytes: &[u8]| Value::Object(Choices(bytes).object(id, DEPTH));
    let (old, new) = (object(old), object(new));
    let patch = Differ(Choices(differ)).structs(Some(id), old.as_object().unwrap(), new.as_object().unwrap());
    let patch = Value::Object(patch);
    let mut patched = old.clone();
    let applied = strategic::apply(builtin(), id, &mut patched, &patch);
    let shown = || format!("{}\n{old}\npatched with\n{patch}", builtin().get(id).name);
    prop_assert_eq!(applied, Ok(()), "{}", shown());
    prop_assert_eq!(&patched, &new, "{}", shown());
    strategic::apply(builtin(), id, &mut patched, &patch).unwrap();
    prop_assert_eq!(&patched, &new, "twice: {}", shown());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_patch_from_one_object_to_another_makes_the_other_one(
        old in prop::collection::vec(any::<u8>(), 0..300),
        new in prop::collection::vec(any::<u8>(), 0..300),
        differ in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        for id in kinds() {
            check(id, &old, &new, &differ)?;
        }
    }

    #[test]
    fn a_patch_of_a_small_change_makes_that_change(
        old in prop::collection::vec(any::<u8>(), 40..300),
        position in any::<prop::sample::Index>(),
        byte: u8,
        differ in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut new = old.clone();
        new[position.index(old.len())] = byte;
        for id in kinds() {
            check(id, &old, &new, &differ)?;
        }
    }
}

#[test]
fn all_stored_kinds_are_covered() {
    let names: Vec<&str> = kinds().into_iter().map(|id| builtin().get(id).name.as_str()).collect();
    assert!(names.len() > 70, "{names:?}");
    for name in
        ["api.core.v1.Pod", "api.apps.v1.Deployment", "api.core.v1.Service", "api.networking.v1.Ingress"]
    {
        assert!(names.iter().any(|kind| kind.ends_with(name)), "{name}");
    }
}
