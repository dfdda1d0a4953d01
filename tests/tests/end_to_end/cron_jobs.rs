//! Cron jobs, as kubectl's users drive them, with a fake node. Few tests wait for the clock: a time that was missed is as
//! good as one that comes.

use k8s_openapi::jiff::{SignedDuration, Timestamp, Zoned, tz::TimeZone};
use nave_tests::{Server, eventually};
use serde_json::{Value, json};

use crate::jobs::{cluster, wait};

/// A suspended cron job named `tick`. Its pods do as `outcome` says.
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

/// Makes it look as if the cron job had been due so many minutes ago for the last time, and nobody had seen to it: the
/// minute at which it was due.
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

/// The job of a minute.
fn job_of(minute: &Zoned) -> String {
    format!("tick-{}", minute.timestamp().as_second() / 60)
}

/// The reasons of all events, and their messages.
async fn events(server: &Server) -> String {
    let wanted = "jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}";
    server.kubectl(&["get", "events", "-o", wanted]).await
}

async fn told(server: &Server, events_told: &[&str]) {
    eventually(&format!("events tell of {events_told:?}"), async || {
        let told = events(server).await;
        events_told.iter().all(|event| told.contains(event))
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

async fn is_there(server: &Server, job: &str) {
    eventually(&format!("{job} is there"), async || names(server).await.iter().any(|name| name == job)).await;
}

#[tokio::test]
async fn a_cron_job_starts_jobs_by_hand_and_by_the_clock() {
    let (server, _node) = cluster().await;
    server.kubectl(&["create", "cronjob", "tick", "--image=x", "--schedule=0 0 1 1 *"]).await;
    server.kubectl(&["create", "job", "by-hand", "--from=cronjob/tick"]).await;
    wait(&server, "complete", "by-hand").await;

    patch(&server, &json!({"spec": {"schedule": "* * * * *"}}), &[]).await;
    let last = ["get", "cronjob", "tick", "-o", "jsonpath={.status.lastScheduleTime}"];
    eventually("a minute has begun", async || !server.kubectl(&last).await.is_empty()).await;
    patch(&server, &json!({"spec": {"suspend": true}}), &[]).await;
    // What is told of a job that somebody else made is not told of the controller's own.
    let done = [
        "SuccessfulCreate: Created job tick-",
        "SawCompletedJob: Saw completed job: tick-",
        "forgot: by-hand",
    ];
    told(&server, &done).await;
    assert!(!events(&server).await.contains("forgot: tick-"));
    let active = ["get", "cronjob", "tick", "-o", "jsonpath={.status.active}"];
    eventually("no job is active", async || server.kubectl(&active).await.is_empty()).await;
    let last = ["get", "cronjob", "tick", "-o", "jsonpath={.status.lastSuccessfulTime}"];
    assert_eq!(server.kubectl(&last).await.len(), "2026-01-01T00:00:00Z".len());
}

#[tokio::test]
async fn jobs_that_must_not_overlap_do_not() {
    let (server, _node) = cluster().await;
    create(&server, &json!({"concurrencyPolicy": "Forbid"}), "run").await;
    let first = job_of(&due(&server, 30, &TimeZone::UTC).await);
    is_there(&server, &first).await;
    let second = job_of(&due(&server, 20, &TimeZone::UTC).await);
    told(&server, &["JobAlreadyActive: Not starting job because prior execution is running"]).await;
    assert_eq!(names(&server).await, [first.as_str()]);
    // A job that is gone makes room for the next.
    server.kubectl(&["delete", "job", &first]).await;
    is_there(&server, &second).await;
}

#[tokio::test]
async fn a_job_replaces_the_one_before() {
    let (server, _node) = cluster().await;
    create(&server, &json!({"concurrencyPolicy": "Replace"}), "run").await;
    let first = job_of(&due(&server, 30, &TimeZone::UTC).await);
    is_there(&server, &first).await;
    let second = job_of(&due(&server, 20, &TimeZone::UTC).await);
    eventually("one has replaced the other", async || names(&server).await == [second.as_str()]).await;
    let active = ["get", "cronjob", "tick", "-o", "jsonpath={.status.active[*].name}"];
    eventually("it is the active one", async || server.kubectl(&active).await == second).await;
}

#[tokio::test]
async fn jobs_that_have_ended_are_kept_up_to_their_limit() {
    let (server, _node) = cluster().await;
    create(&server, &json!({"failedJobsHistoryLimit": 2}), "fail").await;
    let mut made = Vec::new();
    for minutes_ago in [40, 30, 20] {
        made.push(job_of(&due(&server, minutes_ago, &TimeZone::UTC).await));
        told(&server, &[&format!("Saw completed job: {}, condition: Failed", made[made.len() - 1])]).await;
    }
    eventually("the two last are left", async || names(&server).await == made[1..]).await;
    told(&server, &[&format!("SuccessfulDelete: Deleted job {}", made[0])]).await;
}

#[tokio::test]
async fn a_schedule_is_of_its_time_zone() {
    let (server, _node) = cluster().await;
    // Far from all zones that a machine may be in, and a quarter of an hour beside the full ones.
    let zone = TimeZone::get("Asia/Kathmandu").unwrap();
    create(&server, &json!({"timeZone": "Asia/Kathmandu"}), "run").await;
    let missed = due(&server, 30, &zone).await;
    is_there(&server, &job_of(&missed)).await;
    let scheduled =
        &jobs(&server).await[0]["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(scheduled, &json!(missed.strftime("%Y-%m-%dT%H:%M:00+05:45").to_string()));
}
