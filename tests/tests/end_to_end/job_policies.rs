//! Success and failure policies of jobs, and `managedBy`.

use nave_tests::{Server, eventually};
use serde_json::{Value, json};

use crate::jobs::{cluster, job, pods, status, wait};

/// Returns the reason of a job's condition.
fn reason<'a>(status: &'a Value, type_: &str) -> &'a Value {
    let conditions = status["conditions"].as_array().unwrap();
    &conditions.iter().find(|condition| condition["type"] == type_).unwrap()["reason"]
}

/// Returns a rule for pods that end with exit code 1.
fn on_failure(action: &str) -> Value {
    json!({"action": action, "onExitCodes": {"operator": "In", "values": [1]}})
}

#[tokio::test]
async fn success_policy_completes_job_by_indexes() {
    let (server, _node) = cluster().await;
    let spec = json!({"parallelism": 3, "completions": 3, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "1"}]}});
    let outcomes = json!({"nave.test/outcome.0": "run", "nave.test/outcome.2": "run"});
    server.apply(&job("leader", &spec, &outcomes)).await;
    wait(&server, "complete", "leader").await;
    let status = status(&server, "leader").await;
    assert_eq!((&status["completedIndexes"], &status["succeeded"]), (&json!("1"), &json!(1)), "{status}");
    assert_eq!(reason(&status, "SuccessCriteriaMet"), "SuccessPolicy");
    assert_eq!(reason(&status, "Complete"), "SuccessPolicy");
    eventually("the others are stopped", async || pods(&server, "leader").await.len() == 1).await;
}

#[tokio::test]
async fn fail_index_policy_stops_retries_of_the_index() {
    let (server, _node) = cluster().await;
    let spec = json!({"parallelism": 3, "completions": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 5,
        "podFailurePolicy": {"rules": [on_failure("FailIndex")]}});
    server.apply(&job("parts", &spec, &json!({"nave.test/outcome.1": "fail"}))).await;
    wait(&server, "failed", "parts").await;
    let status = status(&server, "parts").await;
    assert_eq!((&status["failedIndexes"], &status["failed"]), (&json!("1"), &json!(1)), "{status}");
    assert_eq!(
        (&status["completedIndexes"], reason(&status, "Failed")),
        (&json!("0,2"), &json!("FailedIndexes"))
    );
}

#[tokio::test]
async fn max_failed_indexes_ends_job() {
    let (server, _node) = cluster().await;
    let spec = json!({"parallelism": 1, "completions": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0,
        "maxFailedIndexes": 1});
    let outcomes = json!({"nave.test/outcome.0": "fail", "nave.test/outcome.2": "fail"});
    server.apply(&job("parts", &spec, &outcomes)).await;
    wait(&server, "failed", "parts").await;
    let status = status(&server, "parts").await;
    assert_eq!((&status["failedIndexes"], &status["completedIndexes"]), (&json!("0,2"), &json!("1")));
    assert_eq!(reason(&status, "Failed"), "MaxFailedIndexesExceeded");
}

#[tokio::test]
async fn failure_policy_ignores_evicted_pods() {
    let (server, _node) = cluster().await;
    let ignore =
        json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
    let spec = json!({"backoffLimit": 0, "podFailurePolicy": {"rules": [ignore, on_failure("FailJob")]}});
    server.apply(&job("moved", &spec, &json!({"nave.test/outcome": "run"}))).await;
    eventually("its pod runs", async || status(&server, "moved").await["ready"] == 1).await;
    let first = pods(&server, "moved").await.remove(0).metadata;
    let name = first.name.unwrap();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let path = format!("/api/v1/namespaces/default/pods/{name}/eviction");
    server.kubectl_with(&["create", "--raw", &path, "-f", "-"], &eviction.to_string(), &[]).await;
    eventually("another pod runs in its place", async || {
        let pods = pods(&server, "moved").await;
        let running = |pod: &k8s_openapi::api::core::v1::Pod| {
            pod.metadata.uid != first.uid
                && pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running")
        };
        pods.iter().any(running)
    })
    .await;
    let status = status(&server, "moved").await;
    assert_eq!((&status["failed"], &status["conditions"]), (&Value::Null, &Value::Null), "{status}");
}

#[tokio::test]
async fn job_managed_by_another_controller_is_ignored() {
    let (server, _node) = cluster().await;
    let managed = json!({"managedBy": "example.com/other"});
    server.apply(&job("managed", &managed, &json!({}))).await;
    // When a job created later has completed, the controller has seen this job.
    server.apply(&job("own", &json!({}), &json!({}))).await;
    wait(&server, "complete", "own").await;
    assert_eq!(pods(&server, "managed").await.len(), 0);
    assert_eq!(untouched(&server).await, "");
}

/// Returns the job's conditions and start time.
async fn untouched(server: &Server) -> String {
    server.kubectl(&["get", "job", "managed", "-o", "jsonpath={.status.conditions}{.status.startTime}"]).await
}
