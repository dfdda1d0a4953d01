//! Metrics by upstream's names (upstream: `audit/metrics.go`), and the log lines about lost events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nave_metrics::Registrar;
use parking_lot::Mutex;
use prometheus::{Error, IntCounter, IntCounterVec, Registry};

use crate::policy::Level;

/// The metrics of audit.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) events: IntCounter,
    levels: [IntCounter; 4],
    pub(crate) rejected: IntCounter,
    errors: IntCounterVec,
}

impl Metrics {
    /// Creates and registers the metrics.
    ///
    /// # Errors
    /// A metric with the same name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let registrar = Registrar(registry);
        let levels = registrar.counters(
            "apiserver_audit_level_total",
            "Number of requests by the level of their audit events.",
            &["level"],
        )?;
        Ok(Self {
            events: registrar
                .counter("apiserver_audit_event_total", "Number of audit events handed to the backends.")?,
            levels: Level::ALL.map(|level| levels.with_label_values(&[level.as_str()])),
            rejected: registrar.counter(
                "apiserver_audit_requests_rejected_total",
                "Number of requests rejected because their audit event could not be recorded.",
            )?,
            errors: registrar.counters(
                "apiserver_audit_error_total",
                "Number of audit events that were lost, by the plugin that lost them.",
                &["plugin"],
            )?,
        })
    }

    /// Counts a request by its level.
    pub fn level(&self, level: Level) {
        if let Some(counter) = self.levels.get(level as usize) {
            counter.inc();
        }
    }

    /// Creates the report of the events that a plugin loses.
    pub(crate) fn losses(&self, plugin: &'static str) -> Losses {
        Losses {
            plugin,
            counter: self.errors.with_label_values(&[plugin]),
            unreported: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }
}

/// Counts lost events, and logs their number once per period.
#[derive(Debug)]
pub(crate) struct Losses {
    plugin: &'static str,
    counter: IntCounter,
    unreported: AtomicU64,
    last: Mutex<Option<Instant>>,
}

impl Losses {
    /// Counts lost events.
    pub(crate) fn add(&self, lost: usize, why: &dyn std::fmt::Display) {
        self.counter.inc_by(lost as u64);
        self.unreported.fetch_add(lost as u64, Ordering::Relaxed);
        let mut last = self.last.lock();
        if last.is_none_or(|last| last.elapsed() >= PERIOD) {
            *last = Some(Instant::now());
            let (events, plugin) = (self.unreported.swap(0, Ordering::Relaxed), self.plugin);
            tracing::error!(plugin, events, error = %why, "audit events lost");
        }
    }
}

#[cfg(test)]
impl Losses {
    /// Returns the number of lost events.
    pub(crate) fn count(&self) -> u64 {
        self.counter.get()
    }
}

impl Drop for Losses {
    fn drop(&mut self) {
        let events = *self.unreported.get_mut();
        if events > 0 {
            tracing::error!(plugin = self.plugin, events, "audit events lost");
        }
    }
}

/// The period of log lines.
const PERIOD: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_losses_by_plugin_and_requests_by_level() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.losses("log").add(3, &"full");
        metrics.level(Level::Request);
        assert_eq!(metrics.errors.with_label_values(&["log"]).get(), 3);
        let families = registry.gather();
        let names: Vec<&str> = families.iter().map(prometheus::proto::MetricFamily::name).collect();
        assert_eq!(
            names,
            [
                "apiserver_audit_error_total",
                "apiserver_audit_event_total",
                "apiserver_audit_level_total",
                "apiserver_audit_requests_rejected_total"
            ]
        );
    }
}
