//! The sync of a deployment: claims its replica sets, updates the new one, takes the next step, and writes the
//! status.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use nave_client::{Action, Lister, ObjectName};

use super::revision::{self, REVISION};
use super::{Resize, Sets, is_paused, rolling, scale, size, status, template};
use crate::frame::{EventKind, EventRecorder, Reconciler, SyncError, reference_of};
use crate::owners::{Claims, is_controlled_by};
use crate::{owned, pods, selectors};

pub(super) struct Controller {
    pub(super) client: kube::Client,
    pub(super) events: EventRecorder,
    pub(super) deployments: Lister<Deployment>,
    pub(super) sets: Lister<ReplicaSet>,
    pub(super) pods: Lister<Pod>,
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cached) = self.deployments.get_by_key(&key) else { return Ok(Action::Done) };
        let mut deployment = cached.decode()?;
        let now = Timestamp::now();
        let all = self.claim(&deployment).await?;
        if cached.is_being_deleted() {
            let sets = split_new_and_old(&deployment, all);
            let status = status::status_with_counts(&deployment, &sets, now);
            return self.write_status(&deployment, status).await.map(|_| Action::Done);
        }
        if let Some(condition) = status::pause_condition(&deployment, now) {
            let mut paused = deployment.status.clone().unwrap_or_default();
            status::set_condition(&mut paused, condition);
            deployment = self.write_status(&deployment, paused).await?;
        }

        let mut sets = split_new_and_old(&deployment, all);
        if sets.new.is_some() {
            self.update_revision(&mut deployment, &mut sets, now).await?;
        }
        if is_paused(&deployment) || scale::is_scaling(&deployment, &sets) {
            self.resize(&deployment, scale::scale_proportionally(&deployment, &sets)).await?;
            if is_paused(&deployment) {
                self.delete_expired_sets(&deployment, &sets).await?;
            }
            let status = status::status_with_counts(&deployment, &sets, now);
            self.write_status(&deployment, status).await?;
            return Ok(Action::Done);
        }
        self.roll(&mut deployment, &mut sets, now).await?;
        let status = status::rollout_status(&deployment, &sets, now);
        let deployment = self.write_status(&deployment, status.clone()).await?;
        let wait = status::deadline_in(&deployment, &status, now);
        Ok(wait.map_or(Action::Done, Action::RequeueAfter))
    }
}

impl Controller {
    /// Claims the deployment's replica sets.
    async fn claim(&self, deployment: &Deployment) -> Result<Vec<ReplicaSet>, SyncError> {
        let spec = deployment.spec.clone().unwrap_or_default();
        let selector = selectors::parse(&spec.selector)?;
        let candidates = owned::decode_candidates(
            &self.sets,
            &deployment.metadata,
            &selector,
            nave_client::Object::decode,
        )?;
        Claims::<Deployment, ReplicaSet>::new(&self.client, &deployment.metadata)
            .claim(candidates, &selector)
            .await
    }

    /// Takes one step of the rollout.
    async fn roll(
        &self,
        deployment: &mut Deployment,
        sets: &mut Sets,
        now: Timestamp,
    ) -> Result<(), SyncError> {
        if scale::is_rolling(deployment) {
            if sets.new.is_none() {
                self.create(deployment, sets, now).await?;
            }
            let step = rolling::rolling_step(deployment, sets);
            if !step.is_empty() {
                return self.resize(deployment, step).await;
            }
        } else {
            let step = rolling::scale_down_old(sets);
            if !step.is_empty() {
                return self.resize(deployment, step).await;
            }
            if self.has_running_old_pods(sets)? {
                return Ok(());
            }
            if sets.new.is_none() {
                self.create(deployment, sets, now).await?;
            }
            let to = super::replicas(deployment);
            let new = sets.new.iter().filter(|new| size(new) != to);
            self.resize(deployment, new.map(|set| Resize { set, to }).collect()).await?;
        }
        let done = deployment.status.as_ref().is_some_and(|status| status::is_complete(deployment, status));
        if done { self.delete_expired_sets(deployment, sets).await } else { Ok(()) }
    }

    /// Returns whether an old set has a pod that is not terminal.
    fn has_running_old_pods(&self, sets: &Sets) -> Result<bool, SyncError> {
        if sets.old.iter().any(|set| set.status.as_ref().is_some_and(|status| status.replicas > 0)) {
            return Ok(true);
        }
        for set in &sets.old {
            for pod in owned::by_controller(&self.pods, set.metadata.uid.as_deref().unwrap_or_default()) {
                if !pods::is_terminal(&pods::read(&pod)?) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Gives the set of the current template the highest revision, and records the revision on the deployment. A
    /// rollback needs no other step: the restored template becomes the newest revision.
    async fn update_revision(
        &self,
        deployment: &mut Deployment,
        sets: &mut Sets,
        now: Timestamp,
    ) -> Result<(), SyncError> {
        let next = revision::next_revision(&sets.old);
        let Some(new) = &mut sets.new else { return Ok(()) };
        let min_ready = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let mut changed = revision::annotate_new(new, deployment, next);
        if let Some(spec) = new.spec.as_mut().filter(|spec| spec.min_ready_seconds != min_ready) {
            spec.min_ready_seconds = min_ready;
            changed = true;
        }
        if changed {
            *new = self.replace(new).await?;
        }
        let name = new.metadata.name.clone().unwrap_or_default();
        let found = (status::has_deadline(deployment)
            && status::progressing(deployment.status.as_ref()).is_none())
        .then(|| ("FoundNewReplicaSet", format!("Found new replica set {name:?}")));
        let revision = revision::revision(new);
        self.record_revision(deployment, revision, found, now).await
    }

    /// Creates the set of the current template.
    async fn create(
        &self,
        deployment: &mut Deployment,
        sets: &mut Sets,
        now: Timestamp,
    ) -> Result<(), SyncError> {
        let next = revision::next_revision(&sets.old);
        let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
        let mut new = template::new_set(deployment, collisions);
        let to = scale::new_set_size(deployment, sets.all().map(size).sum(), 0);
        if let Some(spec) = &mut new.spec {
            spec.replicas = Some(to);
        }
        revision::annotate_new(&mut new, deployment, next);
        revision::annotate_size(&mut new, deployment);
        let name = new.metadata.name.clone().unwrap_or_default();
        let created = self.sets_api(deployment).create(&PostParams::default(), &new).await;
        let new = match created.map_err(SyncError::from) {
            Ok(new) => new,
            Err(error) if error.is_already_exists() => {
                let taken = self.resolve_taken_name(deployment, &name).await?;
                sets.new = Some(taken);
                return Ok(());
            }
            Err(error) if error.is_namespace_terminating() => return Err(error),
            Err(error) => return Err(self.creation_failed(deployment, &name, error, now).await),
        };
        sets.new = Some(new);
        if to > 0 {
            self.record_scaling(deployment, &format!("Scaled up replica set {name} from 0 to {to}"));
        }
        let created = status::has_deadline(deployment)
            .then(|| ("NewReplicaSetCreated", format!("Created new replica set {name:?}")));
        self.record_revision(deployment, next, created, now).await
    }

    /// Resolves a name conflict. If the existing set belongs to this deployment and has this template, the cache was
    /// stale. Otherwise the hashes of two templates collide, and the incremented collision count changes the next name.
    async fn resolve_taken_name(&self, deployment: &Deployment, name: &str) -> Result<ReplicaSet, SyncError> {
        let found = self.sets_api(deployment).get(name).await?;
        let own = is_controlled_by(&found.metadata, &deployment.metadata);
        if own && template::find_new(deployment, std::slice::from_ref(&found)).is_some() {
            return Ok(found);
        }
        let mut status = deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        status.observed_generation = deployment.metadata.generation;
        self.write_status(deployment, status).await?;
        Err(SyncError::Stale("a replica set's name was taken"))
    }

    async fn creation_failed(
        &self,
        deployment: &Deployment,
        name: &str,
        error: SyncError,
        now: Timestamp,
    ) -> SyncError {
        let message = format!("Failed to create new replica set {name:?}: {error}");
        self.events.record(&reference_of(deployment), EventKind::Warning, "ReplicaSetCreateError", &message);
        if status::has_deadline(deployment) {
            let mut status = deployment.status.clone().unwrap_or_default();
            let failed =
                status::new_condition(status::PROGRESSING, "False", "ReplicaSetCreateError", message, now);
            status::set_condition(&mut status, failed);
            if let Err(second) = self.write_status(deployment, status).await {
                tracing::debug!(error = %second, "cannot write the failure into the status");
            }
        }
        error
    }

    /// Records the deployment's current revision, and the reason and message of the condition `Progressing`.
    async fn record_revision(
        &self,
        deployment: &mut Deployment,
        revision: i64,
        progress: Option<(&str, String)>,
        now: Timestamp,
    ) -> Result<(), SyncError> {
        let revision = revision.to_string();
        let annotations = deployment.metadata.annotations.get_or_insert_default();
        let noted = annotations.get(REVISION) == Some(&revision);
        if noted && progress.is_none() {
            return Ok(());
        }
        annotations.insert(REVISION.to_owned(), revision);
        if let Some((reason, message)) = progress {
            let condition = status::new_condition(status::PROGRESSING, "True", reason, message, now);
            status::set_condition(deployment.status.get_or_insert_default(), condition);
        }
        // A status update also writes annotations; upstream's controller relies on this.
        *deployment = self.replace_status(deployment).await?;
        Ok(())
    }

    /// Scales sets one after the other. Adds missing size annotations to a set whose size does not change.
    async fn resize(&self, deployment: &Deployment, steps: Vec<Resize<'_>>) -> Result<(), SyncError> {
        for Resize { set, to } in steps {
            let from = size(set);
            let mut changed = set.clone();
            if !revision::annotate_size(&mut changed, deployment) && from == to {
                continue;
            }
            if let Some(spec) = &mut changed.spec {
                spec.replicas = Some(to);
            }
            self.replace(&changed).await?;
            if from != to {
                let way = if to > from { "up" } else { "down" };
                let name = set.metadata.name.as_deref().unwrap_or_default();
                self.record_scaling(
                    deployment,
                    &format!("Scaled {way} replica set {name} from {from} to {to}"),
                );
            }
        }
        Ok(())
    }

    async fn delete_expired_sets(&self, deployment: &Deployment, sets: &Sets) -> Result<(), SyncError> {
        for set in rolling::expired(deployment, &sets.old) {
            let preconditions = Preconditions { uid: set.metadata.uid.clone(), resource_version: None };
            let parameters =
                DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let deleted = self.sets_api(deployment).delete(name, &parameters).await.map_err(SyncError::from);
            match deleted {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn replace(&self, set: &ReplicaSet) -> Result<ReplicaSet, SyncError> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
        let name = set.metadata.name.as_deref().unwrap_or_default();
        Ok(api.replace(name, &PostParams::default(), set).await?)
    }

    /// Writes the status if it has changed.
    async fn write_status(
        &self,
        deployment: &Deployment,
        status: DeploymentStatus,
    ) -> Result<Deployment, SyncError> {
        if deployment.status.as_ref() == Some(&status) {
            return Ok(deployment.clone());
        }
        self.replace_status(&Deployment { status: Some(status), ..deployment.clone() }).await
    }

    async fn replace_status(&self, deployment: &Deployment) -> Result<Deployment, SyncError> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        Ok(api.replace_status(name, &PostParams::default(), deployment).await?)
    }

    fn sets_api(&self, deployment: &Deployment) -> Api<ReplicaSet> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.client.clone(), namespace)
    }

    fn record_scaling(&self, deployment: &Deployment, message: &str) {
        self.events.record(&reference_of(deployment), EventKind::Normal, "ScalingReplicaSet", message);
    }
}

/// Separates the set with the current template from all other sets.
fn split_new_and_old(deployment: &Deployment, all: Vec<ReplicaSet>) -> Sets {
    let new = template::find_new(deployment, &all).cloned();
    let uid = new.as_ref().map(|new| new.metadata.uid.clone());
    let old = all.into_iter().filter(|set| Some(&set.metadata.uid) != uid.as_ref()).collect();
    Sets { new, old }
}
