//! Horizontal pod autoscaler: scales a target by the metrics of its pods, and by others (upstream: `podautoscaler`).
//!
//! ```text
//! scale ─► metrics ─► a proposal for each ─► the highest ─► stabilized, limited ─► scale, status
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | [`metrics`] | reads the metrics APIs |
//! | [`calculator`] | the replicas that samples ask for |
//! | [`proposal`] | the replicas that a metric of the spec asks for |
//! | [`behavior`] | stabilization, policies, bounds |
//! | [`selection`] | the pods of the target |
//! | [`target`] | the scale of the target |
//! | [`status`] | conditions and numbers in the status |

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
use crate::untyped::{Part, update};

/// The controller.
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
    // Its own status does not concern it: what it looks at has events elsewhere, so it looks at times.
    let has_other_spec = |old: &Object<HorizontalPodAutoscaler>, new: &Object<HorizontalPodAutoscaler>| {
        old.json_at(&["spec"]) != new.json_at(&["spec"])
    };
    builder.watch(&autoscalers, on_change(has_other_spec, move |it| queue.add(it.key())));
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
    /// The history of each.
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
            tracing::debug!(autoscaler = %key, %error, "an autoscaler was not reconciled");
        }
        // A failure is looked at again as often as a success: metrics are no better for asking more often.
        Ok(Action::RequeueAfter(self.options.sync_period))
    }
}

/// An autoscaler in a sync.
struct Work<'a> {
    key: &'a ObjectName,
    autoscaler: &'a HorizontalPodAutoscaler,
    now: Timestamp,
}

/// The number of replicas to have, and why.
struct Decision {
    replicas: i32,
    reason: String,
    /// The entries of the metrics in the status.
    statuses: Vec<serde_json::Value>,
}

/// The highest proposal of the metrics.
struct Verdict {
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
        let mut status = Status::of(&autoscaler, Timestamp::now())?;
        let work = Work { key, autoscaler: &autoscaler, now: Timestamp::now() };
        let outcome = self.scale(&work, &mut status).await;
        let api = Api::namespaced_with(
            self.client.clone(),
            key.namespace(),
            &ApiResource::erase::<HorizontalPodAutoscaler>(&()),
        );
        if let Err(error) = update(&api, seen, Part::Status, |it| it["status"] = status.into_json()).await
            && !error.is_not_found()
            && !error.is_conflict()
        {
            self.warn(&autoscaler, "FailedUpdateStatus", &error.to_string());
        }
        outcome
    }

    /// Scales the target where that is due, and says in the status what was found.
    async fn scale(&self, work: &Work<'_>, status: &mut Status) -> Result<(), SyncError> {
        let target = match self.targets.get(work.autoscaler).await {
            Ok(target) => target,
            Err(error) => {
                self.warn(work.autoscaler, "FailedGetScale", &error.to_string());
                let message =
                    format!("the HPA controller was unable to get the target's current scale: {error}");
                status.condition("AbleToScale", "False", "FailedGetScale", &message);
                return Err(error);
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        status.condition("AbleToScale", "True", "SucceededGetScale", message);
        let bounds = self.bounds(work, target.replicas());
        self.history(work, |history| history.begin(bounds.current, work.now));
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
            None => self.decide(work, target.scale(), &bounds, status).await?,
        };
        if decision.replicas == bounds.current {
            status.replicas(bounds.current, bounds.current, decision.statuses);
            return Ok(());
        }
        self.carry_out(work, target, decision, &bounds, status).await
    }

    /// The number of replicas by the metrics, stabilized and limited.
    async fn decide(
        &self,
        work: &Work<'_>,
        scale: &Scale,
        bounds: &Bounds<'_>,
        status: &mut Status,
    ) -> Result<Decision, SyncError> {
        let Verdict { replicas, metric, statuses } = self.verdict(work, scale, status).await?;
        let reason = if replicas > bounds.current {
            format!("{metric} above target")
        } else {
            "All metrics below target".to_owned()
        };
        let step = self.history(work, |history| history.step(replicas, bounds));
        status.step(&step);
        Ok(Decision { replicas: step.replicas, reason, statuses })
    }

    async fn carry_out(
        &self,
        work: &Work<'_>,
        target: Target,
        decision: Decision,
        bounds: &Bounds<'_>,
        status: &mut Status,
    ) -> Result<(), SyncError> {
        let Decision { replicas, reason, statuses } = decision;
        if let Err(error) = self.targets.set(target, replicas).await {
            let message = format!("New size: {replicas}; reason: {reason}; error: {error}");
            self.warn(work.autoscaler, "FailedRescale", &message);
            let message = format!("the HPA controller was unable to update the target scale: {error}");
            status.condition("AbleToScale", "False", "FailedUpdateScale", &message);
            status.current(bounds.current, statuses);
            return Err(error);
        }
        let message = format!("the HPA controller was able to update the target scale to {replicas}");
        status.condition("AbleToScale", "True", "SucceededRescale", &message);
        let message = format!("New size: {replicas}; reason: {reason}");
        let reference = reference_of(work.autoscaler);
        self.events.record(&reference, EventKind::Normal, "SuccessfulRescale", &message);
        self.history(work, |history| history.scaled(bounds.current, replicas, bounds));
        status.replicas(bounds.current, replicas, statuses);
        status.scaled();
        Ok(())
    }

    fn bounds<'a>(&self, work: &Work<'a>, current: i32) -> Bounds<'a> {
        let spec = &work.autoscaler.spec;
        Bounds {
            current,
            min: spec.min_replicas.unwrap_or(1),
            max: spec.max_replicas,
            behavior: spec.behavior.as_ref(),
            downscale_stabilization: self.options.downscale_stabilization,
            now: work.now,
        }
    }

    fn history<T>(&self, work: &Work<'_>, f: impl FnOnce(&mut History) -> T) -> T {
        f(self.histories.lock().entry(work.key.clone()).or_default())
    }

    /// The highest of the proposals of all metrics. Where one of them is not known, the others do not scale down.
    async fn verdict(
        &self,
        work: &Work<'_>,
        scale: &Scale,
        status: &mut Status,
    ) -> Result<Verdict, SyncError> {
        let autoscaler = work.autoscaler;
        let wanted = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
        let has = scale.status.as_ref().map(|status| status.replicas).unwrap_or_default();
        let selector =
            scale.status.as_ref().and_then(|status| status.selector.as_deref()).unwrap_or_default();
        let pods = match self.selections.pods(work.key, selector) {
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
            now: work.now,
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
        let statuses = outcomes.iter().map(status::of_metric).collect();
        match highest(&outcomes, wanted) {
            Ok(proposal) => {
                let metric = &proposal.metric;
                let message =
                    format!("the HPA was able to successfully calculate a replica count from {metric}");
                status.condition("ScalingActive", "True", "ValidMetricFound", &message);
                Ok(Verdict { replicas: proposal.replicas, metric: metric.clone(), statuses })
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

/// The highest proposal; or the first failure and what to say of all, where none is valid, or where the valid ones would
/// scale down and a failed one might not have.
fn highest(outcomes: &[Result<Proposal, Failure>], wanted: i32) -> Result<&Proposal, (&Failure, String)> {
    // Of equal ones the first.
    let valid = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok());
    let highest = valid.reduce(|best, next| if next.replicas > best.replicas { next } else { best });
    let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    match (highest, failed.first()) {
        (Some(proposal), None) => Ok(proposal),
        (Some(proposal), Some(_)) if proposal.replicas >= wanted => Ok(proposal),
        (_, Some(first)) => {
            let (failures, all) = (failed.len(), outcomes.len());
            let message = format!(
                "invalid metrics ({failures} invalid out of {all}), first error is: {}",
                first.in_all
            );
            Err((first, message))
        }
        (None, None) => Err((&NO_METRICS, "no metrics".to_owned())),
    }
}

/// The API gives an autoscaler without metrics one.
static NO_METRICS: std::sync::LazyLock<Failure> = std::sync::LazyLock::new(|| Failure {
    reason: "InvalidMetricSourceType",
    why: metrics::MetricError::new("no metrics"),
    in_all: metrics::MetricError::new("no metrics"),
});
