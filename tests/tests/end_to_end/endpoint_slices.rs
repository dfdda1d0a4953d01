//! Endpoint slices follow the pods of a service.

use std::collections::BTreeMap;

use nave_tests::{Server, eventually};
use serde_json::{Value, json};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, labels: {tier: front}}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: web}]
---
{apiVersion: v1, kind: Node, metadata: {name: node-1, labels: {topology.kubernetes.io/zone: z}}}
";

async fn pod(server: &Server, name: &str, address: &str, ready: bool) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1", "containers": [
            {"name": "c", "image": "i", "ports": [{"name": "web", "containerPort": 8080}]}]}});
    server.apply(&pod.to_string()).await;
    set_status(server, name, address, ready).await;
}

async fn set_status(server: &Server, name: &str, address: &str, ready: bool) {
    let ready = if ready { "True" } else { "False" };
    let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": ready}]}});
    server.kubectl(&["patch", "pod", name, "--subresource=status", "-p", &status.to_string()]).await;
}

async fn slices(server: &Server) -> Vec<Value> {
    let selector = "kubernetes.io/service-name=web";
    let printed = server.kubectl(&["get", "endpointslices", "-l", selector, "-o", "json"]).await;
    serde_json::from_str::<Value>(&printed).unwrap()["items"].as_array().unwrap().clone()
}

/// Returns the endpoints of all slices: readiness by address.
async fn endpoints(server: &Server) -> BTreeMap<String, bool> {
    let slices = slices(server).await;
    let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let entry = |endpoint: &Value| {
        let address = endpoint["addresses"][0].as_str().unwrap().to_owned();
        (address, endpoint["conditions"]["ready"] == true)
    };
    endpoints.map(entry).collect()
}

async fn wait_for_endpoints(server: &Server, wanted: &[(&str, bool)]) {
    let wanted: BTreeMap<_, _> =
        wanted.iter().map(|(address, ready)| ((*address).to_owned(), *ready)).collect();
    eventually(&format!("endpoints {wanted:?}"), async || endpoints(server).await == wanted).await;
}

#[tokio::test]
async fn slices_follow_pods_of_a_service() {
    let mut server = Server::start().await;
    server.apply(SERVICE).await;
    eventually("an empty slice", async || slices(&server).await.len() == 1).await;
    pod(&server, "a", "10.1.0.1", true).await;
    pod(&server, "b", "10.1.0.2", false).await;
    wait_for_endpoints(&server, &[("10.1.0.1", true), ("10.1.0.2", false)]).await;
    let slice = &slices(&server).await[0];
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(slice["addressType"], "IPv4");
    assert_eq!(slice["metadata"]["labels"]["tier"], "front");
    let owner = &slice["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["controller"]), (&json!("Service"), &json!(true)));
    assert!(slice["metadata"]["name"].as_str().unwrap().starts_with("web-"));
    let endpoint =
        slice["endpoints"].as_array().unwrap().iter().find(|it| it["addresses"][0] == "10.1.0.1").unwrap();
    assert_eq!((&endpoint["zone"], &endpoint["targetRef"]["name"]), (&json!("z"), &json!("a")));

    set_status(&server, "b", "10.1.0.2", true).await;
    wait_for_endpoints(&server, &[("10.1.0.1", true), ("10.1.0.2", true)]).await;
    server.kubectl(&["label", "pod", "a", "app-"]).await;
    wait_for_endpoints(&server, &[("10.1.0.2", true)]).await;

    // Changes that the controller missed during the server's downtime are processed afterwards.
    server.kill9();
    server.restart().await;
    server.kubectl(&["label", "pod", "a", "app=web"]).await;
    server.kubectl(&["delete", "pod", "b", "--grace-period=0", "--force"]).await;
    wait_for_endpoints(&server, &[("10.1.0.1", true)]).await;
    server.kubectl(&["delete", "service", "web"]).await;
    eventually("no slices", async || slices(&server).await.is_empty()).await;
}

#[tokio::test]
async fn endpoints_follow_pods_of_a_service() {
    let server = Server::start().await;
    server.apply(SERVICE).await;
    pod(&server, "a", "10.1.0.1", true).await;
    pod(&server, "b", "10.1.0.2", false).await;
    let addresses = async |list: &str| {
        let path = format!("jsonpath={{.subsets[*].{list}[*].ip}}");
        server.kubectl(&["get", "endpoints", "web", "--ignore-not-found", "-o", &path]).await
    };
    eventually("a is ready", async || addresses("addresses").await == "10.1.0.1").await;
    eventually("b is not", async || addresses("notReadyAddresses").await == "10.1.0.2").await;
    set_status(&server, "b", "10.1.0.2", true).await;
    eventually("both are ready", async || addresses("addresses").await == "10.1.0.1 10.1.0.2").await;
    server.kubectl(&["delete", "service", "web"]).await;
    eventually("the object goes with the service", async || {
        server.kubectl(&["get", "endpoints", "web", "--ignore-not-found", "-o", "name"]).await.is_empty()
    })
    .await;
}
