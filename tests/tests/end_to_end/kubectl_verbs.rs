//! kubectl's verbs: patch, edit, scale, apply, diff, wait, explain, api-resources, get.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nave_tests::{Server, cells};
use serde_json::Value;

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

async fn with_deployment() -> Server {
    let server = Server::start().await;
    server.apply(DEPLOYMENT).await;
    server
}

async fn images(server: &Server) -> String {
    let all = server.kubectl(&["get", "deployment", "web", "-o", IMAGES]).await;
    all.replace("registry.example/", "").trim().to_owned()
}

const IMAGES: &str = "jsonpath={range .spec.template.spec.containers[*]}{.image} {end}";

#[tokio::test]
async fn patch_types_treat_lists_differently() {
    let server = with_deployment().await;
    let patch = async |kind: &str, patch: &str| {
        server.kubectl(&["patch", "deployment", "web", "--type", kind, "-p", patch]).await;
        images(&server).await
    };
    let one =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"log","image":"registry.example/log:2"}]}}}}"#;
    assert_eq!(patch("strategic", one).await, "web:1 log:2");
    let path = r#"[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"registry.example/web:9"}]"#;
    assert_eq!(patch("json", path).await, "web:9 log:2");
    assert_eq!(patch("merge", one).await, "log:2");

    let wrong = r#"[{"op":"test","path":"/spec/replicas","value":7}]"#;
    server.kubectl_fails(&["patch", "deployment", "web", "--type", "json", "-p", wrong]).await;
}

#[tokio::test]
async fn edit_sends_the_changes_of_the_editor() {
    let server = with_deployment().await;
    let editor = [("KUBE_EDITOR", "sed -i s,example/web:1,example/web:5,")];
    let ran = server.kubectl_with(&["edit", "deployment", "web"], "", &editor).await;
    assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("deployment.apps/web edited"), "{}", ran.stdout);
    assert_eq!(images(&server).await, "web:5 log:1");
}

#[tokio::test]
async fn spec_changes_bump_generation_and_labels_do_not() {
    let server = with_deployment().await;
    let generation =
        async || server.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.metadata.generation}"]).await;
    assert_eq!(generation().await, "1");
    server.kubectl(&["label", "deployment", "web", "tier=gold"]).await;
    assert_eq!(generation().await, "1");
    assert_eq!(
        server.kubectl(&["scale", "deployment", "web", "--replicas=4"]).await,
        "deployment.apps/web scaled\n"
    );
    assert_eq!(generation().await, "2");
    let table = server.kubectl(&["get", "deployment", "web", "--no-headers"]).await;
    assert_eq!(cells(&table)[0][..2], ["web", "0/4"]);
    server.kubectl_fails(&["scale", "deployment", "web", "--current-replicas=9", "--replicas=5"]).await;
    server.kubectl(&["set", "image", "deployment/web", "web=registry.example/web:3"]).await;
    assert_eq!(images(&server).await, "web:3 log:1");
    assert_eq!(generation().await, "3");
}

#[tokio::test]
async fn apply_removes_dropped_fields_and_diff_shows_changes() {
    let server = with_deployment().await;
    let changed = DEPLOYMENT
        .replace("      - {name: log, image: 'registry.example/log:1'}\n", "")
        .replace("replicas: 1", "replicas: 2");
    let diff = server.kubectl_with(&["diff", "-f", "-"], &changed, &[]).await;
    assert_eq!(diff.status.code(), Some(1), "{}{}", diff.stdout, diff.stderr);
    assert!(
        diff.stdout.contains("-  replicas: 1") && diff.stdout.contains("+  replicas: 2"),
        "{}",
        diff.stdout
    );
    assert_eq!(images(&server).await, "web:1 log:1", "diff changes nothing");

    server.kubectl(&["annotate", "deployment", "web", "mine=kept"]).await;
    assert_eq!(server.apply(&changed).await, "deployment.apps/web configured\n");
    assert_eq!(images(&server).await, "web:1");
    let mine =
        server.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.metadata.annotations.mine}"]).await;
    assert_eq!(mine, "kept");
    let diff = server.kubectl_with(&["diff", "-f", "-"], &changed, &[]).await;
    assert_eq!((diff.status.code(), diff.stdout.as_str()), (Some(0), ""), "{}", diff.stderr);

    let dry = server
        .kubectl_with(
            &["create", "--dry-run=server", "-f", "-"],
            &changed.replace("name: web}", "name: dry}"),
            &[],
        )
        .await;
    assert_eq!(dry.stdout, "deployment.apps/dry created (server dry run)\n", "{}", dry.stderr);
    server.kubectl_fails(&["get", "deployment", "dry"]).await;
}

#[tokio::test]
async fn rejects_misspelt_field() {
    let server = Server::start().await;
    let wrong = DEPLOYMENT.replace("replicas", "replicsa");
    let ran = server.kubectl_with(&["create", "-f", "-"], &wrong, &[]).await;
    assert!(!ran.status.success(), "{}", ran.stdout);
    assert!(ran.stderr.contains(r#"unknown field "spec.replicsa""#), "{}", ran.stderr);
}

#[tokio::test]
async fn wait_ends_when_condition_is_met() {
    let server = Server::start().await;
    server
        .kubectl(&["wait", "namespace/default", "--for=jsonpath={.status.phase}=Active", "--timeout=110s"])
        .await;
    server.kubectl(&["run", "one", "--image=registry.example/one:1"]).await;

    let ready = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
    let patch = ["patch", "pod", "one", "--subresource=status", "-p", ready];
    let wait = ["wait", "pod/one", "--for=condition=Ready", "--timeout=110s"];
    let (waited, _) = tokio::join!(server.kubectl(&wait), server.kubectl(&patch));
    assert_eq!(waited, "pod/one condition met\n");

    let (waited, _) = tokio::join!(
        server.kubectl(&["wait", "pod/one", "--for=delete", "--timeout=110s"]),
        server.kubectl(&["delete", "pod", "one"])
    );
    // kubectl prints no output if the pod is gone before kubectl reads it.
    assert!(["", "pod/one condition met\n"].contains(&waited.as_str()), "{waited}");
}

#[tokio::test]
async fn explain_shows_fields_and_documentation() {
    let server = Server::start().await;
    let all = server.kubectl(&["explain", "pod.spec.containers", "--recursive"]).await;
    for field in [
        "FIELD: containers <[]Container>",
        "image\t<string>",
        "livenessProbe\t<Probe>",
        "valueFrom\t<EnvVarSource>",
    ] {
        assert!(all.contains(field), "{field} is not in {all}");
    }
    let one = server.kubectl(&["explain", "deployment.spec.replicas"]).await;
    assert!(one.contains("FIELD: replicas <integer>") && one.contains("DESCRIPTION:"), "{one}");
    server.kubectl_fails(&["explain", "pod.spec.nonsense"]).await;
}

#[tokio::test]
async fn api_resources_match_the_reference() {
    let server = Server::start().await;
    let table = server.kubectl(&["api-resources", "--no-headers", "-o", "name"]).await;
    let listed: BTreeSet<_> = table.lines().map(str::to_owned).collect();
    for resource in ["pods", "deployments.apps", "cronjobs.batch", "roles.rbac.authorization.k8s.io"] {
        assert!(listed.contains(resource), "{resource}: {table}");
    }
    let Some(reference) = reference("discovery.json") else { return };
    assert_eq!(listed, resources(&reference));
}

/// Reads a file of the reference data. Prints a message and returns `None` if the file does not exist.
fn reference(file: &str) -> Option<Value> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference");
    let folder = std::env::var_os("NAVE_REFERENCE").map_or(beside, Into::into);
    let Ok(text) = fs::read_to_string(folder.join(file)) else {
        println!("not compared with {file}: it is not in {}", folder.display());
        return None;
    };
    serde_json::from_str(&text).ok()
}

/// Returns `resource.group` for each resource in aggregated discovery.
fn resources(discovery: &Value) -> BTreeSet<String> {
    let items =
        ["/api", "/apis"].into_iter().filter_map(|path| discovery[path]["items"].as_array()).flatten();
    let mut names = BTreeSet::new();
    for group in items {
        let suffix = group["metadata"]["name"].as_str().map_or(String::new(), |name| format!(".{name}"));
        let versions = group["versions"].as_array().into_iter().flatten();
        let resources = versions.filter_map(|version| version["resources"].as_array()).flatten();
        names.extend(resources.filter_map(|r| r["resource"].as_str()).map(|name| format!("{name}{suffix}")));
    }
    names
}

#[tokio::test]
async fn get_selects_by_labels_fields_and_namespaces() {
    let server = Server::start().await;
    server.kubectl(&["create", "namespace", "other"]).await;
    for (name, namespace, labels) in
        [("a", "default", "app=x"), ("b", "default", "app=y"), ("c", "other", "app=x")]
    {
        let arguments = ["run", name, "-n", namespace, "--image=registry.example/i:1", "-l", labels];
        server.kubectl(&arguments).await;
    }
    let names = async |arguments: &[&str]| {
        let arguments: Vec<_> = ["get", "pods", "-o", "name"].iter().chain(arguments).copied().collect();
        server.kubectl(&arguments).await.replace("pod/", "").replace('\n', " ")
    };
    assert_eq!(names(&[]).await, "a b ");
    assert_eq!(names(&["-A"]).await, "a b c ");
    assert_eq!(names(&["-A", "-l", "app=x"]).await, "a c ");
    assert_eq!(names(&["-A", "-l", "app in (y,z)"]).await, "b ");
    assert_eq!(names(&["-A", "-l", "app!=x"]).await, "b ");
    assert_eq!(names(&["-A", "--field-selector", "metadata.name=c"]).await, "c ");
    assert_eq!(names(&["-A", "--field-selector", "status.phase=Running"]).await, "");
    assert_eq!(names(&["--chunk-size=1", "-A"]).await, "a b c ");
    server.kubectl_fails(&["get", "pods", "--field-selector", "spec.nonsense=1"]).await;
    let wide = server.kubectl(&["get", "pods", "-A", "-o", "wide", "--show-labels"]).await;
    assert!(wide.contains("NOMINATED NODE") && wide.contains("app=y"), "{wide}");
}
