//! Usage in the status of resource quotas.

use nave_tests::{Server, eventually};
use serde_json::{Value, json};

const QUOTA: &str = "
apiVersion: v1
kind: ResourceQuota
metadata: {name: all}
spec:
  hard:
    pods: '5'
    requests.cpu: '2'
    limits.memory: 1Gi
    services.nodeports: '3'
    requests.storage: 10Gi
    count/deployments.apps: '4'
    configmaps: '10'
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: best-effort}
spec: {hard: {pods: '5'}, scopes: [BestEffort]}
";

/// A pod that the quota rejects, because the pod specifies no resources.
const SMALL: &str =
    "{apiVersion: v1, kind: Pod, metadata: {name: small}, spec: {containers: [{name: a, image: i}]}}";

const OBJECTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: sized}
spec:
  containers:
  - {name: a, image: i, resources: {requests: {cpu: 100m}, limits: {memory: 64Mi, cpu: '1'}}}
  - {name: b, image: i, resources: {requests: {cpu: 200m}, limits: {memory: 64Mi, cpu: '1'}}}
---
{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {type: NodePort, ports: [{name: a, port: 1}, {name: b, port: 2}]}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 3Gi}}}
";

async fn used(server: &Server, quota: &str) -> Value {
    let printed = server.kubectl(&["get", "quota", quota, "-o", "json"]).await;
    serde_json::from_str::<Value>(&printed).unwrap()["status"]["used"].clone()
}

async fn wait_for_usage(server: &Server, quota: &str, wanted: Value) {
    eventually(&format!("used {wanted}"), async || used(server, quota).await == wanted).await;
}

#[tokio::test]
async fn usage_follows_objects() {
    let server = Server::start().await;
    eventually("the root certificate, which counts", async || {
        server.kubectl(&["get", "configmaps", "-o", "name"]).await.contains("kube-root-ca.crt")
    })
    .await;
    server.apply(SMALL).await;
    server.apply(QUOTA).await;
    let small = json!({"pods": "1", "requests.cpu": "0", "limits.memory": "0", "services.nodeports": "0",
        "requests.storage": "0", "count/deployments.apps": "0", "configmaps": "1"});
    wait_for_usage(&server, "all", small).await;
    server.apply(OBJECTS).await;
    server.kubectl(&["create", "deployment", "web", "--image=i", "--replicas=0"]).await;
    server.kubectl(&["create", "configmap", "m"]).await;
    let all = json!({"pods": "2", "requests.cpu": "300m", "limits.memory": "128Mi", "services.nodeports": "2",
        "requests.storage": "3Gi", "count/deployments.apps": "1", "configmaps": "2"});
    wait_for_usage(&server, "all", all).await;
    wait_for_usage(&server, "best-effort", json!({"pods": "1"})).await;

    server.kubectl(&["delete", "pod", "sized", "small", "--grace-period=0", "--force"]).await;
    server.kubectl(&["delete", "deployment", "web"]).await;
    server.kubectl(&["delete", "service", "s"]).await;
    server.kubectl(&["delete", "configmap", "m"]).await;
    let left = json!({"pods": "0", "requests.cpu": "0", "limits.memory": "0", "services.nodeports": "0",
        "requests.storage": "3Gi", "count/deployments.apps": "0", "configmaps": "1"});
    wait_for_usage(&server, "all", left).await;
    wait_for_usage(&server, "best-effort", json!({"pods": "0"})).await;
}

const DEVICES: &str = "
apiVersion: v1
kind: ResourceQuota
metadata: {name: devices}
spec: {hard: {gpu.deviceclass.resource.k8s.io/devices: '3', nic.deviceclass.resource.k8s.io/devices: '1'}}
";

fn claim(name: &str, count: u32) -> String {
    format!(
        "
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {{name: {name}}}
spec: {{devices: {{requests: [{{name: r, exactly: {{deviceClassName: gpu, allocationMode: ExactCount, count: {count}}}}}]}}}}
"
    )
}

#[tokio::test]
async fn counts_devices_of_claims() {
    let server = Server::start().await;
    let of_gpus = |count: &str| json!({"gpu.deviceclass.resource.k8s.io/devices": count, "nic.deviceclass.resource.k8s.io/devices": "0"});
    server.apply(DEVICES).await;
    wait_for_usage(&server, "devices", of_gpus("0")).await;
    server.apply(&claim("two", 2)).await;
    wait_for_usage(&server, "devices", of_gpus("2")).await;
    let refused = server.kubectl_with(&["create", "-f", "-"], &claim("more", 2), &[]).await;
    assert!(refused.stderr.contains("exceeded quota: devices"), "{}", refused.stderr);
    server.kubectl(&["delete", "resourceclaim", "two"]).await;
    wait_for_usage(&server, "devices", of_gpus("0")).await;
}
