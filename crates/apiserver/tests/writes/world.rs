//! A server with a failing store, and direct access to the stored objects and allocations.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use nave_admission::{Attributes, Plugin, PluginConfig, Validate};
use nave_apiserver::admission::AdmissionConfig;
use nave_apiserver::cluster_authentication::ClusterAuthentication;
use nave_apiserver::draining::DrainSettings;
use nave_apiserver::endpoints::virtual_resource::VirtualResources;
use nave_apiserver::server::{self, ApiServer};
use nave_apiserver::storage::{Storages, WatchCacheSizes};
use nave_codec::protobuf;
use nave_machinery::user::UserInfo;
use nave_machinery::{GroupVersionResource, Object, Status, Value, meta};
use nave_resources::Registry;
use nave_store::{Embedded, Range, Store, embedded};
use serde_json::json;
use tower_service::Service;

use crate::faults::FaultyStore;

/// The range of cluster IPs: 14 addresses, one of which belongs to the `kubernetes` service.
const SERVICE_RANGE: &str = "10.0.0.0/28";
/// The range of node ports.
pub(crate) const FIRST_PORT: u16 = 30_000;
pub(crate) const LAST_PORT: u16 = 30_003;
/// Timeout for conditions that hold immediately on an idle machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// The status code and the body of a response.
#[derive(Clone, Debug)]
pub(crate) struct TestResponse {
    pub(crate) code: u16,
    pub(crate) body: Value,
}

impl TestResponse {
    pub(crate) fn is_success(&self) -> bool {
        self.code < 300
    }
}

/// A server and its store.
pub(crate) struct World {
    pub(crate) store: Arc<FaultyStore>,
    server: ApiServer,
    storages: Storages,
    namespaces: u32,
    /// The number of tasks while the server is idle.
    idle_tasks: usize,
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Embedded::open(folder.path(), &embedded::Options::default()).unwrap();
        let store = Arc::new(FaultyStore::new(Arc::new(engine)));
        let registry = Registry::builtin(nave_schema::builtin());
        let storages = Storages::open(registry, Arc::clone(&store), &WatchCacheSizes::default());
        let (_, cluster_authentication) = tokio::sync::watch::channel(ClusterAuthentication::default());
        let plugins = PluginConfig::new(&[], &["ServiceAccount".to_owned()]).unwrap();
        let mut admission = AdmissionConfig::new(plugins, Arc::default());
        admission.given.push(("ValidatingAdmissionWebhook", Plugin::validating(Refusal)));
        let config = server::Config {
            storages: storages.clone(),
            authentication: nave_authn::Chain::new(Vec::new()),
            authorization: nave_authz::Chain::new(
                Vec::new(),
                nave_authz::Metrics::new(&prometheus::Registry::new()).unwrap(),
            ),
            admission,
            virtual_resources: VirtualResources::default(),
            service_ranges: SERVICE_RANGE.parse().unwrap(),
            node_ports: FIRST_PORT..=LAST_PORT,
            request_timeout: Duration::from_mins(1),
            inflight: nave_apiserver::inflight::InflightLimits::default(),
            priority_and_fairness: true,
            min_watch_time: Duration::from_mins(30),
            browsers: nave_apiserver::browsers::Browsers::default(),
            console: true,
            address: "127.0.0.1:6443".to_owned(),
            advertise: "192.0.2.2:6443".parse().unwrap(),
            reconciles_endpoints: true,
            drain: DrainSettings::default(),
            flags: BTreeMap::default(),
            hostname: "host".to_owned(),
            token_discovery: None,
            audit: None,
            tracer: None,
            metrics: prometheus::Registry::new(),
            webhooks: Arc::new(nave_apiserver::webhooks::client_manager(
                &storages,
                nave_webhook::Routing::ClusterIp,
                "127.0.0.1:6443".parse().unwrap(),
            )),
            backends: Arc::default(),
            aggregation: nave_apiserver::aggregator::AggregationConfig::default(),
            cluster_authentication,
            options: server::Options::default(),
        };
        let server = ApiServer::start(config).await.unwrap();
        let idle_tasks = alive_tasks();
        Self { store, server, storages, namespaces: 0, idle_tasks, _folder: folder }
    }

    /// Creates a namespace and waits until the caches have it.
    pub(crate) async fn namespace(&mut self) -> String {
        self.namespaces += 1;
        let name = format!("ns{}", self.namespaces);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let answer = self.send(Method::POST, "/api/v1/namespaces", &namespace).await;
        assert_eq!(answer.code, 201, "{answer:?}");
        self.quiet().await;
        name
    }

    /// Sends a request as an administrator. Null means no body.
    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> TestResponse {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let mut request = Request::new(Full::new(bytes));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        request.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
        let (name, groups) = ("admin".to_owned(), vec!["system:masters".to_owned()]);
        let mut service = self.server.local(UserInfo { name, groups, ..UserInfo::default() });
        let response = service.call(request).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        TestResponse { code, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
    }

    /// Sends a request and disconnects after a number of polls; `None` if no response arrived before.
    pub(crate) async fn send_and_leave(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        polls: u8,
    ) -> Option<TestResponse> {
        let patience = async {
            for _ in 0..polls {
                tokio::task::yield_now().await;
            }
        };
        match select(pin!(self.send(method, path, body)), pin!(patience)).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        }
    }

    /// Waits until no write is in progress, including writes of disconnected clients.
    pub(crate) async fn quiet(&self) {
        self.eventually("writes end", || alive_tasks() <= self.idle_tasks).await;
    }

    /// Waits for a condition that becomes true by itself.
    pub(crate) async fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds() {
            assert!(tokio::time::Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until the caches have caught up with the store.
    pub(crate) async fn caught_up(&self) {
        let revision = self.store.current_revision().await.unwrap();
        for storage in self.storages.all() {
            storage.wait_until(revision).await.unwrap();
        }
    }

    /// Reads the objects of a resource in a namespace from the store, by name.
    pub(crate) async fn all_stored(&self, resource: &str, namespace: &str) -> BTreeMap<String, Value> {
        let storage = self.storages.get(&core(resource)).unwrap();
        let prefix = nave_resources::list_prefix(storage.def(), Some(namespace)).unwrap();
        let found = self.store.range(Range::all(prefix)).await.unwrap();
        let decoded = found.items.iter().map(|kv| storage.codec().decode(kv).unwrap());
        decoded.map(|object| (meta::name(&object).to_owned(), object)).collect()
    }

    /// Returns the allocations: each address with its service, followed by the ports.
    pub(crate) async fn allocated(&self) -> Vec<String> {
        let storage = self.storages.get(&GroupVersionResource::new("networking.k8s.io", "v1", "ipaddresses"));
        let storage = storage.unwrap();
        let found = self.store.range(Range::all("/registry/ipaddresses/")).await.unwrap();
        let mut addresses = Vec::new();
        for kv in &found.items {
            let object = storage.codec().decode(kv).unwrap();
            let parent = &object["spec"]["parentRef"];
            let text = |field: &str| parent[field].as_str().unwrap();
            addresses.push(format!("{} {}/{}", meta::name(&object), text("namespace"), text("name")));
        }
        addresses.sort();
        addresses.into_iter().chain(self.allocated_ports().await).collect()
    }

    async fn allocated_ports(&self) -> Vec<String> {
        let kv = self.store.get("/registry/ranges/servicenodeports", None).await.unwrap().unwrap();
        let set = nave_schema::builtin();
        let message = protobuf::envelope::unwrap(&kv.value).unwrap().raw;
        let type_id = set.find("io.k8s.api.core.v1.RangeAllocation").unwrap();
        let object = protobuf::decode_stored(set, type_id, message).unwrap();
        assert_eq!(object["range"], format!("{FIRST_PORT}-{LAST_PORT}"));
        // The bitmap of four ports fits into one byte.
        let byte = STANDARD.decode(object["data"].as_str().unwrap()).unwrap().first().copied().unwrap_or(0);
        let ports = FIRST_PORT..=LAST_PORT;
        ports.filter(|port| byte >> (port - FIRST_PORT) & 1 == 1).map(|port| port.to_string()).collect()
    }

    /// Returns the expected allocations, computed from the stored services.
    pub(crate) async fn should_be_allocated(&self) -> Vec<String> {
        let found = self.store.range(Range::all("/registry/services/specs/")).await.unwrap();
        let storage = self.storages.get(&core("services")).unwrap();
        let (mut addresses, mut ports) = (Vec::new(), Vec::new());
        for kv in &found.items {
            let service = storage.codec().decode(kv).unwrap();
            let (namespace, name, spec) = (meta::namespace(&service), meta::name(&service), &service["spec"]);
            for address in spec["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if address != "None" {
                    addresses.push(format!("{address} {namespace}/{name}"));
                }
            }
            let node_ports = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
            ports.extend(node_ports.filter_map(Value::as_u64).map(|port| port.to_string()));
        }
        addresses.sort();
        ports.sort();
        addresses.into_iter().chain(ports).collect()
    }

    /// Frees the ports leaked by store failures, as the periodic repair does.
    pub(crate) async fn repair(&self) {
        let lags = self.store.is_held_back();
        self.store.hold_back(false);
        for _ in 0..3 {
            self.server.repair().unwrap().run_once(Duration::ZERO).await.unwrap();
        }
        self.store.hold_back(lags);
    }
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

pub(crate) fn core(resource: &str) -> GroupVersionResource {
    GroupVersionResource::new("", "v1", resource)
}

/// Rejects marked objects during validation, when a write already has its allocations.
struct Refusal;

#[async_trait]
impl Validate for Refusal {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_write()
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        match object {
            Some(object) if object.label("refuse") == Some("true") => {
                Err(attributes.forbidden(object, "it asks for it"))
            }
            _ => Ok(()),
        }
    }
}
