//! Managed fields and server-side apply on a whole server: checks the stored state after each request.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]
#![allow(clippy::needless_pass_by_value, reason = "parts of objects are given as literals")]

mod common;

use nave_machinery::Value;
use serde_json::json;

use self::common::{Call, Client, Cluster, TestResponse};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn config_map(name: &str, parts: Value) -> Value {
    let metadata = json!({"name": name, "namespace": "default"});
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    object.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    object
}

fn deployment(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec})
}

fn whole_spec() -> Value {
    json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "example.com/c"}]}}})
}

async fn apply(client: &Client, path: &str, manager: &str, query: &str, body: &Value) -> TestResponse {
    let call = Call::new("PATCH", &format!("{path}?fieldManager={manager}{query}"));
    client.send(call.content_type("application/apply-patch+yaml").body(body.to_string())).await
}

/// Returns the managers of an object: name, operation, subresource.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let shown = |entry: &Value| {
        let parts = ["manager", "operation", "subresource"].map(|name| text(entry, name));
        parts.join(" ").trim_end().to_owned()
    };
    entries.iter().map(shown).collect()
}

fn fields<'v>(object: &'v Value, manager: &str) -> &'v Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    &entries.iter().find(|entry| entry["manager"] == manager).unwrap()["fieldsV1"]
}

#[tokio::test]
async fn owned_fields_are_trees_in_every_answer() {
    let cluster = Cluster::start(&[]).await;
    let client = cluster.admin();
    let owned = json!({"f:data": {".": {}, "f:a": {}}});
    let create = |query: &str, name: &str, accept: &str| {
        let call = Call::new("POST", &format!("{CONFIG_MAPS}?fieldManager=tool{query}"));
        let object = config_map(name, json!({"data": {"a": "1"}}));
        client.send(call.header("accept", accept).json(&object))
    };
    for (query, name) in [("", "plain"), ("&dryRun=All", "dry"), ("&pretty=true", "pretty")] {
        let created = create(query, name, "application/json").await.json();
        assert_eq!(fields(&created, "tool"), &owned, "{query}");
    }
    let yaml = create("", "yaml", "application/yaml").await.text();
    assert!(yaml.contains("f:data:\n"), "{yaml}");
    let table = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    assert_eq!(fields(&create("", "metadata", table).await.json(), "tool"), &owned);
    let protobuf = create("", "protobuf", "application/vnd.kubernetes.protobuf").await;
    assert!(String::from_utf8_lossy(&protobuf.body).contains(r#"{"f:data":{".":{},"f:a":{}}}"#));

    let path = format!("{CONFIG_MAPS}/plain");
    let live = client.call(&format!("GET {path}")).await.json();
    assert_eq!(fields(&live, "tool"), &owned);
    let again = client.call_with(&format!("PUT {path}?fieldManager=tool"), &live).await.json();
    assert_eq!(again, live);
    let deleted = client.call(&format!("DELETE {path}?propagationPolicy=Foreground")).await.json();
    assert_eq!(fields(&deleted, "tool"), &owned);

    // Events of this group are stored in the version of another group.
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "action": "a",
        "reason": "r", "type": "Normal", "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c/d",
        "reportingInstance": "i", "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    let created = client.call_with(&format!("POST {events}?fieldManager=tool"), &event).await.json();
    assert!(fields(&created, "tool")["f:action"].is_object(), "{created}");
}

#[tokio::test]
async fn every_write_is_recorded_under_its_manager() {
    let cluster = Cluster::start(&[]).await;
    let client = cluster.admin();
    let call = Call::new("POST", CONFIG_MAPS).header("user-agent", "tool/1.0 (linux)");
    let created = client.send(call.json(&config_map("x", json!({"data": {"a": "1"}})))).await.json();
    assert_eq!(managers(&created), ["tool Update"]);
    assert_eq!(fields(&created, "tool"), &json!({"f:data": {".": {}, "f:a": {}}}));

    let path = format!("{CONFIG_MAPS}/x");
    let mut changed = created.clone();
    changed["data"]["b"] = json!("1");
    let updated =
        client.send(Call::new("PUT", &format!("{path}?fieldManager=put")).json(&changed)).await.json();
    assert_eq!(fields(&updated, "put"), &json!({"f:data": {"f:b": {}}}));
    let patch = json!({"data": {"a": "2"}});
    let patched =
        client.send(Call::new("PATCH", &format!("{path}?fieldManager=patch")).json(&patch)).await.json();
    assert_eq!(fields(&patched, "patch"), &json!({"f:data": {"f:a": {}}}));
    assert_eq!(fields(&patched, "tool"), &json!({"f:data": {}}));
    let read = client.call(&format!("GET {path}")).await.json();
    assert_eq!(read, patched);

    for empty in [json!([]), json!([{}])] {
        let patch = json!({"metadata": {"managedFields": empty}});
        let cleared = client.call_with(&format!("PATCH {path}"), &patch).await.json();
        assert_eq!(managers(&cleared), [""; 0]);
    }
}

#[tokio::test]
async fn fields_set_by_admission_have_no_owner() {
    let metadata = json!({"name": "default", "namespace": "default"});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
    let cluster = Cluster::start(&[account]).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "example.com/c"}]}});
    let created = cluster.admin().send(Call::new("POST", &format!("{PODS}?fieldManager=m")).json(&pod)).await;
    assert_eq!(created.code, 201, "{}", created.text());
    let created = created.json();
    assert!(created["spec"].get("tolerations").is_some());
    let owned = fields(&created, "m")["f:spec"].as_object().unwrap();
    assert!(owned.contains_key("f:containers") && !owned.contains_key("f:tolerations"), "{owned:?}");
}

#[tokio::test]
async fn an_apply_creates_merges_conflicts_and_releases_fields() {
    let cluster = Cluster::start(&[]).await;
    let client = cluster.admin();
    let path = format!("{CONFIG_MAPS}/x");
    let data = |data: Value| config_map("x", json!({ "data": data }));
    let created = apply(&client, &path, "one", "", &data(json!({"a": "1", "b": "1"}))).await;
    assert_eq!(created.code, 201, "{}", created.text());
    let again = apply(&client, &path, "one", "", &data(json!({"a": "1", "b": "1"}))).await;
    assert_eq!((again.code, again.json()), (200, created.json()));
    let conflict = apply(&client, &path, "two", "", &data(json!({"a": "2"}))).await;
    assert_eq!(conflict.code, 409);
    let causes = &conflict.json()["details"]["causes"];
    let cause =
        json!({"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.a"});
    assert_eq!(causes, &json!([cause]));
    for dry in ["&force=true&dryRun=All", "&force=true"] {
        let forced = apply(&client, &path, "two", dry, &data(json!({"a": "2"}))).await.json();
        assert_eq!(forced["data"], json!({"a": "2", "b": "1"}));
        assert_eq!(fields(&forced, "one"), &json!({"f:data": {"f:b": {}}}));
    }
    let left = apply(&client, &path, "one", "", &config_map("x", json!({}))).await.json();
    assert_eq!((&left["data"], managers(&left)), (&json!({"a": "2"}), vec!["two Apply".to_owned()]));
}

#[tokio::test]
async fn rejects_invalid_applies() {
    let objects = [config_map("there", json!({"data": {"a": "1"}}))];
    let cluster = Cluster::start(&objects).await;
    let client = cluster.admin();
    let named = |name: &str, metadata: Value| {
        let mut object = config_map(name, json!({"data": {"b": "1"}}));
        object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        object
    };
    for (name, query, body, code) in [
        ("absent", "&dryRun=All", named("absent", json!({"resourceVersion": "5"})), 201),
        ("absent", "", named("absent", json!({"uid": "u"})), 409),
        ("absent", "", named("other", json!({})), 400),
        ("there", "", named("there", json!({"resourceVersion": "1"})), 409),
        ("there", "", named("there", json!({"managedFields": [{}]})), 400),
        ("there", "", json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "there"}}), 400),
        ("there", "", config_map("there", json!({"datta": {}})), 500),
        ("there", "", json!([]), 400),
        ("absent/status", "", named("absent", json!({})), 404),
    ] {
        let answer = apply(&client, &format!("{CONFIG_MAPS}/{name}"), "m", query, &body).await;
        assert_eq!(answer.code, code, "{name} {body}: {}", answer.text());
    }
    let path = format!("{CONFIG_MAPS}/there");
    let call =
        Call::new("PATCH", &path).content_type("application/apply-patch+yaml").body(objects[0].to_string());
    assert_eq!(client.send(call).await.code, 422);
    for (strictness, code) in [("Strict", 400), ("Warn", 200)] {
        let twice =
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"there"},"data":{"z":"1","z":"2"}}"#;
        let call = Call::new("PATCH", &format!("{path}?fieldManager=m&fieldValidation={strictness}"));
        let call = call.content_type("application/apply-patch+yaml").body(twice);
        assert_eq!(client.send(call).await.code, code, "{strictness}");
    }
}

#[tokio::test]
async fn the_right_to_patch_does_not_include_create_by_apply() {
    let objects = [
        config_map("there", json!({"data": {"a": "1"}})),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r", "namespace": "default"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "r", "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}]}),
    ];
    let cluster = Cluster::start(&objects).await;
    let alice = cluster.user("alice");
    for (name, code) in [("there", 200), ("absent", 403)] {
        let body = config_map(name, json!({"data": {"b": "1"}}));
        let answer = apply(&alice, &format!("{CONFIG_MAPS}/{name}"), "m", "", &body).await;
        assert_eq!(answer.code, code, "{}", answer.text());
    }
}

#[tokio::test]
async fn subresources_have_separate_owners() {
    let cluster = Cluster::start(&[]).await;
    let client = cluster.admin();
    let path = format!("{DEPLOYMENTS}/d");
    let created = apply(&client, &path, "ci", "", &deployment("d", &whole_spec())).await;
    assert_eq!(created.code, 201, "{}", created.text());
    let mut status = deployment("d", &whole_spec());
    status["status"] = json!({"replicas": 1});
    let answer = apply(&client, &format!("{path}/status"), "controller", "", &status).await;
    assert_eq!(answer.code, 200, "{}", answer.text());
    assert_eq!(fields(&answer.json(), "controller"), &json!({"f:status": {"f:replicas": {}}}));

    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 3}});
    let path_of_scale = format!("{path}/scale");
    let conflict = apply(&client, &path_of_scale, "hpa", "", &scale).await;
    assert_eq!(
        (conflict.code, &conflict.json()["details"]["causes"][0]["field"]),
        (409, &json!(".spec.replicas"))
    );
    let scaled = apply(&client, &path_of_scale, "hpa", "&force=true", &scale).await;
    assert_eq!((scaled.code, scaled.json()["metadata"].get("managedFields")), (200, None));
    let object = client.call(&format!("GET {path}")).await.json();
    assert_eq!(object["spec"]["replicas"], 3);
    assert_eq!(managers(&object), ["hpa Apply scale", "ci Apply", "controller Apply status"]);
    assert_eq!(fields(&object, "hpa"), &json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields(&object, "ci")["f:spec"].get("f:replicas"), None);
}

#[tokio::test]
async fn writes_of_components_have_their_names_as_manager() {
    let cluster = Cluster::start(&[]).await;
    let client = cluster.admin();
    let object = config_map("x", json!({"data": {"a": "1"}}));
    let created = client.call_with(&format!("POST {CONFIG_MAPS}"), &object).await.json();
    assert_eq!(managers(&created), ["kube-controller-manager Update"]);
}

#[tokio::test]
async fn entries_of_bodies_are_validated_unless_they_cannot_be_read() {
    let cluster = Cluster::start(&[]).await;
    let client = cluster.admin();
    let path = format!("{CONFIG_MAPS}/x");
    let entry = |parts: Value| {
        let mut entry = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:b": {}}}});
        entry.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
        let mut object = config_map("x", json!({"data": {"a": "1"}}));
        object["metadata"]["managedFields"] = json!([entry]);
        object
    };
    let refused = [
        (json!({"manager": "a".repeat(129)}), "metadata.managedFields[0].manager"),
        (json!({"manager": "a\tb"}), "metadata.managedFields[0].manager"),
        (json!({"subresource": "s".repeat(257)}), "metadata.managedFields[0].subresource"),
    ];
    let ignored =
        [json!({"operation": "Delete"}), json!({"fieldsType": "FieldsV2"}), json!({"fieldsV1": {"x": {}}})];
    for created in [false, true] {
        let call = if created { format!("PUT {path}") } else { format!("POST {CONFIG_MAPS}") };
        let write = async |object: &Value| client.call_with(&call, object).await;
        for (parts, field) in &refused {
            let answer = write(&entry(parts.clone())).await;
            assert_eq!((answer.code, &answer.json()["details"]["causes"][0]["field"]), (422, &json!(field)));
        }
        for parts in &ignored {
            let answer = write(&entry(parts.clone())).await;
            assert_eq!(answer.code, if created { 200 } else { 201 }, "{}", answer.text());
            assert!(!managers(&answer.json()).contains(&"m Update".to_owned()), "{parts}");
            if !created {
                assert_eq!(client.call(&format!("DELETE {path}")).await.code, 200);
            }
        }
        if !created {
            client
                .call_with(&format!("POST {CONFIG_MAPS}"), &config_map("x", json!({"data": {"a": "1"}})))
                .await;
        }
    }
}

#[tokio::test]
async fn a_dry_run_of_an_unconditional_update_answers_with_the_stored_version() {
    let cluster = Cluster::start(&[]).await;
    let client = cluster.admin();
    let object = config_map("x", json!({"data": {"a": "1"}}));
    let created = client.call_with(&format!("POST {CONFIG_MAPS}"), &object).await.json();
    let changed = config_map("x", json!({"data": {"a": "2"}}));
    let tried = client.call_with(&format!("PUT {CONFIG_MAPS}/x?dryRun=All"), &changed).await.json();
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    assert_eq!((&tried["data"], version(&tried)), (&json!({"a": "2"}), version(&created)));
}

#[tokio::test]
async fn bindings_and_evictions_change_no_owners() {
    let metadata = json!({"name": "default", "namespace": "default"});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
    let cluster = Cluster::start(&[account]).await;
    let client = cluster.admin();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "finalizers": ["example.com/hold"]},
        "spec": {"containers": [{"name": "c", "image": "example.com/c"}]}});
    let created = client.send(Call::new("POST", &format!("{PODS}?fieldManager=m")).json(&pod)).await.json();
    let owners = created["metadata"]["managedFields"].clone();
    let path = format!("{PODS}/p");
    let target = json!({"apiVersion": "v1", "kind": "Node", "name": "n"});
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": target});
    let bound = client.call_with(&format!("POST {path}/binding"), &binding).await;
    assert_eq!(bound.code, 201, "{}", bound.text());
    let read = client.call(&format!("GET {path}")).await.json();
    assert_eq!((&read["spec"]["nodeName"], &read["metadata"]["managedFields"]), (&json!("n"), &owners));
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let evicted = client.call_with(&format!("POST {path}/eviction"), &eviction).await;
    assert_eq!(evicted.code, 201, "{}", evicted.text());
    let read = client.call(&format!("GET {path}")).await.json();
    let mark =
        read["status"]["conditions"].as_array().unwrap().iter().any(|it| it["type"] == "DisruptionTarget");
    assert!(mark && read["metadata"].get("deletionTimestamp").is_some(), "{read}");
    assert_eq!(read["metadata"]["managedFields"], owners);
}
