//! Replica sets and replication controllers: maintain a number of pods from one template.
//!
//! | module | contents |
//! | --- | --- |
//! | [`kind`] | the common interface of both kinds |
//! | [`status`] | the status |

mod kind;
mod status;

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::api::{Api, PostParams, PropagationPolicy};
use nave_client::{Action, Deleted, EventHandler, Lister, Object, ObjectName, Workqueue};

use crate::expectations::Expectations;
use crate::frame::{
    Context, Descriptor, ObjectControl, Reconciler, SyncError, Workers, reference_of, slow_start,
};
use crate::owned::{self, DependentHandler};
use crate::owners::{Claims, controller_of, controller_reference};
use crate::selectors::{self, SelectorIndex};
use crate::{pods, ranking};
use kind::ReplicaSetLike;

pub(crate) const REPLICA_SET: Descriptor = Descriptor {
    name: "replicaset-controller",
    alias: "replicaset",
    service_account: "replicaset-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-replicaset-syncs", 5),
    start: start::<ReplicaSet>,
};

pub(crate) const REPLICATION_CONTROLLER: Descriptor = Descriptor {
    name: "replicationcontroller-controller",
    alias: "replicationcontroller",
    service_account: "replication-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-rc-syncs", 5),
    start: start::<ReplicationController>,
};

/// The maximum number of pods created or deleted per sync.
const BURST: usize = 500;

struct Controller<R> {
    client: kube::Client,
    control: ObjectControl,
    sets: Lister<R>,
    pods: Lister<Pod>,
    expectations: Arc<Expectations>,
}

fn start<R: ReplicaSetLike>(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller(R::QUEUE);
    let (sets, pods) = (builder.informer::<R>(), builder.informer::<Pod>());
    owned::index(&sets);
    owned::index(&pods);
    let (queue, expectations) = (builder.queue(), Arc::new(Expectations::default()));
    builder.add_handler(&sets, SetHandler { queue: queue.clone(), expectations: Arc::clone(&expectations) });
    let adopters = SelectorIndex::new(sets.lister(), R::SELECTOR);
    let kind = (<R as k8s_openapi::Resource>::GROUP, R::KIND);
    builder.add_handler(&pods, DependentHandler::new(queue, kind, adopters, Arc::clone(&expectations)));
    builder.run(Controller {
        client: context.client.clone(),
        control: context.object_control(),
        sets: sets.lister(),
        pods: pods.lister(),
        expectations,
    })
}

/// Enqueues sets, and removes the expectations of deleted sets.
struct SetHandler {
    queue: Workqueue,
    expectations: Arc<Expectations>,
}

impl<R: ReplicaSetLike> EventHandler<R> for SetHandler {
    fn on_add(&self, set: &Object<R>, _: bool) {
        self.queue.add(set.key());
    }

    fn on_update(&self, old: &Object<R>, new: &Object<R>) {
        if old.uid() != new.uid() {
            self.expectations.forget(old.uid());
        }
        self.queue.add(new.key());
    }

    fn on_delete(&self, deleted: &Deleted<R>) {
        self.expectations.forget(deleted.object().uid());
        self.queue.add(deleted.object().key());
    }
}

impl<R: ReplicaSetLike> Reconciler for Controller<R> {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cached) = self.sets.get_by_key(&key) else { return Ok(Action::Done) };
        // Must run before the pods are read: if the expectations are satisfied now, the pods read later are at
        // least as new.
        let cache_is_current = self.expectations.satisfied(cached.uid());
        let original = cached.decode()?;
        let set = original.to_replica_set();
        let now = Timestamp::now();
        let pods = self.claim(&set).await?;
        let terminating = pods.iter().filter(|pod| pods::is_terminating(pod)).count();
        let active: Vec<Pod> = pods.into_iter().filter(pods::is_active).collect();

        let managed = if cache_is_current && !cached.is_being_deleted() {
            self.manage(&original, &set, &active, now).await
        } else {
            Ok(())
        };
        let observed = status::Observed { active: &active, terminating, failure: managed.as_ref().err() };
        let status = status::replica_set_status(&set, &observed, now);
        let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        self.write_status(original, &set, status).await?;
        managed?;
        let wait = pods::next_available_in(&active, min_ready, now);
        Ok(wait.map_or(Action::Done, |wait| Action::RequeueAfter(wait + Duration::from_millis(1))))
    }
}

impl<R: ReplicaSetLike> Controller<R> {
    /// Claims the set's pods.
    async fn claim(&self, set: &ReplicaSet) -> Result<Vec<Pod>, SyncError> {
        let spec = set.spec.clone().unwrap_or_default();
        let selector = selectors::parse(&spec.selector)?;
        let candidates = owned::decode_candidates(&self.pods, &set.metadata, &selector, pods::read)?;
        Claims::<R, Pod>::new(&self.client, &set.metadata).claim(candidates, &selector).await
    }

    /// Creates or deletes pods to reach the desired number.
    async fn manage(
        &self,
        original: &R,
        set: &ReplicaSet,
        active: &[Pod],
        now: Timestamp,
    ) -> Result<(), SyncError> {
        let wanted = usize::try_from(kind::replicas(set)).unwrap_or(0);
        match active.len().cmp(&wanted) {
            Ordering::Less => self.create(original, set, (wanted - active.len()).min(BURST)).await,
            Ordering::Equal => Ok(()),
            Ordering::Greater => {
                let count = (active.len() - wanted).min(BURST);
                let related = self.related(set)?;
                let surplus = ranking::to_delete(active.to_vec(), &related, count, now);
                self.delete(original, set, &surplus).await
            }
        }
    }

    async fn create(&self, original: &R, set: &ReplicaSet, count: usize) -> Result<(), SyncError> {
        let (owner, uid) = (reference_of(original), set.metadata.uid.as_deref().unwrap_or_default());
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        let reference = controller_reference(R::API_VERSION, R::KIND, &set.metadata);
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let pod = pods::from_template(&template, namespace, name, reference);
        self.expectations.expect_creations(uid, count);
        let (tried, _, failure) = slow_start(count, async |_| {
            let created = self.control.create(&owner, namespace, &pod).await;
            if created.is_err() {
                self.expectations.creation_observed(uid);
            }
            created.map(drop)
        })
        .await;
        self.expectations.creations_observed(uid, count - tried);
        // A terminating namespace rejects new pods, which is not an error.
        failure.filter(|error| !error.is_namespace_terminating()).map_or(Ok(()), Err)
    }

    async fn delete(&self, original: &R, set: &ReplicaSet, surplus: &[Pod]) -> Result<(), SyncError> {
        let (owner, set_uid) = (reference_of(original), set.metadata.uid.as_deref().unwrap_or_default());
        self.expectations
            .expect_deletions(set_uid, surplus.iter().filter_map(|pod| pod.metadata.uid.clone()));
        let delete = async |pod: &Pod| {
            let deleted = self.control.delete(&owner, pod, PropagationPolicy::Background).await;
            if deleted.is_err() {
                self.expectations.deletion_observed(set_uid, pod.metadata.uid.as_deref().unwrap_or_default());
            }
            deleted
        };
        join_all(surplus.iter().map(delete)).await.into_iter().collect()
    }

    /// Returns the pods of all sets with the same controller as this set.
    fn related(&self, set: &ReplicaSet) -> Result<Vec<Pod>, SyncError> {
        let own = set.metadata.uid.clone().unwrap_or_default();
        let uids = match controller_of(&set.metadata) {
            Some(controller) => owned::by_controller(&self.sets, &controller.uid)
                .iter()
                .map(|set| set.uid().to_owned())
                .collect(),
            None => vec![own],
        };
        let pods = uids.iter().flat_map(|uid| owned::by_controller(&self.pods, uid));
        pods.map(|pod| pods::read(&pod).map_err(SyncError::from)).collect()
    }

    async fn write_status(
        &self,
        original: R,
        set: &ReplicaSet,
        status: ReplicaSetStatus,
    ) -> Result<(), SyncError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<R> = Api::namespaced(self.client.clone(), namespace);
        let name = set.metadata.name.as_deref().unwrap_or_default();
        api.replace_status(name, &PostParams::default(), &original.with_status(status)).await?;
        Ok(())
    }
}
