//! The metrics of the stages before the handler, and of the bodies of requests.

use std::time::Instant;

use nave_metrics::{Distribution, Registrar, SeriesVec};
use prometheus::Histogram;

/// The buckets of `apiserver_request_filter_duration_seconds`, as upstream.
const FILTER_BUCKETS: [f64; 13] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0];

/// The buckets of `apiserver_request_body_size_bytes`, as upstream: from 50 kB, in steps of 100 kB.
const BODY_BUCKETS: usize = 31;

/// A stage whose time is measured, with upstream's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    Authentication,
    Audit,
    Impersonation,
    FlowControl,
    Authorization,
}

impl Filter {
    const ALL: [Self; 5] =
        [Self::Authentication, Self::Audit, Self::Impersonation, Self::FlowControl, Self::Authorization];

    fn as_str(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Audit => "audit",
            Self::Impersonation => "constrainedimpersonation",
            Self::FlowControl => "priorityandfairness",
            Self::Authorization => "authorization",
        }
    }
}

/// The times of stages and the sizes of bodies.
pub(crate) struct StageMetrics {
    filters: [Histogram; Filter::ALL.len()],
    pub(super) body_sizes: SeriesVec<Distribution>,
}

impl StageMetrics {
    pub(super) fn new(registrar: Registrar<'_>) -> Result<Self, prometheus::Error> {
        let (name, help) = ("apiserver_request_filter_duration_seconds", "Time of a stage, in seconds.");
        let filters = registrar.histograms(name, help, &["filter"], &FILTER_BUCKETS)?;
        let buckets: Vec<f64> = (0..BODY_BUCKETS).map(|step| 50e3 + 100e3 * step as f64).collect();
        let (name, help) = ("apiserver_request_body_size_bytes", "Sizes of the bodies of writes, in bytes.");
        let body_sizes = registrar.many_histograms(name, help, &["group", "resource", "verb"], &buckets)?;
        Ok(Self {
            filters: Filter::ALL.map(|filter| filters.with_label_values(&[filter.as_str()])),
            body_sizes,
        })
    }

    /// Records the time of a stage that ends now, and returns the time of its end.
    pub(crate) fn filtered(&self, filter: Filter, started: Instant) -> Instant {
        let now = Instant::now();
        if let Some(histogram) = self.filters.get(filter as usize) {
            histogram.observe(now.saturating_duration_since(started).as_secs_f64());
        }
        now
    }
}
