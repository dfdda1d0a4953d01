//! Defaults that a schema gains after objects were stored.

use nave_machinery::Value;
use serde_json::json;

use crate::common::Call;
use crate::{DEFINITIONS, Server};

const OBJECTS: &str = "/apis/example.com/v1/namespaces/default/films";
const SIZE: usize = 300_000;

fn definition(text: &Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "films.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "films", "kind": "Film"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
                    "properties": {"text": text, "n": {"type": "integer", "default": 7}}}}}}}]}})
}

/// Returns the bytes of the objects in the watch cache.
async fn cached_bytes(server: &Server) -> u64 {
    let caches = server.get("/debug/api_cache").await.json();
    let caches = caches["resources"].as_array().unwrap();
    caches.iter().find(|cache| cache["resource"] == "films.example.com").unwrap()["bytes"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_defaults_are_shown_and_not_cached() {
    let server = Server::start().await;
    server.define(&definition(&json!({"type": "string"}))).await;
    for number in 0..20 {
        let film = json!({"apiVersion": "example.com/v1", "kind": "Film",
            "metadata": {"name": format!("f{number}")}, "spec": {}});
        assert_eq!(server.post(OBJECTS, &film).await.code, 201);
    }
    let path = format!("{DEFINITIONS}/films.example.com");
    let mut definition = definition(&json!({"type": "string", "default": "x".repeat(SIZE)}));
    definition["metadata"]["resourceVersion"] =
        server.get(&path).await.json()["metadata"]["resourceVersion"].clone();
    let put = Call::new("PUT", &path).json(&definition);
    assert_eq!(server.client.send(put).await.code, 200);
    let first = format!("{OBJECTS}/f0");
    let has_default = |film: &Value| film["spec"]["text"].as_str().is_some_and(|text| text.len() == SIZE);
    while !has_default(&server.get(&first).await.json()) {
        tokio::task::yield_now().await;
    }
    for query in ["", "?resourceVersion=0", "?limit=50"] {
        let films = server.get(&format!("{OBJECTS}{query}")).await.json();
        let films = films["items"].as_array().unwrap();
        let is_whole = |film: &Value| has_default(film) && film["spec"]["n"] == 7;
        assert!(films.len() == 20 && films.iter().all(is_whole), "{query}");
    }
    let bytes = cached_bytes(&server).await;
    assert!(bytes < SIZE as u64, "{bytes} bytes are cached");
    let label = Call::new("PATCH", &first)
        .json(&json!({"metadata": {"labels": {"a": "b"}}}))
        .content_type("application/merge-patch+json");
    let patched = server.client.send(label).await;
    assert!(patched.code == 200 && has_default(&patched.json()), "{}", patched.code);
}
