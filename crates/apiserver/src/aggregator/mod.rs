//! The aggregation layer: versions of groups that other servers serve, as `APIService` objects say (upstream:
//! `kube-aggregator`).
//!
//! ```text
//! APIServices ─watch─► directory ─┬─► proxy            requests for /apis/GROUP/VERSION/…
//!                                 ├─► availability     checks the servers, writes the condition `Available`
//!                                 └─► discovery        reads the servers' documents ─► merged discovery
//! services, endpoint slices ─watch─► availability
//! ```
//!
//! | file | contents |
//! | --- | --- |
//! | `api_service`, `directory` | the APIServices |
//! | `identity` | the client certificate of this server, and the user in headers |
//! | `servers` | connections to aggregated servers |
//! | `circuit` | requests that fail at once after failures |
//! | `proxy` | requests that are passed on |
//! | `schedule` | which APIService is checked or read when |
//! | `availability` | the condition `Available` |
//! | `discovery`, `remote_discovery` | the documents of aggregated servers; OpenAPI 3 documents are passed on |
//! | `merged_discovery`, `merged_openapi` | the documents of all servers |
//!
//! Invariants: a request that is passed on was authenticated and authorized here, and names its user in headers that
//! only this server writes. An aggregated server is not trusted: it is reached at the resolved address of its service,
//! under the same policy of addresses as pods; its redirects are not followed; its documents have limits of size and
//! time, and describe its own version only. A server that does not answer costs requests for its own versions only.

pub(crate) mod api_service;
mod availability;
pub(crate) mod circuit;
pub(crate) mod directory;
mod discovery;
pub mod identity;
mod merged_discovery;
mod merged_openapi;
pub(crate) mod proxy;
pub(crate) mod remote_discovery;
mod schedule;
mod servers;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use nave_cacher::{CachedObject, Delivery, EventType};
use nave_machinery::{GroupVersionResource, Status};
use nave_webhook::{Routing, ServiceResolver};
use tokio::sync::watch;

use self::api_service::{ApiService, Availability, Remote};
use self::availability::Checks;
use self::directory::{ApiServices, Directory};
use self::discovery::{Refresher, RemoteResources};
use self::identity::ProxyIdentity;
use self::merged_discovery::MergedDiscovery;
use self::merged_openapi::MergedOpenApi;
use self::schedule::Schedule;
use self::servers::Servers;
use crate::aggregated_discovery::Document;
use crate::body::{BodyError, ResponseBody};
use crate::catalog::Catalog;
use crate::connect::backends::Backends;
use crate::context::RequestContext;
use crate::endpoints::Resources;
use crate::internal::InternalWriter;
use crate::openapi::MergedV2;
use crate::openapi::remote::RemoteDocument;
use crate::request_info::RequestInfo;
use crate::storage::{Follower, Following, ResourceStorage, Storages};
use crate::webhooks;

/// The aggregation layer of a server.
pub struct Aggregator {
    directory: Arc<Directory>,
    servers: Arc<Servers>,
    resources: Arc<RemoteResources>,
    merged: MergedDiscovery,
    merged_openapi: MergedOpenApi,
    checks: Checks,
    refresher: Refresher,
    /// The APIServices whose availability is checked.
    due_checks: Schedule,
    /// The APIServices whose documents are read.
    due_refreshes: Schedule,
}

/// The settings of the aggregation layer.
pub struct AggregationConfig {
    /// The addresses of services that are dialled.
    pub routing: Routing,
    /// The client certificate for aggregated servers; it may change at run time.
    pub identity: watch::Receiver<ProxyIdentity>,
    /// True if redirects of aggregated servers reach clients.
    pub forwards_redirects: bool,
}

impl Default for AggregationConfig {
    /// Returns settings without a client certificate.
    fn default() -> Self {
        let (_, identity) = watch::channel(ProxyIdentity::default());
        Self { routing: Routing::default(), identity, forwards_redirects: false }
    }
}

impl Aggregator {
    /// Creates the layer, without APIServices.
    ///
    /// # Errors
    /// A metric is already registered.
    pub(crate) fn new(
        config: AggregationConfig,
        storages: &Storages,
        backends: Arc<Backends>,
        metrics: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        let directory = Arc::<Directory>::default();
        let services = webhooks::stored_services(storages);
        let resolver = ServiceResolver::new(Arc::clone(&services), config.routing, None);
        let servers = Arc::new(Servers::new(resolver, config.identity, backends, config.forwards_redirects));
        let resources = Arc::<RemoteResources>::default();
        let checks = Checks {
            directory: Arc::clone(&directory),
            servers: Arc::clone(&servers),
            services,
            metrics: availability::Metrics::new(metrics)?,
        };
        let refresher = Refresher {
            directory: Arc::clone(&directory),
            servers: Arc::clone(&servers),
            resources: Arc::clone(&resources),
        };
        Ok(Self {
            directory,
            servers,
            resources,
            merged: MergedDiscovery::default(),
            merged_openapi: MergedOpenApi::default(),
            checks,
            refresher,
            due_checks: Schedule::new(availability::BACKOFF),
            due_refreshes: Schedule::new(discovery::BACKOFF),
        })
    }

    /// Starts to follow the APIServices, and the services and endpoint slices of aggregated servers.
    pub(crate) fn follow(self: &Arc<Self>, storages: &Storages) -> Vec<Following> {
        let of = |group: &str, resource: &str| {
            storages.get(&GroupVersionResource::new(group, "v1", resource)).cloned()
        };
        let start = |storage: Arc<ResourceStorage>, follower: Arc<dyn Follower>| {
            Following::start(Arc::clone(storage.cacher()), follower)
        };
        let Some(storage) = of("apiregistration.k8s.io", "apiservices") else { return Vec::new() };
        let aggregator = Arc::clone(self);
        let mut following =
            vec![start(Arc::clone(&storage), Arc::new(ApiServiceFollower { aggregator, storage }))];
        for (group, resource, service_of) in [
            ("", "services", (|object| Some(object.name())) as fn(&CachedObject) -> Option<&str>),
            ("discovery.k8s.io", "endpointslices", |object| {
                object.attributes().label(webhooks::SERVICE_NAME)
            }),
        ] {
            if let Some(storage) = of(group, resource) {
                let aggregator = Arc::clone(self);
                following.push(start(storage, Arc::new(ServiceFollower { aggregator, service_of })));
            }
        }
        following
    }

    /// Checks aggregated servers and reads their documents. Never returns.
    pub(crate) async fn run(&self, resources: &Resources) -> Infallible {
        let catalog = resources.catalog();
        let gvr = GroupVersionResource::new("apiregistration.k8s.io", "v1", "apiservices");
        let Some(endpoint) = catalog.endpoint(&gvr) else { return std::future::pending().await };
        let check = |name: String| async move {
            let writer = InternalWriter::new(endpoint, resources.admission());
            Box::pin(self.checks.sync(&name, &writer)).await
        };
        let refresh = |name: String| async move { self.refresher.sync(&name).await };
        tokio::select! {
            never = self.due_checks.run(availability::WORKERS, check) => never,
            never = self.due_refreshes.run(discovery::WORKERS, refresh) => never,
        }
    }

    /// Returns the APIServices.
    pub(crate) fn services(&self) -> Arc<ApiServices> {
        self.directory.load()
    }

    /// Returns the APIService of the aggregated server that serves a request; `None` if this server does.
    pub(crate) fn route(&self, info: &RequestInfo) -> Option<Arc<ApiService>> {
        let services = self.directory.load();
        if !services.has_remotes() {
            return None;
        }
        let found = if let Some(resource) = &info.resource {
            services.remote(&resource.gvr.group, &resource.gvr.version)
        } else {
            if self.converted_openapi(&info.path).is_some() {
                return None;
            }
            let path = info.path.strip_prefix("/openapi/v3").unwrap_or(&info.path);
            let mut segments = path.strip_prefix("/apis/")?.split('/');
            services.remote(segments.next()?, segments.next()?)
        };
        found.cloned()
    }

    /// Passes on a request to an aggregated server.
    ///
    /// # Errors
    /// The failure for the client.
    pub(crate) async fn serve<B>(
        &self,
        service: &ApiService,
        request: &mut Request<B>,
        context: &RequestContext,
    ) -> Result<Response<ResponseBody>, Status>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        let Some(remote) = &service.remote else { return Err(Status::no_such_path()) };
        let was_open = remote.circuit.is_open();
        let response = proxy::serve(&self.servers, service, remote, request, context).await;
        if !was_open && remote.circuit.is_open() {
            tracing::warn!(api_service = service.name, "the aggregated server fails; it is checked");
            self.due_checks.enqueue(&service.name);
        }
        response
    }

    /// Returns the aggregated discovery document at `/apis`.
    pub(crate) fn discovery(&self, catalog: &Catalog) -> Document {
        let services = self.directory.load();
        if !services.has_remotes() {
            return catalog.discovery().named().clone();
        }
        self.merged.named(catalog.registry(), catalog.discovery(), services, self.resources.load())
    }

    /// Returns the OpenAPI 3 documents of aggregated servers: paths below `/openapi/v3/` and hashes.
    pub(crate) fn openapi(&self) -> Vec<(String, String)> {
        let (services, resources) = (self.directory.load(), self.resources.load());
        let document = |service: &Arc<ApiService>| {
            let resources = resources.get(&service.name)?;
            let converted = || resources.converted_openapi().map(|document| document.hash.clone());
            let hash = resources.openapi.clone().or_else(converted)?;
            Some((service.path().trim_start_matches('/').to_owned(), hash))
        };
        services.remotes().filter_map(document).collect()
    }

    /// Returns the OpenAPI 2 document of an aggregated server that has no OpenAPI 3 document at this path.
    pub(crate) fn converted_openapi(&self, path: &str) -> Option<Arc<RemoteDocument>> {
        let (group, version) = path.strip_prefix("/openapi/v3/apis/")?.split_once('/')?;
        let services = self.directory.load();
        let service = services.remote(group, version)?;
        self.resources.load().get(&service.name)?.converted_openapi().cloned()
    }

    /// Returns whether `/openapi/v2` has paths of aggregated servers and must be made.
    pub(crate) fn must_merge_openapi_v2(&self, catalog: &Catalog) -> bool {
        let others = self.openapi_v2_parts();
        !others.is_empty() && !self.merged_openapi.is_made(catalog.registry(), &others)
    }

    /// Returns the OpenAPI 2 document with the paths of aggregated servers; `None` if they have none.
    pub(crate) fn openapi_v2(&self, catalog: &Catalog) -> Option<Arc<MergedV2>> {
        let others = self.openapi_v2_parts();
        if others.is_empty() {
            return None;
        }
        Some(self.merged_openapi.get(catalog.registry(), catalog.openapi(), others))
    }

    fn openapi_v2_parts(&self) -> Vec<Arc<RemoteDocument>> {
        let (services, resources) = (self.directory.load(), self.resources.load());
        let part = |service: &Arc<ApiService>| resources.get(&service.name)?.openapi_v2.clone();
        services.remotes().filter_map(part).collect()
    }

    fn enqueue(&self, name: &str, service: Option<&ApiService>) {
        let is_remote = service.is_none_or(|service| service.remote.is_some());
        let is_settled = service.is_some_and(|service| service.availability == Some(Availability::local()));
        if is_remote || !is_settled {
            self.due_checks.enqueue(name);
        }
        if is_remote || self.resources.load().contains_key(name) {
            self.due_refreshes.enqueue(name);
        }
    }
}

/// Keeps the directory up to date.
struct ApiServiceFollower {
    aggregator: Arc<Aggregator>,
    storage: Arc<ResourceStorage>,
}

impl ApiServiceFollower {
    fn insert(&self, services: &mut ApiServices, cached: &CachedObject) {
        let Ok(object) = self.storage.codec().parse_cached(cached) else { return };
        let previous = services.get(cached.name()).cloned();
        services.insert(ApiService::read(&object, previous.as_deref()));
    }

    fn publish<'n>(&self, services: ApiServices, names: impl Iterator<Item = &'n str>) {
        let names: Vec<_> = names.map(|name| (name, services.get(name).cloned())).collect();
        self.aggregator.directory.store(services);
        for (name, service) in names {
            self.aggregator.enqueue(name, service.as_deref());
        }
    }
}

impl Follower for ApiServiceFollower {
    fn replace(&self, objects: &[Arc<CachedObject>]) {
        let old = self.aggregator.directory.load();
        let mut services = ApiServices::default();
        for object in objects {
            self.insert(&mut services, object);
        }
        let names: std::collections::BTreeSet<String> =
            old.names().chain(services.names()).cloned().collect();
        self.publish(services, names.iter().map(String::as_str));
    }

    fn apply(&self, changes: &[Delivery]) {
        let mut services = (*self.aggregator.directory.load()).clone();
        let objects: Vec<_> = changes.iter().map(Delivery::object).collect();
        for (change, object) in changes.iter().zip(&objects) {
            match change.kind {
                EventType::Deleted => services.remove(object.name()),
                EventType::Added | EventType::Modified => self.insert(&mut services, object),
            }
        }
        self.publish(services, objects.iter().map(|object| object.name()));
    }
}

/// Checks the APIServices of a service that changes.
struct ServiceFollower {
    aggregator: Arc<Aggregator>,
    /// Returns the name of the service that an object belongs to.
    service_of: fn(&CachedObject) -> Option<&str>,
}

impl ServiceFollower {
    fn changed(&self, object: &CachedObject) {
        let services = self.aggregator.directory.load();
        if !services.has_remotes() {
            return;
        }
        let Some(name) = (self.service_of)(object) else { return };
        let is_of = |remote: &Arc<Remote>| remote.service == name && remote.namespace == object.namespace();
        for service in services.remotes().filter(|service| service.remote.as_ref().is_some_and(is_of)) {
            self.aggregator.due_checks.enqueue(&service.name);
        }
    }
}

impl Follower for ServiceFollower {
    fn replace(&self, objects: &[Arc<CachedObject>]) {
        for object in objects {
            self.changed(object);
        }
    }

    fn apply(&self, changes: &[Delivery]) {
        for change in changes {
            self.changed(&change.object());
        }
    }
}
