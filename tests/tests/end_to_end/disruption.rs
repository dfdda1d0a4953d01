//! Disruption budgets and evictions.

use nave_tests::cluster::FakeNode;
use nave_tests::{Server, eventually};
use serde_json::{Value, json};

const NODE: &str = "\napiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n";

/// Creates a pod that is running and ready.
async fn running(server: &Server, name: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1", "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}});
    server.apply(&pod.to_string()).await;
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    server.kubectl(&["patch", "pod", name, "--subresource=status", "-p", &status.to_string()]).await;
}

async fn status(server: &Server) -> Value {
    let printed = server.kubectl(&["get", "pdb", "web", "-o", "json"]).await;
    serde_json::from_str::<Value>(&printed).unwrap()["status"].clone()
}

async fn evict(server: &Server, pod: &str) -> nave_tests::Ran {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
    let path = format!("/api/v1/namespaces/default/pods/{pod}/eviction");
    server.kubectl_with(&["create", "--raw", &path, "-f", "-"], &eviction.to_string(), &[]).await
}

#[tokio::test]
async fn evictions_respect_disruption_budget() {
    let server = Server::start().await;
    server.apply(NODE).await;
    for name in ["a", "b", "c"] {
        running(&server, name).await;
    }
    server.kubectl(&["create", "pdb", "web", "--selector=app=web", "--min-available=2"]).await;
    eventually("the budget is counted", async || status(&server).await["disruptionsAllowed"] == 1).await;
    let counted = status(&server).await;
    assert_eq!((&counted["expectedPods"], &counted["currentHealthy"]), (&json!(3), &json!(3)));
    assert_eq!((&counted["desiredHealthy"], &counted["observedGeneration"]), (&json!(2), &json!(1)));
    assert_eq!(counted["conditions"][0]["reason"], "SufficientPods");

    let evicted = evict(&server, "a").await;
    assert!(evicted.status.success(), "{}", evicted.stderr);
    assert_eq!(server.kubectl(&["get", "pod", "a", "--ignore-not-found"]).await, "");
    let refused = evict(&server, "b").await;
    assert!(refused.stderr.contains("Cannot evict pod as it would violate"), "{}", refused.stderr);
    eventually("the eviction is counted", async || status(&server).await["expectedPods"] == 2).await;
    let counted = status(&server).await;
    assert_eq!(counted["conditions"][0]["reason"], "InsufficientPods");
    assert!(counted["disruptedPods"].is_null(), "{counted}");

    // kubectl retries until its timeout.
    let drain = ["drain", "node-1", "--force", "--timeout=1s"];
    let complained = server.kubectl_fails(&drain).await;
    assert!(complained.contains("would violate the pod's disruption budget"), "{complained}");
    running(&server, "d").await;
    eventually("room for one more", async || status(&server).await["disruptionsAllowed"] == 1).await;
    let evicted = evict(&server, "b").await;
    assert!(evicted.status.success(), "{}", evicted.stderr);
}

#[tokio::test]
async fn percentage_budget_allows_eviction_one_by_one() {
    let server = Server::start().await;
    let _node = FakeNode::start(server.client().await).await;
    server.kubectl(&["create", "deployment", "web", "--image=x:1", "--replicas=3"]).await;
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=110s"]).await;
    // A percentage refers to the replicas of the deployment. The deployment is found through the pods' replica set.
    server.kubectl(&["create", "pdb", "web", "--selector=app=web", "--max-unavailable=34%"]).await;
    eventually("the budget is counted", async || status(&server).await["disruptionsAllowed"] == 2).await;
    assert_eq!(status(&server).await["expectedPods"], 3);
    let pods = async || {
        let names = server.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]).await;
        names.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let before = pods().await;
    for name in before.iter().map(|name| name.trim_start_matches("pod/").to_owned()) {
        eventually("the eviction is allowed", async || evict(&server, &name).await.status.success()).await;
    }
    eventually("other pods have taken over", async || {
        let now = pods().await;
        now.len() == 3 && now.is_disjoint(&before)
    })
    .await;
}
