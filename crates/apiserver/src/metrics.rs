//! The server's metrics, under upstream's names (`component-base/metrics`, `apiserver/pkg/endpoints/metrics`).
//!
//! Label values come from the server's own data (resource definitions, known verbs and codes), never from client text.
//! A request for an unknown resource is counted without the resource's name.

mod stages;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use nave_metrics::{Count, Distribution, Registrar, Series, SeriesVec};
use nave_store::StoreStatus;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, GaugeVec, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use crate::process_metrics::ProcessMetrics;
use crate::request_info::{RequestInfo, Verb};
pub(crate) use stages::{Filter, StageMetrics};

/// The buckets of `apiserver_request_duration_seconds`, as upstream.
const LATENCY_BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// The buckets of `field_validation_request_duration_seconds`, as upstream.
const FIELD_VALIDATION_BUCKETS: [f64; 21] = [
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
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
    /// `apiserver` for a resource, otherwise empty.
    pub component: &'a str,
    /// `All` for a dry run.
    pub dry_run: &'a str,
    /// True if the version of the resource is deprecated.
    pub is_deprecated: bool,
}

/// A request that has been answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Completed<'a> {
    /// The verb for authorization.
    pub verb: Verb,
    /// The status code.
    pub code: u16,
    /// The time since the request was received.
    pub elapsed: Duration,
    /// The part of that time that was spent waiting for webhooks and in queues.
    pub waited: Duration,
    /// The size of the response, if it is known.
    pub response_size: Option<u64>,
    /// The size of the body, if it was read.
    pub body_size: Option<usize>,
    /// The requested field validation.
    pub field_validation: Option<&'a str>,
    /// True for a request from within the process.
    pub is_internal: bool,
}

/// The server's metrics and their registry.
pub struct Metrics {
    registry: Registry,
    requests: SeriesVec<Count>,
    durations: SeriesVec<Distribution>,
    /// Durations without the time in webhooks.
    own_durations: SeriesVec<Distribution>,
    response_sizes: SeriesVec<Distribution>,
    deprecated: GaugeVec,
    inflight: IntGaugeVec,
    /// The reads and the writes that wait for seats.
    in_queue: [IntGauge; 2],
    long_running: IntGaugeVec,
    panics: IntCounterVec,
    terminations: IntCounterVec,
    self_requests: IntCounterVec,
    field_validation: HistogramVec,
    /// The times of stages and the sizes of bodies.
    pub(crate) stages: StageMetrics,
    storage_size: IntGaugeVec,
    no_space: IntGaugeVec,
    /// The names of the metrics that are not served.
    disabled: BTreeSet<String>,
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
        let requests = registrar.many_counters("apiserver_request_total", help, &labels)?;
        let labels = ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"];
        let (name, help) = ("apiserver_request_duration_seconds", "Duration of requests, in seconds.");
        let durations = registrar.many_histograms(name, help, &labels, &LATENCY_BUCKETS)?;
        let labels = ["verb", "group", "version", "resource", "subresource", "scope", "component"];
        let (name, help) =
            ("apiserver_request_sli_duration_seconds", "Duration of requests without webhooks, in seconds.");
        let own_durations = registrar.many_histograms(name, help, &labels, &LATENCY_BUCKETS)?;
        let (name, help) = ("apiserver_response_sizes", "Sizes of responses to reads, in bytes.");
        let response_sizes = registrar.many_histograms(name, help, &labels, &SIZE_BUCKETS)?;
        let labels = ["group", "version", "resource", "subresource", "removed_release"];
        let help = "Deprecated APIs that were requested.";
        let deprecated = registrar.gauges("apiserver_requested_deprecated_apis", help, &labels)?;
        registrar.0.register(Box::new(ProcessMetrics::new()?))?;
        let (name, help) = ("apiserver_current_inflight_requests", "Requests being served, by kind.");
        let inflight = registrar.int_gauges(name, help, &["request_kind"])?;
        let (name, help) = ("apiserver_current_inqueue_requests", "Requests waiting for seats, by kind.");
        let in_queue = registrar.int_gauges(name, help, &["request_kind"])?;
        let in_queue = [false, true].map(|mutating| in_queue.with_label_values(&[kind(mutating)]));
        let labels = ["verb", "group", "version", "resource", "subresource", "scope", "component"];
        let (name, help) =
            ("apiserver_longrunning_requests", "Watches and other long-running requests being served.");
        let long_running = registrar.int_gauges(name, help, &labels)?;
        let (name, help) = ("apiserver_request_aborts_total", "Requests aborted by a panic.");
        let panics = registrar.counters(name, help, &["verb"])?;
        let labels = ["verb", "group", "version", "resource", "subresource", "scope", "component", "code"];
        let help = "Requests terminated in self-defense: too many in flight, or timed out.";
        let terminations = registrar.counters("apiserver_request_terminations_total", help, &labels)?;
        let labels = ["verb", "group", "resource", "subresource"];
        let help = "Requests from within the process.";
        let self_requests = registrar.counters("apiserver_selfrequest_total", help, &labels)?;
        let (name, help) =
            ("field_validation_request_duration_seconds", "Duration of writes by their field validation.");
        let field_validation =
            registrar.histograms(name, help, &["field_validation"], &FIELD_VALIDATION_BUCKETS)?;
        let stages = StageMetrics::new(registrar)?;
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
            in_queue,
            long_running,
            panics,
            terminations,
            self_requests,
            field_validation,
            stages,
            storage_size,
            no_space,
            disabled: BTreeSet::new(),
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

    /// Counts a completed request.
    pub fn request_completed(&self, labels: RequestLabels<'_>, completed: Completed<'_>) {
        let RequestLabels {
            verb,
            group,
            version,
            resource,
            subresource,
            scope,
            component,
            dry_run,
            is_deprecated,
        } = labels;
        let Completed { code, elapsed, waited, response_size, .. } = completed;
        let mut digits = itoa::Buffer::new();
        let code = digits.format(code);
        let labels = [verb, dry_run, group, version, resource, subresource, scope, component, code];
        self.requests.with_label_values(&labels).inc();
        self.durations.with_label_values(&labels[..8]).observe(elapsed.as_secs_f64());
        let labels = [verb, group, version, resource, subresource, scope, component];
        // As upstream, a dry run does not count for the service level.
        if dry_run.is_empty() {
            let own = elapsed.saturating_sub(waited);
            self.own_durations.with_label_values(&labels).observe(own.as_secs_f64());
        }
        if let Some(size) = response_size.filter(|_| matches!(verb, "GET" | "LIST")) {
            self.response_sizes.with_label_values(&labels).observe(size as f64);
        }
        if is_deprecated {
            self.deprecated.with_label_values(&[group, version, resource, subresource, ""]).set(1.0);
        }
        if completed.is_internal {
            self.self_requests.with_label_values(&[verb, group, resource, subresource]).inc();
        }
        if !resource.is_empty() {
            self.write_completed(group, resource, completed);
        }
    }

    /// Records the metrics of a write of a known resource.
    fn write_completed(&self, group: &str, resource: &str, completed: Completed<'_>) {
        let verb = match completed.verb {
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "delete_collection",
            _ => return,
        };
        if let Some(size) = completed.body_size {
            self.stages.body_sizes.with_label_values(&[group, resource, verb]).observe(size as f64);
        }
        if matches!(completed.verb, Verb::Create | Verb::Update | Verb::Patch) {
            let requested = match completed.field_validation {
                None => "",
                Some("Ignore") => "Ignore",
                Some("Warn") => "Warn",
                Some("Strict") => "Strict",
                Some(_) => "invalid",
            };
            let elapsed = completed.elapsed.as_secs_f64();
            self.field_validation.with_label_values(&[requested]).observe(elapsed);
        }
    }

    /// Counts a request that ended in a panic.
    pub fn aborted(&self, verb: &str) {
        self.panics.with_label_values(&[verb]).inc();
    }

    /// Counts a request terminated in self-defense, because too many are in flight or because it timed out.
    pub fn terminated(&self, labels: RequestLabels<'_>, code: u16) {
        let RequestLabels { verb, group, version, resource, subresource, scope, component, .. } = labels;
        let mut digits = itoa::Buffer::new();
        let code = digits.format(code);
        let labels = [verb, group, version, resource, subresource, scope, component, code];
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
            let RequestLabels { verb, group, version, resource, subresource, scope, component, .. } = labels;
            let labels = [verb, group, version, resource, subresource, scope, component];
            return Serving::count(self.long_running.with_label_values(&labels));
        }
        Serving::count(self.inflight.with_label_values(&[kind(info.verb.is_mutating())]))
    }

    /// Counts a request as waiting for seats until the guard is dropped.
    pub(crate) fn waiting(&self, info: &RequestInfo) -> Serving {
        let [reads, writes] = &self.in_queue;
        Serving::count(if info.verb.is_mutating() { writes.clone() } else { reads.clone() })
    }

    /// Removes the series of resources that are no longer served, so that definitions that come and go do not
    /// accumulate. `is_served` gets the group, the version, if the series has one, and the resource of a series.
    pub(crate) fn retain_resources(&self, is_served: impl Fn(&str, Option<&str>, &str) -> bool) {
        retain_many(&self.requests, &is_served);
        retain_many(&self.durations, &is_served);
        retain_many(&self.own_durations, &is_served);
        retain_many(&self.response_sizes, &is_served);
        retain_many(&self.stages.body_sizes, &is_served);
        retain(&self.deprecated, &is_served);
        retain(&self.long_running, &is_served);
        retain(&self.terminations, &is_served);
        retain(&self.self_requests, &is_served);
    }

    /// Collects all metrics.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// Leaves metrics out of the encoded form.
    #[must_use]
    pub fn without(mut self, disabled: BTreeSet<String>) -> Self {
        self.disabled = disabled;
        self
    }

    /// Encodes the metrics in Prometheus' text format.
    ///
    /// # Errors
    /// A metric cannot be encoded.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        let mut families = self.gather();
        families.retain(|family| !self.disabled.contains(family.name()));
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

/// Returns the label of a kind of requests.
fn kind(is_mutating: bool) -> &'static str {
    if is_mutating { "mutating" } else { "readOnly" }
}

/// Removes the series that name a resource that is not served.
fn retain<B: MetricVecBuilder>(vec: &MetricVec<B>, is_served: &impl Fn(&str, Option<&str>, &str) -> bool) {
    for family in vec.collect() {
        for metric in family.get_metric() {
            let labels: HashMap<&str, &str> =
                metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
            if !is_kept(&|name| labels.get(name).copied(), is_served) {
                // Fails only if another thread has removed the series.
                let _ = vec.remove(&labels);
            }
        }
    }
}

/// As `retain`.
fn retain_many<S: Series>(series: &SeriesVec<S>, is_served: &impl Fn(&str, Option<&str>, &str) -> bool) {
    series.retain(|label| is_kept(label, is_served));
}

/// Returns whether a series names no resource, or one that is served.
fn is_kept<'l>(
    label: &dyn Fn(&str) -> Option<&'l str>,
    is_served: &impl Fn(&str, Option<&str>, &str) -> bool,
) -> bool {
    let (group, resource) = (label("group").unwrap_or_default(), label("resource").unwrap_or_default());
    resource.is_empty() || is_served(group, label("version"), resource)
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
        let completed = Completed {
            verb: Verb::Create,
            code: 200,
            body_size: Some(1),
            response_size: Some(1),
            is_internal: true,
            ..Completed::default()
        };
        for resource in ["ants", "bees", ""] {
            metrics.request_completed(labels(resource), completed);
        }
        metrics.retain_resources(|_, version, resource| {
            resource == "bees" && version.is_none_or(|version| version == "v1")
        });
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        assert!(!text.contains("ants"), "{text}");
        for kept in ["resource=\"bees\"", "resource=\"\""] {
            assert!(text.contains(kept), "{text}");
        }
    }

    #[test]
    fn field_validation_of_clients_is_no_label() {
        let metrics = Metrics::new(Registry::new()).unwrap();
        let labels = RequestLabels { resource: "ants", ..RequestLabels::default() };
        for requested in [None, Some("Strict"), Some("x1"), Some("x2")] {
            let verb = Verb::Update;
            let completed = Completed { verb, field_validation: requested, ..Completed::default() };
            metrics.request_completed(labels, completed);
        }
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        let name = "field_validation_request_duration_seconds_count";
        let counts: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(name)).collect();
        assert_eq!(
            counts,
            [
                "{field_validation=\"\"} 1",
                "{field_validation=\"Strict\"} 1",
                "{field_validation=\"invalid\"} 2"
            ]
        );
    }
}
