//! TTL after finished: deletes finished jobs after `ttlSecondsAfterFinished`.

use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, DeleteParams, Preconditions};
use nave_client::{Action, Lister, ObjectName};

use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};
use crate::job::is_finished;
use crate::time_arithmetic::saturating_add;

pub(crate) const TTL_AFTER_FINISHED: Descriptor = Descriptor {
    name: "ttl-after-finished-controller",
    alias: "ttl-after-finished",
    service_account: "ttl-after-finished-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-ttl-after-finished-syncs", 5),
    start,
};

struct Controller {
    client: kube::Client,
    jobs: Lister<Job>,
}

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (builder, jobs) = context.controller_for::<Job>("ttl_jobs_to_delete");
    builder.run(Controller { client: context.client.clone(), jobs: jobs.lister() })
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cached) = self.jobs.get_by_key(&key) else { return Ok(Action::Done) };
        match expires_in(&cached.decode()?, Timestamp::now()) {
            None => return Ok(Action::Done),
            Some(wait) if !wait.is_zero() => return Ok(Action::RequeueAfter(wait)),
            Some(_) => {}
        }
        // Reads the job live, as its TTL may have been extended.
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), key.namespace());
        let Some(live) = jobs.get_opt(key.name()).await? else { return Ok(Action::Done) };
        if expires_in(&live, Timestamp::now()) != Some(Duration::ZERO) {
            return Ok(Action::Done);
        }
        let preconditions =
            Preconditions { uid: live.metadata.uid, resource_version: live.metadata.resource_version };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::foreground() };
        match jobs.delete(key.name(), &parameters).await.map_err(SyncError::from) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Action::Done),
        }
    }
}

/// Returns the time until a job must be deleted: zero if it is due, `None` if it is not finished or has no TTL.
fn expires_in(job: &Job, now: Timestamp) -> Option<Duration> {
    if job.metadata.deletion_timestamp.is_some() || !is_finished(job) {
        return None;
    }
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let end = conditions
        .iter()
        .find(|condition| matches!(&*condition.type_, "Complete" | "Failed") && condition.status == "True");
    let end =
        saturating_add(end?.last_transition_time.as_ref()?.0, SignedDuration::from_secs(seconds.into()));
    Some(now.duration_until(end).try_into().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn job_expires_after_its_ttl() {
        let job = |ttl: Option<i32>, end: Option<&str>| -> Job {
            let at = "2026-01-01T00:00:00Z";
            let conditions: Vec<_> = end
                .into_iter()
                .map(|end| json!({"type": end, "status": "True", "lastTransitionTime": at}))
                .collect();
            let spec = json!({"ttlSecondsAfterFinished": ttl, "template": {}});
            serde_json::from_value(json!({"spec": spec, "status": {"conditions": conditions}})).unwrap()
        };
        let now = "2026-01-01T00:00:07Z".parse().unwrap();
        assert_eq!(expires_in(&job(Some(10), Some("Failed")), now), Some(Duration::from_secs(3)));
        assert_eq!(expires_in(&job(Some(7), Some("Complete")), now), Some(Duration::ZERO));
        assert_eq!(expires_in(&job(Some(7), Some("Suspended")), now), None);
        assert_eq!(expires_in(&job(None, Some("Complete")), now), None);
    }

    #[test]
    fn extreme_times_and_ttls_do_not_overflow() {
        let now = "2026-01-01T00:00:07Z".parse().unwrap();
        for (end, is_past) in [(Timestamp::MIN, true), (now, false), (Timestamp::MAX, false)] {
            let condition =
                json!({"type": "Complete", "status": "True", "lastTransitionTime": end.to_string()});
            for ttl in [i32::MIN, 0, i32::MAX] {
                let spec = json!({"ttlSecondsAfterFinished": ttl, "template": {}});
                let job: Job =
                    serde_json::from_value(json!({"spec": spec, "status": {"conditions": [condition]}}))
                        .unwrap();
                let is_over = expires_in(&job, now) == Some(Duration::ZERO);
                assert_eq!(is_over, is_past || end == now && ttl <= 0, "{end} {ttl}");
            }
        }
    }
}
