//! The metrics of peers (upstream: `peerproxy/metrics`, `endpoints/discovery/aggregated/metrics.go`). The names of
//! resources are those in the documents of peers.

use nave_machinery::GroupVersionResource;
use nave_metrics::Registrar;
use prometheus::{IntCounter, IntCounterVec, Registry};

/// The metrics of peers.
pub(super) struct PeerMetrics {
    rerouted: IntCounterVec,
    errors: IntCounterVec,
    sync_errors: IntCounterVec,
    pub(super) cache_hits: IntCounter,
    pub(super) cache_misses: IntCounter,
    pub(super) own_discovery: IntCounter,
}

impl PeerMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        Ok(Self {
            rerouted: registrar.counters(
                "apiserver_rerouted_request_total",
                "Requests that were passed on to a peer. Those for discovery have no resource.",
                &["code", "group", "version", "resource"],
            )?,
            errors: registrar.counters(
                "apiserver_peer_proxy_errors_total",
                "Requests that could not be passed on to a peer.",
                &["type", "group", "version", "resource"],
            )?,
            sync_errors: registrar.counters(
                "apiserver_peer_discovery_sync_errors_total",
                "Failures to read the resources of peers.",
                &["type"],
            )?,
            cache_hits: registrar.counter(
                "aggregator_discovery_peer_aggregated_cache_hits_total",
                "Requests for discovery answered with a merged document that existed.",
            )?,
            cache_misses: registrar.counter(
                "aggregator_discovery_peer_aggregated_cache_misses_total",
                "Requests for discovery for which the documents of peers were merged.",
            )?,
            own_discovery: registrar.counter(
                "aggregator_discovery_nopeer_requests_total",
                "Requests for discovery without the resources of peers.",
            )?,
        })
    }

    /// Counts a request to a peer. `resource` is `None` for discovery.
    pub(super) fn rerouted(&self, code: u16, resource: Option<&GroupVersionResource>) {
        let [group, version, resource] = labels(resource);
        self.rerouted.with_label_values(&[&*code.to_string(), group, version, resource]).inc();
    }

    /// Counts a request that could not be passed on.
    pub(super) fn error(&self, kind: &str, resource: &GroupVersionResource) {
        let [group, version, resource] = labels(Some(resource));
        self.errors.with_label_values(&[kind, group, version, resource]).inc();
    }

    /// Counts a failure to read the resources of a peer.
    pub(super) fn sync_error(&self, kind: &str) {
        self.sync_errors.with_label_values(&[kind]).inc();
    }
}

fn labels(resource: Option<&GroupVersionResource>) -> [&str; 3] {
    resource.map_or([""; 3], |resource| [&*resource.group, &*resource.version, &*resource.resource])
}
