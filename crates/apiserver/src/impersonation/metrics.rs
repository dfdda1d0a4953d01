//! The metrics of impersonation, by upstream's names (`endpoints/filters/impersonation/metrics`).

use std::time::Duration;

use nave_metrics::Registrar;
use prometheus::{HistogramVec, IntCounterVec, Registry, exponential_buckets};

const LABELS: [&str; 2] = ["mode", "decision"];
/// The label of the mode without a name.
const UNNAMED: &str = "legacy";
/// The labels of the named modes.
const MODES: [&str; 4] = ["associated-node", "arbitrary-node", "serviceaccount", "user-info"];

/// The metrics of attempts, and of the checks that they need.
pub(crate) struct ImpersonationMetrics {
    attempts: Measured,
    checks: Measured,
}

/// A number and its durations.
struct Measured {
    total: IntCounterVec,
    seconds: HistogramVec,
}

impl ImpersonationMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// A name is already registered.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            attempts: Measured::new(registry, "attempts", "impersonations")?,
            checks: Measured::new(
                registry,
                "authorization_attempts",
                "authorization checks of impersonations",
            )?,
        })
    }

    /// Counts an attempt by the verb of the mode that allowed it, which is empty for the mode without a name; `None` if
    /// it was denied.
    pub(super) fn attempted(&self, allowed: Option<&str>, elapsed: Duration) {
        let mode = match allowed {
            None => "",
            Some("") => UNNAMED,
            Some(verb) => mode(verb),
        };
        self.attempts.observe(mode, allowed.is_some(), elapsed);
    }

    /// Counts a check of a verb.
    pub(super) fn authorized(&self, verb: &str, is_allowed: bool, elapsed: Duration) {
        self.checks.observe(mode(verb), is_allowed, elapsed);
    }
}

impl Measured {
    fn new(registry: &Registry, name: &str, what: &str) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        let name = |suffix: &str| format!("apiserver_impersonation_{name}_{suffix}");
        let help = format!("Number of {what} by mode and decision.");
        let total = registrar.counters(&name("total"), &help, &LABELS)?;
        let help = format!("Duration of {what} by mode and decision, in seconds.");
        let buckets = exponential_buckets(0.001, 2.0, 15)?;
        let seconds = registrar.histograms(&name("duration_seconds"), &help, &LABELS, &buckets)?;
        Ok(Self { total, seconds })
    }

    fn observe(&self, mode: &str, is_allowed: bool, elapsed: Duration) {
        let labels = [mode, if is_allowed { "allowed" } else { "denied" }];
        self.total.with_label_values(&labels).inc();
        self.seconds.with_label_values(&labels).observe(elapsed.as_secs_f64());
    }
}

/// Returns the label of the mode of a verb: `impersonate`, `impersonate:MODE` or `impersonate-on:MODE:VERB`.
fn mode(verb: &str) -> &'static str {
    let Some(named) = verb.strip_prefix("impersonate:").or_else(|| verb.strip_prefix("impersonate-on:"))
    else {
        return UNNAMED;
    };
    let named = named.split(':').next().unwrap_or_default();
    MODES.into_iter().find(|mode| *mode == named).unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_names_of_modes() {
        for (verb, label) in [
            ("impersonate", "legacy"),
            ("impersonate:user-info", "user-info"),
            ("impersonate-on:arbitrary-node:list", "arbitrary-node"),
            ("impersonate:else", "unknown"),
        ] {
            assert_eq!(mode(verb), label, "{verb}");
        }
    }
}
