//! Horizontal pod autoscalers, on a cluster without metrics.

use nave_tests::{Server, eventually};
use serde_json::{Value, json};

async fn get(server: &Server, what: &str, path: &str) -> String {
    server.kubectl(&["get", what, "-o", &format!("jsonpath={path}")]).await
}

async fn condition(server: &Server, condition: &str) -> Value {
    let path = format!("{{.status.conditions[?(@.type=='{condition}')]}}");
    serde_json::from_str(&get(server, "hpa/web", &path).await).unwrap_or_default()
}

async fn has_reason(server: &Server, of: &str, reason: &str) {
    eventually(&format!("{of} says {reason}"), async || condition(server, of).await["reason"] == reason)
        .await;
}

#[tokio::test]
async fn bounds_apply_without_metrics_and_conditions_report_it() {
    let server = Server::start().await;
    let autoscaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"}, "spec": {"minReplicas": 2, "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
    server.apply(&autoscaler.to_string()).await;
    has_reason(&server, "AbleToScale", "FailedGetScale").await;
    let message = condition(&server, "AbleToScale").await["message"].clone();
    let expected =
        "the HPA controller was unable to get the target's current scale: deployments.apps \"web\" not found";
    assert_eq!(message, expected);

    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 5, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "x",
                "resources": {"requests": {"cpu": "100m"}}}]}}}});
    server.apply(&deployment.to_string()).await;
    eventually("the deployment has the most that is allowed", async || {
        get(&server, "deployment/web", "{.spec.replicas}").await == "3"
    })
    .await;
    eventually("the autoscaler looks at metrics", async || {
        condition(&server, "ScalingActive").await["reason"] == "FailedGetResourceMetric"
    })
    .await;
    let message =
        condition(&server, "ScalingActive").await["message"].as_str().unwrap_or_default().to_owned();
    let expected = "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get \
                    metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not \
                    find the requested resource (get pods.metrics.k8s.io)";
    assert_eq!(message, expected);
    let printed = server.kubectl(&["describe", "hpa", "web"]).await;
    assert!(printed.contains("SuccessfulRescale") && printed.contains("New size: 3"), "{printed}");
    assert!(printed.contains("FailedComputeMetricsReplicas"), "{printed}");

    server.kubectl(&["scale", "deployment", "web", "--replicas=0"]).await;
    has_reason(&server, "ScalingActive", "ScalingDisabled").await;
}
