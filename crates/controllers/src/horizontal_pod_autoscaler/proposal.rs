//! Proposals: fetches the samples of each metric, and calculates the number of replicas that the metric requires.

use k8s_openapi::api::autoscaling::v2::{
    ExternalMetricSource, HorizontalPodAutoscaler, MetricSpec, MetricTarget, ObjectMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WrittenQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use nave_machinery::quantity::Quantity;
use serde_json::{Value, json};

use super::calculator::{Count, Observed};
use super::metrics::{MetricError, MetricsApi, PodMetrics};
use crate::selectors::written_as_go;

/// The number of replicas that a metric requires.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// The metric's name in messages.
    pub(super) metric: String,
    /// The metric's entry in the status.
    pub(super) status: Value,
}

/// The failure of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The reason of the event and the condition.
    pub(super) reason: &'static str,
    /// The message of the event.
    pub(super) why: MetricError,
    /// The text in the message about all metrics.
    pub(super) in_summary: MetricError,
}

/// The samples of a metric.
pub(super) enum Samples {
    Pods(PodMetrics),
    /// The value of an object.
    Value(i64),
    /// The values of an external metric.
    Values(Vec<i64>),
}

/// The source of samples for an autoscaler.
pub(super) struct Source<'a> {
    pub(super) api: &'a MetricsApi,
    pub(super) autoscaler: &'a HorizontalPodAutoscaler,
    /// The selector of the target's pods.
    pub(super) selector: &'a str,
}

impl Source<'_> {
    /// Fetches the samples of a metric.
    ///
    /// # Errors
    /// The API has no samples.
    pub(super) async fn fetch(&self, spec: &MetricSpec) -> Result<Samples, MetricError> {
        let namespace = self.autoscaler.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(resource) = &spec.resource {
            return self.of_pods(namespace, &resource.name, None).await;
        }
        if let Some(resource) = &spec.container_resource {
            return self.of_pods(namespace, &resource.name, Some(&resource.container)).await;
        }
        if let Some(pods) = &spec.pods {
            let (metric, of) = (&pods.metric.name, pods.metric.selector.as_ref());
            let samples = self.api.custom_pod_metric(namespace, self.selector, metric, of).await;
            return samples
                .map(Samples::Pods)
                .map_err(|error| error.context(format_args!("unable to get metric {metric}")));
        }
        if let Some(object) = &spec.object {
            let (metric, described) = (&object.metric, &object.described_object);
            let value = self
                .api
                .custom_object_metric(namespace, described, &metric.name, metric.selector.as_ref())
                .await;
            return value.map(Samples::Value).map_err(|error| {
                let (name, kind, object) = (&metric.name, &described.kind, &described.name);
                MetricError::new(format!(
                    "unable to get metric {name}: {error} on {kind} {namespace}/{object}"
                ))
            });
        }
        if let Some(external) = &spec.external {
            let metric = &external.metric;
            let values = self.api.external(namespace, &metric.name, metric.selector.as_ref()).await;
            return values.map(Samples::Values).map_err(|error| {
                let (name, selector) = (&metric.name, selector_text(metric.selector.as_ref()));
                error.context(format_args!("unable to get external metric {namespace}/{name}/{selector}"))
            });
        }
        Err(unknown(spec))
    }

    async fn of_pods(
        &self,
        namespace: &str,
        resource: &str,
        container: Option<&str>,
    ) -> Result<Samples, MetricError> {
        let samples = self.api.pod_usage(namespace, self.selector, resource, container).await;
        samples
            .map(Samples::Pods)
            .map_err(|error| error.context(format_args!("unable to get metrics for resource {resource}")))
    }
}

/// Calculates the proposal of a metric from its samples.
///
/// # Errors
/// The samples are missing or the calculation fails.
pub(super) fn propose(
    spec: &MetricSpec,
    samples: Result<Samples, MetricError>,
    observed: &Observed<'_>,
) -> Result<Proposal, Failure> {
    let (reason, prefix) = failure_names(spec);
    propose_from_samples(spec, samples, observed).map_err(|why| Failure {
        reason,
        in_summary: if prefix.is_empty() { why.clone() } else { why.clone().context(prefix) },
        why,
    })
}

/// The reason of a metric's failure, and its text in the message about all metrics.
fn failure_names(spec: &MetricSpec) -> (&'static str, String) {
    let value = |name: &str, of: &str| format!("failed to get {name}{of} metric value");
    match spec.type_.as_str() {
        "Resource" => {
            let name = spec.resource.as_ref().map_or("", |it| &it.name);
            ("FailedGetResourceMetric", value(name, " resource"))
        }
        "ContainerResource" => {
            let name = spec.container_resource.as_ref().map_or("", |it| &it.container);
            ("FailedGetContainerResourceMetric", value(name, " container"))
        }
        "Pods" => ("FailedGetPodsMetric", value("pods", "")),
        "Object" => ("FailedGetObjectMetric", value("object", "")),
        "External" => {
            let name = spec.external.as_ref().map_or("", |it| &it.metric.name);
            ("FailedGetExternalMetric", value(name, " external"))
        }
        _ => ("InvalidMetricSourceType", String::new()),
    }
}

fn propose_from_samples(
    spec: &MetricSpec,
    samples: Result<Samples, MetricError>,
    observed: &Observed<'_>,
) -> Result<Proposal, MetricError> {
    if let Some(resource) = &spec.resource {
        let of = Resource { name: &resource.name, container: None };
        let (replicas, metric, current) = of.count(&resource.target, samples, observed)?;
        let status = json!({"type": "Resource", "resource": {"name": resource.name, "current": current}});
        return Ok(Proposal { replicas, metric, status });
    }
    if let Some(resource) = &spec.container_resource {
        let of = Resource { name: &resource.name, container: Some(&resource.container) };
        let (replicas, metric, current) = of.count(&resource.target, samples, observed)?;
        let status = json!({"type": "ContainerResource", "containerResource":
            {"name": resource.name, "container": resource.container, "current": current}});
        return Ok(Proposal { replicas, metric, status });
    }
    if let Some(pods) = &spec.pods {
        let target = pods.target.average_value.as_ref().map_or(0, milli);
        let Count { replicas, usage, .. } = observed.by_average(of_pods(samples?), "", target)?;
        let status = json!({"type": "Pods",
            "pods": {"metric": pods.metric, "current": {"averageValue": decimal(usage)}}});
        return Ok(Proposal { replicas, metric: format!("pods metric {}", pods.metric.name), status });
    }
    if let Some(object) = &spec.object {
        return propose_for_object(object, samples, observed);
    }
    match &spec.external {
        Some(external) => propose_for_external(external, samples, observed),
        None => Err(unknown(spec)),
    }
}

/// A resource of pods, or of one container of each.
struct Resource<'a> {
    name: &'a str,
    container: Option<&'a str>,
}

impl Resource<'_> {
    /// Returns the count, the name of the metric, and its current value.
    fn count(
        &self,
        target: &MetricTarget,
        samples: Result<Samples, MetricError>,
        observed: &Observed<'_>,
    ) -> Result<(i32, String, Value), MetricError> {
        let Self { name, container } = *self;
        if let Some(average) = &target.average_value {
            let context = |error: MetricError| error.context(format_args!("failed to get {name} usage"));
            let metrics = of_pods(samples.map_err(context)?);
            let count = observed.by_average(metrics, name, milli(average)).map_err(context)?;
            let current = json!({"averageValue": amount(name, count.usage)});
            return Ok((count.replicas, format!("{name} resource"), current));
        }
        let Some(percent) = target.average_utilization else {
            let why = "invalid resource metric source: neither an average utilization target nor an average value (usage) target was set";
            return Err(MetricError::new(why));
        };
        let context = |error: MetricError| error.context(format_args!("failed to get {name} utilization"));
        let metrics = of_pods(samples.map_err(context)?);
        let count = observed.by_utilization(metrics, name, container, percent).map_err(context)?;
        let current = json!({
            "averageUtilization": count.utilization, "averageValue": amount(name, count.usage)});
        let of = if container.is_some() { " container" } else { "" };
        let metric = format!("{name}{of} resource utilization (percentage of request)");
        Ok((count.replicas, metric, current))
    }
}

fn propose_for_object(
    object: &ObjectMetricSource,
    samples: Result<Samples, MetricError>,
    observed: &Observed<'_>,
) -> Result<Proposal, MetricError> {
    let (name, described) = (&object.metric.name, &object.described_object);
    let status = |current: Value| {
        json!({"type": "Object",
            "object": {"metric": object.metric, "describedObject": described, "current": current}})
    };
    match (object.target.type_.as_str(), &object.target.value, &object.target.average_value) {
        ("Value", Some(target), _) => {
            let Count { replicas, usage, .. } = observed.by_value(value(samples?), milli(target))?;
            let metric = format!("{} metric {name}", described.kind);
            Ok(Proposal { replicas, metric, status: status(json!({"value": decimal(usage)})) })
        }
        ("AverageValue", _, Some(target)) => {
            let samples = samples.map_err(|error: MetricError| {
                error.context(format_args!("failed to get {name} object metric"))
            })?;
            let Count { replicas, usage, .. } = observed.by_value_per_pod(value(samples), milli(target));
            let metric =
                format!("external metric {name}({})", selector_text(object.metric.selector.as_ref()));
            Ok(Proposal { replicas, metric, status: status(json!({"averageValue": decimal(usage)})) })
        }
        _ => Err(MetricError::new(
            "invalid object metric source: neither a value target nor an average value target was set",
        )),
    }
}

fn propose_for_external(
    external: &ExternalMetricSource,
    samples: Result<Samples, MetricError>,
    observed: &Observed<'_>,
) -> Result<Proposal, MetricError> {
    let name = &external.metric.name;
    let metric = format!("external metric {name}({})", selector_text(external.metric.selector.as_ref()));
    let status = |current: Value| json!({"type": "External", "external": {"metric": external.metric, "current": current}});
    if let Some(target) = &external.target.average_value {
        let samples = samples.map_err(|error: MetricError| {
            error.context(format_args!("failed to get {name} external metric"))
        })?;
        let Count { replicas, usage, .. } = observed.by_value_per_pod(value(samples), milli(target));
        let status = status(json!({"averageValue": decimal(usage)}));
        return Ok(Proposal { replicas, metric, status });
    }
    let Some(target) = &external.target.value else {
        let why =
            "invalid external metric source: neither a value target nor an average value target was set";
        return Err(MetricError::new(why));
    };
    let context = |error: MetricError| error.context(format_args!("failed to get external metric {name}"));
    let samples = samples.map_err(context)?;
    let count = observed.by_value(value(samples), milli(target)).map_err(context)?;
    let status = status(json!({"value": decimal(count.usage)}));
    Ok(Proposal { replicas: count.replicas, metric, status })
}

fn unknown(spec: &MetricSpec) -> MetricError {
    MetricError::new(format!("unknown metric source type {:?}", spec.type_))
}

fn of_pods(samples: Samples) -> PodMetrics {
    match samples {
        Samples::Pods(metrics) => metrics,
        Samples::Value(_) | Samples::Values(_) => PodMetrics::default(),
    }
}

/// The value, or the sum of the values.
fn value(samples: Samples) -> i64 {
    match samples {
        Samples::Pods(_) => 0,
        Samples::Value(value) => value,
        Samples::Values(values) => values.into_iter().fold(0, i64::saturating_add),
    }
}

fn milli(written: &WrittenQuantity) -> i64 {
    Quantity::parse(&written.0).map(Quantity::milli_value).unwrap_or_default()
}

fn decimal(milli: i64) -> String {
    Quantity::from_milli(milli).to_string()
}

/// An amount in the usual notation of the resource.
fn amount(resource: &str, milli: i64) -> String {
    let amount = Quantity::from_milli(milli);
    if resource == "memory" { amount.in_binary().to_string() } else { amount.to_string() }
}

/// The selector as in upstream's messages.
fn selector_text(selector: Option<&LabelSelector>) -> String {
    selector.map_or_else(|| "nil".to_owned(), written_as_go)
}
