//! What authorization counts, under upstream's names (`apiserver/pkg/endpoints/filters`, `authorization/metrics`).

use std::time::Duration;

use nave_metrics::Registrar;
use prometheus::{GaugeVec, HistogramVec, IntCounterVec, Registry};

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
    /// Registers all metrics.
    ///
    /// # Errors
    /// A metric whose name or labels are not valid, which is a mistake in this file.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        let counter = |name, help, labels| registrar.counters(name, help, labels);
        let gauge = |name, help, labels| registrar.gauges(name, help, labels);
        let buckets = prometheus::exponential_buckets(0.001, 2.0, DURATIONS)?;
        let histogram = |name, help, labels| registrar.histograms(name, help, labels, &buckets);
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
