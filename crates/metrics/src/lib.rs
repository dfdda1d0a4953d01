//! Creates metrics and registers them in one step.
//!
//! ```
//! use nave_metrics::Registrar;
//!
//! let registry = prometheus::Registry::new();
//! let requests = Registrar(&registry).counters("requests_total", "Requests answered.", &["code"])?;
//! requests.with_label_values(&["200"]).inc();
//! assert_eq!(registry.gather()[0].name(), "requests_total");
//! # Ok::<(), prometheus::Error>(())
//! ```

mod series;

use prometheus::core::Collector;
use prometheus::{
    Error, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    Registry,
};

pub use series::{Count, Distribution, Series, SeriesVec};

/// Creates metrics in a registry. The errors (an invalid name or label, a duplicate name) are bugs in the program.
#[derive(Clone, Copy)]
pub struct Registrar<'r>(pub &'r Registry);

impl Registrar<'_> {
    /// Creates a counter.
    ///
    /// # Errors
    /// The name is invalid or already registered.
    pub fn counter(self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.register(IntCounter::new(name, help)?)
    }

    /// Creates a counter with labels.
    ///
    /// # Errors
    /// The name or a label is invalid, or the name is already registered.
    pub fn counters(self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// Creates an integer gauge with labels.
    ///
    /// # Errors
    /// The name or a label is invalid, or the name is already registered.
    pub fn int_gauges(self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// Creates a floating-point gauge with labels.
    ///
    /// # Errors
    /// The name or a label is invalid, or the name is already registered.
    pub fn gauges(self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, Error> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// Creates a histogram.
    ///
    /// # Errors
    /// The name or the buckets are invalid, or the name is already registered.
    pub fn histogram(self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, Error> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    /// Creates a histogram with labels.
    ///
    /// # Errors
    /// The name, a label or the buckets are invalid, or the name is already registered.
    pub fn histograms(
        self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, Error> {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?)
    }

    /// Creates a counter with labels that may have thousands of series.
    ///
    /// # Errors
    /// The name or a label is invalid, or the name is already registered.
    pub fn many_counters(self, name: &str, help: &str, labels: &[&str]) -> Result<SeriesVec<Count>, Error> {
        self.register(SeriesVec::new(name, help, labels, &[])?)
    }

    /// Creates a histogram with labels that may have thousands of series. The buckets are in ascending order.
    ///
    /// # Errors
    /// The name or a label is invalid, or the name is already registered.
    pub fn many_histograms(
        self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<SeriesVec<Distribution>, Error> {
        self.register(SeriesVec::new(name, help, labels, buckets)?)
    }

    /// Registers an existing collector.
    ///
    /// # Errors
    /// The name is already registered.
    pub fn register<C: Collector + Clone + 'static>(self, collector: C) -> Result<C, Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_each_metric() {
        let registry = Registry::new();
        let registrar = Registrar(&registry);
        registrar.counter("a", "A.").unwrap().inc();
        registrar.counters("b", "B.", &["l"]).unwrap().with_label_values(&["x"]).inc();
        registrar.int_gauges("c", "C.", &["l"]).unwrap().with_label_values(&["x"]).set(1);
        registrar.gauges("d", "D.", &["l"]).unwrap().with_label_values(&["x"]).set(1.0);
        registrar.histogram("e", "E.", &[1.0]).unwrap().observe(1.0);
        registrar.histograms("f", "F.", &["l"], &[1.0]).unwrap().with_label_values(&["x"]).observe(1.0);
        let names: Vec<_> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        assert_eq!(names, ["a", "b", "c", "d", "e", "f"]);
        assert!(registrar.counter("a", "Again.").is_err());
        assert!(registrar.counter("not a name", "N.").is_err());
    }
}
