//! Definitions that are meant to be expensive: each is answered, and the server still serves others.

use nave_machinery::Value;
use serde_json::{Map, json};

use crate::{DEFINITIONS, Server};

fn definition(plural: &str, versions: &[Value]) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.hostile.example.com")},
        "spec": {"group": "hostile.example.com", "scope": "Namespaced", "versions": versions,
            "names": {"plural": plural, "kind": format!("Kind{plural}")}}})
}

fn version(name: &str, is_stored: bool, spec: &Value) -> Value {
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    json!({"name": name, "served": true, "storage": is_stored, "schema": {"openAPIV3Schema": schema}})
}

fn nested(depth: usize, wrap: impl Fn(Value) -> Value) -> Value {
    (0..depth).fold(json!({"type": "string"}), |inner, _| wrap(inner))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_definitions_are_answered() {
    let server = Server::start().await;
    let deep = nested(30, |inner| json!({"type": "object", "properties": {"a": inner}}));
    let lists = nested(45, |inner| json!({"type": "array", "items": inner}));
    let wide: Map<String, Value> =
        (0..10_000).map(|n| (format!("f{n}"), json!({"type": "string"}))).collect();
    let values: Vec<String> = (0..20_000).map(|n| format!("value-{n}")).collect();
    let alternatives = (0..6).fold(json!({"minLength": 1}), |inner, _| json!({"anyOf": vec![inner; 4]}));
    let with = |mut schema: Value, more: &Value| {
        schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        schema
    };
    let text = json!({"type": "string"});
    let versions: Vec<Value> = (1..=60)
        .map(|n| {
            version(
                &format!("v{n}"),
                n == 1,
                &json!({"type": "object", "properties": {
            format!("only{n}"): with(text.clone(), &json!({"description": "x".repeat(5_000)}))}}),
            )
        })
        .collect();
    let cases = [
        ("deeps", vec![version("v1", true, &deep)]),
        ("lists", vec![version("v1", true, &lists)]),
        ("wides", vec![version("v1", true, &json!({"type": "object", "properties": wide}))]),
        ("enums", vec![version("v1", true, &with(text.clone(), &json!({"enum": values})))]),
        ("choices", vec![version("v1", true, &with(text.clone(), &alternatives))]),
        ("patterns", vec![version("v1", true, &with(text.clone(), &json!({"pattern": "^((a*)*)*$"})))]),
        (
            "repeats",
            vec![version("v1", true, &with(text.clone(), &json!({"pattern": "((a{1000}){1000}){1000}"})))],
        ),
        ("versions", versions),
    ];
    for (plural, versions) in &cases {
        let created = server.post(DEFINITIONS, &definition(plural, versions)).await;
        assert!(matches!(created.code, 201 | 400 | 422), "{plural}: {} {}", created.code, created.message());
        if created.code != 201 {
            println!("{plural}: {}", created.message());
            continue;
        }
        server.established(&format!("{plural}.hostile.example.com")).await;
        let path = format!("/apis/hostile.example.com/v1/namespaces/default/{plural}");
        let object = |spec: Value| {
            json!({"apiVersion": "hostile.example.com/v1", "kind": format!("Kind{plural}"),
            "metadata": {"generateName": "a-"}, "spec": spec})
        };
        for spec in [json!("a".repeat(20_000)), json!({"a": "b"}), json!([[]])] {
            let code = server.post(&path, &object(spec)).await.code;
            assert!(matches!(code, 201 | 422), "{plural}: {code}");
        }
        let applied = object(json!("a"));
        assert!(server.post(&path, &applied).await.code < 500, "{plural}");
    }
    assert_eq!(server.get("/api/v1/namespaces/default").await.code, 200);
    assert_eq!(server.get("/openapi/v3/apis/hostile.example.com/v1").await.code, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_many_versions_keep_their_schemas() {
    let server = Server::start().await;
    let rule = |n: usize| {
        json!({"type": "object", "properties": {"port": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": format!("!has(self.port) || self.port > {n}")}]})
    };
    let versions: Vec<Value> = (1..=40).map(|n| version(&format!("v{n}"), n == 1, &rule(n))).collect();
    let mut changed = definition("rules", &versions);
    server.define(&changed).await;
    changed["spec"]["versions"][39]["served"] = json!(false);
    let path = format!("{DEFINITIONS}/rules.hostile.example.com");
    let patch = json!({"spec": {"versions": changed["spec"]["versions"]}});
    let patched = server.client.call_with(&format!("PATCH {path}"), &patch).await;
    assert_eq!(patched.code, 200, "{}", patched.text());
    server.gone("/apis/hostile.example.com/v40/rules").await;
    assert_eq!(server.get("/apis/hostile.example.com/v39/rules").await.code, 200);
}
