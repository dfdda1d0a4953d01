//! Horizontal pod autoscaler: scales a target by the metrics of its pods and by other metrics (upstream:
//! `podautoscaler`).
//!
//! ```text
//! scale ─► metrics ─► a proposal per metric ─► the highest ─► stabilized, limited ─► scale, status
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | [`metrics`] | the client of the metrics APIs |
//! | [`calculator`] | the number of replicas that samples require |
//! | [`proposal`] | the number of replicas that a metric of the spec requires |
//! | [`behavior`] | stabilization, policies, bounds |
//! | [`selection`] | the pods of the target |
//! | [`target`] | the scale of the target |
//! | [`status`] | the status |

mod behavior;
mod calculator;
mod metrics;
mod proposal;
mod selection;
mod status;
mod target;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscaler};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource};
use nave_client::{Action, Lister, Object, ObjectName, on_change};
use nave_machinery::quantity::Quantity;
use parking_lot::Mutex;

use self::behavior::{Bounds, History};
use self::calculator::{Observed, Tolerances};
use self::metrics::MetricsApi;
use self::proposal::{Failure, Proposal, Source, propose};
use self::selection::Selections;
use self::status::Status;
use self::target::{Target, Targets};
use crate::frame::{
    AutoscalerOptions, Context, Descriptor, EventKind, EventRecorder, Reconciler, SyncError, Workers,
    reference_of,
};
use crate::untyped::{UpdateTarget, update};

pub(crate) const HORIZONTAL_POD_AUTOSCALER: Descriptor = Descriptor {
    name: "horizontal-pod-autoscaler-controller",
    alias: "horizontalpodautoscaling",
    service_account: "horizontal-pod-autoscaler",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-horizontal-pod-autoscaler-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("horizontalpodautoscaler");
    let (autoscalers, pods) = (builder.informer::<HorizontalPodAutoscaler>(), builder.informer::<Pod>());
    let queue = builder.queue();
    // Ignores updates of the status. Metrics have no events, so each autoscaler is evaluated periodically.
    let has_spec_change = |old: &Object<HorizontalPodAutoscaler>, new: &Object<HorizontalPodAutoscaler>| {
        old.json_at(&["spec"]) != new.json_at(&["spec"])
    };
    builder.add_handler(&autoscalers, on_change(has_spec_change, move |it| queue.add(it.key())));
    let client = &context.client;
    builder.run(Controller {
        client: client.clone(),
        events: context.events.clone(),
        autoscalers: autoscalers.lister(),
        selections: Selections::new(pods.lister()),
        targets: Targets::new(client.clone()),
        metrics: MetricsApi::new(client.clone()),
        options: context.options.autoscaler,
        histories: Mutex::default(),
    })
}

struct Controller {
    client: kube::Client,
    events: EventRecorder,
    autoscalers: Lister<HorizontalPodAutoscaler>,
    selections: Selections,
    targets: Targets,
    metrics: MetricsApi,
    options: AutoscalerOptions,
    /// The scaling history of each autoscaler.
    histories: Mutex<HashMap<ObjectName, History>>,
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(seen) = self.autoscalers.get_by_key(&key) else {
            self.histories.lock().remove(&key);
            self.selections.forget(&key);
            return Ok(Action::Done);
        };
        if let Err(error) = self.reconcile(&key, seen).await {
            tracing::debug!(autoscaler = %key, %error, "autoscaler sync failed");
        }
        // Retries a failure after the normal period, because metrics do not change faster.
        Ok(Action::RequeueAfter(self.options.sync_period))
    }
}

/// The input of a sync.
struct SyncInput<'a> {
    key: &'a ObjectName,
    autoscaler: &'a HorizontalPodAutoscaler,
    now: Timestamp,
}

/// The number of replicas to set, and why.
struct Decision {
    replicas: i32,
    reason: String,
    /// The metric entries of the status.
    statuses: Vec<serde_json::Value>,
}

/// The highest proposal of all metrics.
struct MetricsResult {
    replicas: i32,
    metric: String,
    statuses: Vec<serde_json::Value>,
}

impl Controller {
    async fn reconcile(
        &self,
        key: &ObjectName,
        seen: Object<HorizontalPodAutoscaler>,
    ) -> Result<(), SyncError> {
        let autoscaler = seen.decode()?;
        let mut status = Status::from_autoscaler(&autoscaler, Timestamp::now())?;
        let input = SyncInput { key, autoscaler: &autoscaler, now: Timestamp::now() };
        let outcome = self.scale(&input, &mut status).await;
        let api = Api::namespaced_with(
            self.client.clone(),
            key.namespace(),
            &ApiResource::erase::<HorizontalPodAutoscaler>(&()),
        );
        if let Err(error) =
            update(&api, seen, UpdateTarget::Status, |it| it["status"] = status.into_json()).await
            && !error.is_not_found()
            && !error.is_conflict()
        {
            self.warn(&autoscaler, "FailedUpdateStatus", &error.to_string());
        }
        outcome
    }

    /// Scales the target if necessary, and records the observations in the status.
    async fn scale(&self, input: &SyncInput<'_>, status: &mut Status) -> Result<(), SyncError> {
        let target = match self.targets.get(input.autoscaler).await {
            Ok(target) => target,
            Err(error) => {
                self.warn(input.autoscaler, "FailedGetScale", &error.to_string());
                let message =
                    format!("the HPA controller was unable to get the target's current scale: {error}");
                status.condition("AbleToScale", "False", "FailedGetScale", &message);
                return Err(error);
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        status.condition("AbleToScale", "True", "SucceededGetScale", message);
        let bounds = self.bounds(input, target.replicas());
        self.history(input, |history| history.begin(bounds.current, input.now));
        if bounds.current == 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            status.condition("ScalingActive", "False", "ScalingDisabled", message);
            status.replicas(0, 0, Vec::new());
            return Ok(());
        }
        let decision = match bounds.violated() {
            Some((replicas, reason)) => {
                Decision { replicas, reason: reason.to_owned(), statuses: Vec::new() }
            }
            None => self.decide(input, target.scale(), &bounds, status).await?,
        };
        if decision.replicas == bounds.current {
            status.replicas(bounds.current, bounds.current, decision.statuses);
            return Ok(());
        }
        self.rescale(input, target, decision, &bounds, status).await
    }

    /// The number of replicas that the metrics require, stabilized and limited.
    async fn decide(
        &self,
        input: &SyncInput<'_>,
        scale: &Scale,
        bounds: &Bounds<'_>,
        status: &mut Status,
    ) -> Result<Decision, SyncError> {
        let MetricsResult { replicas, metric, statuses } =
            self.evaluate_metrics(input, scale, status).await?;
        let reason = if replicas > bounds.current {
            format!("{metric} above target")
        } else {
            "All metrics below target".to_owned()
        };
        let step = self.history(input, |history| history.step(replicas, bounds));
        status.step(&step);
        Ok(Decision { replicas: step.replicas, reason, statuses })
    }

    async fn rescale(
        &self,
        input: &SyncInput<'_>,
        target: Target,
        decision: Decision,
        bounds: &Bounds<'_>,
        status: &mut Status,
    ) -> Result<(), SyncError> {
        let Decision { replicas, reason, statuses } = decision;
        if let Err(error) = self.targets.set(target, replicas).await {
            let message = format!("New size: {replicas}; reason: {reason}; error: {error}");
            self.warn(input.autoscaler, "FailedRescale", &message);
            let message = format!("the HPA controller was unable to update the target scale: {error}");
            status.condition("AbleToScale", "False", "FailedUpdateScale", &message);
            status.current(bounds.current, statuses);
            return Err(error);
        }
        let message = format!("the HPA controller was able to update the target scale to {replicas}");
        status.condition("AbleToScale", "True", "SucceededRescale", &message);
        let message = format!("New size: {replicas}; reason: {reason}");
        let reference = reference_of(input.autoscaler);
        self.events.record(&reference, EventKind::Normal, "SuccessfulRescale", &message);
        self.history(input, |history| history.scaled(bounds.current, replicas, bounds));
        status.replicas(bounds.current, replicas, statuses);
        status.scaled();
        Ok(())
    }

    fn bounds<'a>(&self, input: &SyncInput<'a>, current: i32) -> Bounds<'a> {
        let spec = &input.autoscaler.spec;
        Bounds {
            current,
            min: spec.min_replicas.unwrap_or(1),
            max: spec.max_replicas,
            behavior: spec.behavior.as_ref(),
            downscale_stabilization: self.options.downscale_stabilization,
            now: input.now,
        }
    }

    fn history<T>(&self, input: &SyncInput<'_>, f: impl FnOnce(&mut History) -> T) -> T {
        f(self.histories.lock().entry(input.key.clone()).or_default())
    }

    /// The highest proposal of all metrics. If a metric failed, the other metrics do not scale down.
    async fn evaluate_metrics(
        &self,
        input: &SyncInput<'_>,
        scale: &Scale,
        status: &mut Status,
    ) -> Result<MetricsResult, SyncError> {
        let autoscaler = input.autoscaler;
        let wanted = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
        let has = scale.status.as_ref().map(|status| status.replicas).unwrap_or_default();
        let selector =
            scale.status.as_ref().and_then(|status| status.selector.as_deref()).unwrap_or_default();
        let pods = match self.selections.pods(input.key, selector) {
            Ok(pods) => pods,
            Err(refused) => {
                self.warn(autoscaler, refused.event, &refused.why);
                status.condition("ScalingActive", "False", refused.reason, &refused.message);
                status.current(wanted, Vec::new());
                self.warn(autoscaler, "FailedComputeMetricsReplicas", &refused.why);
                return Err(SyncError::Invalid(refused.why));
            }
        };
        let observed = Observed {
            pods: &pods,
            wanted,
            has,
            tolerances: self.tolerances(autoscaler),
            options: self.options,
            now: input.now,
        };
        let specs = autoscaler.spec.metrics.iter().flatten();
        let source = Source { api: &self.metrics, autoscaler, selector };
        let mut outcomes = Vec::new();
        for spec in specs {
            outcomes.push(propose(spec, source.fetch(spec).await, &observed));
        }
        for failure in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            self.warn(autoscaler, failure.reason, &failure.why.to_string());
        }
        let statuses = outcomes.iter().map(status::metric_entry).collect();
        match highest_proposal(&outcomes, wanted) {
            Ok(proposal) => {
                let metric = &proposal.metric;
                let message =
                    format!("the HPA was able to successfully calculate a replica count from {metric}");
                status.condition("ScalingActive", "True", "ValidMetricFound", &message);
                Ok(MetricsResult { replicas: proposal.replicas, metric: metric.clone(), statuses })
            }
            Err((first, all)) => {
                let message = format!("the HPA was unable to compute the replica count: {}", first.why);
                status.condition("ScalingActive", "False", first.reason, &message);
                status.current(wanted, statuses);
                self.warn(autoscaler, "FailedComputeMetricsReplicas", &all);
                Err(SyncError::Invalid(all))
            }
        }
    }

    fn tolerances(&self, autoscaler: &HorizontalPodAutoscaler) -> Tolerances {
        let behavior = autoscaler.spec.behavior.as_ref();
        let tolerance = |rules: Option<&HPAScalingRules>| {
            let written = rules.and_then(|rules| rules.tolerance.as_ref());
            let amount = written.and_then(|it| Quantity::parse(&it.0).ok());
            amount.map_or(self.options.tolerance, Quantity::as_f64)
        };
        Tolerances {
            down: tolerance(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
            up: tolerance(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        }
    }

    fn warn(&self, autoscaler: &HorizontalPodAutoscaler, reason: &'static str, message: &str) {
        self.events.record(&reference_of(autoscaler), EventKind::Warning, reason, message);
    }
}

/// Returns the highest proposal. If no metric is valid, or if the valid metrics would scale down and a failed metric
/// might not, returns the first failure and the message about all metrics.
fn highest_proposal(
    outcomes: &[Result<Proposal, Failure>],
    wanted: i32,
) -> Result<&Proposal, (&Failure, String)> {
    // Selects the first of equal proposals.
    let valid = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok());
    let highest_proposal = valid.reduce(|best, next| if next.replicas > best.replicas { next } else { best });
    let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    match (highest_proposal, failed.first()) {
        (Some(proposal), None) => Ok(proposal),
        (Some(proposal), Some(_)) if proposal.replicas >= wanted => Ok(proposal),
        (_, Some(first)) => {
            let (failures, all) = (failed.len(), outcomes.len());
            let message = format!(
                "invalid metrics ({failures} invalid out of {all}), first error is: {}",
                first.in_summary
            );
            Err((first, message))
        }
        (None, None) => Err((&NO_METRICS, "no metrics".to_owned())),
    }
}

/// The API's defaulting adds a metric, so the list is never empty.
static NO_METRICS: std::sync::LazyLock<Failure> = std::sync::LazyLock::new(|| Failure {
    reason: "InvalidMetricSourceType",
    why: metrics::MetricError::new("no metrics"),
    in_summary: metrics::MetricError::new("no metrics"),
});
