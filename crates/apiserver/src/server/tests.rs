//! A whole server in the test process, with requests as clients send them over connections.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use bytes::{Buf, Bytes};
use futures_util::stream;
use http::{Method, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use nave_admission::{Plugin, PluginConfig};
use nave_authz::{AlwaysAllow, NamedAuthorizer};
use nave_machinery::Value;
use nave_resources::Registry;
use nave_store::embedded::{Embedded, Options};
use nave_webhook::{AddressPolicy, BackendDialer};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::connect::backends::{BackendLimits, ConnectionCounts};
use crate::cpu_pool::LARGE;
use crate::storage::WatchCacheSizes;

mod admission;
mod aggregation;
mod bootstrap;
mod component_statuses;
mod connect;
mod console;
mod custom;
mod flow_control;
mod paging;

/// Longer than any test.
const LONG: Duration = Duration::from_mins(10);

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

/// Maximum number of connections to backends.
const BACKEND_CONNECTIONS: usize = 48;

/// Returns connections that may lead to this machine.
fn local_backends() -> Arc<Backends> {
    let dialer = BackendDialer {
        policy: AddressPolicy::Unicast,
        timeout: Duration::from_secs(2),
        egress: nave_webhook::Egress::Direct,
    };
    let Backends { kubelets, unverified, .. } = Backends::default();
    let connections = ConnectionCounts { total: BACKEND_CONNECTIONS, per_host: None, per_user: None };
    let limits = BackendLimits { connections, ..BackendLimits::default() };
    Arc::new(Backends::new(dialer, kubelets, unverified).with_limits(limits))
}

struct Fixture {
    server: ApiServer,
    _folder: tempfile::TempDir,
}

impl Fixture {
    /// Starts a server that allows everything.
    async fn start(inflight: InflightLimits, request_timeout: Duration) -> Self {
        Self::start_with(inflight, request_timeout, Vec::new()).await
    }

    /// Starts a server with additional admission plugins.
    async fn start_with(
        inflight: InflightLimits,
        request_timeout: Duration,
        given: Vec<(&'static str, Plugin)>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(folder.path(), &Options::default()).unwrap());
        let registry = Registry::builtin(nave_schema::builtin());
        let authorizer = NamedAuthorizer {
            kind: "AlwaysAllow",
            name: Arc::from("alwaysallow"),
            authorizer: Arc::new(AlwaysAllow),
            resolver: None,
        };
        let authorization = nave_authz::Chain::new(
            vec![authorizer],
            nave_authz::Metrics::new(&prometheus::Registry::new()).unwrap(),
        );
        let virtual_resources =
            crate::virtual_resources::with_access_reviews(crate::virtual_resources::table(), &authorization);
        let virtual_resources =
            crate::virtual_resources::with_component_statuses(virtual_resources, true).unwrap();
        let storages = Storages::open(registry, store, &WatchCacheSizes::default());
        let own = "127.0.0.1:6443".parse().unwrap();
        let config = Config {
            webhooks: Arc::new(crate::webhooks::client_manager(
                &storages,
                nave_webhook::Routing::ClusterIp,
                own,
            )),
            storages,
            authentication: nave_authn::Chain::new(Vec::new()).with_anonymous(),
            authorization,
            admission: AdmissionConfig {
                given,
                ..AdmissionConfig::new(PluginConfig::default(), Arc::default())
            },
            virtual_resources,
            service_ranges: ServiceRanges::from_str("10.0.0.0/24").unwrap(),
            node_ports: 30_000..=30_100,
            inflight,
            priority_and_fairness: inflight == InflightLimits::default(),
            request_timeout,
            min_watch_time: LONG,
            browsers: crate::browsers::Browsers::default(),
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
            backends: local_backends(),
            aggregation: AggregationConfig::default(),
            cluster_authentication: watch::channel(ClusterAuthentication::default()).1,
            options: crate::server::Options::default(),
        };
        Self { server: ApiServer::start(config).await.unwrap(), _folder: folder }
    }

    /// Sends a request as a connection does. Does not read the body of the response.
    async fn open(
        &self,
        method: &Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Response<ResponseBody> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).unwrap();
        self.server.pipeline.handle(request, Client::Remote(None)).await.response
    }

    async fn send(&self, method: Method, uri: &str, body: &Value) -> (u16, Value) {
        let media_type =
            if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let headers = [("content-type", media_type)];
        read(self.open(&method, uri, &headers, body.to_string().into()).await).await
    }

    async fn get(&self, uri: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        read(self.open(&Method::GET, uri, headers, Bytes::new()).await).await
    }

    async fn metrics(&self, headers: &[(&str, &str)]) -> String {
        let response = self.open(&Method::GET, "/metrics", headers, Bytes::new()).await;
        String::from_utf8(bytes_of(response).await.to_vec()).unwrap()
    }
}

/// Returns the status code and the body, parsed if it is JSON.
async fn read(response: Response<ResponseBody>) -> (u16, Value) {
    let code = response.status().as_u16();
    (code, serde_json::from_slice(&bytes_of(response).await).unwrap_or_default())
}

async fn bytes_of(response: Response<ResponseBody>) -> Bytes {
    let mut body = response.into_body().collect().await.unwrap().aggregate();
    body.copy_to_bytes(body.remaining())
}

fn map(name: &str, bytes: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "x".repeat(bytes)}})
}

fn lease(name: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
        "spec": {"holderIdentity": "n", "leaseDurationSeconds": 40}})
}

/// Returns a patch that renews a lease.
fn renewal(round: u32) -> Value {
    json!({"spec": {"leaseDurationSeconds": 50 + round}})
}

/// Blocks all threads of the server's pool until the returned senders are dropped.
async fn fill_pool(server: &ApiServer) -> Vec<mpsc::Sender<()>> {
    let cpu = &server.pipeline.router.cpu;
    let (begun, begins) = mpsc::channel();
    let releases: Vec<_> = (0..cpu.free_threads())
        .map(|_| {
            let (release, until) = mpsc::channel::<()>();
            let (cpu, begun) = (cpu.clone(), begun.clone());
            tokio::spawn(async move {
                let block = async move {
                    begun.send(()).map_err(Status::internal)?;
                    let _ = until.recv();
                    Ok(())
                };
                cpu.run(LARGE, block).await
            });
            release
        })
        .collect();
    let count = releases.len();
    let wait = move || (0..count).for_each(|_| begins.recv().unwrap());
    tokio::task::spawn_blocking(wait).await.unwrap();
    releases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_leases_and_watches_are_served_while_large_requests_fill_the_pool() {
    // Runs on the executor's threads, like requests from connections, not on the test's own thread.
    tokio::spawn(serve_while_the_pool_is_full()).await.unwrap();
}

async fn serve_while_the_pool_is_full() {
    let it = Fixture::start(InflightLimits::default(), Duration::from_secs(2)).await;
    assert_eq!(it.send(Method::POST, MAPS, &map("large", LARGE)).await.0, 201);
    assert_eq!(it.send(Method::POST, LEASES, &lease("n")).await.0, 201);
    let mut events =
        it.open(&Method::GET, &format!("{LEASES}?watch=true"), &[], Bytes::new()).await.into_body();
    events.frame().await.unwrap().unwrap();

    let releases = fill_pool(&it.server).await;
    for round in 0..20 {
        assert_eq!(it.get("/livez", &[]).await.0, 200);
        assert_eq!(it.get("/readyz", &[]).await.0, 200);
        assert_eq!(it.send(Method::PATCH, &format!("{LEASES}/n"), &renewal(round)).await.0, 200);
        events.frame().await.unwrap().unwrap();
        assert_eq!(it.send(Method::POST, MAPS, &map(&format!("small-{round}"), 1_000)).await.0, 201);
        // Stored bytes are copied without the pool, whatever the object's size.
        assert_eq!(it.get(&format!("{MAPS}/large"), &[]).await.0, 200);
        assert_eq!(it.get(MAPS, &[]).await.0, 200);
    }
    // Each kind of work on a large input waits for a pool thread until the request's deadline.
    let large = "x".repeat(LARGE);
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let yaml = [("accept", "application/yaml")];
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"nonResourceAttributes": {"path": large, "verb": "get"}}});
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    let selector = format!("{MAPS}?labelSelector={}", "a,".repeat(LARGE / 2));
    let one = format!("{MAPS}/large");
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let create = map("other", LARGE);
    let late = tokio::join!(
        it.send(Method::POST, MAPS, &create),
        it.send(Method::PATCH, &one, &patch),
        it.send(Method::DELETE, &one, &Value::Null),
        it.send(Method::POST, reviews, &review),
        it.get(&one, &table),
        it.get(&one, &yaml),
        it.get(MAPS, &table),
        it.get(&selector, &[]),
        it.get("/openapi/v3/apis/apps/v1", &[]),
    );
    let late = [late.0, late.1, late.2, late.3, late.4, late.5, late.6, late.7, late.8];
    assert_eq!(late.map(|(code, _)| code), [504; 9]);
    assert!(it.metrics(&[]).await.contains(r#"apiserver_request_terminations_total{code="504""#));

    drop(releases);
    assert_eq!(it.send(Method::POST, MAPS, &create).await.0, 201);
    assert_eq!(it.send(Method::PATCH, &one, &patch).await.0, 200);
    assert_eq!(it.get(&one, &table).await.0, 200);
    assert_eq!(it.get("/openapi/v3/apis/apps/v1", &[]).await.0, 200);
    assert_eq!(it.send(Method::DELETE, &one, &Value::Null).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_requests_beyond_the_bound_are_refused_at_once() {
    let it = Arc::new(Fixture::start(InflightLimits { read_only: 0, mutating: 0 }, LONG).await);
    let releases = fill_pool(&it.server).await;
    let waiting = it.server.pipeline.router.cpu.free_requests();
    let large = |number: usize| {
        let it = Arc::clone(&it);
        tokio::spawn(async move { it.send(Method::POST, MAPS, &map(&format!("m{number}"), LARGE)).await })
    };
    let accepted: Vec<_> = (0..waiting).map(large).collect();
    while it.server.pipeline.router.cpu.free_requests() > 0 {
        tokio::task::yield_now().await;
    }
    let refused = it.open(&Method::POST, MAPS, &[], map("more", LARGE).to_string().into()).await;
    assert_eq!(refused.headers().get(header::RETRY_AFTER).unwrap(), "1");
    let (code, status) = read(refused).await;
    assert_eq!((code, &status["reason"]), (429, &json!("TooManyRequests")));
    assert_eq!(it.send(Method::POST, MAPS, &map("small", 10)).await.0, 201);
    drop(releases);
    for one in accepted {
        assert_eq!(one.await.unwrap().0, 201);
    }
}

/// Small requests make progress while 16 clients send the most expensive bodies: more small requests are served than
/// large ones, although only one is sent at a time. Without the pool, each step of a small request would wait behind
/// large ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_requests_are_not_slowed_down_by_large_ones() {
    // Runs on the executor's threads, like requests from connections, not on the test's own thread.
    tokio::spawn(serve_small_requests_beside_large_ones()).await.unwrap();
}

async fn serve_small_requests_beside_large_ones() {
    let it = Arc::new(Fixture::start(InflightLimits::default(), LONG).await);
    assert_eq!(it.send(Method::POST, LEASES, &lease("n")).await.0, 201);
    let mut events =
        it.open(&Method::GET, &format!("{LEASES}?watch=true"), &[], Bytes::new()).await.into_body();
    events.frame().await.unwrap().unwrap();
    let bodies: Arc<[(String, Bytes)]> = worst_bodies().into();
    let (done, stop) = (Arc::new(std::sync::atomic::AtomicUsize::new(0)), CancellationToken::new());
    let clients: Vec<_> = (0..16_usize)
        .map(|client| {
            let (it, bodies, done, stop) =
                (Arc::clone(&it), Arc::clone(&bodies), Arc::clone(&done), stop.clone());
            tokio::spawn(async move {
                for (uri, body) in bodies.iter().cycle().skip(client) {
                    if stop.is_cancelled() {
                        return;
                    }
                    let content_type =
                        if body.starts_with(b"a: ") { "application/yaml" } else { "application/json" };
                    let headers = [("content-type", content_type)];
                    let response = it.open(&Method::POST, uri, &headers, body.clone()).await;
                    assert_ne!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{uri}");
                    done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    // Yields, as a connection does while it waits for the next request.
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let large_done = || done.load(std::sync::atomic::Ordering::Relaxed);
    while large_done() == 0 {
        tokio::task::yield_now().await;
    }
    let (before, rounds) = (large_done(), 50);
    for round in 0..rounds {
        assert_eq!(it.get("/livez", &[]).await.0, 200);
        assert_eq!(it.send(Method::PATCH, &format!("{LEASES}/n"), &renewal(round)).await.0, 200);
        events.frame().await.unwrap().unwrap();
    }
    let larges = large_done() - before;
    stop.cancel();
    for client in clients {
        client.await.unwrap();
    }
    assert!(
        larges < rounds as usize,
        "{larges} large requests were served while {rounds} rounds of small ones were"
    );
}

/// Returns large bodies that are expensive to decode and normalize.
fn worst_bodies() -> Vec<(String, Bytes)> {
    let size = 200 << 10;
    let repeated = |head: &str, part: &str, tail: &str| -> Bytes {
        format!("{head}{}{tail}", part.repeat(size / part.len()).trim_end_matches(',')).into()
    };
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned();
    let map = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"#;
    let keys: Vec<_> = (0..size / 12).map(|number| format!(r#""k{number}":"""#)).collect();
    vec![
        // Many fields with invalid names, and many unknown fields.
        (MAPS.to_owned(), format!(r#"{map}"data":{{{}}}}}"#, keys.join(",")).into()),
        (MAPS.to_owned(), repeated(&format!(r#"{map}"data":{{"a":"b"}},"x":["#), r#"{"":0},"#, "]}")),
        // Numbers and escapes.
        (reviews, repeated(r#"{"spec":["#, "-1.5e300,", "]}")),
        (MAPS.to_owned(), repeated(&format!(r#"{map}"data":{{"a":""#), r"\u00e9", r#""}}"#)),
        // YAML is more expensive per byte.
        (MAPS.to_owned(), repeated("a: [", "[],", "]\n")),
    ]
}

#[tokio::test]
async fn requests_in_flight_are_limited_for_clients_on_connections() {
    let it = Fixture::start(InflightLimits { read_only: 1, mutating: 1 }, LONG).await;
    assert_eq!(it.send(Method::POST, MAPS, &map("a", 200_000)).await.0, 201);
    // A response whose body is not read keeps its permit.
    let list = it.open(&Method::GET, MAPS, &[], Bytes::new()).await;
    assert!(matches!(list.body(), ResponseBody::Stream(_)));
    let refused = it.open(&Method::GET, "/api/v1/nodes", &[], Bytes::new()).await;
    assert_eq!(refused.headers().get(header::RETRY_AFTER).unwrap(), "1");
    let (code, status) = read(refused).await;
    assert_eq!(
        (code, &status["reason"], &status["message"]),
        (429, &json!("TooManyRequests"), &json!("Too many requests, please try again later."))
    );
    for uri in ["/livez", "/api/v1/nodes?watch=true&timeoutSeconds=1"] {
        assert_eq!(it.open(&Method::GET, uri, &[], Bytes::new()).await.status(), 200, "{uri}");
    }
    let master = [("impersonate-user", "root"), ("impersonate-group", "system:masters")];
    assert_eq!(it.get("/api/v1/nodes", &master).await.0, 200);
    // Controllers within the process are not limited.
    let controller = it.server.local(UserInfo { name: "controller".to_owned(), ..UserInfo::default() });
    let request = Request::get("/api/v1/nodes").body(Full::new(Bytes::new())).unwrap();
    let client = Client::Process(Arc::clone(&controller.user));
    assert_eq!(controller.pipeline.handle(request, client).await.response.status(), 200);
    // Writes have a separate limit. The body of this write never arrives.
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
    let request = Request::post(MAPS).body(body).unwrap();
    let pipeline = Arc::clone(&it.server.pipeline);
    let stalled = tokio::spawn(async move { pipeline.handle(request, Client::Remote(None)).await });
    while it.server.pipeline.flow_control.free_mutating() != Some(0) {
        tokio::task::yield_now().await;
    }
    assert_eq!(it.send(Method::POST, MAPS, &map("b", 1)).await.0, 429);
    let metrics = it.metrics(&master).await;
    for (verb, count) in [("LIST", 1), ("POST", 1)] {
        let counted = metrics.lines().any(|line| {
            line.starts_with("apiserver_request_terminations_total{code=\"429\"")
                && line.contains(&format!("verb=\"{verb}\""))
                && line.ends_with(&format!(" {count}"))
        });
        assert!(counted, "{verb}");
    }
    // A permit is released when the response is read or dropped.
    drop(list);
    stalled.abort();
    let _ = stalled.await;
    assert_eq!(it.get("/api/v1/nodes", &[]).await.0, 200);
    assert_eq!(it.send(Method::POST, MAPS, &map("b", 1)).await.0, 201);
}

#[tokio::test]
async fn failures_have_the_warnings_of_earlier_stages() {
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    for (uri, code) in [
        ("/api/v1/namespaces/default/endpoints/none", 404),
        ("/api/v1/namespaces/default/endpoints?limit=x", 400),
        ("/api/v1/namespaces/default/endpoints?watch=true&timeoutSeconds=1", 200),
        ("/api/v1/namespaces/default/endpoints", 200),
    ] {
        let response = it.open(&Method::GET, uri, &[], Bytes::new()).await;
        let warning = response.headers().get(header::WARNING).unwrap().to_str().unwrap();
        assert_eq!(response.status(), code, "{uri}");
        assert!(warning.starts_with("299 - \"v1 Endpoints is deprecated"), "{warning}");
    }
}

/// Each request in progress holds this future in memory, and each move copies the future.
#[tokio::test]
async fn the_future_of_a_request_is_small() {
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    let request = Request::get("/").body(Full::new(Bytes::new())).unwrap();
    let size = std::mem::size_of_val(&it.server.pipeline.handle(request, Client::Remote(None)));
    assert!(size < 8 << 10, "{size}");
}

#[tokio::test]
async fn a_client_shortens_the_time_of_its_request() {
    let it = Fixture::start(InflightLimits::default(), LONG).await;
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
    let request = Request::post(format!("{MAPS}?timeout=10ms")).body(body).unwrap();
    let served = it.server.pipeline.handle(request, Client::Remote(None)).await;
    assert_eq!(served.response.status(), 504);
    let (code, status) = it.get("/version?timeout=1", &[]).await;
    assert_eq!((code, &status["reason"]), (400, &json!("BadRequest")));
}

#[tokio::test]
async fn times_out_on_a_body_that_never_ends() {
    let it = Fixture::start(InflightLimits::default(), Duration::from_secs(2)).await;
    let one = format!("{MAPS}/a");
    let drip = || {
        stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b" "))), ()))
        })
    };
    let json = "application/json";
    let answers = [
        (Method::POST, MAPS, json),
        (Method::PUT, &one, json),
        (Method::PATCH, &one, "application/merge-patch+json"),
        (Method::DELETE, &one, json),
        (Method::DELETE, MAPS, json),
    ]
    .map(|(method, uri, kind)| {
        let request = Request::builder().method(method).uri(uri).header("content-type", kind);
        let request = request.body(Box::pin(StreamBody::new(drip()))).unwrap();
        it.server.pipeline.handle(request, Client::Remote(None))
    });
    for answer in futures_util::future::join_all(answers).await {
        assert_eq!(answer.response.status(), 504);
    }
}

#[tokio::test]
async fn a_response_to_head_has_no_content() {
    let it = Fixture::start(InflightLimits::default(), Duration::from_secs(2)).await;
    for (uri, code) in [("/version", 200), ("/healthz", 200), (MAPS, 405), ("/nowhere", 404)] {
        let request = Request::head(uri).body(Full::new(Bytes::new())).unwrap();
        let response = it.server.pipeline.handle(request, Client::Remote(None)).await.response;
        assert_eq!(response.status(), code, "{uri}");
        assert!(response.headers()[header::CONTENT_LENGTH] != "0", "{uri}");
        assert!(response.into_body().is_end_stream(), "{uri}");
    }
}

#[tokio::test]
async fn a_refusal_is_sent_after_a_small_body_is_read() {
    let it = Fixture::start(InflightLimits::default(), Duration::from_secs(2)).await;
    let read = Arc::new(AtomicBool::new(false));
    let body = stream::once({
        let read = Arc::clone(&read);
        async move {
            read.store(true, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"{}")))
        }
    });
    let request = Request::post("/version").body(Box::pin(StreamBody::new(body))).unwrap();
    let response = it.server.pipeline.handle(request, Client::Remote(None)).await.response;
    assert_eq!(response.status(), 405);
    assert!(read.load(Ordering::Relaxed));
}

#[tokio::test]
async fn unknown_paths_are_not_found_by_any_method() {
    let it = Fixture::start(InflightLimits::default(), Duration::from_secs(2)).await;
    for (method, uri, code) in [
        (Method::POST, "/nowhere", 404),
        (Method::DELETE, "/apis/example.com", 404),
        (Method::PUT, "/apis/example.com/v1/things/a", 404),
        (Method::POST, "/version", 405),
        (Method::DELETE, "/apis/apps", 405),
    ] {
        let request = Request::builder().method(&method).uri(uri).body(Full::new(Bytes::new())).unwrap();
        let response = it.server.pipeline.handle(request, Client::Remote(None)).await.response;
        assert_eq!(response.status(), code, "{method} {uri}");
    }
}
