//! Garbage collection of dependents: background, foreground and orphan.

use nave_tests::cluster::FakeNode;
use nave_tests::{Server, eventually};
use serde_json::{Value, json};

/// Creates a config map with owners and returns its UID.
async fn map(server: &Server, name: &str, owners: &[(&str, &str)]) -> String {
    apply(server, name, owners).await;
    get(server, name).await.unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
}

async fn apply(server: &Server, name: &str, owners: &[(&str, &str)]) {
    let owners: Vec<_> = owners
        .iter()
        .map(|(name, uid)| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": true})
        })
        .collect();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": owners}});
    server.apply(&object.to_string()).await;
}

async fn get(server: &Server, name: &str) -> Option<Value> {
    let printed = server.kubectl(&["get", "configmap", name, "--ignore-not-found", "-o", "json"]).await;
    (!printed.is_empty()).then(|| serde_json::from_str(&printed).unwrap())
}

async fn gone(server: &Server, name: &str) {
    eventually(&format!("{name} is gone"), async || get(server, name).await.is_none()).await;
}

/// Creates an owner, a dependent, and a dependent of the dependent.
async fn family(server: &Server) {
    let owner = map(server, "owner", &[]).await;
    let child = map(server, "child", &[("owner", &owner)]).await;
    map(server, "grandchild", &[("child", &child)]).await;
    map(server, "bystander", &[]).await;
}

#[tokio::test]
async fn background_deletion_removes_dependents() {
    let server = Server::start().await;
    family(&server).await;
    server.kubectl(&["delete", "configmap", "owner", "--cascade=background"]).await;
    gone(&server, "child").await;
    gone(&server, "grandchild").await;
    assert!(get(&server, "bystander").await.is_some());
}

#[tokio::test]
async fn foreground_deletion_removes_owner_last() {
    let server = Server::start().await;
    family(&server).await;
    let hold = r#"{"metadata":{"finalizers":["example.com/hold"]}}"#;
    server.kubectl(&["patch", "configmap", "grandchild", "-p", hold]).await;
    server.kubectl(&["delete", "configmap", "owner", "--cascade=foreground", "--wait=false"]).await;
    let deleting = async |name: &str| {
        get(&server, name).await.is_some_and(|map| map["metadata"]["deletionTimestamp"].is_string())
    };
    eventually("the deletion reaches the last", async || deleting("grandchild").await).await;
    assert!(deleting("owner").await && deleting("child").await);
    let child = get(&server, "child").await.unwrap();
    assert_eq!(child["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let release = r#"{"metadata":{"finalizers":null}}"#;
    server.kubectl(&["patch", "configmap", "grandchild", "--type=merge", "-p", release]).await;
    for name in ["grandchild", "child", "owner"] {
        gone(&server, name).await;
    }
}

#[tokio::test]
async fn foreground_deletion_handles_ownership_cycles() {
    let server = Server::start().await;
    let own = map(&server, "own", &[]).await;
    apply(&server, "own", &[("own", &own)]).await;
    map(&server, "child", &[("own", &own)]).await;
    // kubectl waits for the deletion.
    server.kubectl(&["delete", "configmap", "own", "--cascade=foreground", "--timeout=110s"]).await;
    assert!(get(&server, "child").await.is_none(), "it is deleted first");

    // Two objects that own each other do not block each other.
    let one = map(&server, "one", &[]).await;
    let other = map(&server, "other", &[("one", &one)]).await;
    apply(&server, "one", &[("other", &other)]).await;
    server.kubectl(&["delete", "configmap", "one", "--cascade=foreground", "--timeout=110s"]).await;
    gone(&server, "other").await;
}

#[tokio::test]
async fn orphan_deletion_keeps_dependents_without_owner() {
    let server = Server::start().await;
    family(&server).await;
    server.kubectl(&["delete", "configmap", "owner", "--cascade=orphan"]).await;
    gone(&server, "owner").await;
    let child = get(&server, "child").await.unwrap();
    assert!(child["metadata"]["ownerReferences"].is_null(), "{child}");
    assert!(get(&server, "grandchild").await.is_some());
}

#[tokio::test]
async fn dependent_stays_while_one_owner_exists() {
    let server = Server::start().await;
    let first = map(&server, "first", &[]).await;
    let second = map(&server, "second", &[]).await;
    map(&server, "shared", &[("first", &first), ("second", &second)]).await;
    server.kubectl(&["delete", "configmap", "first"]).await;
    let owners = async || {
        let shared = get(&server, "shared").await.unwrap();
        shared["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len)
    };
    eventually("the reference is gone", async || owners().await == 1).await;
    server.kubectl(&["delete", "configmap", "second"]).await;
    gone(&server, "shared").await;
}

#[tokio::test]
async fn unknown_and_foreign_owners_count_as_absent() {
    let server = Server::start().await;
    // The object may be deleted before it is observed.
    apply(&server, "stray", &[("nobody", "0c2f37a5-7d5f-4f0e-9a37-0b6a3f3f2f11")]).await;
    gone(&server, "stray").await;

    let owner = map(&server, "owner", &[]).await;
    map(&server, "child", &[("owner", &owner)]).await;
    server.kubectl(&["create", "namespace", "other"]).await;
    let foreign = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "foreign", "namespace": "other",
        "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner}]}});
    server.apply(&foreign.to_string()).await;
    server.kubectl(&["wait", "--for=delete", "secret/foreign", "-n", "other", "--timeout=110s"]).await;
    assert!(get(&server, "child").await.is_some() && get(&server, "owner").await.is_some());
    let reasons = ["get", "events", "-n", "other", "-o", "jsonpath={.items[*].reason}"];
    eventually("an event tells of it", async || {
        server.kubectl(&reasons).await.contains("OwnerRefInvalidNamespace")
    })
    .await;
}

#[tokio::test]
async fn collection_continues_after_a_crash() {
    let mut server = Server::start().await;
    family(&server).await;
    let pool = server.target().pool(1).await.unwrap();
    let path = "/api/v1/namespaces/default/configmaps/owner";
    pool.call(&nave_loadtest::http::Call::delete(path)).await.unwrap();
    server.kill9();
    server.restart().await;
    for name in ["owner", "child", "grandchild"] {
        gone(&server, name).await;
    }
    assert!(get(&server, "bystander").await.is_some());
}

/// Returns the names of the objects of a kind that belong to the deployment.
async fn of_web(server: &Server, kind: &str) -> Vec<String> {
    let printed = server.kubectl(&["get", kind, "-l", "app=web", "-o", "name"]).await;
    printed.lines().map(str::to_owned).collect()
}

/// Starts a server and a node, and creates a deployment with running pods.
async fn with_deployment() -> (Server, FakeNode) {
    let server = Server::start().await;
    let node = FakeNode::start(server.client().await).await;
    server.kubectl(&["create", "deployment", "web", "--image=x:1", "--replicas=3"]).await;
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=110s"]).await;
    (server, node)
}

#[tokio::test]
async fn deleting_a_deployment_deletes_its_pods() {
    for cascade in ["background", "foreground"] {
        let (server, _node) = with_deployment().await;
        let option = format!("--cascade={cascade}");
        server.kubectl(&["delete", "deployment", "web", &option, "--timeout=110s"]).await;
        if cascade == "foreground" {
            assert!(of_web(&server, "pods").await.is_empty(), "the deployment is deleted last");
            assert!(of_web(&server, "replicasets").await.is_empty(), "the deployment is deleted last");
        }
        eventually("nothing is left", async || {
            of_web(&server, "pods").await.is_empty() && of_web(&server, "replicasets").await.is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn orphaned_replica_set_keeps_pods_and_is_adopted() {
    let (server, _node) = with_deployment().await;
    let before = (of_web(&server, "replicasets").await, of_web(&server, "pods").await);
    server.kubectl(&["delete", "deployment", "web", "--cascade=orphan"]).await;
    assert!(of_web(&server, "deployments").await.is_empty());
    let owner = async || {
        let path = "jsonpath={.items[*].metadata.ownerReferences[*].kind}";
        server.kubectl(&["get", "replicasets", "-l", "app=web", "-o", path]).await
    };
    assert_eq!(owner().await, "");
    server.kubectl(&["create", "deployment", "web", "--image=x:1", "--replicas=3"]).await;
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=110s"]).await;
    assert_eq!(owner().await, "Deployment");
    assert_eq!((of_web(&server, "replicasets").await, of_web(&server, "pods").await), before);
}

#[tokio::test]
async fn namespace_deletion_removes_deployments() {
    let server = Server::start().await;
    let _node = FakeNode::start(server.client().await).await;
    server.kubectl(&["create", "namespace", "shop"]).await;
    let shop = ["-n", "shop"];
    server
        .kubectl(&[&["create", "deployment", "web", "--image=x:1", "--replicas=5"], &shop[..]].concat())
        .await;
    server.kubectl(&[&["rollout", "status", "deployment/web", "--timeout=110s"], &shop[..]].concat()).await;
    server.kubectl(&["delete", "namespace", "shop", "--timeout=110s"]).await;
    assert_eq!(server.kubectl(&["get", "pods,replicasets,deployments", "-A", "-o", "name"]).await, "");
}
