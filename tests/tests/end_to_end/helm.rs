//! helm installs, upgrades, lists and removes a small chart.

use std::fs;

use nave_tests::Server;

const CHART: &str = "
apiVersion: v2
name: tiny
version: 0.1.0
";
const TEMPLATES: &str = "
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-settings
  labels: {app.kubernetes.io/managed-by: {{ .Release.Service }}}
data:
  colour: {{ .Values.colour | quote }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}-web
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: registry.example/web:1}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .Release.Name }}-web
spec:
  selector: {app: web}
  ports: [{port: 80}]
";

#[tokio::test]
async fn a_chart_comes_changes_and_goes() {
    let server = Server::start().await;
    let chart = server.folder().join("tiny");
    fs::create_dir_all(chart.join("templates")).unwrap();
    fs::write(chart.join("Chart.yaml"), CHART).unwrap();
    fs::write(chart.join("values.yaml"), "colour: blue\nreplicas: 2\n").unwrap();
    fs::write(chart.join("templates/all.yaml"), TEMPLATES).unwrap();
    let chart = chart.to_string_lossy();
    // helm's own default is server-side apply.
    let merge = "--server-side=false";

    let installed = server.helm(&["install", "demo", &chart, merge]).await;
    assert!(installed.contains("STATUS: deployed"), "{installed}");
    let colour = ["get", "configmap", "demo-settings", "-o", "jsonpath={.data.colour}"];
    assert_eq!(server.kubectl(&colour).await, "blue");
    let list = server.helm(&["list", "--no-headers"]).await;
    assert!(list.contains("demo") && list.contains("deployed") && list.contains("tiny-0.1.0"), "{list}");
    let secrets = server.kubectl(&["get", "secrets", "-l", "owner=helm,name=demo", "-o", "name"]).await;
    assert_eq!(secrets, "secret/sh.helm.release.v1.demo.v1\n");

    let upgraded = server.helm(&["upgrade", "demo", &chart, merge, "--set", "colour=red,replicas=3"]).await;
    assert!(upgraded.contains("REVISION: 2"), "{upgraded}");
    assert_eq!(server.kubectl(&colour).await, "red");
    server.helm(&["rollback", "demo", "1", merge]).await;
    assert_eq!(server.kubectl(&colour).await, "blue");
    let history = server.helm(&["history", "demo"]).await;
    assert_eq!(history.lines().count(), 4, "{history}");

    server.helm(&["uninstall", "demo"]).await;
    assert_eq!(server.helm(&["list", "--no-headers"]).await.trim(), "");
    assert_eq!(server.kubectl(&["get", "deployments,services", "-l", "app", "-o", "name"]).await, "");
    server.kubectl_fails(&["get", "deployment", "demo-web"]).await;
}
