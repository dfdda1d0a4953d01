//! The metrics of authorization, under upstream's names (`apiserver/pkg/endpoints/filters`, `authorization/metrics`).

use std::time::Duration;

use nave_metrics::Registrar;
use prometheus::{GaugeVec, HistogramVec, IntCounterVec, Registry};

use crate::chain::{Decision, NamedAuthorizer, Verdict};

/// The number of buckets of `authorization_duration_seconds`: from 1 ms, each twice the previous one, as in upstream.
const DURATIONS: usize = 15;

/// The metrics. Clones share the counters.
#[derive(Clone)]
pub struct Metrics {
    attempts: IntCounterVec,
    durations: HistogramVec,
    decisions: IntCounterVec,
    /// Webhook calls, by webhook and outcome.
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
    /// A metric has an invalid name or label, which is a bug in this file.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        let counter = |name, help, labels| registrar.counters(name, help, labels);
        let gauge = |name, help, labels| registrar.gauges(name, help, labels);
        let buckets = prometheus::exponential_buckets(0.001, 2.0, DURATIONS)?;
        let histogram = |name, help, labels| registrar.histograms(name, help, labels, &buckets);
        Ok(Self {
            attempts: counter(
                "authorization_attempts_total",
                "Authorization decisions, by outcome.",
                &["result"],
            )?,
            durations: histogram(
                "authorization_duration_seconds",
                "Duration of authorization, in seconds.",
                &["result"],
            )?,
            decisions: counter(
                "apiserver_authorization_decisions_total",
                "Final authorization decisions (allow or deny), by authorizer.",
                &["type", "name", "decision"],
            )?,
            webhook_calls: counter(
                "apiserver_authorization_webhook_evaluations_total",
                "Authorization webhook calls, by webhook and outcome.",
                &["name", "result"],
            )?,
            webhook_durations: histogram(
                "apiserver_authorization_webhook_duration_seconds",
                "Duration of authorization webhook calls, in seconds.",
                &["name", "result"],
            )?,
            webhook_fail_open: counter(
                "apiserver_authorization_webhook_evaluations_fail_open_total",
                "Failed authorization webhook calls treated as no opinion.",
                &["name", "result"],
            )?,
            condition_errors: counter(
                "apiserver_authorization_match_condition_evaluation_errors_total",
                "Evaluation errors of a webhook's match conditions.",
                &["type", "name"],
            )?,
            condition_exclusions: counter(
                "apiserver_authorization_match_condition_exclusions_total",
                "Requests excluded by a webhook's match conditions.",
                &["type", "name"],
            )?,
            condition_durations: histogram(
                "apiserver_authorization_match_condition_evaluation_seconds",
                "Duration of the evaluation of a webhook's match conditions, in seconds.",
                &["type", "name"],
            )?,
            reloads: counter(
                "apiserver_authorization_config_controller_automatic_reloads_total",
                "Reloads of the authorization configuration, by status.",
                &["apiserver_id_hash", "status"],
            )?,
            reload_times: gauge(
                "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds",
                "Time of the last reload of the authorization configuration, by status.",
                &["apiserver_id_hash", "status"],
            )?,
            config_info: gauge(
                "apiserver_authorization_config_controller_last_config_info",
                "Hash of the authorization configuration in effect.",
                &["apiserver_id_hash", "hash"],
            )?,
        })
    }

    /// Records the decision about a request.
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

    /// Records the hash of the configuration in effect.
    pub(crate) fn config_in_force(&self, server: &str, hash: &str) {
        self.config_info.reset();
        self.config_info.with_label_values(&[server, hash]).set(1.0);
    }

    /// Records a reload that changed the configuration or failed. `now` is in seconds since 1970.
    pub(crate) fn config_reloaded(&self, server: &str, success: bool, now: f64) {
        let labels = [server, if success { "success" } else { "failure" }];
        self.reloads.with_label_values(&labels).inc();
        self.reload_times.with_label_values(&labels).set(now);
    }

    /// Returns the number of reloads by status.
    #[cfg(test)]
    pub(crate) fn reloads(&self) -> impl Fn(&str) -> u64 {
        let families = prometheus::core::Collector::collect(&self.reloads);
        move |status| {
            let metrics = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
            let of_status = metrics.filter(|it| it.get_label().iter().any(|label| label.value() == status));
            of_status.map(|it| it.get_counter().get_value() as u64).sum()
        }
    }

    /// Records a final decision of one authorizer.
    pub(crate) fn decision(&self, authorizer: &NamedAuthorizer, decision: Decision) {
        let decision = if decision == Decision::Allow { "allowed" } else { "denied" };
        self.decisions.with_label_values(&[authorizer.kind, &authorizer.name, decision]).inc();
    }
}
