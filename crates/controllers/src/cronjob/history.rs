//! The status of a cron job, its job history, and new jobs.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::job::is_finished;
use crate::owners::controller_reference;

/// Annotation of a job: its scheduled time in the cron job's time zone.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// A change of a cron job's jobs that is reported as an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum JobEvent {
    /// An active job has finished with this condition.
    Completed { job: String, condition: String },
    /// The status did not list an active job.
    Unexpected { job: String },
    /// A job listed as active does not exist.
    Missing { job: String },
}

/// Returns whether the status does not list an active job: another client created the job, or the cached status is
/// stale.
pub(super) fn has_unlisted_job(cron_job: &CronJob, jobs: &[Job]) -> bool {
    let is_listed = |job: &Job| active(cron_job).any(|reference| reference.uid == job.metadata.uid);
    jobs.iter().any(|job| finished_condition(job).is_none() && !is_listed(job))
}

/// The references in `status.active` without a cached job: the job was deleted, or the cache does not show it yet.
pub(super) fn missing_jobs(cron_job: &CronJob, jobs: &[Job]) -> Vec<ObjectReference> {
    let exists = |reference: &&ObjectReference| jobs.iter().any(|job| job.metadata.uid == reference.uid);
    active(cron_job).filter(|reference| !exists(reference)).cloned().collect()
}

fn active(cron_job: &CronJob) -> impl Iterator<Item = &ObjectReference> {
    cron_job.status.iter().flat_map(|status| status.active.iter().flatten())
}

/// Updates the list of active jobs and the time of the last success.
pub(super) fn update_status(status: &mut CronJobStatus, jobs: &[Job]) -> Vec<JobEvent> {
    let mut events = Vec::new();
    let mut active = status.active.take().unwrap_or_default();
    for job in jobs {
        let name = job.metadata.name.clone().unwrap_or_default();
        let noted = active.iter().position(|reference| reference.uid == job.metadata.uid);
        match (noted, finished_condition(job)) {
            (Some(place), Some(condition)) => {
                active.remove(place);
                events.push(JobEvent::Completed { job: name, condition: condition.to_owned() });
            }
            (None, None) => events.push(JobEvent::Unexpected { job: name }),
            _ => {}
        }
        let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
        if finished_condition(job) == Some("Complete") && completed > status.last_successful_time {
            status.last_successful_time = completed;
        }
    }
    active.retain(|reference| {
        let there = jobs.iter().any(|job| job.metadata.uid == reference.uid);
        if !there {
            events.push(JobEvent::Missing { job: reference.name.clone().unwrap_or_default() });
        }
        there
    });
    status.active = (!active.is_empty()).then_some(active);
    events
}

/// Finished jobs beyond the history limits, oldest first.
pub(super) fn expired<'a>(cron_job: &CronJob, jobs: &'a [Job]) -> Vec<&'a Job> {
    let spec = &cron_job.spec;
    let limits =
        [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)];
    let beyond = |(end, limit): (&str, Option<i32>)| {
        let mut ended: Vec<&Job> = jobs.iter().filter(|job| finished_condition(job) == Some(end)).collect();
        let kept = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        ended.sort_by_key(|job| {
            (job.status.as_ref().and_then(|status| status.start_time.clone()), job.metadata.name.clone())
        });
        ended.truncate(ended.len().saturating_sub(kept));
        ended
    };
    limits.into_iter().flat_map(beyond).collect()
}

/// The name of the job for a scheduled time. A deterministic name prevents a second job for the same time.
pub(super) fn job_name(cron_job: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron_job.metadata.name.as_deref().unwrap_or_default(), at.as_second() / 60)
}

/// The job for a scheduled time.
pub(super) fn job_for(cron_job: &CronJob, at: Timestamp, zone: &jiff::tz::TimeZone) -> Job {
    let template = cron_job.spec.job_template.clone();
    let written = template.metadata.unwrap_or_default();
    let mut annotations = written.annotations.unwrap_or_default();
    let local = at.to_zoned(zone.clone());
    let shown = if *zone == jiff::tz::TimeZone::UTC { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    annotations.insert(SCHEDULED.to_owned(), local.strftime(shown).to_string());
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron_job, at)),
            namespace: cron_job.metadata.namespace.clone(),
            labels: written.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference("batch/v1", "CronJob", &cron_job.metadata)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// The reference to a job in the status.
pub(super) fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// The type of the condition with which a job finished; `None` while it is active.
fn finished_condition(job: &Job) -> Option<&'static str> {
    let complete = || crate::job::has_condition(job, "Complete");
    is_finished(job).then(|| if complete() { "Complete" } else { "Failed" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(name: &str, end: Option<&str>, minute: u32) -> Job {
        let at = format!("2026-01-01T00:{minute:02}:00Z");
        let mut job = json!({"metadata": {"name": name, "uid": name}, "status": {"startTime": at}});
        if let Some(end) = end {
            job["status"]["conditions"] = json!([{"type": end, "status": "True"}]);
            job["status"]["completionTime"] = json!(at);
        }
        serde_json::from_value(job).unwrap()
    }

    fn cron_job() -> CronJob {
        serde_json::from_value(json!({
            "metadata": {"name": "tick", "namespace": "default", "uid": "u"},
            "spec": {"schedule": "* * * * *", "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0,
                "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}}
        }))
        .unwrap()
    }

    #[test]
    fn active_jobs_exist_and_are_not_finished() {
        let mut status = CronJobStatus {
            active: Some(["done", "runs", "gone"].map(|name| reference(&job(name, None, 0))).into()),
            ..CronJobStatus::default()
        };
        let jobs = [job("done", Some("Complete"), 5), job("runs", None, 6), job("other", None, 7)];
        let events = update_status(&mut status, &jobs);
        assert_eq!(events.len(), 3, "{events:?}");
        assert_eq!(events[0], JobEvent::Completed { job: "done".into(), condition: "Complete".into() });
        let active: Vec<_> = status.active.iter().flatten().filter_map(|job| job.name.as_deref()).collect();
        assert_eq!(active, ["runs"]);
        assert_eq!(status.last_successful_time.clone().unwrap().0.to_string(), "2026-01-01T00:05:00Z");
        assert_eq!(update_status(&mut status, &jobs), [JobEvent::Unexpected { job: "other".into() }]);
    }

    #[test]
    fn detects_disagreement_between_caches() {
        let mut cron_job = cron_job();
        let noted = ["runs", "missing_jobs"].map(|name| reference(&job(name, None, 0)));
        cron_job.status = Some(CronJobStatus { active: Some(noted.into()), ..CronJobStatus::default() });
        let mut jobs = vec![job("runs", None, 0), job("by-hand", Some("Complete"), 0)];
        assert!(!has_unlisted_job(&cron_job, &jobs));
        assert_eq!(missing_jobs(&cron_job, &jobs), [reference(&job("missing_jobs", None, 0))]);
        jobs.push(job("new", None, 1));
        assert!(has_unlisted_job(&cron_job, &jobs));
    }

    #[test]
    fn oldest_jobs_beyond_the_limits_expire() {
        let jobs = [
            job("new", Some("Complete"), 9),
            job("old", Some("Complete"), 1),
            job("failed", Some("Failed"), 5),
            job("runs", None, 0),
        ];
        let names: Vec<_> =
            expired(&cron_job(), &jobs).iter().filter_map(|job| job.metadata.name.as_deref()).collect();
        assert_eq!(names, ["old", "failed"]);
    }

    #[test]
    fn scheduled_time_has_one_job() {
        let at = "2026-01-01T00:30:00Z".parse().unwrap();
        let zone = nave_machinery::schedule::time_zone("Asia/Kolkata").unwrap();
        let job = job_for(&cron_job(), at, &zone);
        assert_eq!(job.metadata.name.as_deref(), Some("tick-29453790"));
        assert_eq!(job.metadata.annotations.unwrap()[SCHEDULED], "2026-01-01T06:00:00+05:30");
        assert_eq!(job.metadata.labels.unwrap()["a"], "b");
        let utc = job_for(&cron_job(), at, &jiff::tz::TimeZone::UTC);
        assert_eq!(utc.metadata.annotations.unwrap()[SCHEDULED], "2026-01-01T00:30:00Z");
    }
}
