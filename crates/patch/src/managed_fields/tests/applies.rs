use serde_json::json;

use super::*;

fn data(data: Value) -> Value {
    json!({ "data": data })
}

#[test]
fn an_apply_creates_an_object_and_owns_its_fields() {
    let kind = Kind::config_map();
    let created = kind.apply(None, "one", data(json!({"a": "1"}))).unwrap();
    assert_eq!(created["data"], json!({"a": "1"}));
    let entry = &created["metadata"]["managedFields"][0];
    assert_eq!((&entry["operation"], &entry["time"]), (&json!("Apply"), &json!(NOW)));
    assert_eq!(entry["fieldsV1"], json!({"f:data": {"f:a": {}}}));
}

#[test]
fn a_conflict_has_a_cause_for_each_field_and_manager() {
    let kind = Kind::config_map();
    let live = kind.apply(None, "one", data(json!({"a": "1", "b": "1"}))).unwrap();
    let mut new = live.clone();
    new["data"]["b"] = json!("2");
    let live = kind.update(Some(&live), "hand", new);
    let refused = kind.apply(Some(&live), "two", data(json!({"a": "9", "b": "9"}))).unwrap_err();
    let status = refused.into_status();
    assert_eq!(
        status.message,
        "Apply failed with 2 conflicts: conflicts with \"hand\" using v1:\n- .data.b\nconflicts with \"one\":\n- .data.a"
    );
    let refused = kind.apply(Some(&live), "two", data(json!({"a": "9", "b": "9"}))).unwrap_err();
    let expected = [("conflict with \"hand\" using v1", ".data.b"), ("conflict with \"one\"", ".data.a")];
    assert_eq!(causes(refused), expected.map(|(message, field)| (message.to_owned(), field.to_owned())));
}

#[test]
fn shared_fields_stay_while_one_manager_owns_them() {
    let kind = Kind::config_map();
    let live = kind.apply(None, "one", data(json!({"a": "1", "b": "1"}))).unwrap();
    let shared = kind.apply(Some(&live), "two", data(json!({"a": "1"}))).unwrap();
    assert_eq!(managers(&shared), ["two Apply", "one Apply"]);
    assert_eq!(shared["metadata"]["managedFields"][0].get("time"), None);
    let left = kind.apply(Some(&shared), "one", data(json!({"b": "1"}))).unwrap();
    assert_eq!(left["data"], json!({"a": "1", "b": "1"}));
    let gone = kind.apply(Some(&left), "two", json!({})).unwrap();
    assert_eq!(gone["data"], json!({"b": "1"}));
    assert_eq!(managers(&gone), ["one Apply"]);
}

#[test]
fn a_forced_apply_takes_fields_over() {
    let kind = Kind::config_map();
    let live = kind.apply(None, "one", data(json!({"a": "1", "b": "1"}))).unwrap();
    let forced = kind.force(&live, "two", data(json!({"a": "2"})));
    assert_eq!(forced["data"], json!({"a": "2", "b": "1"}));
    assert_eq!(fields(&forced, "one", "Apply"), Some(&json!({"f:data": {"f:b": {}}})));
}

#[test]
fn an_applier_does_not_remove_fields_of_an_updater() {
    let kind = Kind::config_map();
    let live = kind.apply(None, "one", data(json!({"a": "1"}))).unwrap();
    let mut new = live.clone();
    new["data"]["a"] = json!("2");
    let updated = kind.update(Some(&live), "hand", new);
    let left = kind.apply(Some(&updated), "one", json!({})).unwrap();
    assert_eq!(left["data"], json!({"a": "2"}));
}

#[test]
fn existing_fields_get_the_manager_before_first_apply() {
    let kind = Kind::config_map();
    let live = kind.normalized(kind.object(data(json!({"a": "1", "b": "1"}))));
    let applied = kind.apply(Some(&live), "one", data(json!({"a": "1"}))).unwrap();
    assert_eq!(managers(&applied), ["one Apply", "before-first-apply Update"]);
    assert!(kind.apply(Some(&live), "one", data(json!({"a": "2"}))).is_err());
}

#[test]
fn items_of_lists_are_merged_by_their_keys() {
    let kind = Kind::deployment();
    let part = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let live = kind.apply(None, "one", part(json!([{"name": "a", "image": "1", "args": ["x"]}]))).unwrap();
    let both = kind.apply(
        Some(&live),
        "two",
        part(json!([{"name": "b", "image": "1"}, {"name": "a", "tty": true}])),
    );
    let both = both.unwrap();
    let containers = &both["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["name"], "b");
    assert_eq!((&containers[1]["image"], &containers[1]["tty"]), (&json!("1"), &json!(true)));
    let error = kind.apply(Some(&both), "two", part(json!([{"name": "a", "args": ["y"]}]))).unwrap_err();
    let cause =
        ("conflict with \"one\"".to_owned(), ".spec.template.spec.containers[name=\"a\"].args".to_owned());
    assert_eq!(causes(error), [cause]);
    let left = kind.apply(Some(&both), "two", json!({})).unwrap();
    let containers = left["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0].get("tty"), None);
}

/// Items of a set where each side has items that the other lacks.
#[test]
fn items_have_the_applied_order_with_live_ones_in_place() {
    let kind = Kind::config_map();
    for (live, applied, merged) in [
        ("a b c", "c b a", "c b a"),
        ("a b c", "b", "a b c"),
        ("a b c", "x b y", "a x b c y"),
        ("x a b", "a x", "a b x"),
        ("a b c d", "d a", "b c d a"),
        ("", "a b", "a b"),
        ("a b", "", "a b"),
        ("a x", "a n", "a x n"),
        ("c b a x", "a c n", "b a x c n"),
    ] {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let part = |text: &str| kind.object(json!({"metadata": {"name": "x", "finalizers": list(text)}}));
        let merged_value = kind.manager(NOW).apply(Some(&part(live)), &part(applied), "m", true).unwrap();
        assert_eq!(merged_value["metadata"]["finalizers"], json!(list(merged)), "{live} / {applied}");
    }
}

#[test]
fn rejects_invalid_configurations() {
    let kind = Kind::deployment();
    let containers = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    for (part, code, text) in [
        (json!({"kind": "Pod"}), 400, "invalid object type: apps/v1, Kind=Pod"),
        (json!({"metadata": {"name": "x", "managedFields": []}}), 400, "metadata.managedFields must be nil"),
        (json!({"nothing": 1}), 500, ".nothing: field not declared in schema"),
        (
            json!({"spec": {"replicas": "x"}}),
            500,
            ".spec.replicas: expected numeric (int or float), got string",
        ),
        (json!({"spec": {"paused": 1}}), 500, ".spec.paused: expected boolean, got &{1}"),
        (
            json!({"metadata": {"name": "x", "labels": {"a": 1}}}),
            500,
            ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (json!({"spec": ["x"]}), 500, ".spec: expected map, got &{[x]}"),
        (containers(json!({})), 500, ".containers: expected list, got &{map[]}"),
        (containers(json!(["x"])), 500, "may not have non-map elements"),
        (containers(json!([{"name": "a"}, {"name": "a"}])), 500, "duplicate entries for key [name=\"a\"]"),
        // A key that is always encoded has a default, as in upstream's schema.
        (containers(json!([{"image": "a"}, {}])), 500, "duplicate entries for key [name=\"\"]"),
    ] {
        let status = kind.apply(None, "one", part).unwrap_err().into_status();
        assert_eq!(status.code, code, "{}", status.message);
        assert!(status.message.contains(text), "{}", status.message);
    }
}

#[test]
fn rejects_an_object_with_invalid_managed_fields() {
    let kind = Kind::config_map();
    let live = kind.object(json!({"metadata": {"name": "x", "managedFields": [{"manager": "a"}]}}));
    assert!(matches!(kind.apply(Some(&live), "one", json!({})), Err(ApplyError::Failed(_))));
}

#[test]
fn kubectl_takes_over_fields_of_client_side_apply() {
    let kind = Kind::config_map();
    let last =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "1"}})
            .to_string();
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let object =
        json!({"metadata": {"name": "x", "annotations": {annotation: last}}, "data": {"a": "1", "b": "1"}});
    let live = kind.update(None, "kubectl-client-side-apply", kind.object(object));
    assert!(kind.apply(Some(&live), "other", data(json!({"a": "2"}))).is_err());
    let applied = kind.apply(Some(&live), "kubectl", data(json!({"a": "2"}))).unwrap();
    assert_eq!(applied["data"], json!({"a": "2", "b": "1"}));
    let kept = applied["metadata"]["annotations"][annotation].as_str().unwrap();
    let kept: Value = serde_json::from_str(kept).unwrap();
    assert_eq!(kept["data"], json!({"a": "2"}));
    let conflict = kind.apply(Some(&live), "kubectl", data(json!({"a": "2", "b": "2"}))).unwrap_err();
    assert_eq!(causes(conflict)[0].1, ".data.b");
}

#[test]
fn an_applier_that_changes_its_version_keeps_one_entry() {
    let kind = Kind { second: Some("v2"), ..Kind::config_map() };
    let live = kind.apply(None, "one", data(json!({"a": "1", "b": "1"}))).unwrap();
    let live = kind.convert(&live, "v2").unwrap();
    let second = FieldManager { api_version: "v2", ..kind.manager(NOW) };
    let mut applied = kind.object(data(json!({"a": "1"})));
    applied["apiVersion"] = json!("v2");
    let object = second.apply(Some(&live), &applied, "one", false).unwrap();
    assert_eq!(object["data"], json!({"a": "1"}));
    assert_eq!(object["metadata"]["managedFields"].as_array().unwrap().len(), 1);
    assert_eq!(object["metadata"]["managedFields"][0]["apiVersion"], "v2");
}

#[test]
fn nothing_is_merged_into_atomic_values() {
    let kind = Kind::deployment();
    let selector = |labels: Value| json!({"spec": {"selector": {"matchLabels": labels}}});
    let live = kind.apply(None, "one", selector(json!({"a": "1"}))).unwrap();
    let error = kind.apply(Some(&live), "two", selector(json!({"b": "1"}))).unwrap_err();
    assert_eq!(causes(error)[0].1, ".spec.selector");
    let forced = kind.force(&live, "two", selector(json!({"b": "1"})));
    assert_eq!(forced["spec"]["selector"], json!({"matchLabels": {"b": "1"}}));
}
