//! The sync of a stateful set: claims its pods and revisions, applies the plan, and writes the status.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use nave_client::{Action, Lister, Object, ObjectName};

use super::plan::{self, Plan, Step};
use super::{claims, identity, spec_of, status};
use crate::frame::{EventKind, EventRecorder, Reconciler, SyncError, reference_of, slow_start};
use crate::history::History;
use crate::owners::Claims;
use crate::{owned, pods, selectors};

pub(super) struct Controller {
    pub(super) client: kube::Client,
    pub(super) events: EventRecorder,
    pub(super) sets: Lister<StatefulSet>,
    pub(super) pods: Lister<Pod>,
    pub(super) revisions: Lister<ControllerRevision>,
    pub(super) claims: Lister<PersistentVolumeClaim>,
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cached) = self.sets.get_by_key(&key) else { return Ok(Action::Done) };
        let set = cached.decode()?;
        let now = Timestamp::now();
        let selector = selectors::parse(&spec_of(&set).selector)?;
        let history =
            History { client: self.client.clone(), owner: &set, hash_label: "controller.kubernetes.io/hash" };
        let mut revisions = history.claim(&self.revisions, &selector).await?;
        let pods = self.claim_pods(&set, &selector).await?;
        let old = set.status.clone().unwrap_or_default();
        let mut collisions = old.collision_count.unwrap_or(0);
        let update =
            history.update_revision(&mut revisions, &spec_of(&set).template, &mut collisions).await?;
        let current = revisions
            .iter()
            .find(|revision| revision.metadata.name == old.current_revision)
            .unwrap_or(&update)
            .clone();

        let claim = |name: &str| {
            let claim = self.claims.get(set.metadata.namespace.as_deref().unwrap_or_default(), name)?;
            claim.metadata().ok()
        };
        let plan = plan::plan(&plan::Observed {
            set: &set,
            pods: &pods,
            claim: &claim,
            current: &current,
            update: &update,
            now,
        });
        let done = self.apply(&set, &plan).await;
        let replaced = if done.is_ok() { plan.replaced } else { 0 };
        let observed = status::Observed { current: &current, update: &update, collisions, replaced, now };
        self.write_status(
            &set,
            status::stateful_set_status(&set, &pods.values().collect::<Vec<_>>(), &observed),
        )
        .await?;
        done?;

        let mut in_use: HashSet<_> = pods.values().map(identity::revision).collect();
        in_use.extend([&current, &update].iter().filter_map(|revision| revision.metadata.name.as_deref()));
        let is_in_use = |revision: &ControllerRevision| {
            revision.metadata.name.as_deref().is_some_and(|name| in_use.contains(name))
        };
        history.truncate(&revisions, is_in_use, spec_of(&set).revision_history_limit).await?;
        let wait = pods::next_available_in(pods.values(), spec_of(&set).min_ready_seconds.unwrap_or(0), now);
        Ok(wait.map_or(Action::Done, |wait| Action::RequeueAfter(wait + Duration::from_millis(1))))
    }
}

impl Controller {
    /// Claims the set's pods, and returns them by ordinal.
    async fn claim_pods(
        &self,
        set: &StatefulSet,
        selector: &nave_machinery::selector::LabelSelector,
    ) -> Result<BTreeMap<i32, Pod>, SyncError> {
        let is_member = |name: &str| {
            identity::parse(name).is_some_and(|(parent, _)| Some(parent) == set.metadata.name.as_deref())
        };
        let candidates = owned::candidates(&self.pods, &set.metadata, selector)
            .iter()
            .filter(|pod| is_member(pod.name()))
            .map(Object::decode)
            .collect::<Result<Vec<_>, _>>()?;
        let claims = Claims::<StatefulSet, Pod>::new(&self.client, &set.metadata);
        let claimed = claims.claim(candidates, selector).await?;
        Ok(claimed.into_iter().filter_map(|pod| Some((identity::ordinal(set, &pod)?, pod))).collect())
    }

    /// Applies a plan: one step at a time for ordered sets, in growing batches for other sets.
    async fn apply(&self, set: &StatefulSet, plan: &Plan) -> Result<(), SyncError> {
        for phase in &plan.phases {
            if plan::is_ordered(set) {
                for step in phase {
                    self.step(set, step).await?;
                }
            } else {
                let step = async |at: usize| match phase.get(at) {
                    Some(step) => self.step(set, step).await,
                    None => Ok(()),
                };
                slow_start(phase.len(), step).await.2.map_or(Ok(()), Err)?;
            }
        }
        Ok(())
    }

    async fn step(&self, set: &StatefulSet, step: &Step) -> Result<(), SyncError> {
        match step {
            Step::Create(pod, ordinal) => self.create(set, pod, *ordinal).await,
            Step::EnsureClaims(pod, ordinal) => {
                self.create_claims(set, pod, *ordinal).await?;
                self.retain_claims(set, pod, *ordinal).await
            }
            Step::Conform(pod, ordinal) => self.conform(set, pod, *ordinal).await,
            Step::RetainClaims(pod, ordinal) => self.retain_claims(set, pod, *ordinal).await,
            Step::Delete(pod) => self.delete(set, pod).await,
        }
    }

    async fn create(&self, set: &StatefulSet, pod: &Pod, ordinal: i32) -> Result<(), SyncError> {
        let outcome = async {
            self.create_claims(set, pod, ordinal).await?;
            self.pods_api(set).create(&PostParams::default(), pod).await?;
            Ok::<_, SyncError>(())
        };
        match outcome.await {
            // Records no event if an earlier sync created the pod, or if the namespace is terminating.
            Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Err(error),
            outcome => {
                self.record(set, pod, ["SuccessfulCreate", "FailedCreate"], "Create", &outcome);
                outcome?;
                self.retain_claims(set, pod, ordinal).await
            }
        }
    }

    async fn conform(&self, set: &StatefulSet, pod: &Pod, ordinal: i32) -> Result<(), SyncError> {
        self.retain_claims(set, pod, ordinal).await?;
        if identity::conforms(set, pod, ordinal) {
            return Ok(());
        }
        let mut changed = pod.clone();
        identity::conform(set, &mut changed, ordinal);
        let outcome = async {
            self.create_claims(set, pod, ordinal).await?;
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            self.pods_api(set).replace(name, &PostParams::default(), &changed).await?;
            Ok::<_, SyncError>(())
        };
        let outcome = outcome.await;
        self.record(set, pod, ["SuccessfulUpdate", "FailedUpdate"], "Update", &outcome);
        outcome
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<(), SyncError> {
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let outcome = self.pods_api(set).delete(name, &parameters).await.map(drop).map_err(SyncError::from);
        match outcome {
            // The pod no longer exists or has another UID.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            outcome => {
                self.record(set, pod, ["SuccessfulDelete", "FailedDelete"], "Delete", &outcome);
                outcome
            }
        }
    }

    /// Creates the missing claims of a pod. Fails if a claim is still being deleted.
    async fn create_claims(&self, set: &StatefulSet, pod: &Pod, ordinal: i32) -> Result<(), SyncError> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let mut failure = None;
        for claim in claims::new_claims(set, pod, ordinal) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let created = match self.claims.get(namespace, name) {
                Some(cached) if cached.is_being_deleted() => {
                    Err(SyncError::Invalid(format!("pvc {name} is being deleted")))
                }
                Some(_) => Ok(()),
                None => self.create_claim(set, pod, &claim).await,
            };
            if let Err(error) = created {
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn create_claim(
        &self,
        set: &StatefulSet,
        pod: &Pod,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), SyncError> {
        let created = self.claims_api(set).create(&PostParams::default(), claim).await;
        let (claim, pod) = (&claim.metadata.name, &pod.metadata.name);
        let [claim, pod, name] =
            [claim, pod, &set.metadata.name].map(|name| name.as_deref().unwrap_or_default());
        match created.map_err(SyncError::from) {
            Ok(_) => {
                let message = format!("Create Claim {claim} Pod {pod} in StatefulSet {name} success");
                self.events.record(&reference_of(set), EventKind::Normal, "SuccessfulCreate", &message);
                Ok(())
            }
            Err(error) => {
                if !error.is_already_exists() {
                    let message = format!(
                        "Create Claim {claim} for Pod {pod} in StatefulSet {name} failed error: {error}"
                    );
                    self.events.record(&reference_of(set), EventKind::Warning, "FailedCreate", &message);
                }
                Err(error)
            }
        }
    }

    /// Corrects the owners of a pod's claims.
    async fn retain_claims(&self, set: &StatefulSet, pod: &Pod, ordinal: i32) -> Result<(), SyncError> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        for template in identity::claim_templates(set) {
            let name = identity::claim_name(set, template, ordinal);
            let Some(cached) = self.claims.get(namespace, &name) else { continue };
            let meta: ObjectMeta = cached.metadata()?;
            let Some(owners) = claims::corrected_owners(&meta, set, pod) else { continue };
            if claims::has_other_controller(&meta, set, pod) {
                let message = format!(
                    "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a managing \
                     controller, the retention policy is ignored for this claim"
                );
                self.events.record(&reference_of(set), EventKind::Warning, "ConflictingController", &message);
            }
            let mut claim = cached.decode()?;
            claim.metadata.owner_references = Some(owners);
            self.claims_api(set).replace(&name, &PostParams::default(), &claim).await?;
        }
        Ok(())
    }

    fn record(
        &self,
        set: &StatefulSet,
        pod: &Pod,
        [succeeded, failed]: [&'static str; 2],
        verb: &str,
        outcome: &Result<(), SyncError>,
    ) {
        let [pod, name] =
            [pod.metadata.name.as_deref(), set.metadata.name.as_deref()].map(Option::unwrap_or_default);
        let message = format!("{verb} Pod {pod} in StatefulSet {name}");
        let (kind, reason, message) = match outcome {
            Ok(()) => (EventKind::Normal, succeeded, format!("{message} successful")),
            Err(error) => (EventKind::Warning, failed, format!("{message} failed error: {error}")),
        };
        self.events.record(&reference_of(set), kind, reason, &message);
    }

    /// Writes the status if it has changed.
    async fn write_status(&self, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), SyncError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<StatefulSet> =
            Api::namespaced(self.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default());
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let changed = StatefulSet { status: Some(status), ..set.clone() };
        api.replace_status(name, &PostParams::default(), &changed).await?;
        Ok(())
    }

    fn pods_api(&self, set: &StatefulSet) -> Api<Pod> {
        Api::namespaced(self.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default())
    }

    fn claims_api(&self, set: &StatefulSet) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default())
    }
}
