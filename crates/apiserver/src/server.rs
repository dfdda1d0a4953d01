//! Constructs an API server.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, try_join_all};
use http::Request;
use hyper::body::Incoming;
use nave_audit::Auditor;
use nave_authn::service_account::discovery::Discovery;
use nave_authn::{Identity, UserInfo};
use nave_flowcontrol::Controller;
use nave_flowcontrol::metrics::{FlowMetrics, LevelMetrics};
use nave_machinery::Status;
use nave_store::PendingWrites;
use nave_supervisor::{RestartMetrics, Supervisor};
use nave_telemetry::Tracer;
use nave_webhook::ClientManager;
use tokio::sync::watch;

use crate::admission::{AdmissionConfig, AdmissionError, follow_observed};
use crate::aggregator::{AggregationConfig, Aggregator};
use crate::allocation::metrics::AllocationGauges;
use crate::allocation::{Repair, ServiceAllocator, ServiceRanges};
use crate::audit::Audit;
use crate::authentication::Authentication;
use crate::authorization::Authorization;
use crate::body::ResponseBody;
use crate::bootstrap::Bootstrap;
use crate::browsers::Browsers;
use crate::cache_metrics::CacheMetrics;
use crate::catalog::{Catalog, Catalogs};
use crate::cluster_authentication::{self, ClusterAuthentication};
use crate::connect::backends::Backends;
use crate::console::Console;
use crate::context::Client;
use crate::conversion::{ConversionMetrics, Converters};
use crate::cpu_pool::CpuPool;
use crate::deadline::RequestTimeout;
use crate::definitions::Definitions;
use crate::documents::{self, Documents};
use crate::draining::{Closing, Drain, DrainSettings};
use crate::endpoints::Resources;
use crate::endpoints::virtual_resource::VirtualResources;
use crate::endpoints::watch::Watches;
use crate::flow_control::{Fair, FlowConfig, FlowControl};
use crate::health::{Health, Results, Scope, Switch};
use crate::impersonation::Impersonation;
use crate::impersonation::metrics::ImpersonationMetrics;
use crate::inflight::{Inflight, InflightLimits};
use crate::local::LocalService;
use crate::metrics::Metrics;
use crate::peers::{PeerConfig, Peers, START_CHECKS};
use crate::pipeline::Pipeline;
use crate::route::Router;
use crate::serving::{ConnectionInfo, Served};
use crate::storage::{
    Following, Storages, Stores, check_consistency, evict_encodings, forget_compacted_states,
};
use crate::traces::Traces;
use crate::zpages::ZPages;

/// Maximum time after a request timeout within which a write of a service may still be committed.
const REPAIR_MARGIN: Duration = Duration::from_secs(5);

/// The inputs of a server.
pub struct Config {
    /// The storages of the served resources, opened.
    pub storages: Storages,
    /// The authenticators.
    pub authentication: nave_authn::Chain,
    /// The authorizers.
    pub authorization: nave_authz::Chain,
    /// The admission plugins.
    pub admission: AdmissionConfig,
    /// The implementations of virtual resources and subresources.
    pub virtual_resources: VirtualResources,
    /// The ranges of cluster IPs.
    pub service_ranges: ServiceRanges,
    /// The range of node ports.
    pub node_ports: RangeInclusive<u16>,
    /// Limits on the requests served concurrently.
    pub inflight: InflightLimits,
    /// True to divide the sum of these limits by priority and fairness.
    pub priority_and_fairness: bool,
    /// Maximum duration of a request that is not long-running.
    pub request_timeout: Duration,
    /// Minimum duration of a watch without a timeout. The actual duration is random, up to twice this value.
    pub min_watch_time: Duration,
    /// CORS and HSTS settings.
    pub browsers: Browsers,
    /// True if the console is served.
    pub console: bool,
    /// The address for clients, `host:port`.
    pub address: String,
    /// This server's address in the endpoints of the `kubernetes` service.
    pub advertise: SocketAddr,
    /// True if the server keeps the endpoints of the `kubernetes` service.
    pub reconciles_endpoints: bool,
    /// The settings for clients that leave the server.
    pub drain: DrainSettings,
    /// The flags with their values, for `/flagz`. No value may be secret.
    pub flags: BTreeMap<String, String>,
    /// The host name.
    pub hostname: String,
    /// Token discovery (OIDC).
    pub token_discovery: Option<Discovery>,
    /// The audit policy and its backends; `None` to record nothing.
    pub audit: Option<Arc<Auditor>>,
    /// Traces requests; `None` to trace none.
    pub tracer: Option<Tracer>,
    /// The metrics registry; the metrics of authentication and authorization are already registered.
    pub metrics: prometheus::Registry,
    /// The clients of the webhooks that objects configure.
    pub webhooks: Arc<ClientManager>,
    /// Connections to kubelets, pods and services.
    pub backends: Arc<Backends>,
    /// Aggregated servers.
    pub aggregation: AggregationConfig,
    /// The authentication settings for extension servers; they may change at run time.
    pub cluster_authentication: watch::Receiver<ClusterAuthentication>,
    /// Further settings.
    pub options: Options,
}

/// The settings whose defaults suit most servers.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The names of the metrics that are not served (`--disabled-metrics`).
    pub disabled_metrics: BTreeSet<String>,
    /// The node port of the service `kubernetes` (`--kubernetes-service-node-port`).
    pub kubernetes_node_port: Option<u16>,
    /// The settings of the server among its peers.
    pub peers: PeerConfig,
    /// The objects of a collection that are deleted at a time (`--delete-collection-workers`); 0 means 1.
    pub delete_workers: usize,
    /// Counts the requests that are about to write, for the embedded store.
    pub pending_writes: PendingWrites,
}

/// An error while starting a server.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A metric cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The admission chain cannot be built.
    #[error("admission: {0}")]
    Admission(#[from] AdmissionError),
    /// The bootstrap objects cannot be created.
    #[error("bootstrap objects: {0}")]
    Bootstrap(Status),
}

/// A running API server, without its listener.
#[derive(Clone)]
pub struct ApiServer {
    pipeline: Arc<Pipeline>,
    /// Serves custom resources; `None` if the server does not have definitions.
    definitions: Option<Arc<Definitions>>,
    supervisor: Supervisor,
    cluster_authentication: watch::Receiver<ClusterAuthentication>,
    /// Creates the bootstrap objects.
    bootstrap: Arc<Bootstrap>,
    /// Repairs cluster IPs and node ports of services; `None` for a server without services.
    repair: Option<Arc<Repair>>,
    /// The configuration of priority and fairness; `None` without it.
    flow_config: Option<Arc<FlowConfig>>,
    stopping: Switch,
    closing: Closing,
    pending_writes: PendingWrites,
    /// Reports stored objects to admission plugins.
    _following: Arc<[Following]>,
}

impl ApiServer {
    /// Waits for the watch caches, creates the bootstrap objects, and makes the server ready.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let storages = config.storages;
        storages.wait_initialized().await;
        let (stopping, closing) = (Switch::default(), Closing::new(config.drain.watch_grace));
        let admission_metrics = nave_admission::Metrics::new(&config.metrics)?;
        let backends = Arc::clone(&config.backends);
        let peer_backends = Arc::clone(&backends);
        let aggregator = Aggregator::new(config.aggregation, &storages, backends, &config.metrics)?;
        let aggregator = Arc::new(aggregator);
        let conversion_metrics = Arc::new(ConversionMetrics::new(&config.metrics)?);
        let metrics = Metrics::new(config.metrics)?.without(config.options.disabled_metrics);
        let metrics = Arc::new(metrics);
        let watches = Watches { closing: closing.clone(), min_time: config.min_watch_time };
        let (ranges, ports) = (config.service_ranges, config.node_ports);
        let allocator = ServiceAllocator::new(&storages, ranges, ports, metrics.registry())?;
        for collector in config.backends.log_usage.collectors() {
            metrics.register(collector)?;
        }
        if let Some(allocator) = &allocator {
            metrics.register(Box::new(AllocationGauges::new(allocator)?))?;
        }
        let repair = allocator
            .clone()
            .map(|allocator| Arc::new(Repair::new(allocator, config.request_timeout + REPAIR_MARGIN)));
        let catalogs = Catalogs::new(Catalog::new(storages.clone(), allocator.as_ref()));
        let admission = config.admission.build(
            &catalogs,
            &config.authorization,
            Arc::clone(&config.webhooks),
            admission_metrics,
        )?;
        let cpu = CpuPool::with_all_cores();
        let authorization = config.authorization.clone();
        let converters = Converters::new(config.webhooks, conversion_metrics);
        let definitions =
            Definitions::new(catalogs.clone(), Arc::clone(&admission), converters, Arc::clone(&metrics));
        let resources = Resources::new(
            catalogs.clone(),
            admission,
            config.virtual_resources,
            authorization,
            watches,
            cpu.clone(),
            config.backends,
        )
        .with_delete_workers(config.options.delete_workers);
        metrics.register(Box::new(documents::build_info()?))?;
        metrics.register(Box::new(documents::version_info()?))?;
        metrics.register(Box::new(CacheMetrics::new(catalogs.clone())?))?;
        metrics.register(Box::new(RestartMetrics::new(storages.shared().supervisor.clone())?))?;
        let (ranges, advertise) = (config.service_ranges, config.advertise);
        let bootstrap =
            Bootstrap::new(repair.clone(), ranges, advertise, config.reconciles_endpoints, &config.hostname);
        let bootstrap = bootstrap.with_node_port(config.options.kubernetes_node_port);
        let bootstrap = Arc::new(bootstrap.with_peers(&config.options.peers));
        let cluster_authentication = config.cluster_authentication.borrow().clone();
        // Boxed because the future contains several copies of the write path.
        Box::pin(bootstrap.run(&resources, &cluster_authentication)).await.map_err(StartError::Bootstrap)?;
        if let Some(definitions) = &definitions {
            Box::pin(definitions.load()).await;
        }
        // Bootstrap objects are created before webhooks and policies apply, so that these cannot prevent a start.
        let mut following = follow_observed(&storages, resources.admission());
        following.extend(aggregator.follow(&storages));
        for observed in &following {
            observed.synced().await;
        }
        let flow_control = if config.priority_and_fairness {
            let seats = config.inflight.read_only.saturating_add(config.inflight.mutating);
            let flow_metrics = FlowMetrics::new(metrics.registry())?;
            let controller = Controller::new(u32::try_from(seats).unwrap_or(u32::MAX), flow_metrics);
            let (controller, timeout) = (Arc::new(controller), RequestTimeout(config.request_timeout));
            metrics.register(Box::new(LevelMetrics::new(Arc::clone(&controller))?))?;
            FlowControl::Fair(Fair { controller, timeout })
        } else {
            FlowControl::Inflight(Inflight::new(config.inflight))
        };
        let flow_config =
            flow_control.controller().and_then(|controller| FlowConfig::start(controller, &storages));
        let peers = match config.options.peers.tls {
            Some(tls) => {
                let id = bootstrap.identity().to_owned();
                Some(Arc::new(Peers::new(
                    id,
                    tls,
                    config.options.peers.egress,
                    peer_backends,
                    metrics.registry(),
                )?))
            }
            None => None,
        };
        let mut health = health(&catalogs, storages.stores(), &stopping);
        for name in peers.iter().flat_map(|_| START_CHECKS) {
            health.add(name, Scope::All, || Ok(()));
        }
        let console = config.console.then(|| Arc::new(Console::new(closing.clone(), config.audit.clone())));
        let documents = Documents {
            flow_control: flow_control.controller().map(Arc::clone),
            health: health.with_results(Results::new()?),
            zpages: ZPages::new(config.flags),
            metrics: Arc::clone(&metrics),
            address: config.address,
            token_discovery: config.token_discovery,
            peers: peers.clone(),
            console: console.clone(),
        };
        let pipeline = Pipeline {
            drain: Drain::new(config.drain),
            browsers: config.browsers,
            timeout: RequestTimeout(config.request_timeout),
            authentication: Authentication(config.authentication),
            audit: Audit(config.audit),
            traces: Traces(config.tracer),
            impersonation: Impersonation {
                authorization: config.authorization.clone(),
                metrics: ImpersonationMetrics::new(metrics.registry())?,
            },
            flow_control,
            authorization: Authorization(config.authorization),
            router: Router { aggregator, peers, documents, resources, cpu },
            metrics,
            console,
        };
        let cluster_authentication = config.cluster_authentication;
        let supervisor = storages.shared().supervisor.clone();
        let pipeline = Arc::new(pipeline);
        Ok(Self {
            pipeline,
            definitions,
            supervisor,
            cluster_authentication,
            bootstrap,
            repair,
            flow_config: flow_config.map(Arc::new),
            stopping,
            closing,
            pending_writes: config.options.pending_writes,
            _following: following.into(),
        })
    }

    /// Handles one request. A request that may write is counted before its future is polled.
    pub fn handle(
        self,
        request: Request<Incoming>,
        connection: Arc<ConnectionInfo>,
    ) -> impl Future<Output = Served<ResponseBody>> + Send + 'static {
        let pending = (!request.method().is_safe()).then(|| self.pending_writes.clone());
        let handled = async move { self.pipeline.handle(request, Client::Remote(Some(connection))).await };
        match pending {
            Some(pending) => Either::Left(pending.count_in(handled)),
            None => Either::Right(handled),
        }
    }

    /// Returns a service for requests of `user` from within the process. They need no connection or credentials, but
    /// pass all stages after authentication.
    pub fn local(&self, user: UserInfo) -> LocalService {
        LocalService { pipeline: Arc::clone(&self.pipeline), user: Identity::new(user).user }
    }

    /// Returns the task that repairs cluster IPs and node ports; `None` for a server without services.
    pub fn repair(&self) -> Option<&Arc<Repair>> {
        self.repair.as_ref()
    }

    /// Runs the background tasks of the server: see [`evict_encodings`](crate::storage::evict_encodings),
    /// [`bootstrap`](crate::bootstrap), [`check_consistency`](crate::storage::check_consistency),
    /// [`forget_compacted_states`](crate::storage::forget_compacted_states),
    /// [`aggregator`](crate::aggregator), [`cluster_authentication`] and `console`. Never returns.
    pub async fn run_background_tasks(&self, memory_is_short: impl Fn() -> bool) -> Infallible {
        let (resources, supervisor) = (&self.pipeline.router.resources, &self.supervisor);
        let evict = || evict_encodings(resources.catalogs(), &memory_is_short);
        let check = || check_consistency(resources.catalogs());
        let forget = || forget_compacted_states(resources.catalogs());
        // The futures of writes are large, so they are boxed.
        let reconcile = || Box::pin(self.bootstrap.reconcile_periodically(resources));
        let publish = || {
            Box::pin(cluster_authentication::publish_changes(resources, self.cluster_authentication.clone()))
        };
        let repair = || async {
            match &self.repair {
                Some(repair) => Box::pin(repair.run()).await,
                None => std::future::pending().await,
            }
        };
        let define = || async {
            match &self.definitions {
                Some(definitions) => Box::pin(Arc::clone(definitions).run()).await,
                None => std::future::pending().await,
            }
        };
        let aggregate = || Box::pin(self.pipeline.router.aggregator.run(resources));
        let find_peers = || async {
            let router = &self.pipeline.router;
            match &router.peers {
                Some(peers) => Box::pin(peers.run(resources, &router.aggregator)).await,
                None => std::future::pending().await,
            }
        };
        let configure = || async {
            match &self.flow_config {
                Some(config) => config.run(resources).await,
                None => std::future::pending().await,
            }
        };
        let divide_seats = || async {
            match self.pipeline.flow_control.controller() {
                Some(controller) => controller.run().await,
                None => std::future::pending().await,
            }
        };
        let sample = || async {
            match &self.pipeline.console {
                Some(console) => {
                    let controller = self.pipeline.flow_control.controller().map(|it| &**it);
                    console.run(&self.pipeline.metrics, resources.catalogs(), controller).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            never = supervisor.supervise("aggregation", "", aggregate) => never,
            never = supervisor.supervise("peers", "", find_peers) => never,
            never = supervisor.supervise("flow control configuration", "", configure) => never,
            never = supervisor.supervise("flow control seats", "", divide_seats) => never,
            never = supervisor.supervise("console sampler", "", sample) => never,
            never = supervisor.supervise("custom resource definitions", "", define) => never,
            never = supervisor.supervise("encoding eviction", "", evict) => never,
            never = supervisor.supervise("consistency check", "", check) => never,
            never = supervisor.supervise("compacted states", "", forget) => never,
            never = supervisor.supervise("bootstrap objects", "", reconcile) => never,
            never = supervisor.supervise("cluster authentication publisher", "", publish) => never,
            never = supervisor.supervise("service allocation repair", "", repair) => never,
        }
    }

    /// Returns the supervisor of the server's tasks. The server's metrics count restarts.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Returns the catalog of served resources, which custom resource definitions change.
    pub fn catalogs(&self) -> &Catalogs {
        self.pipeline.router.resources.catalogs()
    }

    /// Makes `/readyz` fail while the server continues to serve requests.
    pub fn turn_unready(&self) {
        self.stopping.set();
    }

    /// Removes this server's address from the endpoints of the `kubernetes` service.
    pub async fn withdraw_address(&self) {
        self.bootstrap.withdraw_address(&self.pipeline.router.resources).await;
    }

    /// Answers new requests with 429, except health checks, and waits until the requests in flight have completed.
    pub async fn refuse_requests(&self) {
        self.pipeline.drain.refuse_requests().await;
    }

    /// Ends all watches within the grace period, so that connections can drain.
    pub fn end_watches(&self) {
        self.closing.begin();
    }
}

fn health(catalogs: &Catalogs, stores: &Stores, stopping: &Switch) -> Health {
    let mut health = Health::new();
    let timeouts = stores.timeouts();
    // The names that Kubernetes monitoring expects, whatever the storage engine is.
    for (name, scope, timeout) in
        [("etcd", Scope::All, timeouts.health), ("etcd-readiness", Scope::Readyz, timeouts.readiness)]
    {
        let stores = stores.clone();
        health.add_async(name, scope, timeout, move || {
            let stores: Vec<_> = stores.all().cloned().collect();
            async move {
                let checks = stores.iter().map(|store| store.status());
                try_join_all(checks).await.map(drop).map_err(|error| error.to_string())
            }
        });
    }
    if let Some(encryption) = stores.encryption().filter(|encryption| encryption.needs_check()) {
        let encryption = encryption.clone();
        health.add_async("kms-providers", Scope::HealthzAndReadyz, PLUGIN_TIMEOUT, move || {
            let encryption = encryption.clone();
            async move { encryption.check_health().await }
        });
    }
    let catalogs = catalogs.clone();
    health.add("informer-sync", Scope::Readyz, move || {
        let catalog = catalogs.load();
        let mut caches = catalog.storages().all().map(|storage| storage.cacher());
        match caches.find(|cache| !cache.is_ready()) {
            None => Ok(()),
            Some(cache) => Err(format!("the watch cache of {} is not ready", cache.config().resource)),
        }
    });
    health.add_start();
    let stopping = stopping.clone();
    health.add("shutdown", Scope::Readyz, move || {
        if stopping.is_set() { Err("the server is shutting down".to_owned()) } else { Ok(()) }
    });
    health
}

/// Timeout of the check of key management plugins. Their calls have timeouts of their own.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
