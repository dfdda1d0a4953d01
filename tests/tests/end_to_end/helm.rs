//! helm installs, upgrades, rolls back, lists and removes charts.

use std::fs;

use nave_tests::cluster::FakeNode;
use nave_tests::{Ran, Server, eventually};
use serde_json::{Value, json};

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

/// A chart with hooks and common resources, in `tests/charts`.
const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/shop");

const LIMITED: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: limited, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: sizes, namespace: limited}
spec:
  limits:
  - type: Container
    default: {cpu: 500m, memory: 128Mi}
    defaultRequest: {cpu: 100m, memory: 64Mi}
    max: {memory: 1Gi}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: limits, namespace: limited}
spec:
  hard:
    pods: '10'
    requests.cpu: '2'
    limits.memory: 8Gi
    services: '2'
    secrets: '20'
    configmaps: '10'
    count/deployments.apps: '2'
    count/jobs.batch: '5'
    count/ingresses.networking.k8s.io: '1'
    count/horizontalpodautoscalers.autoscaling: '1'
    count/poddisruptionbudgets.policy: '1'
";

#[tokio::test]
async fn chart_installs_upgrades_and_uninstalls() {
    let server = Server::start().await;
    let chart = server.folder().join("tiny");
    fs::create_dir_all(chart.join("templates")).unwrap();
    fs::write(chart.join("Chart.yaml"), CHART).unwrap();
    fs::write(chart.join("values.yaml"), "colour: blue\nreplicas: 2\n").unwrap();
    fs::write(chart.join("templates/all.yaml"), TEMPLATES).unwrap();
    let chart = chart.to_string_lossy();
    let installed = server.helm(&["install", "demo", &chart]).await;
    assert!(installed.contains("STATUS: deployed"), "{installed}");
    let colour = ["get", "configmap", "demo-settings", "-o", "jsonpath={.data.colour}"];
    assert_eq!(server.kubectl(&colour).await, "blue");
    let list = server.helm(&["list", "--no-headers"]).await;
    assert!(list.contains("demo") && list.contains("deployed") && list.contains("tiny-0.1.0"), "{list}");
    let secrets = server.kubectl(&["get", "secrets", "-l", "owner=helm,name=demo", "-o", "name"]).await;
    assert_eq!(secrets, "secret/sh.helm.release.v1.demo.v1\n");

    let upgraded = server.helm(&["upgrade", "demo", &chart, "--set", "colour=red,replicas=3"]).await;
    assert!(upgraded.contains("REVISION: 2"), "{upgraded}");
    assert_eq!(server.kubectl(&colour).await, "red");
    server.helm(&["rollback", "demo", "1"]).await;
    assert_eq!(server.kubectl(&colour).await, "blue");
    let history = server.helm(&["history", "demo"]).await;
    assert_eq!(history.lines().count(), 4, "{history}");

    // helm uses server-side apply, so fields that another manager has changed conflict.
    server.kubectl(&["scale", "deployment", "demo-web", "--replicas=5"]).await;
    let upgrade: [&str; 5] = ["upgrade", "demo", &chart, "--set", "replicas=4"];
    let refused = server.helm_ran(&upgrade).await;
    let conflict = r#"conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas"#;
    assert!(!refused.status.success() && refused.stderr.contains(conflict), "{}", refused.stderr);
    server.helm(&[upgrade.as_slice(), &["--force-conflicts"]].concat()).await;
    let replicas = ["get", "deployment", "demo-web", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(server.kubectl(&replicas).await, "4");

    server.helm(&["uninstall", "demo"]).await;
    assert_eq!(server.helm(&["list", "--no-headers"]).await.trim(), "");
    assert_eq!(server.kubectl(&["get", "deployments,services", "-l", "app", "-o", "name"]).await, "");
    server.kubectl_fails(&["get", "deployment", "demo-web"]).await;
}

/// A namespace with a quota, a limit range and PodSecurity `restricted`, and a fake node for its pods.
struct Limited {
    server: Server,
    _node: FakeNode,
}

impl Limited {
    async fn start() -> Self {
        let server = Server::start().await;
        let node = FakeNode::start(server.client().await).await;
        server.apply(LIMITED).await;
        let limited = Self { server, _node: node };
        limited.uses(&Limited::nothing()).await;
        limited
    }

    /// Runs helm for the release `demo`.
    async fn helm(&self, verb: &str, arguments: &[&str]) -> Ran {
        let mut all = vec!["-n", "limited", verb, "demo"];
        all.extend(arguments);
        self.server.helm_ran(&all).await
    }

    async fn helm_succeeds(&self, verb: &str, arguments: &[&str]) -> String {
        let ran = self.helm(verb, arguments).await;
        assert!(ran.status.success(), "helm {verb}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    async fn helm_fails(&self, verb: &str, arguments: &[&str]) -> String {
        let ran = self.helm(verb, arguments).await;
        assert!(!ran.status.success(), "helm {verb} succeeded: {}", ran.stdout);
        ran.stderr
    }

    async fn get(&self, what: &str, path: &str) -> String {
        self.server.kubectl(&["-n", "limited", "get", what, "-o", &format!("jsonpath={path}")]).await
    }

    /// Waits until the quota shows this usage.
    async fn uses(&self, wanted: &Value) {
        let mut used = Value::Null;
        eventually(&format!("used {wanted}"), async || {
            let printed = self.get("quota/limits", "{.status.used}").await;
            used = serde_json::from_str(&printed).unwrap_or_default();
            used == *wanted
        })
        .await;
    }

    /// Returns the usage of the empty namespace: only the root CA config map.
    fn nothing() -> Value {
        json!({"pods": "0", "requests.cpu": "0", "limits.memory": "0", "services": "0", "secrets": "0",
            "configmaps": "1", "count/deployments.apps": "0", "count/jobs.batch": "0",
            "count/ingresses.networking.k8s.io": "0", "count/horizontalpodautoscalers.autoscaling": "0",
            "count/poddisruptionbudgets.policy": "0"})
    }

    /// Returns the usage of a release after this number of revisions. Pods of hooks have ended and do not count.
    fn release(pods: u32, revisions: u32) -> Value {
        json!({"pods": pods.to_string(), "requests.cpu": format!("{}m", 100 * pods),
            "limits.memory": format!("{}Mi", 128 * pods), "services": "1",
            "secrets": (1 + revisions).to_string(), "configmaps": "3", "count/deployments.apps": "1",
            "count/jobs.batch": "2", "count/ingresses.networking.k8s.io": "1",
            "count/horizontalpodautoscalers.autoscaling": "1", "count/poddisruptionbudgets.policy": "1"})
    }
}

#[tokio::test]
async fn chart_with_hooks_respects_limits() {
    let limited = Limited::start().await;
    let colour = async || limited.get("configmap/demo-settings", "{.data.colour}").await;
    let ready = async || limited.get("deployment/demo-web", "{.status.readyReplicas}").await;

    let installed = limited.helm_succeeds("install", &[SHOP, "--wait"]).await;
    assert!(installed.contains("STATUS: deployed"), "{installed}");
    assert_eq!((colour().await, ready().await), ("blue".into(), "2".into()));
    for hook in ["job/demo-pre-install", "job/demo-post-install"] {
        assert_eq!(limited.get(hook, "{.status.succeeded}").await, "1", "{hook}");
    }
    limited.uses(&Limited::release(2, 1)).await;
    let tested = limited.helm_succeeds("test", &[]).await;
    assert!(tested.contains("Phase:          Succeeded"), "{tested}");

    limited.helm_succeeds("upgrade", &[SHOP, "--wait", "--set", "colour=red,replicas=3"]).await;
    assert_eq!((colour().await, ready().await), ("red".into(), "3".into()));
    limited.uses(&Limited::release(3, 2)).await;

    limited.helm_succeeds("rollback", &["1", "--wait"]).await;
    assert_eq!((colour().await, ready().await), ("blue".into(), "2".into()));
    limited.uses(&Limited::release(2, 3)).await;

    limited.helm_succeeds("uninstall", &["--wait"]).await;
    assert_eq!(limited.server.helm(&["-n", "limited", "list", "--no-headers"]).await.trim(), "");
    // helm keeps the objects of hooks unless their policy deletes them.
    let mut left = Limited::nothing();
    left["configmaps"] = json!("2");
    left["count/jobs.batch"] = json!("2");
    limited.uses(&left).await;
}

#[tokio::test]
async fn upgrade_beyond_limits_is_refused_and_rolled_back() {
    let limited = Limited::start().await;
    limited.helm_succeeds("install", &[SHOP, "--wait"]).await;
    limited.uses(&Limited::release(2, 1)).await;

    let refused = [
        (
            "extraServices=2",
            r#"services "demo-extra-1" is forbidden: exceeded quota: limits, requested: services=1, used: services=2, limited: services=2"#,
        ),
        (
            "privilegedHook=true",
            r#"pods "demo-privileged" is forbidden: violates PodSecurity "restricted:latest": privileged (container "hook" must not set securityContext.privileged=true), allowPrivilegeEscalation != false (container "hook" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "hook" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "hook" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "hook" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        ),
    ];
    let mut revisions = 1;
    for (values, message) in refused {
        let complaint = limited.helm_fails("upgrade", &[SHOP, "--set", values]).await;
        assert!(complaint.contains(message), "{values}: {complaint}");
        limited.helm_succeeds("rollback", &["1", "--wait"]).await;
        revisions += 2;
        limited.uses(&Limited::release(2, revisions)).await;
    }

    // Limit ranges apply to pods. Only the replica set creates pods.
    limited.helm_succeeds("upgrade", &[SHOP, "--set", "memory=2Gi"]).await;
    let failure = r#"{.status.conditions[?(@.type=="ReplicaFailure")].message}"#;
    let message = "maximum memory usage per Container is 1Gi, but limit is 2Gi";
    eventually("the replica set's failure", async || {
        limited.get("deployment/demo-web", failure).await.contains(message)
    })
    .await;
    limited.helm_succeeds("rollback", &["1", "--wait"]).await;
    assert_eq!(limited.get("deployment/demo-web", failure).await, "");
    limited.uses(&Limited::release(2, revisions + 2)).await;
}
