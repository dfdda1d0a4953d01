//! The number of replicas that a metric requires (upstream: `podautoscaler/replica_calculator.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WrittenQuantity;
use nave_machinery::quantity::Quantity;

use super::metrics::{MetricError, PodMetrics};
use crate::frame::AutoscalerOptions;
use crate::pods;

/// The deviation of a usage ratio from 1 that does not cause scaling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerances {
    pub(super) down: f64,
    pub(super) up: f64,
}

impl Tolerances {
    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// The observed target.
pub(super) struct Observed<'a> {
    /// The pods of the target.
    pub(super) pods: &'a [Pod],
    /// The desired number of replicas of the target.
    pub(super) wanted: i32,
    /// The current number of replicas of the target.
    pub(super) has: i32,
    pub(super) tolerances: Tolerances,
    pub(super) options: AutoscalerOptions,
    pub(super) now: Timestamp,
}

/// The required number of replicas, with the usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) replicas: i32,
    /// The average of the pods, or the value of an object or external metric, in thousandths.
    pub(super) usage: i64,
    /// The average utilization in percent of the requests.
    pub(super) utilization: Option<i32>,
}

/// The usage relative to the target value.
struct Ratio {
    /// The usage divided by the target value.
    part: f64,
    usage: i64,
    utilization: Option<i32>,
}

impl Observed<'_> {
    /// Calculates replicas from the utilization of a resource, in percent of the requests of pods or of one
    /// container of each.
    pub(super) fn by_utilization(
        &self,
        metrics: PodMetrics,
        resource: &str,
        container: Option<&str>,
        target: i32,
    ) -> Result<Count, MetricError> {
        let groups = self.groups(&metrics, resource)?;
        let metrics = groups.trusted_metrics(metrics)?;
        let requests = self.requests(resource, container)?;
        let request = |pod: &str| requests.get(pod).copied().unwrap_or_default();
        let ratio = |metrics: &PodMetrics| utilization_ratio(metrics, &requests, target);
        let full = i64::from(target.max(100));
        self.by_ratio(metrics, &groups, ratio, |pod| request(pod).saturating_mul(full) / 100)
    }

    /// Calculates replicas from the average value of a pod metric.
    pub(super) fn by_average(
        &self,
        metrics: PodMetrics,
        resource: &str,
        target: i64,
    ) -> Result<Count, MetricError> {
        let groups = self.groups(&metrics, resource)?;
        let metrics = groups.trusted_metrics(metrics)?;
        self.by_ratio(metrics, &groups, |metrics| Ok(usage_ratio(metrics, target)), |_| target)
    }

    /// Calculates replicas from a value that is not measured per pod.
    pub(super) fn by_value(&self, usage: i64, target: i64) -> Result<Count, MetricError> {
        let ratio = usage as f64 / target as f64;
        let replicas = if self.wanted == 0 {
            ceil(ratio)
        } else if self.tolerances.covers(ratio) {
            self.wanted
        } else {
            ceil(ratio * self.ready_pods()? as f64)
        };
        Ok(Count { replicas, usage, utilization: None })
    }

    /// Calculates replicas from a value that is not measured per pod and is divided among the pods.
    pub(super) fn by_value_per_pod(&self, usage: i64, target: i64) -> Count {
        let has = f64::from(self.has);
        let ratio = usage as f64 / (target as f64 * has);
        let replicas =
            if self.tolerances.covers(ratio) { self.has } else { ceil(usage as f64 / target as f64) };
        let usage = if usage == i64::MAX { usage } else { (usage as f64 / has).ceil() as i64 };
        Count { replicas, usage, utilization: None }
    }

    /// Calculates replicas from the ratio of trusted pods. When scaling up, missing and unready pods count as using 0.
    /// When scaling down, missing pods count as using `full`.
    fn by_ratio(
        &self,
        mut metrics: PodMetrics,
        groups: &Groups,
        ratio: impl Fn(&PodMetrics) -> Result<Ratio, MetricError>,
        full: impl Fn(&str) -> i64,
    ) -> Result<Count, MetricError> {
        let Ratio { part: first, usage, utilization } = ratio(&metrics)?;
        let count = |replicas| Ok(Count { replicas, usage, utilization });
        let counts_unready = !groups.unready.is_empty() && first > 1.0;
        if !counts_unready && groups.missing.is_empty() {
            if self.tolerances.covers(first) {
                return count(self.wanted);
            }
            return count(ceil(first * groups.ready as f64));
        }
        for pod in &groups.missing {
            if first < 1.0 {
                metrics.insert_value(pod, full(pod), self.now);
            } else if first > 1.0 {
                metrics.insert_value(pod, 0, self.now);
            }
        }
        for pod in groups.unready.iter().filter(|_| counts_unready) {
            metrics.insert_value(pod, 0, self.now);
        }
        let second = ratio(&metrics)?.part;
        let has_turned = (first < 1.0 && second > 1.0) || (first > 1.0 && second < 1.0);
        if self.tolerances.covers(second) || has_turned {
            return count(self.wanted);
        }
        let replicas = ceil(second * metrics.by_pod.len() as f64);
        let goes_back = (second < 1.0 && replicas > self.wanted) || (second > 1.0 && replicas < self.wanted);
        count(if goes_back { self.wanted } else { replicas })
    }

    /// Groups the pods by whether their metrics can be trusted.
    fn groups(&self, metrics: &PodMetrics, resource: &str) -> Result<Groups, MetricError> {
        if self.pods.is_empty() {
            return Err(MetricError::new("no pods returned by selector while calculating replica count"));
        }
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = name(pod).to_owned();
            if pod.metadata.deletion_timestamp.is_some() || pods::phase(pod) == "Failed" {
                groups.ignored.insert(name);
            } else if pods::phase(pod) == "Pending" {
                groups.unready.insert(name);
            } else if !metrics.by_pod.contains_key(&name) {
                groups.missing.insert(name);
            } else if resource == "cpu" && self.is_starting(pod, metrics) {
                groups.unready.insert(name);
            } else {
                groups.ready += 1;
            }
        }
        Ok(groups)
    }

    /// Returns whether a pod's CPU usage was measured during its startup, or the pod has never been ready.
    fn is_starting(&self, pod: &Pod, metrics: &PodMetrics) -> bool {
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let (Some(ready), Some(started)) = (pods::condition(pod, "Ready"), started) else { return true };
        let is_unready = ready.status == "False";
        let changed = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
        let ends = |after: Duration| started.0.saturating_add(signed(after)).unwrap_or(Timestamp::MAX);
        if ends(self.options.cpu_initialization_period) > self.now {
            let sampled = metrics.by_pod.get(name(pod));
            is_unready
                || sampled.is_some_and(|sample| {
                    sample.at < changed.saturating_add(signed(sample.window)).unwrap_or(Timestamp::MAX)
                })
        } else {
            is_unready && ends(self.options.initial_readiness_delay) > changed
        }
    }

    fn ready_pods(&self) -> Result<usize, MetricError> {
        if self.pods.is_empty() {
            let why = "unable to calculate ready pods: no pods returned by selector while calculating replica count";
            return Err(MetricError::new(why));
        }
        Ok(self.pods.iter().filter(|pod| pods::phase(pod) == "Running" && pods::is_ready(pod)).count())
    }

    /// The requests of each pod, or of one container of it, in thousandths.
    fn requests(
        &self,
        resource: &str,
        container: Option<&str>,
    ) -> Result<BTreeMap<String, i64>, MetricError> {
        self.pods
            .iter()
            .map(|pod| Ok((name(pod).to_owned(), request_of(pod, resource, container)?)))
            .collect()
    }
}

/// Pods grouped by whether their metrics can be trusted.
#[derive(Debug, Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

impl Groups {
    /// The metrics of ready pods.
    fn trusted_metrics(&self, mut metrics: PodMetrics) -> Result<PodMetrics, MetricError> {
        metrics.by_pod.retain(|pod, _| !self.ignored.contains(pod) && !self.unready.contains(pod));
        if metrics.by_pod.is_empty() {
            let why = "did not receive metrics for targeted pods (pods might be unready)";
            return Err(MetricError::new(why));
        }
        Ok(metrics)
    }
}

/// The pod-level request if set, else the sum over the containers and sidecars.
fn request_of(pod: &Pod, resource: &str, container: Option<&str>) -> Result<i64, MetricError> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    let pod_requests = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref())
        .filter(|requests| container.is_none() && !requests.is_empty());
    if let Some(amount) = pod_requests.and_then(|requests| requests.get(resource)) {
        return Ok(milli(amount));
    }
    let sidecars = spec.init_containers.iter().flatten().filter(|it| is_sidecar(it));
    let running = spec.containers.iter().chain(sidecars);
    let mut counted = running.filter(|it| container.is_none_or(|name| it.name == name)).peekable();
    if let (Some(container), None) = (container, counted.peek()) {
        return Err(MetricError::new(format!("container {container} not found in Pod {}", name(pod))));
    }
    let mut sum = 0_i64;
    for it in counted {
        let requests = it.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        match requests.and_then(|requests| requests.get(resource)) {
            Some(amount) => sum = sum.saturating_add(milli(amount)),
            None if pod_requests.is_some() => {}
            None => {
                let (container, pod) = (&it.name, name(pod));
                let why = format!("missing request for {resource} in container {container} of Pod {pod}");
                return Err(MetricError::new(why));
            }
        }
    }
    if pod_requests.is_some() && sum == 0 {
        let why = format!("missing pod-level request for {resource} in Pod {}", name(pod));
        return Err(MetricError::new(why));
    }
    Ok(sum)
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn milli(written: &WrittenQuantity) -> i64 {
    Quantity::parse(&written.0).map(Quantity::milli_value).unwrap_or_default()
}

fn utilization_ratio(
    metrics: &PodMetrics,
    requests: &BTreeMap<String, i64>,
    target: i32,
) -> Result<Ratio, MetricError> {
    let (mut used, mut requested, mut count) = (0_i128, 0_i128, 0_i128);
    for (pod, metric) in &metrics.by_pod {
        let Some(request) = requests.get(pod) else { continue };
        used += i128::from(metric.value);
        requested += i128::from(*request);
        count += 1;
    }
    if requested == 0 {
        return Err(MetricError::new("no metrics returned matched known pods"));
    }
    let utilization = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
    let usage = i64::try_from(used / count).unwrap_or(i64::MAX);
    Ok(Ratio { part: f64::from(utilization) / f64::from(target), usage, utilization: Some(utilization) })
}

/// `metrics` must not be empty.
fn usage_ratio(metrics: &PodMetrics, target: i64) -> Ratio {
    let total: i128 = metrics.by_pod.values().map(|metric| i128::from(metric.value)).sum();
    let count = i128::try_from(metrics.by_pod.len()).unwrap_or(1).max(1);
    let usage = i64::try_from(total / count).unwrap_or(i64::MAX);
    Ratio { part: usage as f64 / target as f64, usage, utilization: None }
}

/// Rounds up to a number of replicas; infinity becomes the maximum.
fn ceil(replicas: f64) -> i32 {
    replicas.ceil() as i32
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn signed(duration: Duration) -> SignedDuration {
    duration.try_into().unwrap_or(SignedDuration::MAX)
}
