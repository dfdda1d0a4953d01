//! The encodings and forms of custom objects: protobuf, metadata, tables, scales.

use nave_machinery::Value;
use serde_json::json;

use crate::common::{Call, TestResponse};
use crate::{DEFINITIONS, Server};

const OBJECTS: &str = "/apis/example.com/v1/namespaces/default/films";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn definition(columns: &Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "films.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "films", "kind": "Film"},
            "versions": [{"name": "v1", "served": true, "storage": true, "additionalPrinterColumns": columns,
                "subresources": {"scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"n": {"type": "integer"}, "a": {"type": "string"}}},
                    "status": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}}]}})
}

/// Starts a server with a definition and one object.
async fn with_object(columns: &Value) -> Server {
    let server = Server::start().await;
    server.define(&definition(columns)).await;
    let film = json!({"apiVersion": "example.com/v1", "kind": "Film", "metadata": {"name": "f"},
        "spec": {"n": 2, "a": "x"}});
    assert_eq!(server.post(OBJECTS, &film).await.code, 201);
    server
}

async fn get(server: &Server, path: &str, accept: &str) -> TestResponse {
    server.client.send(Call::new("GET", &format!("{OBJECTS}{path}")).header("accept", accept)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_metadata_is_available_as_protobuf() {
    let server = with_object(&json!([])).await;
    let metadata = |kind: &str| format!("{PROTOBUF};as=PartialObjectMetadata{kind};v=v1;g=meta.k8s.io");
    for (path, accept, code) in [
        ("/f", PROTOBUF, 406),
        ("", PROTOBUF, 406),
        ("/f", &metadata(""), 200),
        ("", &metadata("List"), 200),
        ("/f/scale", PROTOBUF, 406),
        ("/f", &format!("{PROTOBUF},application/json"), 200),
    ] {
        let answer = get(&server, path, accept).await;
        assert_eq!(answer.code, code, "{path} {accept}");
        let is_protobuf = answer.body.starts_with(b"k8s\0");
        assert_eq!(is_protobuf, !accept.ends_with("json"), "{path} {accept}");
    }
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "f", "namespace": "default"},
        "spec": {"replicas": 3}});
    let put = Call::new("PUT", &format!("{OBJECTS}/f/scale")).json(&scale);
    assert_eq!(server.client.send(put).await.code, 200);
    assert_eq!(get(&server, "/f", "application/json").await.json()["spec"]["n"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_end_before_an_invalid_path() {
    let column = |name: &str, path: &str| json!({"name": name, "type": "string", "jsonPath": path});
    let columns = [column("A", ".spec.a"), column("Bad", ".spec.a[?(@.b"), column("B", ".spec.a")];
    let server = with_object(&json!(columns)).await;
    let names = |table: &Value| -> Vec<String> {
        let columns = table["columnDefinitions"].as_array().unwrap();
        columns.iter().map(|column| column["name"].as_str().unwrap().to_owned()).collect()
    };
    let table = get(&server, "", TABLE).await.json();
    assert_eq!(names(&table), ["Name", "A"]);
    assert_eq!(table["rows"][0]["cells"], json!(["f", "x"]));
    // The scale of a custom object has its columns, the scale of a built-in object has columns of its own.
    assert_eq!(names(&get(&server, "/f/scale", TABLE).await.json()), ["Name", "A"]);
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    assert_eq!(server.post(sets, &set).await.code, 201);
    let table =
        server.client.send(Call::new("GET", &format!("{sets}/r/scale")).header("accept", TABLE)).await.json();
    assert_eq!(names(&table), ["Name", "Desired", "Available", "Age"]);
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("r"), json!(2), json!(0)]);
    let status = server.get(&format!("{DEFINITIONS}/films.example.com")).await.json();
    assert_eq!(status["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().len(), 3);
}
