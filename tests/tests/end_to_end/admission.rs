//! Admission plugins with real clients.

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use nave_tests::{Server, eventually};
use serde_json::json;

const QUOTA: &str =
    "{apiVersion: v1, kind: ResourceQuota, metadata: {name: pods}, spec: {hard: {pods: '50'}}}";

const RESTRICTED: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: restricted, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: sizes, namespace: restricted}
spec:
  limits:
  - type: Container
    default: {cpu: 500m}
    defaultRequest: {cpu: 100m}
    max: {cpu: '1'}
";

fn restricted_pod(name: &str, cpu: &str) -> String {
    let limits =
        if cpu.is_empty() { String::new() } else { format!(", resources: {{limits: {{cpu: '{cpu}'}}}}") };
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: restricted}}
spec:
  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
  - {{name: a, image: i, securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}{limits}}}
"
    )
}

#[tokio::test]
async fn parallel_creates_never_exceed_a_quota() {
    let server = Server::start().await;
    server.apply(QUOTA).await;
    eventually("the usage of the quota", async || {
        server.kubectl(&["get", "quota", "pods", "-o", "jsonpath={.status.used.pods}"]).await == "0"
    })
    .await;
    let pods: Api<Pod> = Api::default_namespaced(server.client().await);
    let creates = (0..200).map(|number| {
        let pods = pods.clone();
        async move {
            let pod = json!({
                "metadata": {"name": format!("p{number}")},
                "spec": {"containers": [{"name": "a", "image": "i"}]},
            });
            pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await
        }
    });
    let mut created = 0;
    for outcome in join_all(creates).await {
        match outcome {
            Ok(_) => created += 1,
            Err(kube::Error::Api(status)) => {
                assert_eq!(status.code, 403, "{status:?}");
                assert!(status.message.contains("exceeded quota: pods"), "{status:?}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(created, 50);
    assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 50);
    // A deletion frees quota.
    let first = pods.list(&ListParams::default().limit(1)).await.unwrap().items.remove(0);
    pods.delete(first.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await.unwrap();
    eventually("a place in the quota", async || {
        server.kubectl_with(&["run", "late", "--image=i"], "", &[]).await.status.success()
    })
    .await;
}

#[tokio::test]
async fn restricted_namespace_sets_defaults_and_refuses_pods() {
    let server = Server::start().await;
    server.apply(RESTRICTED).await;
    let refused = server.kubectl_fails(&["run", "loose", "--image=i", "-n", "restricted"]).await;
    assert!(refused.contains("violates PodSecurity \"restricted:latest\""), "{refused}");
    assert!(refused.contains("allowPrivilegeEscalation != false"), "{refused}");
    server.apply(&restricted_pod("tight", "")).await;
    let cpu =
        "jsonpath={.spec.containers[0].resources.requests.cpu}/{.spec.containers[0].resources.limits.cpu}";
    let sizes = server.kubectl(&["get", "pod", "tight", "-n", "restricted", "-o", cpu]).await;
    assert_eq!(sizes, "100m/500m");
    let refused = server.kubectl_with(&["apply", "-f", "-"], &restricted_pod("large", "2"), &[]).await;
    assert!(!refused.status.success());
    assert!(
        refused.stderr.contains("maximum cpu usage per Container is 1, but limit is 2"),
        "{}",
        refused.stderr
    );
}
