//! The metrics of expressions, under upstream's names.

use std::time::Duration;

use nave_metrics::Registrar;
use prometheus::{HistogramVec, IntCounterVec, Registry};

use super::conditions::ConditionLabels;
use super::programs::ExpressionTimes;
use crate::attributes::Operation;

/// The upper bounds of the buckets, in seconds, as in upstream.
const BUCKETS: [f64; 7] = [0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25];

/// The metrics of match conditions. Clones share the counters.
#[derive(Clone)]
pub struct ExpressionMetrics {
    errors: IntCounterVec,
    exclusions: IntCounterVec,
    seconds: HistogramVec,
    times: ExpressionTimes,
}

impl ExpressionMetrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// A metric has an invalid name or label, which is a bug in this file.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        let labels = &["name", "kind", "type", "operation"];
        Ok(Self {
            errors: registrar.counters(
                "apiserver_admission_match_condition_evaluation_errors_total",
                "Failed evaluations of match conditions, by webhook or policy.",
                labels,
            )?,
            exclusions: registrar.counters(
                "apiserver_admission_match_condition_exclusions_total",
                "Requests that match conditions kept from a webhook or policy.",
                labels,
            )?,
            seconds: registrar.histograms(
                "apiserver_admission_match_condition_evaluation_seconds",
                "Time to evaluate match conditions, in seconds, by webhook or policy.",
                labels,
                &BUCKETS,
            )?,
            times: ExpressionTimes::new(registry)?,
        })
    }

    /// Returns the times of single expressions.
    pub fn times(&self) -> &ExpressionTimes {
        &self.times
    }

    /// Records an evaluation of match conditions and its number of failures.
    pub(crate) fn conditions_evaluated(
        &self,
        labels: ConditionLabels<'_>,
        operation: Operation,
        took: Duration,
        errors: u64,
    ) {
        let values = label_values(labels, operation);
        self.seconds.with_label_values(&values).observe(took.as_secs_f64());
        if errors > 0 {
            self.errors.with_label_values(&values).inc_by(errors);
        }
    }

    /// Counts a request that did not match. Upstream counts only those of webhooks.
    pub fn excluded(&self, labels: ConditionLabels<'_>, operation: Operation) {
        self.exclusions.with_label_values(&label_values(labels, operation)).inc();
    }
}

impl Default for ExpressionMetrics {
    /// Returns metrics that are not registered with a caller's registry.
    fn default() -> Self {
        Self::new(&Registry::new())
            .unwrap_or_else(|error| unreachable!("the metrics of this file are valid: {error}"))
    }
}

fn label_values(labels: ConditionLabels<'_>, operation: Operation) -> [&str; 4] {
    [labels.name, labels.kind, labels.phase, operation.as_str()]
}
