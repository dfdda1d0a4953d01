//! What authorization counts, under upstream's names (`apiserver/pkg/endpoints/filters`, `authorization/metrics`).

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts};

use crate::chain::{Decision, Link, Verdict};

/// Buckets of `authorization_duration_seconds`: 1 ms, doubled 14 times, as upstream's.
const DURATIONS: usize = 15;

/// The metrics. Clones count into the same ones.
#[derive(Clone)]
pub struct Metrics {
    attempts: IntCounterVec,
    durations: HistogramVec,
    decisions: IntCounterVec,
    /// Calls of webhooks, by webhook and outcome.
    pub(crate) webhook_calls: IntCounterVec,
    pub(crate) webhook_durations: HistogramVec,
    pub(crate) webhook_fail_open: IntCounterVec,
    pub(crate) condition_errors: IntCounterVec,
    pub(crate) condition_exclusions: IntCounterVec,
    pub(crate) condition_durations: HistogramVec,
    reloads: IntCounterVec,
    reload_times: GaugeVec,
    config_info: GaugeVec,
}

impl Metrics {
    /// Makes all metrics, which are yet to be registered.
    ///
    /// # Errors
    /// A metric whose name or labels are not valid, which is a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            attempts: counter(
                "authorization_attempts_total",
                "Requests that were decided about, by outcome.",
                &["result"],
            )?,
            durations: histogram(
                "authorization_duration_seconds",
                "Time to decide about a request, in seconds.",
                &["result"],
            )?,
            decisions: counter(
                "apiserver_authorization_decisions_total",
                "Decisions that ended the chain, by authorizer.",
                &["type", "name", "decision"],
            )?,
            webhook_calls: counter(
                "apiserver_authorization_webhook_evaluations_total",
                "Calls of authorization webhooks, by webhook and outcome.",
                &["name", "result"],
            )?,
            webhook_durations: histogram(
                "apiserver_authorization_webhook_duration_seconds",
                "Time that calls of authorization webhooks took, in seconds.",
                &["name", "result"],
            )?,
            webhook_fail_open: counter(
                "apiserver_authorization_webhook_evaluations_fail_open_total",
                "Failed calls of authorization webhooks that were taken for no opinion.",
                &["name", "result"],
            )?,
            condition_errors: counter(
                "apiserver_authorization_match_condition_evaluation_errors_total",
                "Errors while a webhook's match conditions were evaluated.",
                &["type", "name"],
            )?,
            condition_exclusions: counter(
                "apiserver_authorization_match_condition_exclusions_total",
                "Requests that a webhook's match conditions kept from it.",
                &["type", "name"],
            )?,
            condition_durations: histogram(
                "apiserver_authorization_match_condition_evaluation_seconds",
                "Time that the evaluation of a webhook's match conditions took, in seconds.",
                &["type", "name"],
            )?,
            reloads: counter(
                "apiserver_authorization_config_controller_automatic_reloads_total",
                "Times that the configuration of authorizers changed or could not be read.",
                &["apiserver_id_hash", "status"],
            )?,
            reload_times: gauge(
                "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds",
                "When the configuration of authorizers last changed or could not be read.",
                &["apiserver_id_hash", "status"],
            )?,
            config_info: gauge(
                "apiserver_authorization_config_controller_last_config_info",
                "The hash of the configuration of authorizers that is in force.",
                &["apiserver_id_hash", "hash"],
            )?,
        })
    }

    /// All of them, to be registered.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let counters = [
            &self.attempts,
            &self.decisions,
            &self.webhook_calls,
            &self.webhook_fail_open,
            &self.condition_errors,
            &self.condition_exclusions,
            &self.reloads,
        ];
        let gauges = [&self.reload_times, &self.config_info];
        let gauges = gauges.into_iter().map(|metric| Box::new(metric.clone()) as Box<dyn Collector>);
        let histograms = [&self.durations, &self.webhook_durations, &self.condition_durations];
        let counters = counters.into_iter().map(|metric| Box::new(metric.clone()) as Box<dyn Collector>);
        counters
            .chain(gauges)
            .chain(histograms.into_iter().map(|metric| Box::new(metric.clone()) as _))
            .collect()
    }

    /// Counts a request.
    pub(crate) fn attempt(&self, verdict: &Verdict, elapsed: Duration) {
        let result = match (verdict.decision, &verdict.error) {
            (Decision::Allow, _) => "allowed",
            (_, Some(_)) => "error",
            (Decision::Deny, _) => "denied",
            (Decision::NoOpinion, _) => "no-opinion",
        };
        self.attempts.with_label_values(&[result]).inc();
        self.durations.with_label_values(&[result]).observe(elapsed.as_secs_f64());
    }

    /// The configuration of this hash is in force.
    pub(crate) fn config_in_force(&self, server: &str, hash: &str) {
        self.config_info.reset();
        self.config_info.with_label_values(&[server, hash]).set(1.0);
    }

    /// The configuration changed, or could not be read; `now` is in seconds since 1970.
    pub(crate) fn config_reloaded(&self, server: &str, success: bool, now: f64) {
        let labels = [server, if success { "success" } else { "failure" }];
        self.reloads.with_label_values(&labels).inc();
        self.reload_times.with_label_values(&labels).set(now);
    }

    /// How often the configuration changed or could not be read, by status.
    #[cfg(test)]
    pub(crate) fn reloads(&self) -> impl Fn(&str) -> u64 {
        let families = prometheus::core::Collector::collect(&self.reloads);
        move |status| {
            let metrics = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
            let of_status = metrics.filter(|it| it.get_label().iter().any(|label| label.value() == status));
            of_status.map(|it| it.get_counter().get_value() as u64).sum()
        }
    }

    /// Counts what one authorizer decided.
    pub(crate) fn decision(&self, link: &Link, decision: Decision) {
        let decision = if decision == Decision::Allow { "allowed" } else { "denied" };
        self.decisions.with_label_values(&[link.kind, &link.name, decision]).inc();
    }
}

fn counter(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
    GaugeVec::new(Opts::new(name, help), labels)
}

fn histogram(name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
    let buckets = prometheus::exponential_buckets(0.001, 2.0, DURATIONS)?;
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)
}
