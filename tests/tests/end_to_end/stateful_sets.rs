//! Stateful sets and daemon sets with kubectl and a fake node.

use nave_tests::cluster::FakeNode;
use nave_tests::{Server, eventually};

async fn cluster() -> (Server, FakeNode) {
    let server = Server::start().await;
    let node = FakeNode::start(server.client().await).await;
    (server, node)
}

async fn get(server: &Server, what: &str, path: &str) -> String {
    server.kubectl(&["get", what, "-o", &format!("jsonpath={path}")]).await
}

fn stateful_set(image: &str) -> String {
    format!(
        r#"{{"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {{"name": "db"}}, "spec": {{
            "replicas": 3, "serviceName": "db", "selector": {{"matchLabels": {{"app": "db"}}}},
            "persistentVolumeClaimRetentionPolicy": {{"whenScaled": "Delete", "whenDeleted": "Retain"}},
            "volumeClaimTemplates": [{{"metadata": {{"name": "data"}}, "spec": {{
                "accessModes": ["ReadWriteOnce"], "resources": {{"requests": {{"storage": "1Gi"}}}}}}}}],
            "template": {{"metadata": {{"labels": {{"app": "db"}}}},
                "spec": {{"containers": [{{"name": "c", "image": "{image}"}}]}}}}}}}}"#
    )
}

#[tokio::test]
async fn stateful_set_rolls_out_rolls_back_and_scales() {
    let (server, _node) = cluster().await;
    let up = async || server.kubectl(&["rollout", "status", "sts/db", "--timeout=110s"]).await;
    server.apply(&stateful_set("x:1")).await;
    up().await;
    let names = "{.items[*].metadata.name}";
    assert_eq!(get(&server, "pods", names).await, "db-0 db-1 db-2");
    assert_eq!(get(&server, "pvc", names).await, "data-db-0 data-db-1 data-db-2");

    server.kubectl(&["set", "image", "sts/db", "c=x:2"]).await;
    up().await;
    let images = "{.items[*].spec.containers[0].image}";
    assert_eq!(get(&server, "pods", images).await, "x:2 x:2 x:2");
    server.kubectl(&["rollout", "undo", "sts/db"]).await;
    up().await;
    assert_eq!(get(&server, "pods", images).await, "x:1 x:1 x:1");
    let revisions = "{.items[*].revision}";
    let mut found: Vec<_> =
        get(&server, "controllerrevisions", revisions).await.split(' ').map(str::to_owned).collect();
    found.sort();
    assert_eq!(found, ["2", "3"], "the first template is the newest revision again");

    server.kubectl(&["scale", "sts/db", "--replicas=1"]).await;
    eventually("pods are gone", async || get(&server, "pods", names).await == "db-0").await;
    eventually("their claims are gone", async || get(&server, "pvc", names).await == "data-db-0").await;
    server.kubectl(&["delete", "sts/db"]).await;
    eventually("all pods are gone", async || get(&server, "pods", names).await.is_empty()).await;
    assert_eq!(get(&server, "pvc", names).await, "data-db-0");
}

#[tokio::test]
async fn daemon_set_runs_on_each_matching_node() {
    let (server, _node) = cluster().await;
    let set = |image: &str| {
        format!(
            r#"{{"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {{"name": "agent"}}, "spec": {{
                "selector": {{"matchLabels": {{"app": "agent"}}}},
                "template": {{"metadata": {{"labels": {{"app": "agent"}}}},
                    "spec": {{"containers": [{{"name": "c", "image": "{image}"}}]}}}}}}}}"#
        )
    };
    server.apply(&set("x:1")).await;
    let up = async || server.kubectl(&["rollout", "status", "ds/agent", "--timeout=110s"]).await;
    up().await;
    assert_eq!(get(&server, "ds/agent", "{.status.numberReady}").await, "1");
    server.apply(&set("x:2")).await;
    up().await;
    eventually("the pod is replaced", async || {
        get(&server, "pods", "{.items[*].spec.containers[0].image}").await == "x:2"
    })
    .await;
    server.kubectl(&["taint", "node", "fake", "gone=yes:NoExecute"]).await;
    eventually("the pod is gone", async || get(&server, "pods", "{.items}").await == "[]").await;
    assert_eq!(get(&server, "ds/agent", "{.status.desiredNumberScheduled}").await, "0");
}
