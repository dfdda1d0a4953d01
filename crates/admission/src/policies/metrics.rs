//! The metrics of policies, under upstream's names.

use std::time::Duration;

use nave_metrics::Registrar;
use prometheus::{HistogramVec, IntCounterVec, Registry};

/// The upper bounds of the buckets, in seconds, as in upstream.
const BUCKETS: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];

/// The metrics of policies. Clones share the counters.
#[derive(Clone)]
pub(crate) struct PolicyMetrics {
    validating: Checks,
    mutating: Checks,
}

#[derive(Clone)]
struct Checks {
    total: IntCounterVec,
    seconds: HistogramVec,
}

/// The error of an expression, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorType {
    None,
    Compile,
    Invalid,
    OutOfBudget,
}

impl ErrorType {
    /// Classifies an error by its text, as upstream.
    pub(super) fn of_message(message: &str) -> Self {
        if message.starts_with("compilation") {
            Self::Compile
        } else if message.starts_with("validation failed due to running out of cost budget") {
            Self::OutOfBudget
        } else {
            Self::Invalid
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::None => "no_error",
            Self::Compile => "compile_error",
            Self::Invalid => "invalid_error",
            Self::OutOfBudget => "out_of_budget",
        }
    }
}

/// The names of a policy and its binding, as labels.
pub(super) type Names<'a> = (&'a str, &'a str);

impl PolicyMetrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// A metric has an invalid name or label, which is a bug in this file.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let validating = ["policy", "policy_binding", "error_type", "enforcement_action"];
        Ok(Self {
            validating: Checks::new(registry, "validating", &validating)?,
            mutating: Checks::new(registry, "mutating", &validating[..3])?,
        })
    }

    /// Counts a validation that failed or could not be evaluated. `action` is `allow`, `deny`, `audit` or `warn`.
    pub(super) fn validated(
        &self,
        (policy, binding): Names<'_>,
        error: ErrorType,
        action: &str,
        took: Duration,
    ) {
        self.validating.observe(&[policy, binding, error.as_str(), action], took);
    }

    /// Counts a mutation.
    pub(super) fn mutated(&self, (policy, binding): Names<'_>, error: ErrorType, took: Duration) {
        self.mutating.observe(&[policy, binding, error.as_str()], took);
    }
}

impl Checks {
    fn new(registry: &Registry, kind: &str, labels: &[&str]) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        let prefix = format!("apiserver_{kind}_admission_policy_check");
        let total = format!("{prefix}_total");
        let seconds = format!("{prefix}_duration_seconds");
        Ok(Self {
            total: registrar.counters(
                &total,
                "Checks of admission policies, by policy and binding.",
                labels,
            )?,
            seconds: registrar.histograms(
                &seconds,
                "Duration of single checks of admission policies, in seconds, by policy and binding.",
                labels,
                &BUCKETS,
            )?,
        })
    }

    fn observe(&self, labels: &[&str], took: Duration) {
        self.total.with_label_values(labels).inc();
        self.seconds.with_label_values(labels).observe(took.as_secs_f64());
    }
}
