//! Claims and volumes in use are not removed when deleted.

use nave_tests::cluster::FakeNode;
use nave_tests::{Server, eventually};
use serde_json::json;

#[tokio::test]
async fn claim_is_removed_after_its_last_pod() {
    let server = Server::start().await;
    let _node = FakeNode::start(server.client().await).await;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    server.apply(&claim.to_string()).await;
    let finalizers = ["get", "pvc", "data", "-o", "jsonpath={.metadata.finalizers}"];
    assert_eq!(server.kubectl(&finalizers).await, r#"["kubernetes.io/pvc-protection"]"#);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user"},
        "spec": {
            "containers": [{"name": "c", "image": "x"}],
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    });
    server.apply(&pod.to_string()).await;
    server.kubectl(&["wait", "--for=condition=Ready", "pod/user", "--timeout=110s"]).await;

    server.kubectl(&["delete", "pvc", "data", "--wait=false"]).await;
    // The same worker handles another, unused claim after the first. When the unused claim is gone, the first has been
    // handled and kept.
    server.apply(&claim.to_string().replace("\"data\"", "\"unused\"")).await;
    server.kubectl(&["delete", "pvc", "unused", "--timeout=110s"]).await;
    let shown = server.kubectl(&["get", "pvc", "data", "--no-headers"]).await;
    assert!(shown.contains("Terminating"), "{shown}");

    server.kubectl(&["delete", "pod", "user", "--timeout=110s"]).await;
    eventually("the claim is gone", async || {
        server.kubectl(&["get", "pvc", "--ignore-not-found"]).await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn volume_is_removed_when_unbound() {
    let server = Server::start().await;
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}},
    });
    server.apply(&volume.to_string()).await;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    server.apply(&claim.to_string()).await;
    let phase = ["get", "pv", "v", "-o", "jsonpath={.status.phase}"];
    eventually("the volume is bound", async || server.kubectl(&phase).await == "Bound").await;
    server.kubectl(&["delete", "pv", "v", "--wait=false"]).await;
    let shown = server.kubectl(&["get", "pv", "v", "--no-headers"]).await;
    assert!(shown.contains("Terminating"), "{shown}");
    server.kubectl(&["delete", "pvc", "data", "--timeout=110s"]).await;
    eventually("the volume is gone", async || {
        server.kubectl(&["get", "pv", "--ignore-not-found"]).await.is_empty()
    })
    .await;
}
