//! The metrics of webhooks, under upstream's names (`apiserver/pkg/admission/metrics`).

use std::time::Duration;

use nave_metrics::Registrar;
use prometheus::{HistogramVec, IntCounterVec, Registry};

use crate::attributes::Operation;

/// The upper bounds of the buckets, in seconds, as in upstream.
const BUCKETS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Larger codes are counted as this one, so that a webhook cannot create many series.
const MAX_CODE: u16 = 600;

/// The metrics. Clones share the counters.
#[derive(Clone)]
pub(crate) struct WebhookMetrics {
    seconds: HistogramVec,
    requests: IntCounterVec,
    rejections: IntCounterVec,
    failed_open: IntCounterVec,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Allowed,
    /// The webhook refused the request with this code.
    Denied(u16),
    /// The call failed, and the failure policy refuses the request.
    Failed(u16),
    /// The call failed, and the failure policy ignores it.
    Ignored(u16),
    /// The server refused the request.
    Refused,
}

impl WebhookMetrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// A metric has an invalid name or label, which is a bug in this file.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        let counters = |name: &str, help: &str, labels: &[&str]| registrar.counters(name, help, labels);
        Ok(Self {
            seconds: registrar.histograms(
                "apiserver_admission_webhook_admission_duration_seconds",
                "Time of the calls of admission webhooks, in seconds, by name, operation and type (validating or admit).",
                &["name", "type", "operation", "rejected"],
                &BUCKETS,
            )?,
            requests: counters(
                "apiserver_admission_webhook_request_total",
                "Calls of admission webhooks, by name, operation, type, HTTP status code (at most 600) and whether the request was rejected.",
                &["name", "type", "operation", "code", "rejected"],
            )?,
            rejections: counters(
                "apiserver_admission_webhook_rejection_count",
                "Requests that admission webhooks rejected, by name, operation, type, type of the error and rejection code (at most 600).",
                &["name", "type", "operation", "error_type", "rejection_code"],
            )?,
            failed_open: counters(
                "apiserver_admission_webhook_fail_open_count",
                "Failed calls of admission webhooks that were ignored, by name and type.",
                &["name", "type"],
            )?,
        })
    }

    /// Records a call.
    pub(super) fn called(
        &self,
        name: &str,
        phase: &str,
        operation: Operation,
        outcome: Outcome,
        took: Duration,
    ) {
        let operation = operation.as_str();
        let (code, error) = match outcome {
            Outcome::Allowed => (200, None),
            Outcome::Denied(code) => (code, Some("no_error")),
            Outcome::Failed(code) => (code, Some("calling_webhook_error")),
            Outcome::Ignored(code) => (code, None),
            Outcome::Refused => (0, Some("apiserver_internal_error")),
        };
        let (code, rejected) =
            (code.min(MAX_CODE).to_string(), if error.is_some() { "true" } else { "false" });
        self.seconds.with_label_values(&[name, phase, operation, rejected]).observe(took.as_secs_f64());
        self.requests.with_label_values(&[name, phase, operation, &code, rejected]).inc();
        if let Some(error) = error {
            self.rejections.with_label_values(&[name, phase, operation, error, &code]).inc();
        }
        if matches!(outcome, Outcome::Ignored(_)) {
            self.failed_open.with_label_values(&[name, phase]).inc();
        }
    }
}
