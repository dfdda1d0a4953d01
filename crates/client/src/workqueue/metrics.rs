//! client-go's metrics of work queues.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, exponential_buckets,
};
use tokio::time::Instant;

use super::Key;

/// The metrics of all queues in a process. The label `name` is the name of the queue. Clones share the metrics.
#[derive(Clone)]
pub struct WorkqueueMetrics {
    families: Families,
    queues: Arc<Mutex<Vec<Measurement>>>,
}

/// The metrics of a queue that are computed when metrics are collected.
struct Measurement {
    running: Weak<dyn Running>,
    unfinished: Gauge,
    longest: Gauge,
}

#[derive(Clone)]
struct Families {
    depth: IntGaugeVec,
    adds: IntCounterVec,
    queue_duration: HistogramVec,
    work_duration: HistogramVec,
    unfinished_work: GaugeVec,
    longest_running: GaugeVec,
    retries: IntCounterVec,
}

impl WorkqueueMetrics {
    /// Registers the metrics.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let named = |name: &str, help: &str| Opts::new(format!("workqueue_{name}"), help);
        let seconds = |name: &str, help: &str| -> Result<HistogramOpts, prometheus::Error> {
            // 10 ns to 10 s, as in upstream.
            Ok(HistogramOpts::from(named(name, help)).buckets(exponential_buckets(1e-8, 10.0, 10)?))
        };
        let families = Families {
            depth: IntGaugeVec::new(named("depth", "Keys waiting in the queue."), &["name"])?,
            adds: IntCounterVec::new(named("adds_total", "Keys added."), &["name"])?,
            queue_duration: HistogramVec::new(
                seconds("queue_duration_seconds", "Time a key waits in the queue, in seconds.")?,
                &["name"],
            )?,
            work_duration: HistogramVec::new(
                seconds("work_duration_seconds", "Time to process a key, in seconds.")?,
                &["name"],
            )?,
            unfinished_work: GaugeVec::new(
                named(
                    "unfinished_work_seconds",
                    "Total time spent so far on keys in processing, in seconds.",
                ),
                &["name"],
            )?,
            longest_running: GaugeVec::new(
                named(
                    "longest_running_processor_seconds",
                    "Time of the longest processing in progress, in seconds.",
                ),
                &["name"],
            )?,
            retries: IntCounterVec::new(named("retries_total", "Keys added with a delay."), &["name"])?,
        };
        let metrics = Self { families, queues: Arc::default() };
        registry.register(Box::new(metrics.clone()))?;
        Ok(metrics)
    }

    /// Updates the time-dependent gauges.
    fn refresh(&self) {
        self.queues.lock().retain(|queue| {
            let Some(running) = queue.running.upgrade() else { return false };
            let (sum, max) = running.seconds();
            queue.unfinished.set(sum);
            queue.longest.set(max);
            true
        });
    }
}

impl Collector for WorkqueueMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let Families {
            depth,
            adds,
            queue_duration,
            work_duration,
            unfinished_work,
            longest_running,
            retries,
        } = &self.families;
        let parts: [&dyn Collector; 7] =
            [depth, adds, queue_duration, work_duration, unfinished_work, longest_running, retries];
        parts.iter().flat_map(|part| part.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        let Families {
            depth,
            adds,
            queue_duration,
            work_duration,
            unfinished_work,
            longest_running,
            retries,
        } = &self.families;
        let parts: [&dyn Collector; 7] =
            [depth, adds, queue_duration, work_duration, unfinished_work, longest_running, retries];
        parts.iter().flat_map(|part| part.collect()).collect()
    }
}

/// Processing in progress.
trait Running: Send + Sync {
    /// Returns the total and the longest processing time of the keys in progress.
    fn seconds(&self) -> (f64, f64);
}

struct Starts<T>(Mutex<HashMap<T, Instant>>);

impl<T: Key> Running for Starts<T> {
    fn seconds(&self) -> (f64, f64) {
        let starts = self.0.lock();
        let times = starts.values().map(|start| start.elapsed().as_secs_f64());
        times.fold((0.0, 0.0), |(sum, max), time| (sum + time, f64::max(max, time)))
    }
}

/// The metrics of one queue; `None` if the queue has no metrics.
pub(super) struct QueueMetrics<T>(Option<Measured<T>>);

struct Measured<T> {
    depth: IntGauge,
    adds: IntCounter,
    queue_duration: Histogram,
    work_duration: Histogram,
    retries: IntCounter,
    added: HashMap<T, Instant>,
    started: Arc<Starts<T>>,
}

impl<T: Key> QueueMetrics<T> {
    pub(super) fn new(metrics: Option<(&WorkqueueMetrics, &str)>) -> Self {
        let measured = metrics.map(|(metrics, name)| {
            let families = &metrics.families;
            let started = Arc::new(Starts(Mutex::default()));
            let running: Arc<dyn Running> = started.clone();
            metrics.queues.lock().push(Measurement {
                running: Arc::downgrade(&running),
                unfinished: families.unfinished_work.with_label_values(&[name]),
                longest: families.longest_running.with_label_values(&[name]),
            });
            Measured {
                depth: families.depth.with_label_values(&[name]),
                adds: families.adds.with_label_values(&[name]),
                queue_duration: families.queue_duration.with_label_values(&[name]),
                work_duration: families.work_duration.with_label_values(&[name]),
                retries: families.retries.with_label_values(&[name]),
                added: HashMap::new(),
                started,
            }
        });
        Self(measured)
    }

    pub(super) fn added(&mut self, key: &T) {
        let Some(queue) = &mut self.0 else { return };
        queue.adds.inc();
        queue.added.entry(key.clone()).or_insert_with(Instant::now);
    }

    pub(super) fn depth(&self, depth: usize) {
        if let Some(queue) = &self.0 {
            queue.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn taken(&mut self, key: &T) {
        let Some(queue) = &mut self.0 else { return };
        if let Some(added) = queue.added.remove(key) {
            queue.queue_duration.observe(added.elapsed().as_secs_f64());
        }
        queue.started.0.lock().insert(key.clone(), Instant::now());
    }

    pub(super) fn done(&self, key: &T) {
        let Some(queue) = &self.0 else { return };
        if let Some(started) = queue.started.0.lock().remove(key) {
            queue.work_duration.observe(started.elapsed().as_secs_f64());
        }
    }

    pub(super) fn retried(&self) {
        if let Some(queue) = &self.0 {
            queue.retries.inc();
        }
    }
}
