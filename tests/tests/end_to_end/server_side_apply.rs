//! Server-side apply by kubectl: conflicts, force, diff, pruning, and migration from client-side apply.

use nave_tests::{Server, eventually};
use serde_json::{Value, json};

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'registry.example/web:1', ports: [{containerPort: 80}]}
      - {name: log, image: 'registry.example/log:1'}
";

/// Two config maps with the label `set=x`.
const MAPS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: a, labels: {set: x}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: b, labels: {set: x}}
";

/// The first config map of `MAPS`.
const FIRST_MAP: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: a, labels: {set: x}}
";

/// Runs kubectl with a document and returns its output. kubectl must succeed.
async fn kubectl(server: &Server, arguments: &[&str], document: &str) -> String {
    let ran = server.kubectl_with(arguments, document, &[("KUBECTL_APPLYSET", "true")]).await;
    assert!(ran.status.success(), "{arguments:?}: {}{}", ran.stdout, ran.stderr);
    ran.stdout
}

async fn object(server: &Server, kind: &str, name: &str) -> Value {
    let json = server.kubectl(&["get", kind, name, "-o", "json", "--show-managed-fields"]).await;
    serde_json::from_str(&json).unwrap()
}

/// Returns the managers of an object in order: name, operation, subresource.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let entries = entries.iter().map(|entry| {
        let parts =
            ["manager", "operation", "subresource"].map(|part| entry[part].as_str().unwrap_or_default());
        parts.join(" ").trim_end().to_owned()
    });
    entries.collect()
}

fn containers(deployment: &Value) -> Vec<&str> {
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    containers.iter().map(|container| container["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn conflicts_are_refused_and_forced() {
    let server = Server::start_without_controllers().await;
    let apply = ["apply", "--server-side", "-f", "-"];
    let applied = "deployment.apps/web serverside-applied\n";
    for _ in 0..2 {
        assert_eq!(kubectl(&server, &apply, DEPLOYMENT).await, applied);
    }
    let first = object(&server, "deployment", "web").await;
    assert_eq!(managers(&first), ["kubectl Apply"]);
    assert_eq!(first["metadata"]["generation"], 1);

    server.kubectl(&["scale", "deployment", "web", "--replicas=5"]).await;
    let changed = DEPLOYMENT.replace("replicas: 1", "replicas: 2");
    let conflict = r#"conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas"#;
    let refused = server.kubectl_with(&apply, &changed, &[]).await;
    assert!(!refused.status.success() && refused.stderr.contains(conflict), "{}", refused.stderr);
    let diff = server.kubectl_with(&["diff", "--server-side", "-f", "-"], &changed, &[]).await;
    assert!(!diff.status.success() && diff.stderr.contains(conflict), "{}{}", diff.stdout, diff.stderr);

    let diff = ["diff", "--server-side", "--force-conflicts", "-f", "-"];
    let shown = server.kubectl_with(&diff, &changed, &[]).await;
    assert_eq!(shown.status.code(), Some(1), "{}{}", shown.stdout, shown.stderr);
    assert!(
        shown.stdout.contains("-  replicas: 5") && shown.stdout.contains("+  replicas: 2"),
        "{}",
        shown.stdout
    );
    assert_eq!(object(&server, "deployment", "web").await["spec"]["replicas"], 5, "diff changes nothing");

    let force = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    assert_eq!(kubectl(&server, &force, &changed).await, applied);
    let forced = object(&server, "deployment", "web").await;
    assert_eq!(
        (&forced["spec"]["replicas"], managers(&forced)),
        (&json!(2), vec!["kubectl Apply".to_owned()])
    );
    let shown = server.kubectl_with(&["diff", "--server-side", "-f", "-"], &changed, &[]).await;
    assert_eq!((shown.status.code(), shown.stdout.as_str()), (Some(0), ""), "{}", shown.stderr);
}

#[tokio::test]
async fn managers_share_an_object() {
    let server = Server::start_without_controllers().await;
    let apply = |manager: &'static str| ["apply", "--server-side", "--field-manager", manager, "-f", "-"];
    kubectl(&server, &apply("ci"), DEPLOYMENT).await;
    let label = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {team: blue}}
";
    kubectl(&server, &apply("team"), label).await;
    let shared = object(&server, "deployment", "web").await;
    let mut owners = managers(&shared);
    owners.sort();
    assert_eq!(
        (&shared["metadata"]["labels"], owners),
        (&json!({"team": "blue"}), vec!["ci Apply".to_owned(), "team Apply".to_owned()])
    );
    let hidden = server.kubectl(&["get", "deployment", "web", "-o", "yaml"]).await;
    assert!(!hidden.contains("managedFields"), "{hidden}");

    let fewer = DEPLOYMENT.replace("      - {name: log, image: 'registry.example/log:1'}\n", "");
    kubectl(&server, &apply("ci"), &fewer).await;
    let left = object(&server, "deployment", "web").await;
    assert_eq!((containers(&left), &left["metadata"]["labels"]), (vec!["web"], &json!({"team": "blue"})));
    kubectl(&server, &apply("team"), &label.replace(", labels: {team: blue}", "")).await;
    assert_eq!(object(&server, "deployment", "web").await["metadata"].get("labels"), None);
}

#[tokio::test]
async fn client_side_apply_migrates() {
    let server = Server::start_without_controllers().await;
    server.apply(DEPLOYMENT).await;
    let last = server.kubectl(&["apply", "view-last-applied", "deployment", "web"]).await;
    assert!(last.contains("registry.example/log:1") && last.contains("replicas: 1"), "{last}");
    assert_eq!(managers(&object(&server, "deployment", "web").await), ["kubectl-client-side-apply Update"]);

    // Server-side apply takes over the fields of client-side apply. Fields that are now omitted are removed.
    let fewer = DEPLOYMENT.replace("      - {name: log, image: 'registry.example/log:1'}\n", "");
    kubectl(&server, &["apply", "--server-side", "-f", "-"], &fewer.replace("replicas: 1", "replicas: 3"))
        .await;
    let migrated = object(&server, "deployment", "web").await;
    assert_eq!((containers(&migrated), &migrated["spec"]["replicas"]), (vec!["web"], &json!(3)));
    // kubectl keeps the annotation of client-side apply under a separate manager.
    let mut owners = managers(&migrated);
    owners.sort();
    assert_eq!(owners, ["kubectl Apply", "kubectl-last-applied Apply"]);
    let last = server.kubectl(&["apply", "view-last-applied", "deployment", "web"]).await;
    assert!(!last.contains("registry.example/log:1") && last.contains("replicas: 3"), "{last}");

    // Client-side apply can continue from there.
    assert_eq!(server.apply(DEPLOYMENT).await, "deployment.apps/web configured\n");
    let back = object(&server, "deployment", "web").await;
    assert_eq!((containers(&back), &back["spec"]["replicas"]), (vec!["web", "log"], &json!(1)));
}

#[tokio::test]
async fn prune_removes_what_is_no_longer_applied() {
    let server = Server::start_without_controllers().await;
    let names = async || server.kubectl(&["get", "configmaps", "-l", "set=x", "-o", "name"]).await;
    let by_label = ["apply", "--prune", "-l", "set=x", "-f", "-"];
    kubectl(&server, &by_label, MAPS).await;
    assert_eq!(names().await, "configmap/a\nconfigmap/b\n");
    let pruned = kubectl(&server, &by_label, FIRST_MAP).await;
    assert!(pruned.contains("configmap/b pruned"), "{pruned}");
    assert_eq!(names().await, "configmap/a\n");
    server.kubectl(&["delete", "configmap", "a"]).await;

    let by_set = ["apply", "--server-side", "--prune", "--applyset=shop", "-n", "default", "-f", "-"];
    kubectl(&server, &by_set, MAPS).await;
    assert_eq!(names().await, "configmap/a\nconfigmap/b\n");
    let pruned = kubectl(&server, &by_set, FIRST_MAP).await;
    assert!(pruned.contains("configmap/b pruned"), "{pruned}");
    assert_eq!(names().await, "configmap/a\n");
}

#[tokio::test]
async fn aggregated_roles_are_applied_by_their_controller() {
    let server = Server::start().await;
    let part = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "part", "labels": {"aggregate": "yes"}},
        "rules": [{"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]}]});
    let whole = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "whole"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"aggregate": "yes"}}]}});
    server.apply(&whole.to_string()).await;
    server.apply(&part.to_string()).await;
    let mut role = Value::Null;
    eventually("rules of the aggregated role", async || {
        role = object(&server, "clusterrole", "whole").await;
        role["rules"] == part["rules"]
    })
    .await;
    let owner = "clusterrole-aggregation-controller Apply".to_owned();
    assert!(managers(&role).contains(&owner), "{role}");
    // Without a part, the controller no longer owns the rules.
    server.kubectl(&["delete", "clusterrole", "part"]).await;
    eventually("an aggregated role without rules", async || {
        role = object(&server, "clusterrole", "whole").await;
        role["rules"].as_array().is_none_or(Vec::is_empty)
    })
    .await;
}
