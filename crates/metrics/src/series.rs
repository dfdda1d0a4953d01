//! Counters and histograms with thousands of series, such as those by resource.
//!
//! A series of the `prometheus` crate repeats the names of the metric and its labels and takes 1 to 2 KB. A series here
//! has its values only: 0.2 KB for a counter, 0.4 KB for a histogram of 25 buckets.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;
use parking_lot::RwLock;
use prometheus::Error;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

/// A metric with labels. Clones share the series.
pub struct SeriesVec<S>(Arc<Shared<S>>);

struct Shared<S> {
    desc: Desc,
    labels: Vec<String>,
    bounds: Arc<[f64]>,
    hasher: RandomState,
    series: RwLock<HashTable<Entry<S>>>,
}

struct Entry<S> {
    /// The values of the labels, each followed by a zero.
    labels: Box<str>,
    series: Arc<S>,
}

/// The values of a series.
pub trait Series: Send + Sync + Sized + 'static {
    /// The type of the metric.
    const TYPE: MetricType;

    /// Creates a series, with the bounds of its buckets if it has any.
    fn new(bounds: &Arc<[f64]>) -> Self;

    /// Writes the values.
    fn write(&self, metric: &mut Metric);
}

impl<S: Series> SeriesVec<S> {
    /// Creates a metric without series.
    ///
    /// # Errors
    /// The name or a label is invalid.
    pub(crate) fn new(name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> Result<Self, Error> {
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels.clone(), HashMap::default())?;
        let (hasher, series) = (RandomState::new(), RwLock::default());
        Ok(Self(Arc::new(Shared { desc, labels, bounds: bounds.into(), hasher, series })))
    }

    /// Returns the series with these values of the labels. Creates it if there is none.
    pub fn with_label_values(&self, values: &[&str]) -> Arc<S> {
        let hash = self.hash(values.iter().copied());
        let find = |entry: &Entry<S>| entry.has(values);
        if let Some(entry) = self.0.series.read().find(hash, find) {
            return Arc::clone(&entry.series);
        }
        let mut series = self.0.series.write();
        if let Some(entry) = series.find(hash, find) {
            return Arc::clone(&entry.series);
        }
        let labels = values.iter().flat_map(|value| [*value, "\0"]).collect::<String>().into_boxed_str();
        let entry = Entry { labels, series: Arc::new(S::new(&self.0.bounds)) };
        let created = Arc::clone(&entry.series);
        series.insert_unique(hash, entry, |entry| self.hash(entry.values()));
        created
    }

    /// Removes the series that `keep` does not return `true` for. It gets a function from a label's name to its value.
    pub fn retain(&self, keep: impl for<'v> Fn(&dyn Fn(&str) -> Option<&'v str>) -> bool) {
        let position = |name: &str| self.0.labels.iter().position(|label| label == name);
        self.0.series.write().retain(|entry| keep(&|name| entry.values().nth(position(name)?)));
    }

    fn hash<'v>(&self, values: impl Iterator<Item = &'v str>) -> u64 {
        let mut hasher = self.0.hasher.build_hasher();
        for value in values {
            hasher.write(value.as_bytes());
            hasher.write(b"\0");
        }
        hasher.finish()
    }
}

impl<S> Clone for SeriesVec<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Entry<S> {
    fn has(&self, values: &[&str]) -> bool {
        let rest = values
            .iter()
            .try_fold(&self.labels[..], |rest, value| rest.strip_prefix(value)?.strip_prefix('\0'));
        rest == Some("")
    }

    fn values(&self) -> impl Iterator<Item = &str> {
        self.labels.split_terminator('\0')
    }
}

impl<S: Series> Collector for SeriesVec<S> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Shared { desc, labels, series, .. } = &*self.0;
        let metric = |entry: &Entry<S>| {
            let pairs = labels.iter().zip(entry.values()).map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name(name.clone());
                pair.set_value(value.to_owned());
                pair
            });
            let mut metric = Metric::from_label(pairs.collect());
            entry.series.write(&mut metric);
            metric
        };
        let metrics: Vec<Metric> = series.read().iter().map(metric).collect();
        if metrics.is_empty() {
            // The registry rejects a family without metrics.
            return Vec::new();
        }
        let mut family = MetricFamily::default();
        family.set_name(desc.fq_name.clone());
        family.set_help(desc.help.clone());
        family.set_field_type(S::TYPE);
        family.set_metric(metrics);
        vec![family]
    }
}

/// A counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds 1.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Series for Count {
    const TYPE: MetricType = MetricType::COUNTER;

    fn new(_: &Arc<[f64]>) -> Self {
        Self::default()
    }

    fn write(&self, metric: &mut Metric) {
        let mut counter = proto::Counter::default();
        counter.set_value(self.0.load(Ordering::Relaxed) as f64);
        metric.set_counter(counter);
    }
}

/// The numbers of observed values by bucket, and their sum.
#[derive(Debug)]
pub struct Distribution {
    bounds: Arc<[f64]>,
    /// One for each bound, and one for values above the last bound.
    counts: Box<[AtomicU64]>,
    /// The bits of the sum.
    sum: AtomicU64,
}

impl Distribution {
    /// Adds a value.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        // Fails only if `add` returns `None`.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl Series for Distribution {
    const TYPE: MetricType = MetricType::HISTOGRAM;

    fn new(bounds: &Arc<[f64]>) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds: Arc::clone(bounds), counts, sum: AtomicU64::new(0) }
    }

    fn write(&self, metric: &mut Metric) {
        let mut below = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            below += count.load(Ordering::Relaxed);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            buckets.push(bucket);
        }
        let above = self.counts.last().map_or(0, |count| count.load(Ordering::Relaxed));
        let mut histogram = proto::Histogram::default();
        histogram.set_sample_count(below + above);
        histogram.set_sample_sum(f64::from_bits(self.sum.load(Ordering::Relaxed)));
        histogram.set_bucket(buckets);
        metric.set_histogram(histogram);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

    use super::*;

    const LABELS: [&str; 2] = ["group", "resource"];
    const SERIES: [[&str; 2]; 4] = [["", "pods"], ["apps", ""], ["", ""], ["a", "b"]];

    fn text(collector: impl Collector + 'static) -> String {
        let registry = Registry::new();
        registry.register(Box::new(collector)).unwrap();
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn counters_have_the_text_of_the_crate() {
        let own = SeriesVec::<Count>::new("n_total", "N.", &LABELS, &[]).unwrap();
        let other = IntCounterVec::new(Opts::new("n_total", "N."), &LABELS).unwrap();
        assert_eq!(text(own.clone()), text(other.clone()));
        for (times, labels) in SERIES.iter().enumerate() {
            for _ in 0..=times {
                own.with_label_values(labels).inc();
                other.with_label_values(labels).inc();
            }
        }
        assert_eq!(text(own), text(other));
    }

    #[test]
    fn histograms_have_the_text_of_the_crate() {
        let bounds = [0.1, 1.0, 10.0];
        let own = SeriesVec::<Distribution>::new("s", "S.", &LABELS, &bounds).unwrap();
        let options = HistogramOpts::new("s", "S.").buckets(bounds.to_vec());
        let other = HistogramVec::new(options, &LABELS).unwrap();
        for (at, value) in [0.0, 0.1, 0.5, 1.0, 7.25, 10.5, 1e9].into_iter().enumerate() {
            let labels = SERIES[at % SERIES.len()];
            own.with_label_values(&labels).observe(value);
            other.with_label_values(&labels).observe(value);
        }
        assert_eq!(text(own), text(other));
    }

    #[test]
    fn series_can_be_removed_and_start_again() {
        let own = SeriesVec::<Count>::new("n_total", "N.", &LABELS, &[]).unwrap();
        for number in 0..500 {
            own.with_label_values(&["a", &number.to_string()]).inc();
        }
        own.with_label_values(&["b", "7"]).inc();
        own.retain(|value| value("group") == Some("b") || value("resource") == Some("499"));
        own.with_label_values(&["a", "7"]).inc();
        own.with_label_values(&["a", "499"]).inc();
        let text = text(own);
        let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("n_total")).collect();
        let expected = [("a", 499, 2), ("a", 7, 1), ("b", 7, 1)];
        let expected = expected
            .map(|(group, resource, count)| format!("{{group=\"{group}\",resource=\"{resource}\"}} {count}"));
        assert_eq!(lines, expected);
    }

    #[test]
    fn names_are_checked() {
        assert!(SeriesVec::<Count>::new("not a name", "N.", &[], &[]).is_err());
        assert!(SeriesVec::<Count>::new("n", "N.", &["not a label"], &[]).is_err());
    }
}
