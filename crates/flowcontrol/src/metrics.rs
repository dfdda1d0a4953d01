//! The metrics of priority and fairness, under upstream's names (`flowcontrol/metrics`).
//!
//! Counters and histograms of requests are updated by each request. Gauges are read from the levels when the metrics are
//! collected, so that they cost requests nothing. Labels are names of stored objects and go with them.

use std::collections::HashMap;

use nave_metrics::Registrar;
use parking_lot::Mutex;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{Error, HistogramVec, IntCounterVec, Registry};
use tokio::time::Instant;

use crate::flow::Handles;
use crate::queues::Rejection;
use crate::timing::TimingHistogram;

pub use self::levels::LevelMetrics;

mod levels;

const QUEUE_LENGTH_BUCKETS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const DURATION_BUCKETS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const WATCH_COUNT_BUCKETS: [f64; 6] = [0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0];
const ESTIMATED_SEAT_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
pub(crate) const SEAT_BUCKETS: [f64; 13] =
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
pub(crate) const UTILIZATION_BUCKETS: [f64; 10] = [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0];
pub(crate) const DEMAND_BUCKETS: [f64; 12] = [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];
const READ_WRITE_BUCKETS: [f64; 15] =
    [0.0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];

const FLOW: [&str; 2] = ["flow_schema", "priority_level"];

/// Counters and histograms by flow schema and priority level.
pub struct FlowMetrics {
    dispatched: IntCounterVec,
    rejected: IntCounterVec,
    queue_lengths: HistogramVec,
    waits: HistogramVec,
    executions: HistogramVec,
    watch_counts: HistogramVec,
    seats: HistogramVec,
}

impl FlowMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// A name is already registered.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let registrar = Registrar(registry);
        let name = |name: &str| format!("apiserver_flowcontrol_{name}");
        let by = |label| ["flow_schema", "priority_level", label];
        let histograms = |suffix: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            registrar.histograms(&name(suffix), help, labels, buckets)
        };
        Ok(Self {
            dispatched: registrar.counters(
                &name("dispatched_requests_total"),
                "Requests that got seats.",
                &FLOW,
            )?,
            rejected: registrar.counters(
                &name("rejected_requests_total"),
                "Requests that were rejected, by reason.",
                &by("reason"),
            )?,
            queue_lengths: histograms(
                "request_queue_length_after_enqueue",
                "Length of the queue, as seen by each request after its arrival.",
                &FLOW,
                &QUEUE_LENGTH_BUCKETS,
            )?,
            waits: histograms(
                "request_wait_duration_seconds",
                "Time that requests waited for seats, in seconds.",
                &by("execute"),
                &DURATION_BUCKETS,
            )?,
            executions: histograms(
                "request_execution_seconds",
                "Time that requests held seats, in seconds; for a watch, that of its initialization.",
                &by("type"),
                &DURATION_BUCKETS,
            )?,
            watch_counts: histograms(
                "watch_count_samples",
                "Watches that a write concerns.",
                &FLOW,
                &WATCH_COUNT_BUCKETS,
            )?,
            seats: histograms(
                "work_estimated_seats",
                "Estimated seats of requests.",
                &FLOW,
                &ESTIMATED_SEAT_BUCKETS,
            )?,
        })
    }

    /// Records the number of watches that a write concerns.
    pub(crate) fn watch_count(&self, level: &str, flow: &str, count: u32) {
        self.watch_counts.with_label_values(&[flow, level]).observe(count.into());
    }

    pub(crate) fn rejected(&self, level: &str, flow: &str, reason: Rejection) {
        self.rejected.with_label_values(&[flow, level, reason.label()]).inc();
    }

    /// Records the time that a rejected request waited.
    pub(crate) fn waited_in_vain(&self, level: &str, flow: &str, seconds: f64) {
        self.waits.with_label_values(&[flow, level, "false"]).observe(seconds);
    }

    /// Returns the metrics that each request of a flow updates.
    pub(crate) fn handles(&self, level: &str, flow: &str) -> Handles {
        Handles {
            dispatched: self.dispatched.with_label_values(&[flow, level]),
            waits: self.waits.with_label_values(&[flow, level, "true"]),
            executions: self.executions.with_label_values(&[flow, level, "regular"]),
            watch_initializations: self.executions.with_label_values(&[flow, level, "watch"]),
            seats: self.seats.with_label_values(&[flow, level]),
            queue_lengths: self.queue_lengths.with_label_values(&[flow, level]),
        }
    }

    /// Removes the metrics of flows that are no longer used. `is_used` gets a level and a flow schema.
    pub(crate) fn retain(&self, is_used: impl Fn(&str, &str) -> bool) {
        let histograms =
            [&self.queue_lengths, &self.waits, &self.executions, &self.watch_counts, &self.seats];
        for vec in histograms {
            remove_unused(vec, &is_used);
        }
        for vec in [&self.dispatched, &self.rejected] {
            remove_unused(vec, &is_used);
        }
    }
}

/// Removes the metrics whose flow is not used.
fn remove_unused<B: MetricVecBuilder>(vec: &MetricVec<B>, is_used: &impl Fn(&str, &str) -> bool) {
    for family in vec.collect() {
        for metric in family.get_metric() {
            let labels: HashMap<&str, &str> =
                metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
            let label = |name: &str| labels.get(name).copied().unwrap_or_default();
            if !is_used(label("priority_level"), label("flow_schema")) {
                // Fails only if another thread has removed it.
                let _ = vec.remove(&labels);
            }
        }
    }
}

/// The requests of all levels, apart by whether they may change objects.
pub(crate) struct ReadWrite(Mutex<Phases>);

struct Phases {
    executing: [Gauge; 2],
    waiting: [Gauge; 2],
    capacities: (f64, f64),
}

struct Gauge {
    count: i64,
    histogram: TimingHistogram,
}

impl ReadWrite {
    pub(crate) fn new(now: Instant) -> Self {
        let gauges = || {
            [(); 2].map(|()| Gauge { count: 0, histogram: TimingHistogram::new(now, &READ_WRITE_BUCKETS) })
        };
        Self(Mutex::new(Phases { executing: gauges(), waiting: gauges(), capacities: (1.0, 1.0) }))
    }

    /// Sets the number of requests that can execute and wait in all levels.
    pub(crate) fn set_capacities(&self, executing: f64, waiting: f64) {
        self.0.lock().capacities = (executing, waiting);
    }

    pub(crate) fn executing(&self, mutating: bool, change: i64, now: Instant) {
        let mut phases = self.0.lock();
        let (capacity, _) = phases.capacities;
        let [read_only, mutates] = &mut phases.executing;
        (if mutating { mutates } else { read_only }).add(change, capacity, now);
    }

    pub(crate) fn waiting(&self, mutating: bool, change: i64, now: Instant) {
        let mut phases = self.0.lock();
        let (_, capacity) = phases.capacities;
        let [read_only, mutates] = &mut phases.waiting;
        (if mutating { mutates } else { read_only }).add(change, capacity, now);
    }

    /// Returns the histograms until now, by phase and kind of request.
    fn histograms(&self, now: Instant) -> Vec<([&'static str; 2], TimingHistogram)> {
        let phases = self.0.lock();
        let kinds = ["readOnly", "mutating"];
        let phases = [("executing", &phases.executing), ("waiting", &phases.waiting)];
        let all = phases.into_iter().flat_map(|(phase, gauges)| {
            kinds.into_iter().zip(gauges).map(move |(kind, gauge)| {
                let mut histogram = gauge.histogram.clone();
                histogram.advance(now);
                ([phase, kind], histogram)
            })
        });
        all.collect()
    }
}

impl Gauge {
    fn add(&mut self, change: i64, capacity: f64, now: Instant) {
        self.count += change;
        self.histogram.set(now, self.count as f64, capacity);
    }
}
