use serde_json::json;

use super::*;

#[test]
fn a_create_owns_what_it_sets_and_the_maps_around_it() {
    let kind = Kind::deployment();
    let object = kind.object(json!({"metadata": {"name": "x", "uid": "u", "generation": 1, "labels": {"a": "b"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}}}));
    let created = kind.update(None, "kubectl-create", object);
    let expected = json!([{"manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1",
        "time": NOW, "fieldsType": "FieldsV1", "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}, "f:resources": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}":
                        {".": {}, "f:containerPort": {}, "f:protocol": {}}}}}}}}}}]);
    assert_eq!(created["metadata"]["managedFields"], expected);
}

#[test]
fn an_update_takes_over_what_it_changes() {
    let kind = Kind::config_map();
    let first = kind.update(None, "one", kind.object(json!({"data": {"a": "1", "b": "1", "c": "1"}})));
    let mut new = first.clone();
    new["data"] = json!({"a": "2", "b": "1", "d": "1"});
    let second = kind.update(Some(&first), "two", new);
    assert_eq!(fields(&second, "one", "Update"), Some(&json!({"f:data": {".": {}, "f:b": {}}})));
    assert_eq!(fields(&second, "two", "Update"), Some(&json!({"f:data": {"f:a": {}, "f:d": {}}})));
}

#[test]
fn an_update_that_changes_nothing_leaves_entries_and_times() {
    let kind = Kind::config_map();
    let first = kind.update(None, "one", kind.object(json!({"data": {"a": "1"}})));
    let mut again = without_entries(&first);
    kind.update_at(LATER, Some(&first), &mut again, "two");
    assert_eq!(again, first);
}

#[test]
fn an_object_without_managed_fields_gets_none() {
    let kind = Kind::config_map();
    let live = kind.object(json!({"data": {"a": "1"}}));
    let updated = kind.update(Some(&live), "one", kind.object(json!({"data": {"a": "2"}})));
    assert_eq!(updated["metadata"].get("managedFields"), None);
}

#[test]
fn an_empty_list_or_entry_resets_managed_fields() {
    let kind = Kind::config_map();
    let live = kind.update(None, "one", kind.object(json!({"data": {"a": "1"}})));
    for reset in [json!([]), json!([{}])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = reset;
        kind.update_at(NOW, Some(&live), &mut new, "two");
        assert_eq!(new["metadata"].get("managedFields"), None);
    }
}

#[test]
fn invalid_entries_are_ignored() {
    let kind = Kind::config_map();
    let live = kind.update(None, "one", kind.object(json!({"data": {"a": "1"}})));
    let entry = live["metadata"]["managedFields"][0].clone();
    for (name, value) in [
        ("operation", json!("Delete")),
        ("apiVersion", json!("")),
        ("fieldsType", json!("FieldsV2")),
        ("fieldsType", json!("")),
        ("fieldsV1", json!({"nothing": {}})),
    ] {
        let mut new = live.clone();
        let mut bad = entry.clone();
        bad[name] = value;
        new["metadata"]["managedFields"] = json!([bad]);
        kind.update_at(LATER, Some(&live), &mut new, "two");
        assert_eq!(new, live, "{name}");
    }
}

#[test]
fn entries_of_a_request_are_taken_but_not_through_a_subresource() {
    let kind = Kind::config_map();
    let live = kind.update(None, "one", kind.object(json!({"data": {"a": "1"}})));
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["manager"] = json!("renamed");
    let mut through_status = new.clone();
    kind.update_at(NOW, Some(&live), &mut new, "two");
    assert_eq!(managers(&new), ["renamed Update"]);
    FieldManager { subresource: "status", ..kind.manager(NOW) }.update(
        Some(&live),
        &mut through_status,
        "two",
    );
    assert_eq!(managers(&through_status), ["one Update"]);
}

#[test]
fn reset_fields_are_never_owned() {
    let path = [super::super::PathElement::field("data")];
    let kind = Kind { reset: FieldSet::from_paths([path.as_slice()]), ..Kind::config_map() };
    let object = kind.object(json!({"data": {"a": "1"}, "metadata": {"name": "x", "labels": {"a": "b"}}}));
    let created = kind.update(None, "one", object.clone());
    let labels = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}});
    assert_eq!(fields(&created, "one", "Update"), Some(&labels));
    let applied =
        kind.apply(None, "two", json!({"data": {"a": "1"}, "metadata": object["metadata"]})).unwrap();
    assert_eq!(fields(&applied, "two", "Apply"), Some(&json!({"f:metadata": {"f:labels": {"f:a": {}}}})));
}

#[test]
fn more_than_ten_updaters_become_ancient_changes() {
    let kind = Kind::config_map();
    let mut live = kind.update(None, "manager-00", kind.object(json!({"data": {"k00": "1"}})));
    for at in 1..15 {
        let mut new = live.clone();
        new["data"][format!("k{at:02}")] = json!("1");
        let now = format!("2026-01-02T03:05:{at:02}Z");
        kind.update_at(&now, Some(&live), &mut new, &format!("manager-{at:02}"));
        live = new;
    }
    let found = managers(&live);
    assert_eq!(found.len(), 10);
    assert_eq!(found[0], "ancient-changes Update");
    let ancient = &live["metadata"]["managedFields"][0];
    assert_eq!(ancient["time"], "2026-01-02T03:05:05Z");
    let owned = ancient["fieldsV1"]["f:data"].as_object().unwrap();
    assert_eq!(owned.len(), 7);
}

#[test]
fn takes_fields_over_from_managers_of_another_version() {
    let kind = Kind { second: Some("v2"), ..Kind::config_map() };
    let first = kind.update(None, "one", kind.object(json!({"data": {"a": "1", "b": "1"}})));
    let second = FieldManager { api_version: "v2", ..kind.manager(NOW) };
    let mut new = kind.convert(&first, "v2").unwrap();
    let live = new.clone();
    new["data"]["a"] = json!("2");
    second.update(Some(&live), &mut new, "one");
    nave_machinery::managed_fields::expand(&mut new);
    let entries = new["metadata"]["managedFields"].as_array().unwrap();
    let found: Vec<_> = entries.iter().map(|entry| (&entry["apiVersion"], &entry["fieldsV1"])).collect();
    assert_eq!(
        found,
        [
            (&json!("v1"), &json!({"f:data": {".": {}, "f:b": {}}})),
            (&json!("v2"), &json!({"f:data": {"f:a": {}}}))
        ]
    );
}

#[test]
fn entries_of_an_unknown_version_are_dropped() {
    let kind = Kind::config_map();
    let mut live = kind.update(None, "one", kind.object(json!({"data": {"a": "1"}})));
    let mut gone = live["metadata"]["managedFields"][0].clone();
    gone["apiVersion"] = json!("v0");
    live["metadata"]["managedFields"].as_array_mut().unwrap().push(gone);
    let mut new = live.clone();
    new["data"]["a"] = json!("2");
    kind.update_at(NOW, Some(&live), &mut new, "two");
    assert_eq!(managers(&new), ["one Update", "two Update"]);
}

#[test]
fn duplicates_in_a_list_are_one_field() {
    let kind = Kind::deployment();
    let spec = |env: Value| json!({"spec": {"selector": {}, "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "env": env}]}}}});
    let path = |object: &Value, manager: &str| {
        let fields = fields(object, manager, "Update").unwrap();
        fields["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"]["f:env"].clone()
    };
    let twice = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    let live = kind.update(None, "one", kind.object(spec(twice)));
    assert_eq!(path(&live, "one"), json!({".": {}, "k:{\"name\":\"A\"}": {}}));
    let once = kind.update(Some(&live), "two", kind.object(spec(json!([{"name": "A", "value": "2"}]))));
    assert_eq!(path(&once, "two"), json!({"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}}));
    assert_eq!(path(&once, "one"), json!({}));
}

#[test]
fn fields_in_a_value_that_became_atomic_become_the_value() {
    let kind = Kind::deployment();
    let mut live = kind.update(
        None,
        "one",
        kind.object(json!({"spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {}, "spec": {"containers": []}}}})),
    );
    live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:selector"] =
        json!({"f:matchLabels": {"f:a": {}}});
    let mut new = live.clone();
    new["metadata"]["labels"] = json!({"l": "1"});
    kind.update_at(NOW, Some(&live), &mut new, "two");
    assert_eq!(fields(&new, "one", "Update").unwrap()["f:spec"]["f:selector"], json!({}));
}

#[test]
fn fields_of_a_granular_struct_have_owners() {
    let kind = Kind::new("v1", "PersistentVolume", "io.k8s.api.core.v1.PersistentVolume");
    let volume =
        json!({"spec": {"claimRef": {"name": "c", "namespace": "n"}, "capacity": {"storage": "1Gi"}}});
    let created = kind.update(None, "one", kind.object(volume));
    let owned = &fields(&created, "one", "Update").unwrap()["f:spec"]["f:claimRef"];
    assert_eq!(owned, &json!({".": {}, "f:name": {}, "f:namespace": {}}));
    let mut bound = without_entries(&created);
    bound["spec"]["claimRef"]["uid"] = json!("u");
    let bound = kind.update(Some(&created), "two", bound);
    assert_eq!(fields(&bound, "two", "Update"), Some(&json!({"f:spec": {"f:claimRef": {"f:uid": {}}}})));
}
