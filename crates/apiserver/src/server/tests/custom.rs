//! Custom resources on a whole server in the test process.

use super::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";
const TABLE: (&str, &str) = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");

/// Returns a definition with a status, a scale and a printer column.
fn definition() -> Value {
    let integer = json!({"type": "integer"});
    let ports = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "required": ["name"],
            "properties": {"name": {"type": "string"}, "port": integer}}});
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer", "minimum": 0, "default": 1}, "color": {"type": "string"}, "ports": ports}},
        "status": {"type": "object", "properties": {"replicas": integer}}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing", "singular": "thing", "listKind": "ThingList", "shortNames": ["th"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}]}]}})
}

fn thing(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}

fn is_true(definition: &Value, condition: &str) -> bool {
    nave_machinery::conditions::is_true(definition, condition)
}

/// Starts a server with its background tasks, which end with the test's runtime.
async fn start() -> Fixture {
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    let server = it.server.clone();
    tokio::spawn(async move { server.run_background_tasks(|| false).await });
    it
}

impl Fixture {
    /// Creates a definition and waits until it is established.
    async fn define(&self, definition: &Value) {
        let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
        let (code, answer) = self.send(Method::POST, DEFINITIONS, definition).await;
        assert_eq!(code, 201, "{answer}");
        self.definition_is(&name, |found| is_true(found, "Established")).await;
    }

    async fn definition_is(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let one = format!("fieldSelector=metadata.name={name}");
        let mut events = self
            .open(&Method::GET, &format!("{DEFINITIONS}?watch=true&{one}"), &[], Bytes::new())
            .await
            .into_body();
        loop {
            let found = self.get(&format!("{DEFINITIONS}/{name}"), &[]).await.1;
            if wanted(&found) {
                return found;
            }
            events.frame().await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn serves_an_established_resource_like_a_builtin_one() {
    let it = start().await;
    assert_eq!(it.get(THINGS, &[]).await.0, 404);
    it.define(&definition()).await;
    // Once the condition is set, requests find the resource.
    let (code, created) =
        it.send(Method::POST, THINGS, &thing("a", &json!({"color": "red", "unknown": 1}))).await;
    assert_eq!((code, &created["spec"]), (201, &json!({"color": "red", "replicas": 1})));
    assert_eq!(created["metadata"]["generation"], 1);
    let strict = format!("{THINGS}?fieldValidation=Strict");
    assert_eq!(it.send(Method::POST, &strict, &thing("b", &json!({"unknown": 1}))).await.0, 400);
    let (code, refused) = it.send(Method::POST, THINGS, &thing("b", &json!({"replicas": -1}))).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!("spec.replicas")));

    // Table, scale, status, selectors, discovery, OpenAPI.
    let table = it.get(THINGS, &[TABLE]).await.1;
    assert_eq!(table["columnDefinitions"][1]["name"], "Color");
    assert_eq!(table["rows"][0]["cells"], json!(["a", "red"]));
    let one = format!("{THINGS}/a");
    let scaled = it.send(Method::PATCH, &format!("{one}/scale"), &json!({"spec": {"replicas": 5}})).await;
    assert_eq!((scaled.0, &scaled.1["kind"]), (200, &json!("Scale")));
    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 4}});
    let (code, found) = it.send(Method::PATCH, &format!("{one}/status"), &status).await;
    assert_eq!((code, &found["spec"]["replicas"], &found["status"]["replicas"]), (200, &json!(5), &json!(4)));
    assert_eq!(found["metadata"]["generation"], 2, "the scale counts and the status does not");
    for (selector, count) in [("spec.color%3Dred", 1), ("spec.color%3Dblue", 0)] {
        let list = it.get(&format!("{THINGS}?fieldSelector={selector}"), &[]).await.1;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(count), "{selector}");
        assert_eq!(list["metadata"]["continue"], "");
    }
    assert_eq!(it.get(&format!("{THINGS}?fieldSelector=spec.size%3D1"), &[]).await.0, 400);
    let resources = it.get("/apis/example.com/v1", &[]).await.1;
    assert_eq!(resources["resources"][0]["shortNames"], json!(["th"]));
    let openapi = it.get("/openapi/v3/apis/example.com/v1", &[]).await.1;
    let spec = &openapi["components"]["schemas"]["com.example.v1.Thing"]["properties"]["spec"];
    assert_eq!(spec["properties"]["replicas"]["default"], 1);

    // Strategic merge patches and protobuf are not accepted.
    for media_type in ["application/strategic-merge-patch+json", "application/vnd.kubernetes.protobuf"] {
        let headers = [("content-type", media_type)];
        let patched = it.open(&Method::PATCH, &one, &headers, Bytes::from_static(b"{}")).await;
        assert_eq!(patched.status(), 415, "{media_type}");
    }
    let headers = [("content-type", "application/vnd.kubernetes.protobuf")];
    let posted = it.open(&Method::POST, THINGS, &headers, Bytes::from_static(b"k8s\0")).await;
    assert_eq!(posted.status(), 415);
}

#[tokio::test]
async fn a_scale_of_a_custom_object_needs_replicas() {
    let it = start().await;
    let mut definition = definition();
    *definition
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/replicas")
        .unwrap() = json!({"type": "integer"});
    it.define(&definition).await;
    assert_eq!(it.send(Method::POST, THINGS, &thing("a", &json!({}))).await.0, 201);
    let scale = format!("{THINGS}/a/scale");
    let (code, found) = it.get(&scale, &[]).await;
    let missing = "Internal error occurred: the spec replicas field \".spec.replicas\" does not exist";
    assert_eq!((code, &found["message"]), (500, &json!(missing)));
    for (patch, expected, message) in [
        (json!({"metadata": {}}), 400, "the spec replicas field \".spec.replicas\" cannot be empty"),
        (
            json!({"spec": {"replicas": -1}}),
            422,
            "Thing.example.com \"a\" is invalid: .spec.replicas: Invalid value",
        ),
        (json!({"metadata": {"uid": "other"}, "spec": {"replicas": 2}}), 200, ""),
    ] {
        let (code, answer) = it.send(Method::PATCH, &scale, &patch).await;
        let text = answer["message"].as_str().unwrap_or_default();
        assert!(code == expected && text.starts_with(message), "{patch}: {code} {text}");
    }
}

#[tokio::test]
async fn apply_merges_lists_by_the_keys_of_the_schema() {
    let it = start().await;
    it.define(&definition()).await;
    let apply = async |manager: &str, name: &str, port: i64| {
        let object = thing("a", &json!({"ports": [{"name": name, "port": port}]}));
        let headers = [("content-type", "application/apply-patch+yaml")];
        let uri = format!("{THINGS}/a?fieldManager={manager}");
        read(it.open(&Method::PATCH, &uri, &headers, object.to_string().into()).await).await
    };
    assert_eq!(apply("one", "http", 80).await.0, 201);
    let (code, merged) = apply("two", "https", 443).await;
    assert_eq!((code, merged["spec"]["ports"].as_array().map(Vec::len)), (200, Some(2)));
    assert_eq!(apply("two", "http", 81).await.0, 409, "another manager has the port");
}

#[tokio::test]
async fn deleting_a_definition_deletes_its_objects_and_refuses_new_ones() {
    let it = start().await;
    it.define(&definition()).await;
    let mut held = thing("held", &json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    for object in [&held, &thing("free", &json!({}))] {
        assert_eq!(it.send(Method::POST, THINGS, object).await.0, 201);
    }
    let mut events =
        it.open(&Method::GET, &format!("{THINGS}?watch=true"), &[], Bytes::new()).await.into_body();
    let (code, deleted) =
        it.send(Method::DELETE, &format!("{DEFINITIONS}/things.example.com"), &json!({})).await;
    assert_eq!((code, is_true(&deleted, "Terminating")), (200, true), "{deleted}");
    // The object without a finalizer is deleted, the other one is marked for deletion.
    let gone = async |name: &str| it.get(&format!("{THINGS}/{name}"), &[]).await;
    while gone("free").await.0 == 200 || gone("held").await.1["metadata"]["deletionTimestamp"].is_null() {
        events.frame().await.unwrap().unwrap();
    }
    let (code, refused) = it.send(Method::POST, THINGS, &thing("new", &json!({}))).await;
    assert_eq!((code, &refused["reason"]), (403, &json!("Forbidden")), "{refused}");
    let release = json!({"metadata": {"finalizers": null}});
    assert_eq!(it.send(Method::PATCH, &format!("{THINGS}/held"), &release).await.0, 200);
    it.definition_is("things.example.com", |found| found["code"] == 404).await;
    // The watch ends with the resource.
    while let Some(frame) = events.frame().await {
        frame.unwrap();
    }
    // The catalog is updated after the deletion event.
    while it.get(THINGS, &[]).await.0 != 404 {
        tokio::task::yield_now().await;
    }
    it.define(&definition()).await;
    assert_eq!(it.get(THINGS, &[]).await.1["items"], json!([]));
}

#[tokio::test]
async fn conflicting_names_are_accepted_when_released() {
    let it = start().await;
    it.define(&definition()).await;
    let mut second = definition();
    second["metadata"]["name"] = json!("others.example.com");
    second["spec"]["names"] =
        json!({"plural": "others", "kind": "Thing", "singular": "other", "listKind": "OtherList"});
    assert_eq!(it.send(Method::POST, DEFINITIONS, &second).await.0, 201);
    let waits = |found: &Value| nave_machinery::conditions::find(found, "NamesAccepted").is_some();
    let found = it.definition_is("others.example.com", waits).await;
    assert!(!is_true(&found, "NamesAccepted") && !is_true(&found, "Established"));
    assert_eq!(it.get("/apis/example.com/v1/namespaces/default/others", &[]).await.0, 404);
    let deleted = it.send(Method::DELETE, &format!("{DEFINITIONS}/things.example.com"), &json!({})).await;
    assert_eq!(deleted.0, 200);
    it.definition_is("others.example.com", |found| is_true(found, "Established")).await;
    assert_eq!(it.get("/apis/example.com/v1/namespaces/default/others", &[]).await.0, 200);
}

#[tokio::test]
async fn each_version_serves_the_fields_of_its_schema() {
    let it = start().await;
    let mut several = definition();
    let schema = |field: &str| {
        let text = json!({"type": "string"});
        let spec = json!({"type": "object", "properties": {field: {"type": "string", "default": field}, "both": text}});
        json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}})
    };
    several["spec"]["versions"] = json!([
        {"name": "v1", "served": true, "storage": true, "schema": schema("new")},
        {"name": "v1beta1", "served": true, "storage": false, "deprecated": true, "schema": schema("old")},
    ]);
    it.define(&several).await;
    let object = json!({"apiVersion": "example.com/v1beta1", "kind": "Thing", "metadata": {"name": "a"},
        "spec": {"old": "x", "new": "y", "both": "b"}});
    let beta = "/apis/example.com/v1beta1/namespaces/default/things";
    let headers = [("content-type", "application/json")];
    let response = it.open(&Method::POST, beta, &headers, object.to_string().into()).await;
    let warnings =
        response.headers().get_all(header::WARNING).iter().map(|it| it.to_str().unwrap().to_owned());
    let warnings: Vec<String> = warnings.collect();
    assert!(
        warnings
            .iter()
            .any(|it| it.contains("example.com/v1beta1 Thing is deprecated; use example.com/v1 Thing"))
    );
    let (code, created) = read(response).await;
    assert_eq!((code, &created["apiVersion"]), (201, &json!("example.com/v1beta1")));
    // Fields that the storage version lacks are dropped.
    assert_eq!(created["spec"], json!({"both": "b"}));
    let (stable, beta) = (format!("{THINGS}/a"), format!("{beta}/a"));
    let seen = it.get(&stable, &[]).await.1;
    let hash = it.get("/apis/example.com/v1", &[]).await.1["resources"][0]["storageVersionHash"].clone();
    assert_eq!(
        (&seen["apiVersion"], &seen["spec"]),
        (&json!("example.com/v1"), &json!({"new": "new", "both": "b"}))
    );
    assert_eq!(it.get(&beta, &[]).await.1["spec"], json!({"both": "b"}));
    // After a change of the storage version, even a patch without changes rewrites the object.
    let other = json!({"spec": {"versions": [
        {"name": "v1", "served": true, "storage": false, "schema": schema("new")},
        {"name": "v1beta1", "served": true, "storage": true, "schema": schema("old")},
    ]}});
    assert_eq!(it.send(Method::PATCH, &format!("{DEFINITIONS}/things.example.com"), &other).await.0, 200);
    while it.get("/apis/example.com/v1", &[]).await.1["resources"][0]["storageVersionHash"] == hash {
        tokio::task::yield_now().await;
    }
    let rewritten = it.send(Method::PATCH, &stable, &json!({})).await.1;
    assert_ne!(rewritten["metadata"]["resourceVersion"], seen["metadata"]["resourceVersion"]);
    assert_eq!(rewritten["spec"], json!({"both": "b"}));
}

#[tokio::test]
async fn definitions_with_the_keys_of_builtin_resources_delete_no_objects() {
    let it = start().await;
    it.define(&definition()).await;
    for (group, plural) in
        [("apiextensions.k8s.io", "customresourcedefinitions"), ("apiregistration.k8s.io", "apiservices")]
    {
        let mut hostile = definition();
        let name = format!("{plural}.{group}");
        let approval = "https://github.com/kubernetes/enhancements/pull/1111";
        hostile["metadata"] = json!({"name": name, "annotations": {"api-approved.kubernetes.io": approval}});
        hostile["spec"]["group"] = json!(group);
        hostile["spec"]["names"] =
            json!({"plural": plural, "singular": "zed", "kind": "Zed", "listKind": "ZedList"});
        hostile["spec"]["scope"] = json!("Cluster");
        hostile["spec"]["versions"][0]["name"] = json!("v9");
        // The client tries to set the `Established` condition itself.
        hostile["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
        let (code, answer) = it.send(Method::POST, DEFINITIONS, &hostile).await;
        assert_eq!(code, 201, "{answer}");
        it.definition_is(&name, |found| {
            nave_machinery::conditions::find(found, "NamesAccepted")
                .is_some_and(|condition| condition["reason"] == "BuiltInResource")
        })
        .await;
        let (code, _) = it.get(&format!("/apis/{group}/v9/{plural}"), &[]).await;
        assert_eq!(code, 404);
        let (code, answer) = it.send(Method::DELETE, &format!("{DEFINITIONS}/{name}"), &json!({})).await;
        assert_eq!(code, 200, "{answer}");
        it.definition_is(&name, |found| found["reason"] == "NotFound").await;
    }
    let (code, kept) = it.get(&format!("{DEFINITIONS}/things.example.com"), &[]).await;
    assert_eq!(code, 200, "{kept}");
}

#[tokio::test]
async fn rejects_applies_of_fields_unknown_to_the_version_of_another_manager() {
    let it = start().await;
    let mut definition = definition();
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    second["selectableFields"] = json!([]);
    second["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] =
        json!({"type": "integer"});
    definition["spec"]["versions"].as_array_mut().unwrap().push(second);
    it.define(&definition).await;
    let apply = async |version: &str, manager: &str, spec: Value| {
        let mut object = thing("a", &spec);
        object["apiVersion"] = json!(format!("example.com/{version}"));
        let uri = format!("/apis/example.com/{version}/namespaces/default/things/a?fieldManager={manager}");
        let headers = [("content-type", "application/apply-patch+yaml")];
        read(it.open(&Method::PATCH, &uri, &headers, object.to_string().into()).await).await
    };
    assert_eq!(apply("v1", "one", json!({"color": "red"})).await.0, 201);
    assert_eq!(apply("v2", "two", json!({"replicas": 2})).await.0, 200);
    let (code, refused) = apply("v2", "two", json!({"size": 3})).await;
    let message = "failed to convert new object: .spec.size: field not declared in schema";
    assert_eq!((code, &refused["message"]), (500, &json!(message)));
}
