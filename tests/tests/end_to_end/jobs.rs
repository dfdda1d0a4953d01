//! Jobs with kubectl and a fake node.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use nave_tests::cluster::FakeNode;
use nave_tests::{Server, eventually};
use serde_json::{Value, json};

pub(crate) async fn cluster() -> (Server, FakeNode) {
    let server = Server::start().await;
    let node = FakeNode::start(server.client().await).await;
    (server, node)
}

pub(crate) fn job(name: &str, spec: &Value, annotations: &Value) -> String {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {
        "template": {"metadata": {"annotations": annotations},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}}});
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    job.to_string()
}

pub(crate) async fn wait(server: &Server, condition: &str, name: &str) {
    let condition = format!("--for=condition={condition}");
    server.kubectl(&["wait", &condition, &format!("job/{name}"), "--timeout=110s"]).await;
}

pub(crate) async fn status(server: &Server, name: &str) -> Value {
    let jobs: Api<Job> = Api::default_namespaced(server.client().await);
    serde_json::to_value(jobs.get(name).await.unwrap().status.unwrap()).unwrap()
}

pub(crate) async fn pods(server: &Server, name: &str) -> Vec<Pod> {
    let pods: Api<Pod> = Api::default_namespaced(server.client().await);
    pods.list(&ListParams::default().labels(&format!("job-name={name}"))).await.unwrap().items
}

#[tokio::test]
async fn job_counts_every_pod_once() {
    let (server, _node) = cluster().await;
    server.apply(&job("sum", &json!({"parallelism": 3, "completions": 7}), &json!({}))).await;
    wait(&server, "complete", "sum").await;
    let status = status(&server, "sum").await;
    assert_eq!(status["succeeded"], 7, "{status}");
    assert_eq!((&status["failed"], &status["active"]), (&Value::Null, &Value::Null), "{status}");
    assert_eq!(status["uncountedTerminatedPods"], json!({}));
    assert!(status["startTime"].is_string() && status["completionTime"].is_string());
    let types: Vec<_> = status["conditions"].as_array().unwrap().iter().map(|c| c["type"].clone()).collect();
    assert_eq!(types, ["SuccessCriteriaMet", "Complete"]);
    let pods = pods(&server, "sum").await;
    assert_eq!(pods.len(), 7);
    assert!(pods.iter().all(|pod| pod.metadata.finalizers.is_none()), "no finalizer is left behind");
}

#[tokio::test]
async fn indexed_job_has_one_pod_per_index() {
    let (server, _node) = cluster().await;
    let spec = json!({"parallelism": 2, "completions": 4, "completionMode": "Indexed"});
    server.apply(&job("array", &spec, &json!({}))).await;
    wait(&server, "complete", "array").await;
    assert_eq!(status(&server, "array").await["completedIndexes"], "0-3");
    let mut indexes: Vec<(String, String)> = pods(&server, "array")
        .await
        .into_iter()
        .map(|pod| {
            let index = pod.metadata.annotations.unwrap()["batch.kubernetes.io/job-completion-index"].clone();
            (index, pod.spec.unwrap().hostname.unwrap())
        })
        .collect();
    indexes.sort();
    let expected = ["0", "1", "2", "3"].map(|index| (index.to_owned(), format!("array-{index}")));
    assert_eq!(indexes, expected);
}

#[tokio::test]
async fn job_fails_by_backoff_limit_or_failure_policy() {
    let (server, _node) = cluster().await;
    let fails = json!({"nave.test/outcome": "fail"});
    server.apply(&job("limit", &json!({"backoffLimit": 0}), &fails)).await;
    wait(&server, "failed", "limit").await;
    let failed = status(&server, "limit").await;
    assert_eq!(failed["failed"], 1);
    assert_eq!(failed["conditions"][1]["reason"], "BackoffLimitExceeded", "{failed}");

    let policy = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}]});
    server.apply(&job("policy", &json!({"podFailurePolicy": policy}), &fails)).await;
    wait(&server, "failed", "policy").await;
    assert_eq!(status(&server, "policy").await["conditions"][1]["reason"], "PodFailurePolicy");

    let runs = json!({"nave.test/outcome": "run"});
    server.apply(&job("late", &json!({"activeDeadlineSeconds": 1}), &runs)).await;
    wait(&server, "failed", "late").await;
    assert_eq!(status(&server, "late").await["conditions"][1]["reason"], "DeadlineExceeded");
    eventually("its pod is stopped", async || pods(&server, "late").await.is_empty()).await;
}

#[tokio::test]
async fn failed_index_does_not_stop_other_indexes() {
    let (server, _node) = cluster().await;
    let spec =
        json!({"parallelism": 4, "completions": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0});
    server.apply(&job("lists", &spec, &json!({"nave.test/outcome.2": "fail"}))).await;
    wait(&server, "failed", "lists").await;
    let status = status(&server, "lists").await;
    assert_eq!((&status["completedIndexes"], &status["failedIndexes"]), (&json!("0,1,3"), &json!("2")));
    assert_eq!(status["conditions"][1]["reason"], "FailedIndexes", "{status}");
    assert!(pods(&server, "lists").await.iter().all(|pod| pod.metadata.finalizers.is_none()));
}

#[tokio::test]
async fn job_is_suspended_and_resumed() {
    let (server, _node) = cluster().await;
    let runs = json!({"nave.test/outcome": "run"});
    server.apply(&job("pausing", &json!({"parallelism": 2, "completions": 2, "suspend": true}), &runs)).await;
    wait(&server, "Suspended", "pausing").await;
    assert_eq!(status(&server, "pausing").await["startTime"], Value::Null);
    server.kubectl(&["patch", "job", "pausing", "-p", r#"{"spec": {"suspend": false}}"#]).await;
    eventually("its pods run", async || status(&server, "pausing").await["ready"] == 2).await;
    server.kubectl(&["patch", "job", "pausing", "-p", r#"{"spec": {"suspend": true}}"#]).await;
    eventually("its pods are gone", async || pods(&server, "pausing").await.is_empty()).await;
    eventually("the status is that of a suspended job", async || {
        let status = status(&server, "pausing").await;
        status["startTime"].is_null() && status["active"].is_null()
    })
    .await;
    server.kubectl(&["patch", "job", "pausing", "-p", r#"{"spec": {"suspend": false}}"#]).await;
    eventually("its pods run again", async || status(&server, "pausing").await["ready"] == 2).await;
    let status = status(&server, "pausing").await;
    assert_eq!(status["failed"], Value::Null, "pods that the controller deletes have not failed: {status}");
    let conditions = status["conditions"].as_array().unwrap();
    let reasons: Vec<_> = conditions.iter().map(|condition| condition["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["JobResumed"]);
    let events = server.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).await;
    assert!(events.contains("Suspended") && events.contains("Resumed"), "{events}");
}

#[tokio::test]
async fn suspension_does_not_count_as_failure() {
    let (server, _node) = cluster().await;
    let spec = json!({"parallelism": 2, "completions": 2, "backoffLimit": 0});
    server.apply(&job("train", &spec, &json!({"nave.test/outcome": "run"}))).await;
    for _ in 0..2 {
        eventually("its pods run", async || status(&server, "train").await["ready"] == 2).await;
        server.kubectl(&["patch", "job", "train", "-p", r#"{"spec": {"suspend": true}}"#]).await;
        wait(&server, "Suspended", "train").await;
        eventually("its pods are gone", async || pods(&server, "train").await.is_empty()).await;
        server.kubectl(&["patch", "job", "train", "-p", r#"{"spec": {"suspend": false}}"#]).await;
    }
    eventually("its pods run", async || status(&server, "train").await["ready"] == 2).await;
    assert_eq!(status(&server, "train").await["failed"], Value::Null);
}

#[tokio::test]
async fn finished_job_is_deleted_after_ttl() {
    let (server, _node) = cluster().await;
    server.apply(&job("brief", &json!({"ttlSecondsAfterFinished": 0}), &json!({}))).await;
    eventually("it is deleted", async || {
        let jobs: Api<Job> = Api::default_namespaced(server.client().await);
        let found = jobs.get_opt("brief").await.unwrap();
        // Foreground deletion without a garbage collector: the job keeps a deletion timestamp and is not removed.
        found.is_none_or(|job| job.metadata.deletion_timestamp.is_some())
    })
    .await;
}

#[tokio::test]
async fn job_survives_kill_9_with_exact_counts() {
    let (mut server, node) = cluster().await;
    server.apply(&job("long", &json!({"parallelism": 4, "completions": 30}), &json!({}))).await;
    eventually("some are done", async || status(&server, "long").await["succeeded"].as_i64() >= Some(5))
        .await;
    server.kill9();
    drop(node);
    server.restart().await;
    let _node = FakeNode::start(server.client().await).await;
    wait(&server, "complete", "long").await;
    assert_eq!(status(&server, "long").await["succeeded"], 30);
    assert_eq!(pods(&server, "long").await.len(), 30);
}
