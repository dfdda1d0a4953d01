//! The sync of a cron job: updates its status, starts a due job, and deletes old jobs.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, PostParams, PropagationPolicy};
use nave_client::{Action, Lister, ObjectName};

use super::due::{Due, ZonedSchedule};
use super::history::{self, JobEvent};
use crate::frame::{EventKind, EventRecorder, ObjectControl, Reconciler, SyncError, reference_of};
use crate::job::is_finished;
use crate::owned;
use crate::owners::is_controlled_by;

pub(super) struct Controller {
    pub(super) client: kube::Client,
    pub(super) control: ObjectControl,
    pub(super) events: EventRecorder,
    pub(super) cron_jobs: Lister<CronJob>,
    pub(super) jobs: Lister<Job>,
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cached) = self.cron_jobs.get_by_key(&key) else { return Ok(Action::Done) };
        let jobs: Vec<Job> = owned::by_controller(&self.jobs, cached.uid())
            .iter()
            .map(nave_client::Object::decode)
            .collect::<Result<_, _>>()?;
        let Some((cron_job, jobs)) = self.resolve_cache_disagreement(cached.decode()?, jobs).await? else {
            return Ok(Action::Done);
        };
        let written = cron_job.status.clone().unwrap_or_default();
        let mut status = written.clone();
        for event in history::update_status(&mut status, &jobs) {
            self.record_job_event(&cron_job, &event);
        }
        let now = Timestamp::now();
        let outcome = self.start_due(&cron_job, &jobs, &mut status, now).await;
        for old in history::expired(&cron_job, &jobs) {
            self.drop_job(&cron_job, old, &mut status).await?;
        }
        if status != written {
            let namespace = cron_job.metadata.namespace.as_deref().unwrap_or_default();
            let api: Api<CronJob> = Api::namespaced(self.client.clone(), namespace);
            let name = cron_job.metadata.name.clone().unwrap_or_default();
            let changed = CronJob { status: Some(status), ..cron_job };
            api.replace_status(&name, &PostParams::default(), &changed).await?;
        }
        outcome
    }
}

impl Controller {
    /// Returns the cron job and its jobs; `None` if the cron job no longer exists. If the caches disagree, reads the
    /// missing objects live, because a cache may be stale.
    async fn resolve_cache_disagreement(
        &self,
        mut cron_job: CronJob,
        mut jobs: Vec<Job>,
    ) -> Result<Option<(CronJob, Vec<Job>)>, SyncError> {
        let namespace = cron_job.metadata.namespace.clone().unwrap_or_default();
        if history::has_unlisted_job(&cron_job, &jobs) {
            let name = cron_job.metadata.name.as_deref().unwrap_or_default();
            let live = Api::<CronJob>::namespaced(self.client.clone(), &namespace).get_opt(name).await?;
            match live.filter(|live| live.metadata.uid == cron_job.metadata.uid) {
                Some(live) => cron_job = live,
                None => return Ok(None),
            }
        }
        let api: Api<Job> = Api::namespaced(self.client.clone(), &namespace);
        for noted in history::missing_jobs(&cron_job, &jobs) {
            let live = api.get_opt(noted.name.as_deref().unwrap_or_default()).await?;
            jobs.extend(live.filter(|live| live.metadata.uid == noted.uid));
        }
        Ok(Some((cron_job, jobs)))
    }

    /// Starts a job if one is due and allowed; returns the time of the next sync.
    async fn start_due(
        &self,
        cron_job: &CronJob,
        jobs: &[Job],
        status: &mut CronJobStatus,
        now: Timestamp,
    ) -> Result<Action, SyncError> {
        if cron_job.metadata.deletion_timestamp.is_some() || cron_job.spec.suspend == Some(true) {
            return Ok(Action::Done);
        }
        let calendar = match ZonedSchedule::from_spec(&cron_job.spec) {
            Ok(calendar) => calendar,
            Err(why) => {
                // A retry cannot succeed until the spec changes.
                self.warn(cron_job, why.reason(), &why.to_string());
                return Ok(Action::Done);
            }
        };
        if let Some(due) = calendar.due(cron_job, now) {
            self.start(cron_job, jobs, status, &calendar, due).await?;
        }
        let settled = CronJob { status: Some(status.clone()), ..cron_job.clone() };
        Ok(calendar.next_in(&settled, now).map_or(Action::Done, Action::RequeueAfter))
    }

    async fn start(
        &self,
        cron_job: &CronJob,
        jobs: &[Job],
        status: &mut CronJobStatus,
        calendar: &ZonedSchedule,
        due: Due,
    ) -> Result<(), SyncError> {
        if due.many_missed {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check \
                           clock skew";
            self.warn(cron_job, "TooManyMissedTimes", message);
        }
        if due.too_late {
            let at = due.at.strftime("%a, %d %b %Y %H:%M:%S +0000");
            self.warn(cron_job, "MissSchedule", &format!("Missed scheduled time to start a job: {at}"));
            return Ok(());
        }
        let name = history::job_name(cron_job, due.at);
        let mut active = status.active.iter().flatten();
        if active.any(|reference| reference.name.as_ref() == Some(&name)) {
            return Ok(());
        }
        match cron_job.spec.concurrency_policy.as_deref() {
            Some("Forbid") if status.active.is_some() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.events.record(&reference_of(cron_job), EventKind::Normal, "JobAlreadyActive", message);
                return Ok(());
            }
            Some("Replace") => {
                for job in jobs.iter().filter(|job| !is_finished(job)) {
                    self.drop_job(cron_job, job, status).await?;
                }
            }
            _ => {}
        }
        let new = history::job_for(cron_job, due.at, &calendar.zone);
        let namespace = cron_job.metadata.namespace.as_deref().unwrap_or_default();
        let made = match self.control.create(&reference_of(cron_job), namespace, &new).await {
            Ok(made) => made,
            // An earlier sync created the job and failed before updating the status.
            Err(error) if error.is_already_exists() => self.controlled_job(cron_job, &name).await?,
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            Err(error) => return Err(error),
        };
        status.last_schedule_time = Some(Time(due.at));
        if !is_finished(&made) {
            status.active.get_or_insert_default().push(history::reference(&made));
        }
        Ok(())
    }

    /// The job of this name, if the cron job controls it.
    async fn controlled_job(&self, cron_job: &CronJob, name: &str) -> Result<Job, SyncError> {
        let namespace = cron_job.metadata.namespace.as_deref().unwrap_or_default();
        let job = Api::<Job>::namespaced(self.client.clone(), namespace).get(name).await?;
        if is_controlled_by(&job.metadata, &cron_job.metadata) {
            Ok(job)
        } else {
            Err(SyncError::Invalid(format!("CronJob: job {name} exists and is not controlled by it")))
        }
    }

    async fn drop_job(
        &self,
        cron_job: &CronJob,
        job: &Job,
        status: &mut CronJobStatus,
    ) -> Result<(), SyncError> {
        self.control.delete(&reference_of(cron_job), job, PropagationPolicy::Background).await?;
        if let Some(active) = &mut status.active {
            active.retain(|reference| reference.uid != job.metadata.uid);
        }
        status.active = status.active.take().filter(|active| !active.is_empty());
        Ok(())
    }

    fn record_job_event(&self, cron_job: &CronJob, event: &JobEvent) {
        let (kind, reason, message) = match event {
            JobEvent::Completed { job, condition } => {
                let message = format!("Saw completed job: {job}, condition: {condition}");
                (EventKind::Normal, "SawCompletedJob", message)
            }
            JobEvent::Unexpected { job } => {
                let message = format!("Saw a job that the controller did not create or forgot: {job}");
                (EventKind::Warning, "UnexpectedJob", message)
            }
            JobEvent::Missing { job } => {
                (EventKind::Normal, "MissingJob", format!("Active job went missing: {job}"))
            }
        };
        self.events.record(&reference_of(cron_job), kind, reason, &message);
    }

    fn warn(&self, cron_job: &CronJob, reason: &'static str, message: &str) {
        self.events.record(&reference_of(cron_job), EventKind::Warning, reason, message);
    }
}
