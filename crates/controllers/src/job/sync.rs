//! The sync of a job: counts finished pods, and creates or deletes pods.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams, PostParams, PropagationPolicy};
use nave_client::{Action as Next, Lister, Object, ObjectName};
use serde_json::json;

use super::count::Counts;
use super::manage::{self, Action, NewPod};
use super::untracked::Untracked;
use super::written::Written;
use super::{
    Observed, TRACKING, is_finished, is_suspended, is_tracked, pod, spec, status, track, uid, verdict,
};
use crate::expectations::Expectations;
use crate::frame::{
    EventKind, EventRecorder, ObjectControl, Reconciler, SyncError, reference_of, slow_start,
};
use crate::owners::{Claims, is_controlled_by};
use crate::{owned, selectors};

/// The value of `managedBy` for this controller; jobs with another value are ignored.
const MANAGED_BY: &str = "kubernetes.io/job-controller";

#[derive(Clone)]
pub(super) struct Controller {
    pub(super) client: kube::Client,
    pub(super) control: ObjectControl,
    pub(super) events: EventRecorder,
    pub(super) jobs: Lister<Job>,
    pub(super) pods: Lister<Pod>,
    pub(super) expectations: Arc<Expectations>,
    pub(super) untracked: Arc<Untracked>,
    pub(super) written: Arc<Written>,
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Next, SyncError> {
        let cached = self.jobs.get_by_key(&key);
        let is_behind = self.written.is_ahead_of(&key, cached.as_ref().map(Object::resource_version));
        let Some(cached) = cached.filter(|_| !is_behind) else { return Ok(Next::Done) };
        // Checks the expectations before reading the pods: pods read later are at least as new as the check.
        let cache_is_current = self.expectations.satisfied(cached.uid());
        let mut job = cached.decode()?;
        if spec(&job).managed_by.as_deref().is_some_and(|manager| manager != MANAGED_BY) {
            return Ok(Next::Done);
        }
        let (untracked, pods) = self.untracked.snapshot_before(self.claim(&job)).await;
        let pods = pods?;
        if is_finished(&job) {
            let tracked: Vec<&Pod> = pods.iter().filter(|pod| is_tracked(pod)).collect();
            self.untrack(&tracked).await?;
            return Ok(Next::Done);
        }
        let now = Timestamp::now();
        if status(&job).start_time.is_none() && !is_suspended(spec(&job)) {
            job.status.get_or_insert_default().start_time = Some(Time(now));
        }
        let observed = Observed { job: &job, pods: &pods, untracked: &untracked, now };
        let written = cached.decode()?.status.unwrap_or_default();
        self.step(&observed, written, cache_is_current).await
    }
}

impl Controller {
    /// Syncs an active job. `written` is the stored status.
    async fn step(
        &self,
        observed: &Observed<'_>,
        written: JobStatus,
        cache_is_current: bool,
    ) -> Result<Next, SyncError> {
        let counts = Counts::from_observed(observed);
        let mut status = observed.status().clone();
        let mut wait = verdict::deadline_in(observed);
        let mut interim = verdict::end_condition(observed, &counts);
        let mut active = i32::try_from(counts.active.len()).unwrap_or(i32::MAX);
        let managed = if interim.is_some() {
            let rest: Vec<Pod> = counts.active.iter().map(|pod| (*pod).clone()).collect();
            self.delete(observed, &rest, &mut active).await
        } else if cache_is_current && observed.job.metadata.deletion_timestamp.is_none() {
            let managed = self.manage(observed, &counts, &mut active, &mut wait).await;
            if verdict::success(observed, counts.succeeded, active).is_none() {
                self.set_suspended(observed, &mut status);
            }
            managed
        } else {
            Ok(())
        };
        interim = interim.or_else(|| verdict::success(observed, counts.succeeded, active));

        status.active = (active > 0).then_some(active);
        // Caps the count, because ready pods may have been deleted in this sync.
        status.ready = Some(counts.ready.min(active));
        status.terminating = Some(counts.terminating);
        self.count(observed, &counts, status, written, interim).await?;
        managed?;
        Ok(wait.map_or(Next::Done, |wait| Next::RequeueAfter(wait + Duration::from_millis(1))))
    }

    /// Runs the three steps of counting, and ends the job once all pods are counted.
    async fn count(
        &self,
        observed: &Observed<'_>,
        counts: &Counts<'_>,
        mut status: JobStatus,
        mut written: JobStatus,
        interim: Option<JobCondition>,
    ) -> Result<(), SyncError> {
        let tracked = |untracked: &HashSet<String>| -> HashSet<&str> {
            let pods = observed.pods.iter().filter(|pod| is_tracked(pod)).map(uid);
            pods.filter(|uid| !untracked.contains(*uid)).collect()
        };
        track::move_to_counters(&mut status, &tracked(observed.untracked));
        let (ended, all_noted) = track::record_finished(observed, counts, &mut status);
        if let Some(interim) = &interim {
            verdict::set_condition(&mut status, interim.clone());
        }
        let mut job = observed.job.clone();
        if status != written {
            job.status = Some(status.clone());
            job = self.write_status(&job).await?;
            written.clone_from(&status);
        }
        self.untrack(&ended).await?;
        track::move_to_counters(&mut status, &tracked(&self.untracked.among(observed.pods)));
        if let Some(interim) = interim.filter(|_| all_noted)
            && verdict::conclude(&mut status, &interim, observed.pods, observed.now)
        {
            job.status = Some(status);
            self.write_status(&job).await?;
            self.record_end(&job, &interim);
        } else if status != written {
            job.status = Some(status);
            self.write_status(&job).await?;
        }
        Ok(())
    }

    async fn manage(
        &self,
        observed: &Observed<'_>,
        counts: &Counts<'_>,
        active: &mut i32,
        wait: &mut Option<Duration>,
    ) -> Result<(), SyncError> {
        match manage::next_action(observed, counts) {
            Action::Nothing => Ok(()),
            Action::Create(new) => self.create(observed, &new, active).await,
            Action::Delete(surplus) => {
                // Removes the finalizer first, so that pods deleted by the controller do not count as failures.
                self.untrack(&surplus.iter().collect::<Vec<_>>()).await?;
                self.delete(observed, &surplus, active).await
            }
            Action::Wait(backoff) => {
                *wait = Some(wait.map_or(backoff, |wait| wait.min(backoff)));
                Ok(())
            }
        }
    }

    async fn create(
        &self,
        observed: &Observed<'_>,
        new: &[NewPod],
        active: &mut i32,
    ) -> Result<(), SyncError> {
        let job = observed.job;
        let (owner, owner_uid) = (reference_of(job), job.metadata.uid.as_deref().unwrap_or_default());
        let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
        self.expectations.expect_creations(owner_uid, new.len());
        let (tried, made, failure) = slow_start(new.len(), |place| {
            let pod = pod::new_pod(job, new.get(place).copied().unwrap_or_default());
            let owner = &owner;
            async move {
                let created = self.control.create(owner, namespace, &pod).await;
                if created.is_err() {
                    self.expectations.creation_observed(owner_uid);
                }
                created.map(drop)
            }
        })
        .await;
        self.expectations.creations_observed(owner_uid, new.len() - tried);
        *active += i32::try_from(made).unwrap_or(0);
        failure.filter(|error| !error.is_namespace_terminating()).map_or(Ok(()), Err)
    }

    async fn delete(&self, observed: &Observed<'_>, pods: &[Pod], active: &mut i32) -> Result<(), SyncError> {
        if pods.is_empty() {
            return Ok(());
        }
        let (owner, owner_uid) =
            (reference_of(observed.job), observed.job.metadata.uid.as_deref().unwrap_or_default());
        self.expectations.expect_deletions(owner_uid, pods.iter().map(|pod| uid(pod).to_owned()));
        let delete = async |pod: &Pod| {
            let deleted = self.control.delete(&owner, pod, PropagationPolicy::Background).await;
            if deleted.is_err() {
                self.expectations.deletion_observed(owner_uid, uid(pod));
            }
            deleted
        };
        let results = join_all(pods.iter().map(delete)).await;
        *active -= i32::try_from(results.iter().filter(|result| result.is_ok()).count()).unwrap_or(0);
        results.into_iter().collect()
    }

    /// Removes the finalizers of pods so that they can be deleted.
    async fn untrack(&self, pods: &[&Pod]) -> Result<(), SyncError> {
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [TRACKING]}});
        let remove = async |pod: &&Pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            self.untracked.add(uid(pod));
            let mut patch = patch.clone();
            patch["metadata"]["uid"] = json!(pod.metadata.uid);
            let patched = api.patch_metadata(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            match patched {
                Ok(_) => Ok(()),
                Err(error) => {
                    self.untracked.remove(uid(pod));
                    match error {
                        // The pod was deleted or replaced; the cache will show the change.
                        kube::Error::Api(status) if matches!(status.code, 404 | 409 | 422) => Ok(()),
                        error => Err(SyncError::from(error)),
                    }
                }
            }
        };
        join_all(pods.iter().map(remove)).await.into_iter().collect()
    }

    /// Removes the finalizer of a pod whose job does not exist, because no job will count the pod.
    async fn sync_orphan(&self, key: ObjectName) -> Result<Next, SyncError> {
        let Some(cached) = self.pods.get_by_key(&key) else { return Ok(Next::Done) };
        let Some(controller) = owned::controller_of_kind(&cached, "batch", "Job") else {
            return Ok(Next::Done);
        };
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), cached.namespace());
        let live = jobs.get_metadata_opt(controller.name).await?;
        if live.is_some_and(|job| job.metadata.uid.as_deref() == Some(controller.uid)) {
            return Ok(Next::Done);
        }
        let pod = cached.decode()?;
        if is_tracked(&pod) {
            self.untrack(&[&pod]).await?;
        }
        Ok(Next::Done)
    }

    /// Claims the job's pods.
    async fn claim(&self, job: &Job) -> Result<Vec<Pod>, SyncError> {
        let selector = selectors::parse(&spec(job).selector.clone().unwrap_or_default())?;
        let mut candidates =
            owned::decode_candidates(&self.pods, &job.metadata, &selector, crate::pods::read)?;
        // Does not adopt terminal pods: they would count as the job's own pods.
        candidates
            .retain(|pod| is_controlled_by(&pod.metadata, &job.metadata) || !crate::pods::is_terminal(pod));
        let claims = Claims::<Job, Pod>::new(&self.client, &job.metadata).with_finalizer(TRACKING);
        claims.claim(candidates, &selector).await
    }

    fn set_suspended(&self, observed: &Observed<'_>, status: &mut JobStatus) {
        let Some(condition) = verdict::suspension(observed) else { return };
        let suspended = condition.status == "True";
        let (reason, message) =
            if suspended { ("Suspended", "Job suspended") } else { ("Resumed", "Job resumed") };
        // Resuming restarts the active deadline.
        status.start_time = (!suspended).then_some(Time(observed.now));
        verdict::set_condition(status, condition);
        self.events.record(&reference_of(observed.job), EventKind::Normal, reason, message);
    }

    fn record_end(&self, job: &Job, interim: &JobCondition) {
        let owner: ObjectReference = reference_of(job);
        if interim.type_ == verdict::SUCCESS {
            self.events.record(&owner, EventKind::Normal, "Completed", "Job completed");
        } else {
            let message = interim.message.as_deref().unwrap_or_default();
            self.events.record(&owner, EventKind::Warning, verdict::reason_of_failure(interim), message);
        }
    }

    async fn write_status(&self, job: &Job) -> Result<Job, SyncError> {
        let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let written = api.replace_status(name, &PostParams::default(), job).await?;
        let version = written.metadata.resource_version.as_deref().unwrap_or_default();
        self.written.add(ObjectName::new(namespace, name), version);
        Ok(written)
    }
}

/// Handles pods whose job may not exist.
pub(super) struct Orphans(pub(super) Controller);

impl Reconciler for Orphans {
    async fn sync(&self, key: ObjectName) -> Result<Next, SyncError> {
        self.0.sync_orphan(key).await
    }
}
