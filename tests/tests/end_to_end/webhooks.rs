//! Admission webhooks over TLS, with real clients.

use std::sync::{Arc, Mutex};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::PostParams;
use nave_tests::{Server, eventually};
use nave_webhook::testing::HttpsServer;
use serde_json::{Value, json};

/// A server of webhooks, and the requests that it has seen.
struct Hooks {
    server: HttpsServer,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Hooks {
    /// Starts a server that responds with a function of the path and the request of the review.
    async fn start(respond: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let requests = Arc::clone(&seen);
        let answer = move |http: &Request<Bytes>| {
            let review: Value = serde_json::from_slice(http.body()).unwrap();
            let request = &review["request"];
            let mut response = respond(http.uri().path(), request);
            response["uid"] = request["uid"].clone();
            let answer =
                json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response});
            requests.lock().unwrap().push(request.clone());
            Response::new(Bytes::from(answer.to_string()))
        };
        Self { server: HttpsServer::start(answer).await, seen }
    }

    /// Removes and returns the requests since the last call.
    fn take(&self) -> Vec<Value> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// A webhook for writes of these resources of the core group.
    fn hook(&self, path: &str, resources: &[&str], fields: &Value) -> Value {
        let mut hook = json!({
            "name": format!("{}.example.com", &path[1..]),
            "clientConfig": {"url": self.server.url(path), "caBundle": BASE64_STANDARD.encode(&self.server.ca)},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": resources, "operations": ["*"]}],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        });
        for (name, value) in fields.as_object().unwrap() {
            hook[name] = value.clone();
        }
        hook
    }
}

/// Applies a configuration and waits until its webhooks are called for a config map.
async fn configure(server: &Server, hooks: &Hooks, kind: &str, name: &str, webhooks: Vec<Value>) {
    let probe = json!({"probe": name});
    let marker = hooks.hook("/marker", &["configmaps"], &json!({"objectSelector": {"matchLabels": probe}}));
    let webhooks: Vec<Value> = std::iter::once(marker).chain(webhooks).collect();
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": name}, "webhooks": webhooks});
    server.apply(&configuration.to_string()).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "probe-", "labels": probe}});
    eventually("the webhooks are called", async || {
        let create = ["create", "--dry-run=server", "-f", "-"];
        assert!(server.kubectl_with(&create, &map.to_string(), &[]).await.status.success());
        !hooks.take().is_empty()
    })
    .await;
}

fn allow() -> Value {
    json!({"allowed": true})
}

fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(operations.to_string())})
}

#[tokio::test]
async fn injects_sidecars_sets_labels_and_checks_images() {
    let hooks = Hooks::start(|path, request| match path {
        "/sidecar" => {
            let sidecar = json!({"name": "proxy", "image": "registry.example.com/proxy:1"});
            patch(&json!([{"op": "add", "path": "/spec/containers/-", "value": sidecar}]))
        }
        "/labels" => {
            let containers = request["object"]["spec"]["containers"].as_array().unwrap().len();
            let mut response = patch(&json!([
                {"op": "add", "path": "/metadata/labels/containers", "value": containers.to_string()}
            ]));
            response["warnings"] = json!(["labels were added"]);
            response
        }
        "/images" => {
            let containers = request["object"]["spec"]["containers"].as_array().unwrap();
            let is_trusted = |it: &Value| it["image"].as_str().unwrap().starts_with("registry.example.com/");
            if containers.iter().all(is_trusted) {
                return allow();
            }
            json!({"allowed": false, "status": {"message": "untrusted image", "code": 403}})
        }
        _ => allow(),
    })
    .await;
    let server = Server::start_without_controllers().await;
    let writes = |path| hooks.hook(path, &["pods"], &json!({"sideEffects": "NoneOnDryRun"}));
    let mutating = vec![writes("/sidecar"), writes("/labels")];
    configure(&server, &hooks, "MutatingWebhookConfiguration", "mutate", mutating).await;
    configure(&server, &hooks, "ValidatingWebhookConfiguration", "validate", vec![writes("/images")]).await;

    let run = ["run", "web", "--image=registry.example.com/web:1"];
    let ran = server.kubectl_with(&run, "", &[]).await;
    assert!(ran.status.success(), "{}", ran.stderr);
    assert!(ran.stderr.contains("Warning: labels were added"), "{}", ran.stderr);
    let fields = "-o=jsonpath={.spec.containers[1].imagePullPolicy} {.metadata.labels.containers}";
    assert_eq!(server.kubectl(&["get", "pod", "web", fields]).await, "IfNotPresent 2");
    let shown = server.kubectl(&["get", "pod", "web", "--show-managed-fields", "-o=json"]).await;
    let owns = |container: &str| shown.contains(&format!(r#"k:{{\"name\":\"{container}\"}}"#));
    assert!(owns("web") && !owns("proxy"), "fields that webhooks write have no owner");

    let refused = server.kubectl_fails(&["run", "bad", "--image=other/web"]).await;
    assert!(
        refused.contains(r#"admission webhook "images.example.com" denied the request: untrusted image"#)
    );
    hooks.take();
    let dry = ["run", "dry", "--image=registry.example.com/web:1", "--dry-run=server", "-o=name"];
    assert_eq!(server.kubectl(&dry).await.trim(), "pod/dry");
    assert!(hooks.take().iter().all(|request| request["dryRun"] == true));

    let pods: Api<Pod> = Api::default_namespaced(server.client().await);
    let creates = (0..64).map(|number| {
        let pods = pods.clone();
        async move {
            let pod = json!({"metadata": {"name": format!("p{number}"), "labels": {"app": "a"}},
                "spec": {"containers": [{"name": "a", "image": "registry.example.com/a"}]}});
            pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap()
        }
    });
    for pod in join_all(creates).await {
        assert_eq!(pod.spec.unwrap().containers.len(), 2);
    }
}

#[tokio::test]
async fn a_webhook_renames_new_objects_but_cannot_move_them() {
    let hooks = Hooks::start(|path, request| {
        let change = |field: &str, value: &str| {
            patch(&json!([{"op": "replace", "path": format!("/metadata/{field}"), "value": value}]))
        };
        match request["object"]["data"]["change"].as_str() {
            Some("name") if path == "/m" && request["operation"] == "CREATE" => change("name", "renamed"),
            Some("namespace") if path == "/m" => change("namespace", "kube-system"),
            Some("kind") if path == "/m" => {
                patch(&json!([{"op": "replace", "path": "/kind", "value": "Secret"}]))
            }
            _ => allow(),
        }
    })
    .await;
    let server = Server::start_without_controllers().await;
    let hook = hooks.hook("/m", &["configmaps"], &json!({}));
    configure(&server, &hooks, "MutatingWebhookConfiguration", "m", vec![hook]).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    let create = |name: &str, change: &str| {
        let map = json!({"metadata": {"name": name}, "data": {"change": change}});
        let (maps, map) = (maps.clone(), serde_json::from_value(map).unwrap());
        async move {
            match maps.create(&PostParams::default(), &map).await {
                Ok(map) => map.metadata.name.unwrap(),
                Err(kube::Error::Api(status)) => status.code.to_string(),
                Err(other) => panic!("{other}"),
            }
        }
    };
    assert_eq!(create("first", "name").await, "renamed");
    assert!(maps.get_opt("first").await.unwrap().is_none());
    assert!(maps.get_opt("renamed").await.unwrap().is_some());
    assert_eq!(create("second", "name").await, "409");
    assert_eq!(create("third", "namespace").await, "400");
    assert_eq!(create("fourth", "kind").await, "500");
}

#[tokio::test]
async fn deletions_are_reviewed_as_often_as_they_are_carried_out() {
    let hooks = Hooks::start(|_, _| allow()).await;
    let server = Server::start_without_controllers().await;
    let hook = hooks.hook("/v", &["pods", "configmaps"], &json!({}));
    configure(&server, &hooks, "ValidatingWebhookConfiguration", "v", vec![hook]).await;
    let reviews = |requests: Vec<Value>| {
        let shown = |request: &Value| {
            let old = &request["oldObject"]["metadata"];
            (request["name"].as_str().map(str::to_owned), old["deletionTimestamp"].is_string())
        };
        requests.iter().map(shown).collect::<Vec<_>>()
    };
    // A pod on a node is marked first.
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "a", "image": "i"}]}});
    server.apply(&pod.to_string()).await;
    hooks.take();
    let name = Some("p".to_owned());
    server.kubectl(&["delete", "pod", "p", "--wait=false"]).await;
    assert_eq!(reviews(hooks.take()), [(name.clone(), false)]);
    // The deletion is pending.
    server.kubectl(&["delete", "pod", "p", "--wait=false"]).await;
    assert_eq!(reviews(hooks.take()), []);
    server.kubectl(&["delete", "pod", "p", "--force", "--grace-period=0", "--wait=false"]).await;
    assert_eq!(reviews(hooks.take()), [(name.clone(), true), (name, true)]);
    // The objects of a collection have no name in the review.
    for map in ["a", "b"] {
        server.kubectl(&["create", "configmap", map]).await;
    }
    hooks.take();
    server.kubectl(&["delete", "--raw", "/api/v1/namespaces/default/configmaps"]).await;
    assert!(reviews(hooks.take()).iter().all(|(name, _)| name.is_none()));
}

#[tokio::test]
async fn a_broken_webhook_for_everything_can_be_removed() {
    let server = Server::start_without_controllers().await;
    let webhook = json!({
        "name": "broken.example.com",
        "clientConfig": {"url": "https://127.0.0.1:9/x"},
        "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]}],
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    });
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "broken"}, "webhooks": [webhook]});
    server.apply(&configuration.to_string()).await;
    let create = ["create", "configmap", "c", "--dry-run=server"];
    eventually("the webhook refuses", async || !server.kubectl_with(&create, "", &[]).await.status.success())
        .await;
    let refused = server.kubectl_fails(&create).await;
    assert!(refused.contains(r#"failed calling webhook "broken.example.com": failed to call webhook: Post "https://127.0.0.1:9/x?timeout=10s""#), "{refused}");
    server.kubectl(&["delete", "validatingwebhookconfiguration", "broken"]).await;
    eventually("the webhook is gone", async || server.kubectl_with(&create, "", &[]).await.status.success())
        .await;
}

#[tokio::test]
async fn equivalent_requests_are_reviewed_in_the_version_of_the_rule() {
    let hooks = Hooks::start(|_, request| {
        let is_v1 = request["object"]["apiVersion"] == "autoscaling/v1";
        assert!(is_v1 || request["resource"]["group"] == "");
        if request["resource"]["group"] == "" {
            return allow();
        }
        patch(&json!([{"op": "replace", "path": "/spec/targetCPUUtilizationPercentage", "value": 55}]))
    })
    .await;
    let server = Server::start_without_controllers().await;
    let rules = json!([{"apiGroups": ["autoscaling"], "apiVersions": ["v1"],
        "resources": ["horizontalpodautoscalers"], "operations": ["CREATE"]}]);
    let hook = hooks.hook("/m", &[], &json!({"rules": rules}));
    configure(&server, &hooks, "MutatingWebhookConfiguration", "m", vec![hook]).await;
    let autoscaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"}, "spec": {"maxReplicas": 3,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 80}}}]}});
    server.kubectl_with(&["create", "-f", "-"], &autoscaler.to_string(), &[]).await;
    let request = hooks.take().pop().unwrap();
    assert_eq!(request["kind"]["version"], "v1");
    assert_eq!(request["requestKind"]["version"], "v2");
    assert_eq!(request["requestResource"]["version"], "v2");
    let target = "-o=jsonpath={.spec.metrics[0].resource.target.averageUtilization}";
    assert_eq!(server.kubectl(&["get", "hpa.v2.autoscaling", "h", target]).await, "55");
}
