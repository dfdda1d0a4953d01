//! Definitions of the size and shape that well-known operators have, and what these rely on.

use nave_machinery::Value;
use serde_json::json;

use crate::Server;
use crate::common::Call;

fn definition(group: &str, kind: &str, plural: &str, versions: &Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "versions": versions,
            "names": {"plural": plural, "kind": kind, "categories": ["operators"]}}})
}

fn object(group: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// Conditions as most operators declare them.
fn conditions() -> Value {
    json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "items": {
        "type": "object", "required": ["type", "status"], "properties": {
            "type": {"type": "string"}, "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "reason": {"type": "string"}, "message": {"type": "string"},
            "lastTransitionTime": {"type": "string", "format": "date-time"}}}})
}

/// One served version with a status.
fn version(spec: &Value, more: &Value) -> Value {
    let status = json!({"type": "object", "properties": {"conditions": conditions()}});
    let schema =
        json!({"type": "object", "required": ["spec"], "properties": {"spec": spec, "status": status}});
    let mut version = json!({"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema}});
    version.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    version
}

/// Containers with all of a pod's depth: ports that are numbers or names, quantities, probes, and free-form parts.
fn containers(depth: usize) -> Value {
    let int_or_string =
        json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
    let quantity = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": "^(\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\\+|-)?[0-9]+))?$"});
    let mut properties = json!({
        "name": {"type": "string", "maxLength": 63},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
            "items": {"type": "object", "required": ["containerPort"], "properties": {
                "containerPort": {"type": "integer", "format": "int32"}, "protocol": {"type": "string", "default": "TCP"},
                "target": int_or_string}}},
        "resources": {"type": "object", "properties": {
            "limits": {"type": "object", "additionalProperties": quantity}}},
        "extra": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    });
    if depth > 0 {
        for n in 0..12 {
            properties[format!("setting{n}")] = json!({"type": "object", "description": "Settings. ".repeat(20),
                "properties": {"containers": containers(depth - 1)}});
        }
    }
    json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "required": ["name"], "properties": properties}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn monitoring_stacks_of_half_a_megabyte() {
    const STACKS: &str = "/apis/monitoring.example.com/v1/namespaces/default/stacks";
    let server = Server::start().await;
    let spec = json!({"type": "object", "properties": {"containers": containers(2)}});
    let stacks =
        definition("monitoring.example.com", "Stack", "stacks", &json!([version(&spec, &json!({}))]));
    assert!(stacks.to_string().len() > 150_000, "{}", stacks.to_string().len());
    server.define(&stacks).await;
    let apply = async |manager: &str, port: Value| {
        let spec = json!({"containers": [{"name": "web", "ports": [port], "extra": {"any": [1, {}]},
            "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}, "unknown": 1}]});
        let call = Call::new("PATCH", &format!("{STACKS}/one?fieldManager={manager}&force=true"));
        let body = object("monitoring.example.com", "Stack", "one", &spec);
        server.client.send(call.json(&body).content_type("application/apply-patch+yaml")).await
    };
    let refused = apply("a", json!({"containerPort": 80})).await;
    assert_eq!(refused.code, 500, "an apply of unknown fields: {}", refused.text());
    let spec = |port: i32, target: Value| {
        json!({"containers": [{"name": "web", "extra": {"any": [1, {}]},
        "ports": [{"containerPort": port, "protocol": "TCP", "target": target}],
        "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]})
    };
    for (manager, port, target) in [("a", 80, json!("http")), ("b", 90, json!(9090))] {
        let call = Call::new("PATCH", &format!("{STACKS}/one?fieldManager={manager}&force=true"));
        let body = object("monitoring.example.com", "Stack", "one", &spec(port, target));
        let applied = server.client.send(call.json(&body).content_type("application/apply-patch+yaml")).await;
        assert!(matches!(applied.code, 200 | 201), "{}", applied.text());
    }
    let ports = server.get(&format!("{STACKS}/one")).await.value_at("/spec/containers/0/ports");
    assert_eq!(ports.as_array().unwrap().len(), 2, "{ports}");
    let wrong = object(
        "monitoring.example.com",
        "Stack",
        "two",
        &json!({"containers": [
        {"name": "a", "resources": {"limits": {"cpu": "much"}}}, {"name": "a"}]}),
    );
    let refused = server.post(STACKS, &wrong).await;
    assert_eq!(refused.code, 422, "{}", refused.text());
    for part in ["spec.containers[0].resources.limits.cpu", "spec.containers[1]: Duplicate value"] {
        assert!(refused.message().contains(part), "{part}: {}", refused.message());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_routes_with_rules_and_defaults() {
    const ROUTES: &str = "/apis/gateway.example.com/v1/namespaces/default/routes";
    let server = Server::start().await;
    let parents = json!({"type": "array", "maxItems": 32, "items": {"type": "object", "required": ["name"], "properties": {
        "group": {"type": "string", "default": "gateway.example.com"}, "kind": {"type": "string", "default": "Gateway"},
        "name": {"type": "string", "maxLength": 253}, "sectionName": {"type": "string", "maxLength": 253}}},
        "x-kubernetes-validations": [{"message": "sectionName must be unique",
            "rule": "self.all(p, self.exists_one(q, p.name == q.name && (has(p.sectionName) ? p.sectionName : '') == (has(q.sectionName) ? q.sectionName : '')))"}]});
    let rules = json!({"type": "array", "maxItems": 16, "default": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}],
        "items": {"type": "object", "properties": {"matches": {"type": "array", "maxItems": 8, "items": {
            "type": "object", "properties": {"path": {"type": "object", "properties": {
                "type": {"type": "string", "enum": ["Exact", "PathPrefix"], "default": "PathPrefix"},
                "value": {"type": "string", "maxLength": 1024, "default": "/"}},
                "x-kubernetes-validations": [{"message": "value must start with a slash", "rule": "self.value.startsWith('/')"}]}}}}}}});
    let spec = json!({"type": "object", "properties": {"parentRefs": parents, "rules": rules,
        "hostnames": {"type": "array", "items": {"type": "string", "maxLength": 253}}}});
    let columns = json!({"additionalPrinterColumns": [
        {"name": "Hostnames", "type": "string", "jsonPath": ".spec.hostnames"},
        {"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"}]});
    server
        .define(&definition("gateway.example.com", "Route", "routes", &json!([version(&spec, &columns)])))
        .await;

    let route = |name: &str, spec: Value| object("gateway.example.com", "Route", name, &spec);
    let created = server
        .post(ROUTES, &route("a", json!({"parentRefs": [{"name": "g"}], "hostnames": ["a.example"]})))
        .await;
    assert_eq!(created.code, 201, "{}", created.text());
    assert_eq!(created.value_at("/spec/parentRefs/0/kind"), "Gateway");
    assert_eq!(created.value_at("/spec/rules/0/matches/0/path/value"), "/");
    let twice = route("b", json!({"parentRefs": [{"name": "g"}, {"name": "g"}]}));
    let refused = server.post(ROUTES, &twice).await;
    assert!(
        refused.code == 422 && refused.message().contains("sectionName must be unique"),
        "{}",
        refused.text()
    );
    let bare = route("b", json!({"rules": [{"matches": [{"path": {"value": "x"}}]}]}));
    let refused = server.post(ROUTES, &bare).await;
    assert!(refused.message().contains("spec.rules[0].matches[0].path"), "{}", refused.text());

    let status = json!({"status": {"conditions": [{"type": "Accepted", "status": "True"}]}, "spec": {"hostnames": []}});
    let patched = server.client.call_with(&format!("PATCH {ROUTES}/a/status"), &status).await;
    assert_eq!(patched.code, 200, "{}", patched.text());
    assert_eq!(patched.value_at("/spec/hostnames/0"), "a.example", "the status alone changes");
    let table = Call::new("GET", ROUTES).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let cells = server.client.send(table).await.value_at("/rows/0/cells");
    assert_eq!(cells.as_array().unwrap()[..3], ["a", "[\"a.example\"]", "True"].map(Value::from), "{cells}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compositions_embed_other_resources() {
    const COMPOSITIONS: &str = "/apis/compose.example.com/v1/namespaces/default/compositions";
    let server = Server::start().await;
    let base = json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
    let spec = json!({"type": "object", "properties": {"resources": {"type": "array", "items": {"type": "object",
        "required": ["base"], "properties": {"name": {"type": "string"}, "base": base}}},
        "parameters": {"x-kubernetes-preserve-unknown-fields": true}}});
    let defined = definition(
        "compose.example.com",
        "Composition",
        "compositions",
        &json!([version(&spec, &json!({}))]),
    );
    server.define(&defined).await;
    let composition = |base: Value| {
        object(
            "compose.example.com",
            "Composition",
            "one",
            &json!({"parameters": [1, "a", null],
        "resources": [{"base": base}]}),
        )
    };
    let refused = server.post(COMPOSITIONS, &composition(json!({"kind": "Bucket", "spec": {"a": 1}}))).await;
    assert!(refused.code == 422 && refused.message().contains("apiVersion"), "{}", refused.text());
    let whole = json!({"apiVersion": "example.com/v1", "kind": "Bucket", "metadata": {"name": "x", "labels": {"a": "b"}},
        "spec": {"deep": [{"er": null}]}});
    let created = server.post(COMPOSITIONS, &composition(whole.clone())).await;
    assert_eq!(created.code, 201, "{}", created.text());
    assert_eq!(created.value_at("/spec/resources/0/base"), whole);
    let wrong = json!({"apiVersion": "example.com/v1", "kind": "Bucket", "metadata": {"name": "a/b"}});
    let mut wrong = composition(wrong);
    wrong["metadata"]["name"] = json!("two");
    assert_eq!(server.post(COMPOSITIONS, &wrong).await.code, 422);
}
