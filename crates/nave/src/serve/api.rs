//! Starts and stops the API server and its store.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use nave_apiserver::aggregator::AggregationConfig;
use nave_apiserver::aggregator::identity::ProxyIdentity;
use nave_apiserver::connect::backends::Backends;
use nave_apiserver::draining::DrainSettings;
use nave_apiserver::peers::PeerConfig;
use nave_apiserver::server::{self, ApiServer, StartError};
use nave_apiserver::storage::{Following, Storages, Stores};
use nave_apiserver::{virtual_resources, webhooks};
use nave_audit::log::Output;
use nave_audit::{Auditor, StartError as AuditError};
use nave_authn::service_account::{Issuer, KeyRing, SecretUse};
use nave_store::Store;
use nave_telemetry::{Exporter, Tracer};
use nave_webhook::{BackendTls, CallMetrics, Routing};
use tokio::sync::{mpsc, watch};

use super::ServeError;
use super::authentication::{Authentication, ConfigFile};
use super::authorization::Authorization;
use super::client_cas::ClientCas;
use super::encryption::EncryptionFile;
use super::store;
use crate::flags::{Config, FeatureGates, FlagError};

/// The API server, its authorizers, and the tasks that keep them up to date.
pub(super) struct Api {
    pub(super) server: ApiServer,
    /// The authentication configuration file, for reloads.
    pub(super) authentication: Option<ConfigFile>,
    pub(super) authorization: Authorization,
    pub(super) encryption: EncryptionFile,
    /// Issues service account tokens.
    pub(super) issuer: Issuer,
    /// Receives the secrets whose tokens were used.
    pub(super) used: mpsc::Receiver<SecretUse>,
    /// Records audit events.
    pub(super) audit: Option<Arc<Auditor>>,
    _following: Vec<Following>,
}

/// The connections to other servers.
pub(super) struct Connections {
    /// Kubelets, pods and services.
    pub(super) backends: Arc<Backends>,
    /// The client certificate for aggregated servers.
    pub(super) proxy: watch::Receiver<ProxyIdentity>,
    /// TLS to other API servers of the cluster; `None` to pass on no requests to them.
    pub(super) peers: Option<watch::Receiver<Arc<BackendTls>>>,
}

/// The store and what surrounds it.
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    pub(super) encryption: EncryptionFile,
    pub(super) metrics: prometheus::Registry,
}

/// Starts the API on the store. It does not accept requests yet.
pub(super) async fn start(
    config: &Config,
    Opened { store, encryption, metrics }: Opened,
    keys: Arc<KeyRing>,
    cas: &ClientCas,
    connections: Connections,
    reachable: SocketAddr,
) -> Result<Api, ServeError> {
    let registry =
        config.apis.runtime_config.registry(nave_schema::builtin())?.with_ttl(config.store.event_ttl);
    let registry = if config.objects.allows_privileged { registry } else { registry.without_privileged() };
    for resource in config.watch_caches.unknown(&registry) {
        tracing::warn!(resource, "unknown resource in --watch-cache-sizes ignored");
    }
    let features = FeatureGates::gauges().map_err(StartError::Metrics)?;
    metrics.register(Box::new(features)).map_err(StartError::Metrics)?;
    let audit = match config.audit.clone() {
        Some(options) => {
            let log = options.log.as_ref().map(|log| log.output.clone());
            let webhook = options.webhook.as_ref().map(|webhook| webhook.config_file.clone());
            let started = Auditor::start(options, &metrics);
            Some(Arc::new(started.map_err(|error| match (error, log, webhook) {
                (AuditError::Log(error), Some(Output::File(file)), _) => {
                    FlagError::file("audit-log-path", &file.path, error).into()
                }
                (AuditError::Webhook(error), _, Some(file)) => {
                    FlagError::file("audit-webhook-config-file", &file, error).into()
                }
                (error, ..) => ServeError::Audit(error),
            })?))
        }
        None => None,
    };
    let hostname = hostname(config);
    let stores = Stores::new(store)
        .with_media_type(config.store.media_type)
        .with_encryption(encryption.encryption.clone())
        .with_overrides(store::open_overrides(config))
        .with_timeouts(config.store.timeouts)
        .measured(&metrics)
        .map_err(StartError::Metrics)?;
    let storages = Storages::open(registry, stores, &config.watch_caches);
    let authorization = Authorization::open(config, &reachable.to_string(), &metrics)?;
    let always_allow = authorization.always_allow();
    let authentication = Authentication::open(config, keys, cas, &storages, always_allow, &metrics)?;
    let routing = if config.endpoint_routing { Routing::Endpoints } else { Routing::ClusterIp };
    let calls = CallMetrics::new(&metrics).map_err(StartError::Metrics)?;
    let webhooks = webhooks::client_manager(&storages, routing, reachable);
    let webhooks = Arc::new(webhooks.with_metrics(calls).with_egress(config.egress.clone()));
    let with_tokens = authentication.virtual_resources(virtual_resources::table());
    let runs_controllers = config.controllers.selected().next().is_some();
    let with_statuses = virtual_resources::with_component_statuses(with_tokens, runs_controllers)?;
    let external = external_address(&config.external_host, reachable);
    let server = server::Config {
        storages: storages.clone(),
        authentication: authentication.chain(),
        authorization: authorization.chain.clone(),
        admission: authorization.admission(&config.admission),
        virtual_resources: virtual_resources::with_access_reviews(with_statuses, &authorization.chain),
        service_ranges: config.service_ranges,
        node_ports: config.node_ports.clone(),
        inflight: config.flow_control.inflight,
        priority_and_fairness: config.flow_control.priority_and_fairness,
        request_timeout: config.request_timeout,
        min_watch_time: config.min_request_timeout,
        browsers: config.browsers.clone(),
        console: config.console,
        address: external.clone(),
        advertise: reachable,
        reconciles_endpoints: config.lifecycle.reconciles_endpoints,
        drain: DrainSettings {
            goaway_chance: config.lifecycle.goaway_chance,
            watch_grace: config.lifecycle.watch_grace,
        },
        flags: config.flag_values.clone(),
        hostname,
        token_discovery: authentication.discovery(&external),
        audit: audit.clone(),
        tracer: tracer(config)?,
        metrics,
        webhooks,
        backends: connections.backends,
        aggregation: AggregationConfig {
            routing,
            identity: connections.proxy,
            forwards_redirects: config.aggregation.forwards_redirects,
        },
        cluster_authentication: cas.subscribe(),
        options: server::Options {
            disabled_metrics: config.disabled_metrics.clone(),
            kubernetes_node_port: config.kubernetes_node_port,
            peers: PeerConfig {
                // A server with a store of its own has no peers.
                announced: config.has_shared_store().then(|| config.peers.advertise.unwrap_or(reachable)),
                advertise: config.peers.advertise,
                tls: connections.peers,
                egress: config.egress.control_plane.clone(),
            },
            delete_workers: config.objects.delete_workers.into(),
            pending_writes: store::pending_writes(&config.store),
        },
    };
    let server = ApiServer::start(server).await?;
    // The default roles and bindings exist from this point on.
    let following = authorization.follow(&storages).await;
    let Authentication { file, issuer, used, .. } = authentication;
    Ok(Api {
        server,
        authentication: file,
        authorization,
        encryption,
        issuer,
        used,
        audit,
        _following: following,
    })
}

/// Returns the address in documents for clients: `--external-hostname`, with the port of the server if it has none.
fn external_address(host: &str, reachable: SocketAddr) -> String {
    let port = reachable.port();
    if host.is_empty() {
        return reachable.to_string();
    }
    match host.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) if host.contains(':') => host.to_owned(),
        Err(_) => format!("{host}:{port}"),
    }
}

/// Returns the name of the host.
pub(super) fn hostname(config: &Config) -> String {
    let of_system = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    config.peers.hostname.clone().unwrap_or_else(of_system)
}

/// Starts the exporter of traces, if requests are traced.
fn tracer(config: &Config) -> Result<Option<Tracer>, ServeError> {
    let Some(tracing) = &config.tracing else { return Ok(None) };
    let (tracer, exporter) = Exporter::new(tracing, &hostname(config))
        .map_err(|error| FlagError::new("tracing-config-file", error.to_string()))?;
    tokio::spawn(exporter.run());
    Ok(Some(tracer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_address_has_a_port() {
        let reachable = SocketAddr::from(([192, 0, 2, 1], 6443));
        for (host, expected) in [
            ("", "192.0.2.1:6443"),
            ("api.example", "api.example:6443"),
            ("api.example:443", "api.example:443"),
            ("192.0.2.9", "192.0.2.9:6443"),
            ("2001:db8::1", "[2001:db8::1]:6443"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ] {
            assert_eq!(external_address(host, reachable), expected);
        }
    }
}
