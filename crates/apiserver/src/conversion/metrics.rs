//! The metrics of conversion webhooks, under upstream's names.

use std::time::Duration;

use nave_metrics::Registrar;
use prometheus::{Error, HistogramVec, IntCounterVec, Registry};

use super::{Failure, FailureClass};

/// The buckets of `apiserver_conversion_webhook_duration_seconds`, in seconds.
const CALL_TIMES: [f64; 15] =
    [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];

/// The metrics of all conversion webhooks.
pub struct ConversionMetrics {
    by_definition: HistogramVec,
    requests: IntCounterVec,
    durations: HistogramVec,
}

impl ConversionMetrics {
    /// Creates and registers the metrics.
    ///
    /// # Errors
    /// A name is already registered.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let registrar = Registrar(registry);
        let doubling: Vec<f64> = (0..15).map(|power| 0.001 * f64::from(1 << power)).collect();
        let labels = ["result", "failure_type"];
        Ok(Self {
            by_definition: registrar.histograms(
                "apiserver_crd_conversion_webhook_duration_seconds",
                "CRD webhook conversion duration in seconds",
                &["crd_name", "from_version", "to_version", "succeeded"],
                &doubling,
            )?,
            requests: registrar.counters(
                "apiserver_conversion_webhook_request_total",
                "Counter for conversion webhook requests with success/failure and failure error type",
                &labels,
            )?,
            durations: registrar.histograms(
                "apiserver_conversion_webhook_duration_seconds",
                "Conversion webhook request latency",
                &labels,
                &CALL_TIMES,
            )?,
        })
    }

    /// Counts a call. The versions and the name are those of a definition.
    pub(super) fn observe(
        &self,
        definition: &str,
        (from, to): (&str, &str),
        took: Duration,
        failure: Option<&Failure>,
    ) {
        let succeeded = if failure.is_none() { "true" } else { "false" };
        let seconds = took.as_secs_f64();
        self.by_definition.with_label_values(&[definition, from, to, succeeded]).observe(seconds);
        let result = if failure.is_none() { "success" } else { "failure" };
        let labels = [result, failure.map_or("", |failure| failure.class.label())];
        self.requests.with_label_values(&labels).inc();
        self.durations.with_label_values(&labels).observe(seconds);
    }
}

impl FailureClass {
    fn label(self) -> &'static str {
        match self {
            Self::Call => "conversion_webhook_call_failure",
            Self::MalformedResponse => "conversion_webhook_malformed_response_failure",
            Self::PartialResponse => "conversion_webhook_partial_response_failure",
            Self::InvalidObject => "conversion_webhook_invalid_converted_object_failure",
        }
    }
}
