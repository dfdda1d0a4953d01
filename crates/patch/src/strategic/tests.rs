//! Merges by directive and by type, compared with a reference that searches lists linearly.

use nave_machinery::limits::{self, LimitError};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn patched(mut target: Value, patch: &Value) -> Result<Value, PatchError> {
    let set = nave_schema::builtin();
    let id = set.find("io.k8s.api.apps.v1.Deployment").unwrap();
    apply(set, id, &mut target, patch).map(|()| target)
}

fn containers(list: &Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": list}}}})
}

#[test]
fn merges_containers_by_name() {
    let object = containers(&json!([{"name": "c", "image": "i:1", "env": [{"name": "A", "value": "1"}]}]));
    let cases = [
        (
            json!([{"name": "c", "image": "i:2"}, {"name": "side", "image": "s"}]),
            json!([{"name": "c", "image": "i:2", "env": [{"name": "A", "value": "1"}]}, {"name": "side", "image": "s"}]),
        ),
        (
            json!([{"name": "c", "env": [{"name": "B", "value": "2"}]}]),
            json!([{"name": "c", "image": "i:1", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}]),
        ),
        (json!([{"name": "c", "$patch": "delete"}]), json!([])),
        (json!([{"name": "n", "image": "n"}, {"$patch": "replace"}]), json!([{"name": "n", "image": "n"}])),
        (
            json!([{"name": "n"}, {"name": "c"}, {"name": "a"}, {"$patch": "replace"}]),
            json!([{"name": "n"}, {"name": "c"}, {"name": "a"}]),
        ),
        (json!([{"name": "c", "image": null}]), json!([{"name": "c", "env": [{"name": "A", "value": "1"}]}])),
        (json!([{"$patch": "replace", "name": "c", "image": "x"}]), json!([])),
    ];
    for (change, wanted) in cases {
        assert_eq!(patched(object.clone(), &containers(&change)), Ok(containers(&wanted)), "{change}");
    }
}

#[test]
fn sets_the_order_of_items() {
    let object = containers(&json!([{"name": "n"}, {"name": "m"}]));
    let patch = json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "z"}, {"name": "n"}], "containers": [{"name": "z", "image": "z"}]}}}});
    let wanted = containers(&json!([{"name": "z", "image": "z"}, {"name": "n"}, {"name": "m"}]));
    assert_eq!(patched(object, &patch), Ok(wanted));
}

#[test]
fn retains_keys_and_replaces_structs() {
    let object = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(patched(object.clone(), &patch), Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})));
    let patch = json!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}});
    assert_eq!(patched(object.clone(), &patch), Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})));
    let patch = json!({"spec": {"strategy": {"$retainKeys": [], "type": "Recreate"}}});
    assert_eq!(patched(object.clone(), &patch).unwrap_err().into_status().code, 400);
    let patch = json!({"spec": {"strategy": {"$retainKeys": "type", "type": "Recreate"}}});
    assert_eq!(patched(object, &patch).unwrap_err().into_status().code, 400);
}

#[test]
fn retains_keys_beside_directives_about_lists() {
    let object = containers(&json!([{"name": "a"}, {"name": "b"}]));
    let mut patch = json!({"spec": {"template": {"spec": {"$retainKeys": ["containers"],
        "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "nodeName": null}}}});
    let wanted = containers(&json!([{"name": "b"}, {"name": "a"}]));
    assert_eq!(patched(object.clone(), &patch), Ok(wanted));
    patch["spec"]["template"]["spec"]["nodeName"] = json!("n");
    assert_eq!(patched(object, &patch).unwrap_err().into_status().code, 400);
}

#[test]
fn a_directive_about_an_absent_struct_adds_nothing() {
    for directive in ["replace", "delete", "merge"] {
        let patch = json!({"spec": {"replicas": 1, "strategy": {"$patch": directive, "type": "Recreate"}}});
        let wanted = json!({"spec": {"replicas": 1}});
        assert_eq!(patched(json!({"spec": {}}), &patch), Ok(wanted.clone()), "{directive}");
        assert_eq!(patched(json!({}), &patch), Ok(wanted), "{directive}");
    }
}

#[test]
fn rejects_an_order_without_the_items_of_the_patch() {
    let object = containers(&json!([{"name": "a"}, {"name": "b"}]));
    let ordered = |order: &[&str], change: &[&str]| {
        let named = |names: &[&str]| -> Value { names.iter().map(|name| json!({"name": name})).collect() };
        let mut patch = containers(&named(change));
        patch["spec"]["template"]["spec"]["$setElementOrder/containers"] = named(order);
        patched(object.clone(), &patch).map_err(|error| error.into_status().code)
    };
    assert!(ordered(&["b", "c", "a"], &["c"]).is_ok());
    assert!(ordered(&["b", "c", "a"], &["b", "a"]).is_ok());
    assert!(ordered(&[], &["n"]).is_ok());
    assert_eq!(ordered(&["b"], &["n"]), Err(500));
    assert_eq!(ordered(&["a", "b"], &["b", "a"]), Err(500));
}

#[test]
fn merges_declared_lists_of_scalars_as_sets() {
    let object = json!({"metadata": {"finalizers": ["a/x"]}});
    let patch = json!({"metadata": {"finalizers": ["a/x", "b/y"]}});
    let both = json!({"metadata": {"finalizers": ["a/x", "b/y"]}});
    assert_eq!(patched(object, &patch), Ok(both.clone()));
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/x"]}});
    assert_eq!(patched(both, &patch), Ok(json!({"metadata": {"finalizers": ["b/y"]}})));
}

#[test]
fn replaces_other_lists() {
    let object = containers(&json!([{"name": "c", "command": ["a", "b"]}]));
    let change = containers(&json!([{"name": "c", "command": ["z"]}]));
    assert_eq!(patched(object, &change), Ok(change));
}

#[test]
fn rejects_an_item_without_its_key() {
    let object = containers(&json!([{"name": "c"}]));
    for change in [
        json!([{"image": "x"}]),
        json!([{"$patch": "delete"}]),
        json!([{"name": "c", "$patch": "zap"}]),
        json!([1, {"name": "c"}]),
    ] {
        assert_eq!(
            patched(object.clone(), &containers(&change)).unwrap_err().into_status().code,
            500,
            "{change}"
        );
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        "[a-c]".prop_map(Value::from),
        Just(json!("delete")),
        Just(json!("replace"))
    ];
    leaf.prop_recursive(6, 48, 4, |inner| {
        let name = "spec|template|containers|env|name|metadata|finalizers|\\$patch|\\$retainKeys|\\$setElementOrder/containers";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn applying_never_panics(target in value(), patch in value()) {
        let _ = patched(target, &patch);
    }

    #[test]
    fn an_empty_patch_changes_nothing(target in value()) {
        if target.is_object() {
            prop_assert_eq!(patched(target.clone(), &json!({})), Ok(target));
        }
    }
}

/// A reference implementation that searches list items linearly.
mod reference {
    use serde_json::{Value, json};

    /// Returns the order of a merged list by linear search.
    pub(super) fn in_order(merged: Vec<Value>, order: &[Value], before: &[Value], key: &str) -> Vec<Value> {
        let identity = |item: &Value| {
            if key.is_empty() { item.clone() } else { item.get(key).cloned().unwrap_or_default() }
        };
        let place =
            |list: &[Value], item: &Value| list.iter().position(|other| identity(other) == identity(item));
        let (mut named, mut others): (Vec<Value>, Vec<Value>) =
            merged.into_iter().partition(|item| place(order, item).is_some());
        named.sort_by_key(|item| place(order, item));
        others.sort_by_key(|item| place(before, item).unwrap_or(usize::MAX));
        let mut sorted = Vec::new();
        let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
        while let (Some(one), Some(other)) = (named.peek(), others.peek()) {
            let earlier =
                matches!((place(before, other), place(before, one)), (Some(other), Some(one)) if other < one);
            sorted.extend(if earlier { others.next() } else { named.next() });
        }
        sorted.extend(named.chain(others));
        sorted
    }

    /// Returns a list of containers with these names and this image.
    pub(super) fn containers(names: &[u8], image: &str) -> Vec<Value> {
        names.iter().map(|name| json!({"name": name.to_string(), "image": image})).collect()
    }
}

proptest! {
    #[test]
    fn orders_lists_as_linear_search(
        merged in prop::collection::vec(0u8..12, 0..12),
        order in prop::collection::vec(0u8..12, 0..8),
        before in prop::collection::vec(0u8..12, 0..8),
        structs: bool,
    ) {
        let key = if structs { "name" } else { "" };
        let items = |names: &[u8], image: &str| if structs {
            reference::containers(names, image)
        } else {
            names.iter().map(|name| json!(name)).collect()
        };
        let (merged, order, before) = (items(&merged, "m"), items(&order, "o"), items(&before, "b"));
        let wanted = reference::in_order(merged.clone(), &order, &before, key);
        prop_assert_eq!(in_order(merged, &ItemIndex::new(&order, key), &ItemIndex::new(&before, key)), wanted);
    }

    #[test]
    fn merges_containers_as_linear_search(
        had in prop::collection::btree_set(0u8..10, 0..8),
        change in prop::collection::btree_set(0u8..10, 0..8),
        reversed: bool,
    ) {
        let had: Vec<u8> = had.into_iter().collect();
        let mut change: Vec<u8> = change.into_iter().collect();
        if reversed {
            change.reverse();
        }
        let (before, order) = (reference::containers(&had, "old"), reference::containers(&change, "new"));
        let kept = had.iter().filter(|name| !change.contains(name)).copied().collect::<Vec<_>>();
        let mut merged = reference::containers(&kept, "old");
        merged.extend(order.clone());
        let wanted = reference::in_order(merged, &order, &before, "name");
        let found = patched(containers(&json!(before)), &containers(&json!(order))).unwrap();
        prop_assert_eq!(found, containers(&json!(wanted)));
    }
}

#[test]
fn rejects_a_null_key() {
    let object = containers(&json!([{"name": "c"}]));
    let change = containers(&json!([{"name": null, "image": "x"}]));
    assert_eq!(patched(object, &change).unwrap_err().into_status().code, 422);
}

#[test]
fn rejects_a_merge_beyond_the_limits() {
    let set = nave_schema::builtin();
    let revision = set.find("io.k8s.api.apps.v1.ControllerRevision").unwrap();
    let too_deep = (0..limits::MAX_DEPTH).fold(json!(1), |inner, _| json!({"a": inner}));
    let error = apply(set, revision, &mut json!({}), &json!({"data": too_deep})).unwrap_err();
    assert_eq!(error, PatchError::Limit(LimitError::TooDeep));
    let wide = Value::Array(vec![json!(0); limits::MAX_TREE_BYTES / limits::cost::ITEM / 2 + 1]);
    let error =
        apply(set, revision, &mut json!({"data": {"a": wide}}), &json!({"data": {"b": wide}})).unwrap_err();
    assert_eq!(error, PatchError::Limit(LimitError::TooLarge));
}
