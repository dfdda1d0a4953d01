//! Values of metric families, summed by some of their labels, and their increase between two samples.

use std::collections::{BTreeMap, HashMap};

use prometheus::proto::{Metric, MetricFamily};

/// All metrics at one time.
#[derive(Default)]
pub(super) struct Families(HashMap<String, MetricFamily>);

/// The sum of some series of one family.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// The value of a counter or gauge; the number of observations of a histogram.
    pub(super) value: f64,
    /// The sum of a histogram.
    pub(super) sum: f64,
    /// Cumulative counts by upper bound, of a histogram.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Families {
    pub(super) fn new(gathered: Vec<MetricFamily>) -> Self {
        Self(gathered.into_iter().map(|family| (family.name().to_owned(), family)).collect())
    }

    /// Returns whether a family exists. A family without series does not.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Returns the sum of all series; `None` if the family does not exist.
    pub(super) fn total(&self, name: &str) -> Option<f64> {
        self.has(name).then(|| self.by(name, []).remove(&[]).map_or(0.0, |totals| totals.value))
    }

    /// Sums the series of a family by the values of these labels. An absent label has an empty value.
    pub(super) fn by<const N: usize>(&self, name: &str, labels: [&str; N]) -> BTreeMap<[String; N], Totals> {
        let mut sums: BTreeMap<[String; N], Totals> = BTreeMap::new();
        for metric in self.0.get(name).into_iter().flat_map(MetricFamily::get_metric) {
            let key = labels.map(|label| value_of(metric, label).to_owned());
            sums.entry(key).or_default().add(metric);
        }
        sums
    }
}

impl Totals {
    fn add(&mut self, metric: &Metric) {
        let histogram = metric.get_histogram();
        self.value += metric.get_counter().get_value() + metric.get_gauge().get_value();
        self.value += histogram.get_sample_count() as f64;
        self.sum += histogram.get_sample_sum();
        let buckets = histogram.get_bucket();
        if self.buckets.is_empty() {
            self.buckets = buckets.iter().map(|it| (it.upper_bound(), it.cumulative_count())).collect();
        } else {
            for ((_, count), bucket) in self.buckets.iter_mut().zip(buckets) {
                *count += bucket.cumulative_count();
            }
        }
    }

    /// Returns the increase since an earlier sample. A counter that was reset has none.
    pub(super) fn since(&self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier else { return self.clone() };
        let mut buckets = self.buckets.clone();
        for ((_, count), (_, before)) in buckets.iter_mut().zip(&earlier.buckets) {
            *count = count.saturating_sub(*before);
        }
        Self { value: (self.value - earlier.value).max(0.0), sum: (self.sum - earlier.sum).max(0.0), buckets }
    }

    /// Returns the mean of a histogram; `None` without observations.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.value > 0.0).then(|| self.sum / self.value)
    }

    /// Returns a quantile of a histogram, interpolated within its bucket; `None` without observations.
    pub(super) fn quantile(&self, part: f64) -> Option<f64> {
        if self.value <= 0.0 {
            return None;
        }
        let rank = self.value * part;
        let mut below = (0.0, 0);
        for (bound, count) in self.buckets.iter().copied().filter(|(bound, _)| bound.is_finite()) {
            if count as f64 >= rank {
                let within = (rank - below.1 as f64) / count.saturating_sub(below.1).max(1) as f64;
                return Some(below.0 + (bound - below.0) * within);
            }
            below = (bound, count);
        }
        Some(below.0)
    }
}

fn value_of<'m>(metric: &'m Metric, label: &str) -> &'m str {
    metric.get_label().iter().find(|pair| pair.name() == label).map_or("", |pair| pair.value())
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the numbers are exact")]
mod tests {
    use nave_metrics::Registrar;
    use prometheus::Registry;

    use super::*;

    #[test]
    fn sums_series_by_label() {
        let registry = Registry::new();
        let requests = Registrar(&registry).counters("requests", "R.", &["verb", "code"]).unwrap();
        for (verb, code, count) in [("GET", "200", 3), ("GET", "404", 1), ("PUT", "200", 5)] {
            requests.with_label_values(&[verb, code]).inc_by(count);
        }
        let families = Families::new(registry.gather());
        let by_verb = families.by("requests", ["verb"]);
        assert_eq!(by_verb[&["GET".to_owned()]].value, 4.0);
        assert_eq!(families.total("requests"), Some(9.0));
        assert_eq!(families.by("requests", ["none"])[&[String::new()]].value, 9.0);
        assert_eq!(families.total("absent"), None);
        assert!(families.by("absent", ["verb"]).is_empty());
    }

    #[test]
    fn increases_of_histograms_have_means_and_quantiles() {
        let registry = Registry::new();
        let times = Registrar(&registry).histograms("times", "T.", &["verb"], &[1.0, 2.0]).unwrap();
        times.with_label_values(&["a"]).observe(0.5);
        let get = || Families::new(registry.gather()).by("times", []).remove(&[]).unwrap();
        let before = get();
        for value in [0.5, 1.5, 1.5, 9.0] {
            times.with_label_values(&["b"]).observe(value);
        }
        let increase = get().since(Some(&before));
        assert_eq!(increase.mean(), Some(3.125));
        assert_eq!(
            [0.25, 0.5, 0.75, 0.99].map(|part| increase.quantile(part)),
            [1.0, 1.5, 2.0, 2.0].map(Some)
        );
        let none = before.since(Some(&before));
        assert_eq!((none.mean(), none.quantile(0.5)), (None, None));
        assert_eq!(before.since(Some(&increase)).value, 0.0, "a reset counter");
    }
}
