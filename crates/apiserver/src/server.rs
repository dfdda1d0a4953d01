//! One API server, put together.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use nave_authn::service_account::discovery::Discovery;
use nave_authn::{Identity, UserInfo};
use nave_machinery::Status;
use nave_supervisor::{RestartMetrics, Supervisor};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admission::{AdmissionConfig, AdmissionError};
use crate::allocation::{Repair, ServiceAllocator, ServiceRanges};
use crate::authentication::Authentication;
use crate::authorization::Authorization;
use crate::body::ResponseBody;
use crate::bootstrap::Bootstrap;
use crate::browsers::Browsers;
use crate::cache_metrics::CacheMetrics;
use crate::cluster_authentication::{self, ClusterAuthentication};
use crate::context::Client;
use crate::cpu_pool::CpuPool;
use crate::deadline::RequestTimeout;
use crate::documents::Documents;
use crate::endpoints::Resources;
use crate::endpoints::virtual_resource::VirtualResources;
use crate::endpoints::watch::Watches;
use crate::health::{Health, Switch};
use crate::impersonation::Impersonation;
use crate::inflight::{Inflight, InflightLimits};
use crate::local::LocalService;
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::pipeline::Pipeline;
use crate::route::Router;
use crate::serving::{ConnectionInfo, Served};
use crate::storage::{Storages, check_consistency, evict_encodings};

/// A write of a service may be committed so long after its request has timed out.
const REPAIR_MARGIN: Duration = Duration::from_secs(5);

/// What a server is made of.
pub struct Config {
    /// The resources served and where their objects are, ready.
    pub storages: Storages,
    /// Who sends a request.
    pub authentication: nave_authn::Chain,
    /// What they may do.
    pub authorization: nave_authz::Chain,
    /// The admission plugins.
    pub admission: AdmissionConfig,
    /// The virtual resources and subresources.
    pub virtual_resources: VirtualResources,
    /// The addresses of services.
    pub service_ranges: ServiceRanges,
    /// The node ports of services.
    pub node_ports: RangeInclusive<u16>,
    /// How many requests may be served at once.
    pub inflight: InflightLimits,
    /// How long a request may take that is not long-running.
    pub request_timeout: Duration,
    /// How long a watch lives that names no time: at least this, at most twice this.
    pub min_watch_time: Duration,
    /// What browsers are told.
    pub browsers: Browsers,
    /// The address clients reach the server at, `host:port`.
    pub address: String,
    /// The address behind the `kubernetes` service.
    pub advertise: SocketAddr,
    /// The name of this host.
    pub hostname: String,
    /// What others are told about service accounts' tokens.
    pub token_discovery: Option<Discovery>,
    /// The registry of metrics; those of authentication and authorization are registered already.
    pub metrics: prometheus::Registry,
    /// What extension servers are told of authentication; it may change.
    pub cluster_authentication: watch::Receiver<ClusterAuthentication>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A metric could not be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The admission plugins cannot run.
    #[error("admission: {0}")]
    Admission(#[from] AdmissionError),
    /// The objects that the server cannot do without could not be made.
    #[error("bootstrap objects: {0}")]
    Bootstrap(Status),
}

/// A running API server, without its listener.
#[derive(Clone)]
pub struct ApiServer {
    pipeline: Arc<Pipeline>,
    cluster_authentication: watch::Receiver<ClusterAuthentication>,
    /// The objects that the server keeps.
    bootstrap: Arc<Bootstrap>,
    /// Keeps addresses and ports in agreement with the services.
    repair: Option<Arc<Repair>>,
    stopping: Switch,
    closing: CancellationToken,
}

impl ApiServer {
    /// Waits for every resource's watch cache, makes the bootstrap objects, and is ready.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let storages = config.storages;
        storages.wait_ready().await;
        let (stopping, closing) = (Switch::default(), CancellationToken::new());
        let admission_metrics = nave_admission::Metrics::new(&config.metrics)?;
        let metrics = Arc::new(Metrics::new(config.metrics)?);
        let admission = config.admission.build(&storages, &config.authorization, admission_metrics)?;
        let watches = Watches { closing: closing.clone(), min_time: config.min_watch_time };
        let allocator = ServiceAllocator::new(&storages, config.service_ranges, config.node_ports);
        let repair = allocator
            .clone()
            .map(|allocator| Arc::new(Repair::new(allocator, config.request_timeout + REPAIR_MARGIN)));
        let cpu = CpuPool::with_all_cores();
        let authorization = config.authorization.clone();
        let mut resources = Resources::new(
            &storages,
            admission,
            config.virtual_resources,
            authorization,
            watches,
            cpu.clone(),
        );
        if let Some(allocator) = allocator {
            resources = resources.with_allocator(allocator);
        }
        metrics.register(Box::new(CacheMetrics::new(storages.clone(), resources.watched())?))?;
        metrics.register(Box::new(RestartMetrics::new(storages.shared().supervisor.clone())?))?;
        let (ranges, advertise) = (config.service_ranges, config.advertise);
        let bootstrap = Arc::new(Bootstrap::new(repair.clone(), ranges, advertise, &config.hostname));
        let told = config.cluster_authentication.borrow().clone();
        // Boxed: it holds the path of a write several times.
        Box::pin(bootstrap.run(&resources, &told)).await.map_err(StartError::Bootstrap)?;
        let documents = Documents {
            openapi: OpenApi::new(Arc::clone(storages.registry())),
            registry: Arc::clone(storages.registry()),
            health: health(&storages, &stopping),
            metrics: Arc::clone(&metrics),
            storages,
            address: config.address,
            token_discovery: config.token_discovery,
        };
        let pipeline = Pipeline {
            browsers: config.browsers,
            timeout: RequestTimeout(config.request_timeout),
            authentication: Authentication(config.authentication),
            impersonation: Impersonation(config.authorization.clone()),
            inflight: Inflight::new(config.inflight),
            authorization: Authorization(config.authorization),
            router: Router { documents, resources, cpu },
            metrics,
        };
        let cluster_authentication = config.cluster_authentication;
        let pipeline = Arc::new(pipeline);
        Ok(Self { pipeline, cluster_authentication, bootstrap, repair, stopping, closing })
    }

    /// Answers one request.
    pub async fn handle(
        self,
        request: Request<Incoming>,
        connection: Arc<ConnectionInfo>,
    ) -> Served<ResponseBody> {
        self.pipeline.handle(request, Client::Remote(Some(connection))).await
    }

    /// The server as `user` meets it within the process: no connection and no credential, but every stage after
    /// authentication.
    pub fn local(&self, user: UserInfo) -> LocalService {
        LocalService { pipeline: Arc::clone(&self.pipeline), user: Identity::new(user).user }
    }

    /// The repair of cluster IPs and node ports; `None` for a server without services.
    pub fn repair(&self) -> Option<&Arc<Repair>> {
        self.repair.as_ref()
    }

    /// Runs the background tasks of the server until it is dropped: see [`evict_encodings`](crate::storage::evict_encodings), [`bootstrap`](crate::bootstrap),
    /// [`check_consistency`](crate::storage::check_consistency) and [`cluster_authentication`].
    pub async fn run_background_tasks(&self, memory_is_short: impl Fn() -> bool) -> Infallible {
        let Router { documents, resources, .. } = &self.pipeline.router;
        let (storages, supervisor) = (&documents.storages, self.supervisor());
        let evict = || evict_encodings(storages, &memory_is_short);
        let check = || check_consistency(storages);
        let keep = || self.bootstrap.keep(resources);
        let publish = || cluster_authentication::keep(resources, self.cluster_authentication.clone());
        let repair = || async {
            match &self.repair {
                Some(repair) => repair.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            never = supervisor.supervise("encoding eviction", "", evict) => never,
            never = supervisor.supervise("consistency check", "", check) => never,
            never = supervisor.supervise("bootstrap objects", "", keep) => never,
            never = supervisor.supervise("cluster authentication publisher", "", publish) => never,
            never = supervisor.supervise("service allocation repair", "", repair) => never,
        }
    }

    /// The supervisor of the server's tasks, whose restarts are among the server's metrics.
    pub fn supervisor(&self) -> &Supervisor {
        &self.pipeline.router.documents.storages.shared().supervisor
    }

    /// From now on the server is not ready, though it serves.
    pub fn turn_unready(&self) {
        self.stopping.set();
    }

    /// Ends all watches, so that connections can drain.
    pub fn end_watches(&self) {
        self.closing.cancel();
    }
}

fn health(storages: &Storages, stopping: &Switch) -> Health {
    let mut health = Health::new();
    // Under the name that monitoring of Kubernetes knows, whatever the engine is.
    let store = Arc::clone(storages.store());
    health.add_async("etcd", true, move || {
        let store = Arc::clone(&store);
        async move { store.status().await.map(drop).map_err(|error| error.to_string()) }
    });
    let caches: Vec<_> = storages.all().map(|storage| Arc::clone(storage.cacher())).collect();
    health.add("informer-sync", false, move || match caches.iter().find(|cache| !cache.is_ready()) {
        None => Ok(()),
        Some(cache) => Err(format!("the watch cache of {} is not ready", cache.config().resource)),
    });
    // A server that could not make them did not start.
    health.add("poststarthook/rbac/bootstrap-roles", true, || Ok(()));
    let stopping = stopping.clone();
    health.add("shutdown", false, move || {
        if stopping.is_set() { Err("the server is shutting down".to_owned()) } else { Ok(()) }
    });
    health
}

#[cfg(test)]
mod tests;
