//! A whole API server in the test process: an embedded store in a temporary folder, the default authorizers (`Node`,
//! `RBAC`) and all admission plugins. Requests enter the pipeline without a connection or credentials.
//!
//! ```ignore
//! let objects = [cluster_role_in("team", "admin", "alice")];
//! let cluster = Cluster::start(&objects).await;
//! let alice = cluster.user("alice");
//! assert_eq!(alice.call("GET /api/v1/namespaces/team/pods").await.code, 200);
//! check(&cluster, &[
//!     row("alice", "GET /api/v1/nodes", json!(null), 403),
//!     row("node:a", "DELETE /api/v1/nodes/b", json!(null), 403),
//! ]).await;
//! ```

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

mod client;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nave_admission::PluginConfig;
use nave_apiserver::admission::AdmissionConfig;
use nave_apiserver::authorization::{follow_nodes, follow_rbac};
use nave_apiserver::cluster_authentication::ClusterAuthentication;
use nave_apiserver::draining::DrainSettings;
use nave_apiserver::server::{self, ApiServer};
use nave_apiserver::storage::{Following, Storages, WatchCacheSizes};
use nave_apiserver::virtual_resources;
use nave_authn::TokenUnion;
use nave_authn::jwt::{SigningKey, generate_rsa_pem};
use nave_authn::service_account::{Issuer, IssuerConfig, KeyRing, Keys};
use nave_authz::config::{Configuration, Parts};
use nave_authz::node::{Graph, Node};
use nave_authz::rbac::{GROUP, Rbac};
use nave_authz::{Chain, Metrics, NamedAuthorizer};
use nave_machinery::user::UserInfo;
use nave_machinery::{GroupVersionKind, GroupVersionResource, Value};
use nave_resources::Registry;
use nave_store::{Embedded, Store, embedded};
use parking_lot::RwLock;
use serde_json::json;

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use client::{Call, Client, Events, TestResponse};
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use table::{Row, check, row};

/// A running API server.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) storages: Storages,
    /// The RBAC index.
    pub(crate) rbac: Arc<Rbac>,
    /// Updates the authorizers.
    following: Vec<Following>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts a server and creates the objects in this order, as an administrator. Returns once the authorizers have
    /// all of them.
    pub(crate) async fn start(objects: &[Value]) -> Self {
        Self::start_with(objects, Vec::new()).await
    }

    /// Starts a server with additional authorizers before the default ones.
    pub(crate) async fn start_with(objects: &[Value], authorizers: Vec<NamedAuthorizer>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(Embedded::open(folder.path(), &embedded::Options::default()).unwrap());
        let storages = Storages::open(
            Registry::builtin(nave_schema::builtin()),
            Arc::clone(&store),
            &WatchCacheSizes::default(),
        );
        let (rbac, graph) = (Arc::new(Rbac::default()), Arc::new(RwLock::new(Graph::default())));
        let chain = chain(authorizers, &rbac, &graph);
        let tokens = Arc::new(TokenUnion::new(Vec::new()));
        let table = virtual_resources::with_tokens(virtual_resources::table(), tokens, issuer());
        let (_, cluster_authentication) = tokio::sync::watch::channel(ClusterAuthentication::default());
        let plugins = PluginConfig::new(&["NodeRestriction".to_owned()], &[]).unwrap();
        let config = server::Config {
            storages: storages.clone(),
            authentication: nave_authn::Chain::new(Vec::new()),
            admission: AdmissionConfig::new(plugins, Arc::clone(&rbac)),
            virtual_resources: virtual_resources::with_access_reviews(table, &chain),
            authorization: chain,
            service_ranges: "10.0.0.0/24".parse().unwrap(),
            node_ports: 30_000..=30_100,
            inflight: nave_apiserver::inflight::InflightLimits::default(),
            priority_and_fairness: true,
            request_timeout: Duration::from_mins(1),
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
        let mut cluster = Self { server, storages, rbac, following: Vec::new(), _folder: folder };
        cluster.aggregate_roles().await;
        for object in objects {
            cluster.create(object).await;
        }
        // Followers start from the current state of the watch caches, which now contain all objects.
        cluster.caught_up().await;
        let mut following = follow_rbac(&cluster.storages, &cluster.rbac);
        following.extend(follow_nodes(&cluster.storages, &graph));
        for one in &following {
            one.synced().await;
        }
        cluster.following = following;
        cluster
    }

    /// Creates an object as an administrator and returns the stored object. A namespaced object must have
    /// `metadata.namespace`.
    pub(crate) async fn create(&self, object: &Value) -> Value {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let gvk = GroupVersionKind::new(group, version, &kind);
        let def = self.storages.registry().by_kind(&gvk);
        let def = def.unwrap_or_else(|| panic!("no resource has the kind {gvk:?}"));
        let gvr = GroupVersionResource::new(group, version, &def.resource);
        let path = collection(&gvr, &text(&object["metadata"]["namespace"]));
        let answer = self.admin().send(Call::new("POST", &path).json(object)).await;
        assert_eq!(answer.code, 201, "POST {path}: {}", answer.text());
        answer.json()
    }

    /// Sets the rules of the aggregated bootstrap roles, because no controller runs in these tests.
    async fn aggregate_roles(&self) {
        const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        for role in ["view", "edit", "admin"] {
            let label = format!("rbac.authorization.k8s.io%2Faggregate-to-{role}%3Dtrue");
            let parts = self.admin().call(&format!("GET {ROLES}?labelSelector={label}")).await.json();
            let parts = parts["items"].as_array().into_iter().flatten();
            let rules: Vec<&Value> = parts.filter_map(|part| part["rules"].as_array()).flatten().collect();
            assert!(!rules.is_empty(), "nothing aggregates to {role}");
            let patched =
                self.admin().call_with(&format!("PATCH {ROLES}/{role}"), &json!({"rules": rules})).await;
            assert_eq!(patched.code, 200, "{}", patched.text());
        }
    }

    /// Waits until all watch caches have caught up with the store.
    pub(crate) async fn caught_up(&self) {
        let revision = self.storages.store().current_revision().await.unwrap();
        for storage in self.storages.all() {
            storage.wait_until(revision).await.unwrap();
        }
    }

    /// Returns a client of a member of `system:masters`.
    pub(crate) fn admin(&self) -> Client {
        self.client("admin", &["system:masters"])
    }

    /// Returns a client of a user without additional groups.
    pub(crate) fn user(&self, name: &str) -> Client {
        self.client(name, &[])
    }

    /// Returns a client of a node's kubelet.
    pub(crate) fn node(&self, name: &str) -> Client {
        self.client(&format!("system:node:{name}"), &["system:nodes"])
    }

    /// Returns a client of a service account.
    pub(crate) fn service_account(&self, namespace: &str, name: &str) -> Client {
        let group = format!("system:serviceaccounts:{namespace}");
        let user = format!("system:serviceaccount:{namespace}:{name}");
        self.client(&user, &["system:serviceaccounts", &group])
    }

    /// Returns an anonymous client.
    pub(crate) fn anonymous(&self) -> Client {
        let (name, groups) = ("system:anonymous".to_owned(), vec!["system:unauthenticated".to_owned()]);
        Client::new(self.server.local(UserInfo { name, groups, ..UserInfo::default() }))
    }

    /// Returns a client of a user in these groups and `system:authenticated`.
    pub(crate) fn client(&self, name: &str, groups: &[&str]) -> Client {
        let groups = groups.iter().copied().chain(["system:authenticated"]).map(str::to_owned).collect();
        Client::new(self.server.local(UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }))
    }

    /// Returns the client that a table names: `admin`, `anonymous`, `node:NAME`, `account:NAMESPACE/NAME`, or a user
    /// name.
    pub(crate) fn named(&self, who: &str) -> Client {
        match who.split_once(':') {
            _ if who == "admin" => self.admin(),
            _ if who == "anonymous" => self.anonymous(),
            Some(("node", name)) => self.node(name),
            Some(("account", account)) => {
                let (namespace, name) = account.split_once('/').unwrap();
                self.service_account(namespace, name)
            }
            _ => self.user(who),
        }
    }
}

/// Returns the path of a resource's objects in a namespace; in all namespaces if `namespace` is empty.
pub(crate) fn collection(gvr: &GroupVersionResource, namespace: &str) -> String {
    let GroupVersionResource { group, version, resource } = gvr;
    let api = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    if namespace.is_empty() {
        format!("{api}/{resource}")
    } else {
        format!("{api}/namespaces/{namespace}/{resource}")
    }
}

/// Returns a namespace.
pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// Returns a binding of a cluster role to a user in one namespace.
pub(crate) fn cluster_role_in(namespace: &str, role: &str, user: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"namespace": namespace, "name": format!("{user}-{role}")},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}],
    })
}

/// Returns a binding of a cluster role to a user in the whole cluster.
pub(crate) fn cluster_role_everywhere(role: &str, user: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("{user}-{role}")},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}],
    })
}

/// Returns a cluster role with these rules.
pub(crate) fn cluster_role(name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    })
}

fn chain(first: Vec<NamedAuthorizer>, rbac: &Arc<Rbac>, graph: &Arc<RwLock<Graph>>) -> Chain {
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let parts = Parts {
        rbac: Arc::clone(rbac),
        node: Arc::new(Node::new(Arc::clone(graph)).unwrap()),
        abac: None,
        metrics: metrics.clone(),
        egress: nave_webhook::Egress::Direct,
    };
    let built = Configuration::of_modes(["Node", "RBAC"], None).build(&parts).unwrap();
    Chain::new(first.into_iter().chain(built).collect(), metrics)
}

fn issuer() -> Issuer {
    let keys = KeyRing::created_on_first_use(|| {
        let pem = generate_rsa_pem().ok()?;
        Some(Keys::new(SigningKey::from_pem(pem.as_bytes()).ok()?, Vec::new()))
    });
    let config = IssuerConfig {
        issuer: "https://kubernetes.default.svc".to_owned(),
        audiences: vec!["https://kubernetes.default.svc".to_owned()],
        max_expiration_seconds: None,
        extend_expiration: true,
    };
    Issuer::new(config, Arc::new(keys))
}
