//! The sync of a daemon set: claims its pods and revisions, applies the plan, and writes the status.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, PostParams, PropagationPolicy};
use nave_client::{Action, Lister, ObjectName};
use nave_machinery::selector::LabelSelector;

use super::backoff::FailedPods;
use super::plan::{Observed, Plan};
use super::pod::{self, Fit};
use super::{spec_of, status};
use crate::expectations::Expectations;
use crate::frame::{
    EventKind, EventRecorder, ObjectControl, Reconciler, SyncError, reference_of, slow_start,
};
use crate::history::{History, REVISION_LABEL};
use crate::owners::Claims;
use crate::scheduling::NodeView;
use crate::selectors::label;
use crate::{owned, pods, selectors};

/// The maximum number of pods to create per sync, and to delete per sync.
const BURST: usize = 250;

pub(super) struct Controller {
    pub(super) client: kube::Client,
    pub(super) control: ObjectControl,
    pub(super) events: EventRecorder,
    pub(super) sets: Lister<DaemonSet>,
    pub(super) pods: Lister<Pod>,
    pub(super) nodes: Lister<Node>,
    pub(super) revisions: Lister<ControllerRevision>,
    pub(super) failed: FailedPods,
    pub(super) expectations: Arc<Expectations>,
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cached) = self.sets.get_by_key(&key) else { return Ok(Action::Done) };
        if cached.is_being_deleted() {
            return Ok(Action::Done);
        }
        // Checks the expectations before reading the pods: pods read later are at least as new as the check.
        let cache_is_current = self.expectations.satisfied(cached.uid());
        let set = cached.decode()?;
        let now = Timestamp::now();
        let selector = selectors::parse(&spec_of(&set).selector)?;
        if selector.is_empty() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.events.record(&reference_of(&set), EventKind::Warning, "SelectingAll", message);
            return Ok(Action::Done);
        }
        let history = History { client: self.client.clone(), owner: &set, hash_label: REVISION_LABEL };
        let mut revisions = history.claim(&self.revisions, &selector).await?;
        let mut collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let current =
            history.update_revision(&mut revisions, &spec_of(&set).template, &mut collisions).await?;
        let hash = label(current.metadata.labels.as_ref(), REVISION_LABEL).unwrap_or_default();

        let pods = self.claim_pods(&set, &selector).await?;
        let nodes = self.fits(&set, hash)?;
        let observed = Observed { set: &set, hash, nodes: &nodes, pods: &pods, now };
        let mut retry_after = None;
        let done = if cache_is_current { self.sync_pods(&observed, &mut retry_after).await } else { Ok(()) };
        self.write_status(&set, status::daemon_set_status(&observed, collisions, cache_is_current)).await?;
        done?;

        let all = || pods.values().flatten();
        let mut in_use: HashSet<_> =
            all().filter_map(|pod| label(pod.metadata.labels.as_ref(), REVISION_LABEL)).collect();
        in_use.insert(hash);
        let is_in_use = |revision: &ControllerRevision| {
            label(revision.metadata.labels.as_ref(), REVISION_LABEL).is_some_and(|hash| in_use.contains(hash))
        };
        history.truncate(&revisions, is_in_use, spec_of(&set).revision_history_limit).await?;
        let available = pods::next_available_in(all(), spec_of(&set).min_ready_seconds.unwrap_or(0), now);
        let wait = retry_after.into_iter().chain(available).min();
        Ok(wait.map_or(Action::Done, |wait| Action::RequeueAfter(wait + Duration::from_millis(1))))
    }
}

impl Controller {
    /// Claims the set's pods; returns them by target node. Omits terminal pods that are being deleted.
    async fn claim_pods(
        &self,
        set: &DaemonSet,
        selector: &LabelSelector,
    ) -> Result<BTreeMap<String, Vec<Pod>>, SyncError> {
        let candidates = owned::decode_candidates(&self.pods, &set.metadata, selector, pod::read)?;
        let claims = Claims::<DaemonSet, Pod>::new(&self.client, &set.metadata);
        let claimed = claims.claim(candidates, selector).await?;
        let mut by_node: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
        for pod in claimed {
            let over = pods::is_terminal(&pod) && pod.metadata.deletion_timestamp.is_some();
            if let Some(node) = pod::target_node(&pod).filter(|_| !over).map(str::to_owned) {
                by_node.entry(node).or_default().push(pod);
            }
        }
        Ok(by_node)
    }

    /// The placement decision for each node.
    fn fits(&self, set: &DaemonSet, hash: &str) -> Result<BTreeMap<String, Fit>, SyncError> {
        let spec = pod::template(set, hash).spec.unwrap_or_default();
        let nodes = self.nodes.list();
        let fits = nodes.iter().map(|node| {
            let node = NodeView::read(node)?;
            let fit = pod::fit(&spec, &node);
            Ok((node.name, fit))
        });
        fits.collect()
    }

    /// Creates and deletes pods. A rolling update proceeds only when each node has the pod it should run.
    async fn sync_pods(
        &self,
        observed: &Observed<'_>,
        retry_after: &mut Option<Duration>,
    ) -> Result<(), SyncError> {
        let set = observed.set;
        let generation = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let key = |node: &str| format!("{uid}/{generation}/{node}");
        let plan = observed.manage(|node| self.failed.delay(&key(node), observed.now));
        *retry_after = plan.retry_after;
        for (node, pod) in &plan.failed {
            self.failed.record_failure(key(node), observed.now);
            self.record(set, EventKind::Warning, "FailedDaemonPod", "failed", "kill", node, pod);
        }
        for (node, pod) in &plan.succeeded {
            self.record(set, EventKind::Normal, "SucceededDaemonPod", "succeeded", "delete", node, pod);
        }
        if plan.is_empty() {
            return self.apply(set, observed.hash, &observed.plan_rolling_update()).await;
        }
        self.apply(set, observed.hash, &plan).await
    }

    async fn apply(&self, set: &DaemonSet, hash: &str, plan: &Plan<'_>) -> Result<(), SyncError> {
        if plan.is_empty() {
            return Ok(());
        }
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let create_on: Vec<_> = plan.create_on.iter().take(BURST).collect();
        let delete: Vec<_> = plan.delete.iter().take(BURST).collect();
        let deleted = delete.iter().filter_map(|pod| pod.metadata.uid.clone());
        self.expectations.expect(uid, create_on.len(), deleted);
        let created = self.create(set, hash, &create_on).await;
        let deleted = join_all(delete.iter().map(|pod| self.delete(set, pod))).await;
        created?;
        deleted.into_iter().collect()
    }

    async fn create(&self, set: &DaemonSet, hash: &str, nodes: &[&&str]) -> Result<(), SyncError> {
        let (owner, template) = (reference_of(set), pod::template(set, hash));
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let create = async |at: usize| {
            let Some(node) = nodes.get(at) else { return Ok(()) };
            let created = self.control.create(&owner, namespace, &pod::new_pod(set, &template, node)).await;
            if created.is_err() {
                self.expectations.creation_observed(uid);
            }
            created.map(drop)
        };
        let (tried, _, failure) = slow_start(nodes.len(), create).await;
        self.expectations.creations_observed(uid, nodes.len() - tried);
        // A terminating namespace needs no new pods, so its rejection is not an error.
        failure.filter(|error| !error.is_namespace_terminating()).map_or(Ok(()), Err)
    }

    async fn delete(&self, set: &DaemonSet, pod: &Pod) -> Result<(), SyncError> {
        let deleted = self.control.delete(&reference_of(set), pod, PropagationPolicy::Background).await;
        if deleted.is_err() {
            let [set, pod] =
                [&set.metadata.uid, &pod.metadata.uid].map(|uid| uid.as_deref().unwrap_or_default());
            self.expectations.deletion_observed(set, pod);
        }
        deleted
    }

    #[expect(clippy::too_many_arguments, reason = "the words of two messages that differ in little")]
    fn record(
        &self,
        set: &DaemonSet,
        kind: EventKind,
        reason: &'static str,
        ended: &str,
        verb: &str,
        node: &str,
        pod: &Pod,
    ) {
        let [namespace, name] =
            [&pod.metadata.namespace, &pod.metadata.name].map(|it| it.as_deref().unwrap_or_default());
        let message =
            format!("Found {ended} daemon pod {namespace}/{name} on node {node}, will try to {verb} it");
        self.events.record(&reference_of(set), kind, reason, &message);
    }

    /// Writes the status if it has changed.
    async fn write_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), SyncError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<DaemonSet> =
            Api::namespaced(self.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default());
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let changed = DaemonSet { status: Some(status), ..set.clone() };
        api.replace_status(name, &PostParams::default(), &changed).await?;
        Ok(())
    }
}
