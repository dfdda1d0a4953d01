//! Definitions of the shapes that real operators have, with kubectl.

use nave_tests::{Server, cells};

const DEFINITIONS: &str = include_str!("definitions.yaml");
const OBJECTS: &str = include_str!("objects.yaml");

/// Starts a server with all definitions established and one object of each.
async fn with_objects() -> Server {
    let server = Server::start().await;
    server.apply(DEFINITIONS).await;
    server.established("--all").await;
    server.apply(OBJECTS).await;
    server
}

async fn path(server: &Server, object: &str, path: &str) -> String {
    server.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")]).await
}

#[tokio::test]
async fn defaults_and_unknown_parts_are_kept() {
    let server = with_objects().await;
    let expected = [
        ("cert/web", ".spec.privateKey.algorithm", "RSA"),
        ("cert/web", ".spec.issuerRef.kind", "Issuer"),
        ("httproute/web", ".spec.rules[0].matches[0].path.type", "PathPrefix"),
        ("httproute/web", ".spec.rules[0].backendRefs[0].weight", "1"),
        ("prom/main", ".spec.containers[0].ports[0].protocol", "TCP"),
        ("prom/main", ".spec.resources.requests.cpu", "1"),
        ("prom/main", ".spec.storage.volumeClaimTemplate.spec.resources.requests.storage", "1Gi"),
        ("comp/network", ".spec.pipeline[0].input.resources[0].x", "1"),
        ("applications/shop", ".spec.source.helm.valuesObject.nested.a[1]", "two"),
    ];
    for (object, field, value) in expected {
        assert_eq!(path(&server, object, field).await, value, "{object} {field}");
    }
}

#[tokio::test]
async fn kubectl_explains_lists_and_scales() {
    let server = with_objects().await;
    let explained = server.kubectl(&["explain", "certificate.spec.secretName"]).await;
    assert!(explained.contains("Name of the secret that stores the pair."), "{explained}");
    let recursive = server.kubectl(&["explain", "prometheus.spec", "--recursive"]).await;
    assert!(recursive.contains("volumeClaimTemplate"), "{recursive}");

    let ready =
        r#"{"status":{"conditions":[{"type":"Issuing","status":"False"},{"type":"Ready","status":"True"}]}}"#;
    let patch = ["patch", "cert/web", "--subresource=status", "--type=merge", "-p", ready];
    server.kubectl(&patch).await;
    server.kubectl(&["wait", "cert/web", "--for=condition=Ready", "--timeout=20s"]).await;
    let table = server.kubectl(&["get", "certs", "-o", "wide"]).await;
    let rows = cells(&table);
    assert_eq!(rows[0], ["NAME", "READY", "SECRET", "ISSUER", "AGE"]);
    assert_eq!(rows[1][..4], ["web", "True", "web-tls", "ca"]);
    let routes = server.kubectl(&["get", "routes"]).await;
    assert!(routes.contains(r#"["example.com"]"#), "{routes}");

    server.kubectl(&["scale", "prom/main", "--replicas=3"]).await;
    assert_eq!(path(&server, "prom/main", ".spec.shards").await, "3");
    let selected = server.kubectl(&["get", "certs", "--field-selector=spec.issuerRef.name=ca", "-o", "name"]);
    assert_eq!(selected.await.trim(), "certificate.certs.example.com/web");
    let old = server.kubectl_with(&["get", "httproutes.v1beta1.routes.example.com", "web"], "", &[]).await;
    assert!(old.stderr.contains("HTTPRoute is deprecated, use v1"), "{}", old.stderr);

    let editor = [("KUBE_EDITOR", "sed -i s/web-tls/shop-tls/")];
    let edited = server.kubectl_with(&["edit", "cert/web"], "", &editor).await;
    assert!(edited.status.success(), "{}", edited.stderr);
    assert_eq!(path(&server, "cert/web", ".spec.secretName").await, "shop-tls");
}

#[tokio::test]
async fn invalid_objects_are_refused_by_path() {
    let server = with_objects().await;
    let merge = async |object: &str, patch: &str| {
        server.kubectl_fails(&["patch", object, "--type=merge", "-p", patch]).await
    };
    let expected = [
        (
            "cert/web",
            r#"{"spec":{"usages":["server auth","server auth"]}}"#,
            "spec.usages[1]: Duplicate value",
        ),
        (
            "cert/web",
            r#"{"spec":{"privateKey":{"algorithm":"DSA"}}}"#,
            "spec.privateKey.algorithm: Unsupported value",
        ),
        ("cert/web", r#"{"spec":{"duration":"soon"}}"#, "spec.duration in body must be of type duration"),
        ("httproute/web", r#"{"spec":{"hostnames":["-a"]}}"#, "spec.hostnames[0] in body should match"),
        (
            "httproute/web",
            r#"{"spec":{"parentRefs":[{"name":"a"},{"name":"a"}]}}"#,
            "each parent and section is named once",
        ),
        (
            "httproute/web",
            r#"{"spec":{"rules":[{"matches":[{"path":{"value":"x"}}]}]}}"#,
            "the value must be an absolute path",
        ),
        (
            "prom/main",
            r#"{"spec":{"resources":{"requests":{"cpu":"much"}}}}"#,
            "spec.resources.requests.cpu in body should match",
        ),
        (
            "prom/main",
            r#"{"spec":{"storage":{"volumeClaimTemplate":{"kind":null}}}}"#,
            "spec.storage.volumeClaimTemplate.kind: Required value",
        ),
        ("comp/network", r#"{"spec":{"compositeTypeRef":{"kind":"Other"}}}"#, "Value is immutable"),
    ];
    for (object, patch, message) in expected {
        let refused = merge(object, patch).await;
        assert!(refused.contains(message), "{object} {patch}: {refused}");
    }
    let unknown =
        server.kubectl_with(&["apply", "-f", "-"], &OBJECTS.replace("secretName", "secretNam"), &[]).await;
    assert!(unknown.stderr.contains(r#"unknown field "spec.secretNam""#), "{}", unknown.stderr);
}
