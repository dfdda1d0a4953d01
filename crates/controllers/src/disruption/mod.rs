//! How many pods may be disturbed: the status of disruption budgets (upstream: `disruption`).

mod scale;
mod status;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use kube::api::{Api, PostParams};
use nave_client::{Action, Deleted, EventHandler, Lister, Object, ObjectName, Workqueue, on_each};
use nave_machinery::selector::LabelSelector;

use self::scale::Scales;
use self::status::Expected;
use crate::api;
use crate::discovery::DiscoveryCache;
use crate::frame::{Context, Descriptor, EventKind, Recorder, SyncError, reference_of, work};

/// Changes of pods within this time are one sync.
const BATCH: Duration = Duration::from_millis(50);

/// The controller.
pub(crate) const DISRUPTION: Descriptor = Descriptor {
    name: "disruption-controller",
    alias: "disruption",
    service_account: "disruption-controller",
    on_by_default: true,
    start: |context| Box::pin(start(context)),
};

fn start(context: &Context) -> impl Future<Output = ()> + use<> {
    let queue = Workqueue::new();
    let budgets = context.informers.informer::<PodDisruptionBudget>();
    let pods = context.informers.informer::<Pod>();
    let scales = Scales {
        client: context.client.clone(),
        discovery: DiscoveryCache::new(context.client.clone()),
        replica_sets: context.informers.informer::<ReplicaSet>(),
        deployments: context.informers.informer::<Deployment>(),
        stateful_sets: context.informers.informer::<StatefulSet>(),
        replication_controllers: context.informers.informer::<ReplicationController>(),
    };
    let changed = queue.clone();
    let handlers = [
        budgets.add_event_handler(on_each(move |budget| changed.add(budget.key()))),
        pods.add_event_handler(PodHandler { budgets: budgets.lister(), queue: queue.clone() }),
    ];
    let controller = DisruptionController {
        client: context.client.clone(),
        budgets: budgets.lister(),
        pods: pods.lister(),
        scales,
        events: context.events.clone(),
    };
    let stop = context.stop.clone();
    async move {
        let controller = &controller;
        api::synced(&handlers, &stop).await;
        stop.run_until_cancelled(controller.scales.synced()).await;
        work(&queue, stop, |key| async move { controller.sync(&key).await }).await;
    }
}

struct DisruptionController {
    client: kube::Client,
    budgets: Lister<PodDisruptionBudget>,
    pods: Lister<Pod>,
    scales: Scales,
    events: Recorder,
}

impl DisruptionController {
    /// Brings a budget's status up to date. If it cannot be, nothing may be disturbed.
    async fn sync(&self, key: &ObjectName) -> Result<Action, SyncError> {
        let Some(budget) = self.budgets.get_by_key(key) else { return Ok(Action::Done) };
        let budget = budget.decode()?;
        match self.count(&budget, key.namespace()).await {
            Ok((status, recheck)) => {
                self.write(&budget, status).await?;
                Ok(recheck.map_or(Action::Done, Action::RequeueAfter))
            }
            Err(error) => {
                self.events.record(
                    &reference_of(&budget),
                    EventKind::Warning,
                    "CalculateExpectedPodCountFailed",
                    &format!("Failed to calculate the number of expected pods: {error}"),
                );
                self.write(&budget, status::failed(&budget, &error.to_string(), Timestamp::now())).await?;
                Err(error)
            }
        }
    }

    async fn count(
        &self,
        budget: &PodDisruptionBudget,
        namespace: &str,
    ) -> Result<(PodDisruptionBudgetStatus, Option<Duration>), SyncError> {
        let selector = selector_of(budget)?;
        let pods = match &selector {
            Some(selector) => self.pods.select(namespace, selector),
            None => Vec::new(),
        };
        let pods = pods.iter().map(Object::decode).collect::<Result<Vec<_>, _>>()?;
        if pods.is_empty() {
            self.events.record(&reference_of(budget), EventKind::Normal, "NoPods", "No matching pods found");
        }
        let pods: Vec<_> = pods.iter().collect();
        let expected = if status::needs_scale(budget) {
            Expected::Scale(self.scales.of_pods(&pods).await?)
        } else {
            Expected::AsFound
        };
        let now = Timestamp::now();
        let disrupted = status::disrupted(budget, &pods, now);
        for pod in pods
            .iter()
            .filter(|pod| disrupted.overdue.iter().any(|name| pod.metadata.name.as_ref() == Some(name)))
        {
            let name = budget.metadata.name.as_deref().unwrap_or_default();
            let message = format!("Pod was expected by PDB {namespace}/{name} to be deleted but it wasn't");
            self.events.record(&reference_of(*pod), EventKind::Warning, "NotDeleted", &message);
        }
        Ok((status::status(budget, &pods, expected, &disrupted, now), disrupted.recheck))
    }

    /// Writes a status that says something new. An eviction that came between is a conflict, and counted next time.
    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), SyncError> {
        if status::same(budget.status.as_ref(), &status) {
            return Ok(());
        }
        let meta = &budget.metadata;
        let (name, namespace) =
            (meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default());
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), namespace);
        let changed = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        api::gone_is_fine(budgets.replace_status(name, &PostParams::default(), &changed).await)
    }
}

/// What a budget selects; without a selector it is nothing, with an empty one every pod of the namespace.
fn selector_of(budget: &PodDisruptionBudget) -> Result<Option<LabelSelector>, SyncError> {
    let Some(selector) = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
        return Ok(None);
    };
    LabelSelector::from_value(&serde_json::to_value(selector)?)
        .map(Some)
        .map_err(|error| SyncError::Invalid(error.to_string()))
}

/// Has the budgets looked at that a pod counts for or did count for.
struct PodHandler {
    budgets: Lister<PodDisruptionBudget>,
    queue: Workqueue,
}

impl PodHandler {
    fn changed(&self, pod: &Object<Pod>) {
        for budget in self.budgets.list_namespace(pod.namespace()) {
            let Ok(decoded) = budget.decode() else { continue };
            if selector_of(&decoded).is_ok_and(|selector| selector.is_some_and(|it| pod.is_selected_by(&it)))
            {
                self.queue.add_after(budget.key(), BATCH);
            }
        }
    }
}

impl EventHandler<Pod> for PodHandler {
    fn on_add(&self, pod: &Object<Pod>, _: bool) {
        self.changed(pod);
    }

    fn on_update(&self, old: &Object<Pod>, new: &Object<Pod>) {
        self.changed(new);
        if !old.labels().eq(new.labels()) {
            self.changed(old);
        }
    }

    fn on_delete(&self, deleted: &Deleted<Pod>) {
        self.changed(deleted.object());
    }
}
