//! The metrics of admission, under upstream's names (`apiserver/pkg/admission/metrics`).

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nave_metrics::Registrar;
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};

use crate::attributes::Operation;
use crate::expressions::ExpressionMetrics;
use crate::plugins::WebhookMetrics;
use crate::policies::PolicyMetrics;

const STEP: &str = "apiserver_admission_step_admission_duration_seconds";
const CONTROLLER: &str = "apiserver_admission_controller_admission_duration_seconds";
const STEP_SUMMARY: &str = "apiserver_admission_step_admission_duration_seconds_summary";
const STEP_SUMMARY_HELP: &str = "Admission sub-step latency summary in seconds, broken out for each operation and API resource and step type (validate or admit).";

/// The upper bounds of the histograms' buckets, in seconds, as in upstream.
const BUCKETS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
/// The quantiles of the summary.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
/// The number of recent durations from which each of the summary's 16 series computes quantiles.
const SAMPLES: usize = 512;

/// The metrics. Clones share the counters.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    step: HistogramVec,
    controller: HistogramVec,
    steps: Handles,
    summary: SummaryVec,
    expressions: ExpressionMetrics,
    webhooks: WebhookMetrics,
    policies: PolicyMetrics,
    evaluations: IntCounterVec,
    exemptions: IntCounterVec,
    /// The counter of the most common evaluation: a pod is created in a namespace at the level `privileged`.
    usual_evaluation: OnceLock<IntCounter>,
}

/// A PodSecurity mode and its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evaluation {
    mode: &'static str,
    decision: &'static str,
}

impl Evaluation {
    pub(crate) const ALLOWED: Self = Self { mode: "enforce", decision: "allow" };
    pub(crate) const DENIED: Self = Self { mode: "enforce", decision: "deny" };
    pub(crate) const AUDITED: Self = Self { mode: "audit", decision: "deny" };
    pub(crate) const WARNED: Self = Self { mode: "warn", decision: "deny" };
}

/// A phase of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Admit,
    Validate,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validate",
        }
    }
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// A metric has an invalid name or label, which is a bug in this file.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        let histogram =
            |name: &str, help: &str, labels: &[&str]| registrar.histograms(name, help, labels, &BUCKETS);
        let step = histogram(
            STEP,
            "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
            &["type", "operation", "rejected"],
        )?;
        let controller = histogram(
            CONTROLLER,
            "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
            &["name", "type", "operation", "rejected"],
        )?;
        let counter = |name: &str, help: &str, labels: &[&str]| registrar.counters(name, help, labels);
        let inner = Inner {
            step,
            controller,
            steps: Handles::default(),
            summary: registrar.register(SummaryVec::new()?)?,
            expressions: ExpressionMetrics::new(registry)?,
            webhooks: WebhookMetrics::new(registry)?,
            policies: PolicyMetrics::new(registry)?,
            evaluations: counter(
                "pod_security_evaluations_total",
                "Number of policy evaluations that occurred, not counting ignored or exempt requests.",
                &[
                    "decision",
                    "mode",
                    "policy_level",
                    "policy_version",
                    "request_operation",
                    "resource",
                    "subresource",
                ],
            )?,
            exemptions: counter(
                "pod_security_exemptions_total",
                "Number of exempt requests, not counting ignored or out of scope requests.",
                &["request_operation", "resource", "subresource"],
            )?,
            usual_evaluation: OnceLock::new(),
        };
        for operation in ["create", "update"] {
            for resource in ["controller", "pod"] {
                // As upstream, the series exist before the first exemption.
                let _ = inner.exemptions.with_label_values(&[operation, resource, ""]);
            }
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The metrics of match conditions.
    pub fn expressions(&self) -> &ExpressionMetrics {
        &self.inner.expressions
    }

    /// The metrics of webhooks.
    pub(crate) fn webhooks(&self) -> &WebhookMetrics {
        &self.inner.webhooks
    }

    /// The metrics of policies.
    pub(crate) fn policies(&self) -> &PolicyMetrics {
        &self.inner.policies
    }

    /// Returns the timer of one plugin in one phase.
    pub(crate) fn plugin(&self, name: &'static str, phase: Phase) -> PluginTimer {
        PluginTimer { name, phase, controller: self.inner.controller.clone(), handles: Handles::default() }
    }

    /// Records one phase of a request.
    pub(crate) fn step(&self, phase: Phase, operation: Operation, rejected: bool, took: Duration) {
        let inner = &self.inner;
        let slot = Slot { phase, operation, rejected };
        let make = || inner.step.with_label_values(&[phase.as_str(), operation.as_str(), slot.rejected()]);
        inner.steps.get(slot, make).observe(took.as_secs_f64());
        inner.summary.observe(slot, took);
    }

    /// Counts a PodSecurity evaluation.
    pub(crate) fn pod_security_evaluated(
        &self,
        operation: Operation,
        resource: &'static str,
        subresource: &str,
        evaluation: Evaluation,
        (level, version): (&'static str, &str),
    ) {
        let Evaluation { mode, decision } = evaluation;
        let inner = &self.inner;
        let operation = if operation == Operation::Create { "create" } else { "update" };
        let labels = [decision, mode, level, version, operation, resource, subresource];
        let series = || inner.evaluations.with_label_values(&labels);
        if labels == ["allow", "enforce", "privileged", "latest", "create", "pod", ""] {
            inner.usual_evaluation.get_or_init(series).inc();
        } else {
            series().inc();
        }
    }

    /// Counts a request that is exempt from PodSecurity.
    pub(crate) fn pod_security_exempted(
        &self,
        operation: Operation,
        resource: &'static str,
        subresource: &str,
    ) {
        let operation = if operation == Operation::Create { "create" } else { "update" };
        self.inner.exemptions.with_label_values(&[operation, resource, subresource]).inc();
    }
}

impl Default for Metrics {
    /// Returns metrics that are not registered with a caller's registry.
    fn default() -> Self {
        Self::new(&Registry::new())
            .unwrap_or_else(|error| unreachable!("the metrics of this file are valid: {error}"))
    }
}

/// Records the calls of one plugin in one phase.
pub(crate) struct PluginTimer {
    name: &'static str,
    phase: Phase,
    controller: HistogramVec,
    handles: Handles,
}

impl PluginTimer {
    pub(crate) fn observe(&self, operation: Operation, rejected: bool, took: Duration) {
        let slot = Slot { phase: self.phase, operation, rejected };
        let labels = [self.name, self.phase.as_str(), operation.as_str(), slot.rejected()];
        self.handles.get(slot, || self.controller.with_label_values(&labels)).observe(took.as_secs_f64());
    }
}

/// The labels of one series.
#[derive(Clone, Copy)]
struct Slot {
    phase: Phase,
    operation: Operation,
    rejected: bool,
}

impl Slot {
    /// Two phases, four operations and two outcomes.
    const COUNT: usize = 16;

    fn number(self) -> usize {
        (self.phase as usize * 4 + self.operation as usize) * 2 + usize::from(self.rejected)
    }

    fn all() -> impl Iterator<Item = Self> {
        let phases = [Phase::Admit, Phase::Validate].into_iter();
        phases.flat_map(|phase| {
            Operation::ALL.into_iter().flat_map(move |operation| {
                [false, true].into_iter().map(move |rejected| Self { phase, operation, rejected })
            })
        })
    }

    fn rejected(self) -> &'static str {
        if self.rejected { "true" } else { "false" }
    }
}

/// The series of a histogram. Each series is created on first use, so its labels are resolved once.
#[derive(Default)]
struct Handles([OnceLock<Histogram>; Slot::COUNT]);

impl Handles {
    fn get(&self, slot: Slot, make: impl FnOnce() -> Histogram) -> &Histogram {
        self.0[slot.number()].get_or_init(make)
    }
}

/// A summary. The metrics library does not support this type.
#[derive(Clone)]
struct SummaryVec {
    desc: Desc,
    series: Arc<[Mutex<Series>; Slot::COUNT]>,
}

/// The recent durations of a series.
#[derive(Default)]
struct Series {
    count: u64,
    sum: f64,
    latest: Vec<f64>,
}

impl SummaryVec {
    fn new() -> Result<Self, prometheus::Error> {
        let labels = ["type", "operation", "rejected"].map(str::to_owned).to_vec();
        let desc = Desc::new(STEP_SUMMARY.to_owned(), STEP_SUMMARY_HELP.to_owned(), labels, HashMap::new())?;
        Ok(Self { desc, series: Arc::default() })
    }

    fn observe(&self, slot: Slot, took: Duration) {
        let series = &mut *self.series[slot.number()].lock();
        let took = took.as_secs_f64();
        if series.latest.len() < SAMPLES {
            series.latest.push(took);
        } else {
            let oldest = (series.count % SAMPLES as u64) as usize;
            series.latest[oldest] = took;
        }
        series.count += 1;
        series.sum += took;
    }
}

impl Series {
    fn summary(&self) -> Summary {
        let mut sorted = self.latest.clone();
        sorted.sort_by(f64::total_cmp);
        let quantiles = QUANTILES.iter().map(|part| {
            let mut quantile = Quantile::default();
            quantile.set_quantile(*part);
            let rank = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1));
            quantile.set_value(sorted.get(rank - 1).copied().unwrap_or(f64::NAN));
            quantile
        });
        let mut summary = Summary::default();
        summary.set_sample_count(self.count);
        summary.set_sample_sum(self.sum);
        summary.set_quantile(quantiles.collect());
        summary
    }
}

impl Collector for SummaryVec {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let metrics: Vec<Metric> = Slot::all()
            .filter_map(|slot| {
                let series = self.series[slot.number()].lock();
                if series.count == 0 {
                    return None;
                }
                let labels = [
                    ("operation", slot.operation.as_str()),
                    ("rejected", slot.rejected()),
                    ("type", slot.phase.as_str()),
                ];
                let pairs = labels.map(|(name, value)| {
                    let mut pair = LabelPair::default();
                    pair.set_name(name.to_owned());
                    pair.set_value(value.to_owned());
                    pair
                });
                let mut metric = Metric::default();
                metric.set_label(pairs.to_vec());
                metric.set_summary(series.summary());
                Some(metric)
            })
            .collect();
        if metrics.is_empty() {
            return Vec::new();
        }
        let mut family = MetricFamily::default();
        family.set_name(STEP_SUMMARY.to_owned());
        family.set_help(STEP_SUMMARY_HELP.to_owned());
        family.set_field_type(MetricType::SUMMARY);
        family.set_metric(metrics);
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, Registry, TextEncoder};

    use super::*;

    #[test]
    fn series_have_upstream_names_and_labels() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.plugin("P", Phase::Admit).observe(Operation::Create, false, Duration::from_millis(1));
        for n in 1..=100 {
            metrics.step(Phase::Validate, Operation::Delete, true, Duration::from_millis(n));
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            r#"apiserver_admission_controller_admission_duration_seconds_count{name="P",operation="CREATE",rejected="false",type="admit"} 1"#,
            r#"apiserver_admission_step_admission_duration_seconds_count{operation="DELETE",rejected="true",type="validate"} 100"#,
            r#"apiserver_admission_step_admission_duration_seconds_summary{operation="DELETE",rejected="true",type="validate",quantile="0.9"} 0.09"#,
            r#"apiserver_admission_step_admission_duration_seconds_summary_count{operation="DELETE",rejected="true",type="validate"} 100"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn summary_keeps_the_latest_durations() {
        let summary = SummaryVec::new().unwrap();
        let slot = Slot { phase: Phase::Admit, operation: Operation::Create, rejected: false };
        for n in 0..3 * SAMPLES {
            summary.observe(slot, Duration::from_secs(if n < 2 * SAMPLES { 100 } else { 1 }));
        }
        let series = summary.series[slot.number()].lock();
        assert_eq!((series.latest.len(), series.count), (SAMPLES, 3 * SAMPLES as u64));
        assert!(series.latest.iter().all(|took| *took < 2.0));
    }
}
