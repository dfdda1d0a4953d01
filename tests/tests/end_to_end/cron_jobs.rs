//! Cron jobs with kubectl and a fake node. Few tests wait for the clock, because a missed time is handled like a time
//! that is reached.

use k8s_openapi::jiff::{SignedDuration, Timestamp, Zoned, tz::TimeZone};
use nave_tests::{Server, eventually};
use serde_json::{Value, json};

use crate::jobs::{cluster, wait};

/// Creates a suspended cron job named `tick`. Its pods have the annotation `outcome`.
async fn create(server: &Server, spec: &Value, outcome: &str) {
    let template = json!({"metadata": {"annotations": {"nave.test/outcome": outcome}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}});
    let mut cron_job = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"},
        "spec": {"schedule": "0 0 1 1 *", "suspend": true,
            "jobTemplate": {"spec": {"backoffLimit": 0, "template": template}}}});
    for (key, value) in spec.as_object().unwrap() {
        cron_job["spec"][key] = value.clone();
    }
    server.apply(&cron_job.to_string()).await;
}

/// Sets the status as if the cron job had last been due and missed that many minutes ago. Returns the due minute.
async fn due(server: &Server, minutes_ago: i64, zone: &TimeZone) -> Zoned {
    let missed = (Timestamp::now() - SignedDuration::from_mins(minutes_ago)).to_zoned(zone.clone());
    patch(server, &json!({"spec": {"suspend": true}}), &[]).await;
    let before =
        (missed.timestamp() - SignedDuration::from_mins(5)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    patch(server, &json!({"status": {"lastScheduleTime": before}}), &["--subresource=status"]).await;
    let schedule = format!("{} {} * * *", missed.minute(), missed.hour());
    patch(server, &json!({"spec": {"schedule": schedule, "suspend": false}}), &[]).await;
    missed
}

async fn patch(server: &Server, patch: &Value, flags: &[&str]) {
    let patch = patch.to_string();
    let arguments = ["patch", "cronjob", "tick", "--type=merge", "-p", &patch];
    server.kubectl(&[&arguments, flags].concat()).await;
}

/// Returns the name of the job of a minute.
fn job_of(minute: &Zoned) -> String {
    format!("tick-{}", minute.timestamp().as_second() / 60)
}

/// Returns the reasons and messages of all events.
async fn events(server: &Server) -> String {
    let wanted = "jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}";
    server.kubectl(&["get", "events", "-o", wanted]).await
}

async fn wait_for_events(server: &Server, expected: &[&str]) {
    eventually(&format!("events {expected:?}"), async || {
        let recorded = events(server).await;
        expected.iter().all(|event| recorded.contains(event))
    })
    .await;
}

async fn jobs(server: &Server) -> Vec<Value> {
    let printed = server.kubectl(&["get", "jobs", "-o", "json"]).await;
    serde_json::from_str::<Value>(&printed).unwrap()["items"].as_array().unwrap().clone()
}

async fn names(server: &Server) -> Vec<String> {
    jobs(server).await.iter().map(|job| job["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

async fn wait_for_job(server: &Server, job: &str) {
    eventually(&format!("{job} is there"), async || names(server).await.iter().any(|name| name == job)).await;
}

#[tokio::test]
async fn cron_job_starts_jobs_manually_and_on_schedule() {
    let (server, _node) = cluster().await;
    server.kubectl(&["create", "cronjob", "tick", "--image=x", "--schedule=0 0 1 1 *"]).await;
    server.kubectl(&["create", "job", "by-hand", "--from=cronjob/tick"]).await;
    wait(&server, "complete", "by-hand").await;

    patch(&server, &json!({"spec": {"schedule": "* * * * *"}}), &[]).await;
    let last = ["get", "cronjob", "tick", "-o", "jsonpath={.status.lastScheduleTime}"];
    eventually("a minute has begun", async || !server.kubectl(&last).await.is_empty()).await;
    patch(&server, &json!({"spec": {"suspend": true}}), &[]).await;
    // The controller reports `forgot` only for a job that it did not create.
    let done = [
        "SuccessfulCreate: Created job tick-",
        "SawCompletedJob: Saw completed job: tick-",
        "forgot: by-hand",
    ];
    wait_for_events(&server, &done).await;
    assert!(!events(&server).await.contains("forgot: tick-"));
    let active = ["get", "cronjob", "tick", "-o", "jsonpath={.status.active}"];
    eventually("no job is active", async || server.kubectl(&active).await.is_empty()).await;
    let last = ["get", "cronjob", "tick", "-o", "jsonpath={.status.lastSuccessfulTime}"];
    assert_eq!(server.kubectl(&last).await.len(), "2026-01-01T00:00:00Z".len());
}

#[tokio::test]
async fn forbid_policy_prevents_overlap() {
    let (server, _node) = cluster().await;
    create(&server, &json!({"concurrencyPolicy": "Forbid"}), "run").await;
    let first = job_of(&due(&server, 30, &TimeZone::UTC).await);
    wait_for_job(&server, &first).await;
    let second = job_of(&due(&server, 20, &TimeZone::UTC).await);
    wait_for_events(&server, &["JobAlreadyActive: Not starting job because prior execution is running"])
        .await;
    assert_eq!(names(&server).await, [first.as_str()]);
    // When a job has ended, the next job may start.
    server.kubectl(&["delete", "job", &first]).await;
    wait_for_job(&server, &second).await;
}

#[tokio::test]
async fn replace_policy_replaces_running_job() {
    let (server, _node) = cluster().await;
    create(&server, &json!({"concurrencyPolicy": "Replace"}), "run").await;
    let first = job_of(&due(&server, 30, &TimeZone::UTC).await);
    wait_for_job(&server, &first).await;
    let second = job_of(&due(&server, 20, &TimeZone::UTC).await);
    eventually("one has replaced the other", async || names(&server).await == [second.as_str()]).await;
    let active = ["get", "cronjob", "tick", "-o", "jsonpath={.status.active[*].name}"];
    eventually("it is the active one", async || server.kubectl(&active).await == second).await;
}

#[tokio::test]
async fn history_limits_bound_finished_jobs() {
    let (server, _node) = cluster().await;
    create(&server, &json!({"failedJobsHistoryLimit": 2}), "fail").await;
    let mut made = Vec::new();
    for minutes_ago in [40, 30, 20] {
        made.push(job_of(&due(&server, minutes_ago, &TimeZone::UTC).await));
        wait_for_events(
            &server,
            &[&format!("Saw completed job: {}, condition: Failed", made[made.len() - 1])],
        )
        .await;
    }
    eventually("the two last are left", async || names(&server).await == made[1..]).await;
    wait_for_events(&server, &[&format!("SuccessfulDelete: Deleted job {}", made[0])]).await;
}

#[tokio::test]
async fn schedule_uses_its_time_zone() {
    let (server, _node) = cluster().await;
    // Differs from common time zones of machines and has an offset of a quarter of an hour.
    let zone = TimeZone::get("Asia/Kathmandu").unwrap();
    create(&server, &json!({"timeZone": "Asia/Kathmandu"}), "run").await;
    let missed = due(&server, 30, &zone).await;
    wait_for_job(&server, &job_of(&missed)).await;
    let scheduled =
        &jobs(&server).await[0]["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(scheduled, &json!(missed.strftime("%Y-%m-%dT%H:%M:00+05:45").to_string()));
}
