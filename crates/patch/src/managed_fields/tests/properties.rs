use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

/// Parts of a deployment: labels, environment variables of containers, finalizers and a number. Omits empty lists and
/// maps: an applier owns them although they are not stored.
fn part(prefix: &'static str) -> impl Strategy<Value = Value> {
    let names = prop::collection::btree_map("[a-c]", "[x-z]", 0..3);
    let container = (prop::option::of("[x-z]"), names.clone());
    let containers = prop::collection::btree_map("[a-c]", container, 0..3);
    let finalizers = prop::collection::btree_set("[a-c]", 0..3);
    (names, containers, finalizers, prop::option::of(0..3)).prop_map(
        move |(labels, containers, finalizers, replicas)| {
            let named = |name: &str| format!("{prefix}{name}");
            let labels: Map<String, Value> =
                labels.into_iter().map(|(name, value)| (named(&name), json!(value))).collect();
            let containers: Vec<Value> = containers
                .into_iter()
                .map(|(name, (image, env))| {
                    let env: Vec<Value> =
                        env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                    let mut container = json!({"name": named(&name), "env": env});
                    if let Some(image) = image {
                        container["image"] = json!(image);
                    }
                    container
                })
                .collect();
            let finalizers: Vec<String> = finalizers.iter().map(|name| named(name)).collect();
            let mut spec = json!({"template": {"spec": {"containers": containers}}});
            if let (Some(replicas), "") = (replicas, prefix) {
                spec["replicas"] = json!(replicas);
            }
            let mut part =
                json!({"metadata": {"name": "x", "labels": labels, "finalizers": finalizers}, "spec": spec});
            drop_empty(&mut part);
            part
        },
    )
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

/// Returns the object with sorted lists and without managed fields.
fn contents(object: &Value) -> Value {
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
    let mut object = without_entries(object);
    sort(&mut object);
    object
}

proptest! {
    #[test]
    fn a_repeated_apply_changes_nothing(first in part(""), second in part("")) {
        let kind = Kind::deployment();
        let live = kind.update(None, "hand", kind.object(first));
        let once = kind.force(&live, "one", second.clone());
        let twice = kind.manager(LATER).apply(Some(&once), &kind.object(second), "one", false).unwrap();
        prop_assert_eq!(kind.normalized(twice), once);
    }

    #[test]
    fn applies_of_different_fields_commute(a in part("a-"), b in part("b-")) {
        let kind = Kind::deployment();
        let ab = kind.apply(Some(&kind.apply(None, "a", a.clone()).unwrap()), "b", b.clone()).unwrap();
        let ba = kind.apply(Some(&kind.apply(None, "b", b).unwrap()), "a", a).unwrap();
        prop_assert_eq!(contents(&ab), contents(&ba));
        prop_assert_eq!(fields(&ab, "a", "Apply"), fields(&ba, "a", "Apply"));
        prop_assert_eq!(fields(&ab, "b", "Apply"), fields(&ba, "b", "Apply"));
    }

    #[test]
    fn fields_without_an_owner_are_removed(a in part("a-"), b in part("b-")) {
        let kind = Kind::deployment();
        let alone = kind.apply(None, "b", b.clone()).unwrap();
        let both = kind.apply(Some(&kind.apply(None, "a", a).unwrap()), "b", b).unwrap();
        let left = kind.apply(Some(&both), "a", json!({})).unwrap();
        prop_assert_eq!(fields(&left, "a", "Apply"), None);
        // Emptied lists and maps stay if they have no owner themselves.
        let fields_of = |object: &Value| {
            let ty = TypeRef::Struct(builtin(), kind.type_id);
            super::super::field_set::field_set(ty, &without_entries(object))
        };
        let more = fields_of(&left).difference(&fields_of(&alone));
        prop_assert!(more.paths().iter().all(|path| {
            path.iter().all(|element| matches!(element, super::super::PathElement::Field(name) if !name.as_str().starts_with("a-")))
        }), "{:?}", more.paths());
    }

    #[test]
    fn an_update_after_an_apply_owns_what_it_changes(first in part(""), second in part("")) {
        let kind = Kind::deployment();
        // Without any owner, managed fields would not be tracked.
        let mut first = first;
        first["spec"]["paused"] = json!(true);
        let live = kind.apply(None, "one", first).unwrap();
        let mut new = kind.object(second);
        new["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
        let updated = kind.update(Some(&live), "hand", new);
        let ty = TypeRef::Struct(builtin(), kind.type_id);
        let comparison = super::super::compare::Comparison::between(ty, &without_entries(&live), &without_entries(&updated)).unwrap();
        let changed = comparison.modified.union(comparison.added);
        let read = |manager, operation| {
            FieldSet::from_fields_v1(fields(&updated, manager, operation).unwrap_or(&json!({}))).unwrap()
        };
        prop_assert_eq!(read("hand", "Update"), changed.clone());
        let kept = read("one", "Apply");
        prop_assert!(!kept.intersects(&changed) && !kept.intersects(&comparison.removed));
    }
}
