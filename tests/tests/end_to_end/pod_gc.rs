//! Pod garbage collection. The controller runs every 20 seconds and waits 40 seconds before it treats a node as
//! missing. One test covers all cases, using a controllers process with a small threshold.

use std::time::Duration;

use nave_tests::{Server, eventually_within};
use serde_json::{Value, json};

use crate::controllers::Controllers;

async fn pod(server: &Server, name: &str, node: &str, finalizers: &[&str]) {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "finalizers": finalizers},
        "spec": {"containers": [{"name": "c", "image": "x"}]}});
    if !node.is_empty() {
        pod["spec"]["nodeName"] = json!(node);
    }
    server.apply(&pod.to_string()).await;
}

async fn node(server: &Server, name: &str) {
    server.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}).to_string()).await;
}

async fn phase(server: &Server, pod: &str, phase: &str) {
    let status = json!({"status": {"phase": phase}}).to_string();
    server.kubectl(&["patch", "pod", pod, "--subresource=status", "--type=merge", "-p", &status]).await;
}

/// Returns the name and phase of each pod.
async fn pods(server: &Server) -> Vec<(String, String)> {
    let printed = server.kubectl(&["get", "pods", "-o", "json"]).await;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pods = printed["items"].as_array().unwrap().iter();
    pods.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["status"]["phase"]))).collect()
}

#[tokio::test]
async fn orphaned_and_terminated_pods_are_deleted() {
    let server = Server::start_without_controllers().await;
    for name in ["stays", "goes"] {
        node(&server, name).await;
    }
    for number in 0..5 {
        let name = format!("ended-{number}");
        pod(&server, &name, "stays", &[]).await;
        phase(&server, &name, if number % 2 == 0 { "Succeeded" } else { "Failed" }).await;
    }
    pod(&server, "runs", "stays", &[]).await;
    pod(&server, "lost", "goes", &[]).await;
    for name in ["runs", "lost"] {
        phase(&server, name, "Running").await;
    }
    pod(&server, "held", "", &["example.com/hold"]).await;
    server.kubectl(&["delete", "pod", "held", "--wait=false"]).await;
    server.kubectl(&["delete", "node", "goes"]).await;
    let _controllers = Controllers::start_with(&server, "gc", &["--terminated-pod-gc-threshold=2"]);

    let what = "nobody needs what is left to be deleted";
    eventually_within(Duration::from_mins(5), what, async || settled(&pods(&server).await)).await;
}

/// Returns whether two ended pods are left, the pod without a node has ended, and the pod of the deleted node is gone.
fn settled(pods: &[(String, String)]) -> bool {
    let is = |name: &str, phase: &str| pods.iter().any(|pod| pod.0 == name && pod.1 == phase);
    let ended = pods.iter().filter(|pod| pod.0.starts_with("ended-")).count();
    let lost = pods.iter().any(|pod| pod.0 == "lost");
    ended == 2 && is("runs", "Running") && is("held", "Failed") && !lost
}
