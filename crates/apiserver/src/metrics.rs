//! The server's metrics, under upstream's names (`component-base/metrics`, `apiserver/pkg/endpoints/metrics`).
//!
//! Label values come from the server's own data (resource definitions, known verbs and codes), never from client text.
//! A request for an unknown resource is counted without the resource's name.

use std::collections::HashMap;
use std::time::Duration;

use nave_machinery::GroupVersionResource;
use nave_metrics::Registrar;
use nave_store::StoreStatus;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, Registry, TextEncoder};

use crate::process_metrics::ProcessMetrics;
use crate::request_info::RequestInfo;

/// The buckets of `apiserver_request_duration_seconds`, as upstream.
const LATENCY_BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// The buckets of `apiserver_response_sizes`, in bytes, as upstream.
const SIZE_BUCKETS: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// The labels of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestLabels<'a> {
    /// The verb, in upper case.
    pub verb: &'a str,
    /// The API group.
    pub group: &'a str,
    /// The version.
    pub version: &'a str,
    /// The resource.
    pub resource: &'a str,
    /// The subresource.
    pub subresource: &'a str,
    /// `cluster`, `namespace`, `resource` or empty.
    pub scope: &'a str,
    /// `All` for a dry run.
    pub dry_run: &'a str,
    /// True if the version of the resource is deprecated.
    pub is_deprecated: bool,
}

/// The server's metrics and their registry.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    /// Durations without the time in webhooks.
    own_durations: HistogramVec,
    response_sizes: HistogramVec,
    deprecated: GaugeVec,
    inflight: IntGaugeVec,
    long_running: IntGaugeVec,
    panics: IntCounterVec,
    terminations: IntCounterVec,
    storage_size: IntGaugeVec,
    no_space: IntGaugeVec,
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// A name or label is invalid (a bug in this file), or a name is already registered.
    pub fn new(registry: Registry) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(&registry);
        let labels =
            ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"];
        let help = "Requests by verb, resource and response code.";
        let requests = registrar.counters("apiserver_request_total", help, &labels)?;
        let labels = ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"];
        let (name, help) = ("apiserver_request_duration_seconds", "Duration of requests, in seconds.");
        let durations = registrar.histograms(name, help, &labels, &LATENCY_BUCKETS)?;
        let labels = ["verb", "group", "version", "resource", "subresource", "scope", "component"];
        let (name, help) =
            ("apiserver_request_sli_duration_seconds", "Duration of requests without webhooks, in seconds.");
        let own_durations = registrar.histograms(name, help, &labels, &LATENCY_BUCKETS)?;
        let (name, help) = ("apiserver_response_sizes", "Sizes of responses to reads, in bytes.");
        let response_sizes = registrar.histograms(name, help, &labels, &SIZE_BUCKETS)?;
        let labels = ["group", "version", "resource", "subresource", "removed_release"];
        let help = "Deprecated APIs that were requested.";
        let deprecated = registrar.gauges("apiserver_requested_deprecated_apis", help, &labels)?;
        registrar.0.register(Box::new(ProcessMetrics::new()?))?;
        let (name, help) = ("apiserver_current_inflight_requests", "Requests being served, by kind.");
        let inflight = registrar.int_gauges(name, help, &["request_kind"])?;
        let labels = ["verb", "group", "version", "resource", "subresource", "scope", "component"];
        let (name, help) =
            ("apiserver_longrunning_requests", "Watches and other long-running requests being served.");
        let long_running = registrar.int_gauges(name, help, &labels)?;
        let (name, help) = ("apiserver_request_aborts_total", "Requests aborted by a panic.");
        let panics = registrar.counters(name, help, &["verb"])?;
        let labels = ["verb", "group", "version", "resource", "subresource", "scope", "component", "code"];
        let help = "Requests terminated in self-defense: too many in flight, or timed out.";
        let terminations = registrar.counters("apiserver_request_terminations_total", help, &labels)?;
        let (name, help) = ("apiserver_storage_size_bytes", "Size of the store on disk, in bytes.");
        let storage_size = registrar.int_gauges(name, help, &["storage_cluster_id"])?;
        let (name, help) =
            ("nave_store_no_space", "1 if writes to the store fail because the disk or quota is exhausted.");
        let no_space = registrar.int_gauges(name, help, &["storage_cluster_id"])?;
        Ok(Self {
            registry,
            requests,
            durations,
            own_durations,
            response_sizes,
            deprecated,
            inflight,
            long_running,
            panics,
            terminations,
            storage_size,
            no_space,
        })
    }

    /// Returns the registry.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Registers the metrics of another component.
    ///
    /// # Errors
    /// A name is already registered.
    pub fn register(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        self.registry.register(collector)
    }

    /// Counts a completed request, of which `in_webhooks` was spent waiting for webhooks. `size` is the size of the
    /// response, if it is known.
    pub fn request_completed(
        &self,
        labels: RequestLabels<'_>,
        code: u16,
        elapsed: Duration,
        in_webhooks: Duration,
        size: Option<u64>,
    ) {
        let RequestLabels { verb, group, version, resource, subresource, scope, dry_run, is_deprecated } =
            labels;
        let mut digits = itoa::Buffer::new();
        let code = digits.format(code);
        let labels = [verb, dry_run, group, version, resource, subresource, scope, "apiserver", code];
        self.requests.with_label_values(&labels).inc();
        self.durations.with_label_values(&labels[..8]).observe(elapsed.as_secs_f64());
        let labels = [verb, group, version, resource, subresource, scope, "apiserver"];
        let own = elapsed.saturating_sub(in_webhooks);
        self.own_durations.with_label_values(&labels).observe(own.as_secs_f64());
        if let Some(size) = size.filter(|_| matches!(verb, "GET" | "LIST")) {
            self.response_sizes.with_label_values(&labels).observe(size as f64);
        }
        if is_deprecated {
            self.deprecated.with_label_values(&[group, version, resource, subresource, ""]).set(1.0);
        }
    }

    /// Counts a request that ended in a panic.
    pub fn aborted(&self, verb: &str) {
        self.panics.with_label_values(&[verb]).inc();
    }

    /// Counts a request terminated in self-defense, because too many are in flight or because it timed out.
    pub fn terminated(&self, labels: RequestLabels<'_>, code: u16) {
        let RequestLabels { verb, group, version, resource, subresource, scope, .. } = labels;
        let mut digits = itoa::Buffer::new();
        let code = digits.format(code);
        let labels = [verb, group, version, resource, subresource, scope, "apiserver", code];
        self.terminations.with_label_values(&labels).inc();
    }

    /// Sets the size and the alarm of one of the stores. Their ids have the form of upstream's: `etcd-0`, `etcd-1`.
    pub fn set_storage_status(&self, status: &StoreStatus, number: usize) {
        let engine = status.engine.split(' ').next().unwrap_or_default();
        let bytes = i64::try_from(status.size_on_disk).unwrap_or(i64::MAX);
        let id = format!("{engine}-{number}");
        self.storage_size.with_label_values(&[id.as_str()]).set(bytes);
        self.no_space.with_label_values(&[id.as_str()]).set(status.no_space.into());
    }

    /// Counts a request as in flight until the guard is dropped.
    pub(crate) fn serving(&self, info: &RequestInfo, labels: RequestLabels<'_>) -> Serving {
        if info.is_long_running() {
            let RequestLabels { verb, group, version, resource, subresource, scope, .. } = labels;
            let labels = [verb, group, version, resource, subresource, scope, "apiserver"];
            return Serving::count(self.long_running.with_label_values(&labels));
        }
        let kind = if info.verb.is_mutating() { "mutating" } else { "readOnly" };
        Serving::count(self.inflight.with_label_values(&[kind]))
    }

    /// Removes the series of resources that are no longer served, so that definitions that come and go do not
    /// accumulate. `is_served` gets the group, version and resource of a series.
    pub(crate) fn retain_resources(&self, is_served: impl Fn(&GroupVersionResource) -> bool) {
        retain(&self.requests, &is_served);
        retain(&self.durations, &is_served);
        retain(&self.own_durations, &is_served);
        retain(&self.response_sizes, &is_served);
        retain(&self.deprecated, &is_served);
        retain(&self.long_running, &is_served);
        retain(&self.terminations, &is_served);
    }

    /// Collects all metrics.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// Encodes all metrics in Prometheus' text format.
    ///
    /// # Errors
    /// A metric cannot be encoded.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.gather(), &mut text)?;
        Ok(text)
    }
}

/// Removes the series that name a resource that is not served.
fn retain<B: MetricVecBuilder>(vec: &MetricVec<B>, is_served: &impl Fn(&GroupVersionResource) -> bool) {
    for family in vec.collect() {
        for metric in family.get_metric() {
            let labels: HashMap<&str, &str> =
                metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
            let label = |name: &str| labels.get(name).copied().unwrap_or_default();
            let gvr = GroupVersionResource::new(label("group"), label("version"), label("resource"));
            if !gvr.resource.is_empty() && !is_served(&gvr) {
                // Fails only if another thread has removed the series.
                let _ = vec.remove(&labels);
            }
        }
    }
}

/// Keeps a gauge incremented until this guard is dropped.
pub(crate) struct Serving(prometheus::IntGauge);

impl Serving {
    fn count(gauge: prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_go_with_their_resource() {
        let metrics = Metrics::new(Registry::new()).unwrap();
        let labels = |resource| RequestLabels {
            verb: "GET",
            group: "example.com",
            version: "v1",
            resource,
            ..RequestLabels::default()
        };
        for resource in ["ants", "bees", ""] {
            metrics.request_completed(labels(resource), 200, Duration::ZERO, Duration::ZERO, Some(1));
        }
        metrics.retain_resources(|gvr| gvr.resource == "bees");
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        assert!(!text.contains("ants"), "{text}");
        for kept in ["resource=\"bees\"", "resource=\"\""] {
            assert!(text.contains(kept), "{text}");
        }
    }
}
