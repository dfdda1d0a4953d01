//! Metric of task restarts.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, Opts};

use crate::Supervisor;

/// `nave_task_restarts_total`: number of restarts after a panic, by kind of task.
pub struct RestartMetrics {
    supervisor: Supervisor,
    restarts: IntCounterVec,
}

impl RestartMetrics {
    /// Creates the metric of `supervisor`.
    ///
    /// # Errors
    /// The metric's name or label is invalid, which is a bug in this file.
    pub fn new(supervisor: Supervisor) -> Result<Self, prometheus::Error> {
        let opts = Opts::new("nave_task_restarts_total", "Restarts of long-running tasks that panicked.");
        Ok(Self { supervisor, restarts: IntCounterVec::new(opts, &["task"])? })
    }
}

impl Collector for RestartMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.restarts.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (task, count) in self.supervisor.restarts() {
            let counter = self.restarts.with_label_values(&[task]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        self.restarts.collect()
    }
}
