//! The status of pod disruption budgets (upstream: `disruption`).

mod scale;
mod status;

use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use kube::api::{Api, PostParams};
use nave_client::{Action, Lister, Object, ObjectName, on_each_labelling};

use self::scale::Scales;
use self::status::Expected;
use crate::api;
use crate::discovery::DiscoveryCache;
use crate::frame::{
    Context, Descriptor, EventKind, EventRecorder, Reconciler, SyncError, Workers, reference_of,
};
use crate::owners::controller_of;
use crate::selectors::{self, SelectorForm, SelectorIndex};

/// The time during which pod changes are batched into one sync.
const BATCH: Duration = Duration::from_millis(50);

pub(crate) const DISRUPTION: Descriptor = Descriptor {
    name: "disruption-controller",
    alias: "disruption",
    service_account: "disruption-controller",
    on_by_default: true,
    workers: Workers::fixed(1),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("disruption");
    let budgets = builder.informer::<PodDisruptionBudget>();
    let pods = builder.informer::<Pod>();
    let scales = Scales {
        client: context.client.clone(),
        discovery: DiscoveryCache::new(context.client.clone()),
        replica_sets: builder.informer::<ReplicaSet>().lister(),
        deployments: builder.informer::<Deployment>().lister(),
        stateful_sets: builder.informer::<StatefulSet>().lister(),
        replication_controllers: builder.informer::<ReplicationController>().lister(),
    };
    builder.enqueue_objects(&budgets);
    let (queue, index) = (builder.queue(), SelectorIndex::new(budgets.lister(), SelectorForm::SelectorOrAll));
    builder.add_handler(
        &pods,
        on_each_labelling(move |pod| {
            for budget in index.selecting(pod) {
                queue.add_after(budget.key(), BATCH);
            }
        }),
    );
    builder.run(DisruptionController {
        client: context.client.clone(),
        budgets: budgets.lister(),
        pods: pods.lister(),
        scales,
        events: context.events.with_component("controllermanager"),
    })
}

struct DisruptionController {
    client: kube::Client,
    budgets: Lister<PodDisruptionBudget>,
    pods: Lister<Pod>,
    scales: Scales,
    events: EventRecorder,
}

impl Reconciler for DisruptionController {
    /// Updates the status of a budget. If the pods cannot be counted, the status allows no disruptions.
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(budget) = self.budgets.get_by_key(&key) else { return Ok(Action::Done) };
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
                self.write(&budget, status::failed_status(&budget, &error.to_string(), Timestamp::now()))
                    .await?;
                Err(error)
            }
        }
    }
}

impl DisruptionController {
    async fn count(
        &self,
        budget: &PodDisruptionBudget,
        namespace: &str,
    ) -> Result<(PodDisruptionBudgetStatus, Option<Duration>), SyncError> {
        // A missing selector matches no pods; an empty selector matches all pods of the namespace.
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selected = match selector.map(selectors::parse).transpose()? {
            Some(selector) => self.pods.select(namespace, &selector),
            None => Vec::new(),
        };
        let pods = selected.iter().map(Object::decode).collect::<Result<Vec<_>, _>>()?;
        if pods.is_empty() {
            self.events.record(&reference_of(budget), EventKind::Normal, "NoPods", "No matching pods found");
        }
        let pods: Vec<_> = pods.iter().collect();
        let expected = if status::needs_scale(budget) {
            if pods.iter().any(|pod| controller_of(&pod.metadata).is_none()) {
                let message = status::unmanaged_pods_message(budget);
                self.events.record(&reference_of(budget), EventKind::Warning, "UnmanagedPods", &message);
            }
            Expected::Scale(self.scales.total_of_pods(&pods).await?)
        } else {
            Expected::SelectedPods
        };
        let now = Timestamp::now();
        let evictions = status::ongoing_evictions(budget, &pods, now);
        for pod in pods
            .iter()
            .filter(|pod| evictions.overdue.iter().any(|name| pod.metadata.name.as_ref() == Some(name)))
        {
            let name = budget.metadata.name.as_deref().unwrap_or_default();
            let message = format!("Pod was expected by PDB {namespace}/{name} to be deleted but it wasn't");
            self.events.record(&reference_of(*pod), EventKind::Warning, "NotDeleted", &message);
        }
        Ok((status::status(budget, &pods, expected, &evictions, now), evictions.recheck))
    }

    /// Writes the status if it has changed. A concurrent eviction causes a conflict; the next sync counts it.
    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), SyncError> {
        if status::is_equal(budget.status.as_ref(), &status) {
            return Ok(());
        }
        let meta = &budget.metadata;
        let (name, namespace) =
            (meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default());
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), namespace);
        let changed = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        api::ignore_not_found(budgets.replace_status(name, &PostParams::default(), &changed).await)
    }
}
