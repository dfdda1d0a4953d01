//! An aggregated server with metrics-server's shape, for the tests of the aggregation layer: the group
//! `metrics.k8s.io` with the metrics of nodes and pods.
//!
//! It reads the authority of front proxies from the config map `extension-apiserver-authentication`, as extension
//! servers do, and accepts only clients with a certificate of it. It can be told to misbehave ([`Mode`]).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, split};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::{Server, ok, tls};

/// The path of the server's version.
pub const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";
/// The path of a subresource that switches to any protocol and sends back what it receives.
pub const ECHO: &str = "/apis/metrics.k8s.io/v1beta1/nodes/n1/echo";
/// The name of its APIService.
pub const METRICS_API_SERVICE: &str = "v1beta1.metrics.k8s.io";

/// The behaviour of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As metrics-server does.
    Normal,
    /// Does not answer requests for metrics.
    Silent,
    /// Answers with errors.
    Failing,
    /// Redirects to the address of a cloud's metadata.
    Redirecting,
    /// Answers with headers that speak for the API server.
    Posing,
}

/// A server that runs until the value is dropped.
pub struct ExtensionServer {
    /// The address.
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    requests: watch::Sender<Vec<String>>,
    tasks: JoinSet<()>,
}

impl ExtensionServer {
    /// Starts a server on a free port.
    pub async fn start(server: &Server) -> Self {
        Self::start_on(server, 0, "metrics-server.kube-system.svc").await
    }

    /// Starts a server on a port, with a certificate for this name.
    pub async fn start_on(server: &Server, port: u16, name: &str) -> Self {
        let map =
            ["get", "configmap", "extension-apiserver-authentication", "-n", "kube-system", "-o", "json"];
        let map: Value = ok(serde_json::from_str(&server.kubectl(&map).await), "the config map");
        let authority = map["data"]["requestheader-client-ca-file"].as_str().unwrap_or_default();
        let authority = ok(CertificateDer::from_pem_slice(authority.as_bytes()), "the front proxies' CA");
        let tls = tls::server_config(&server.folder().join("data/pki"), name, authority);
        let listener = ok(TcpListener::bind(("127.0.0.1", port)).await, "the extension server's port");
        let address = ok(listener.local_addr(), "the extension server's port");
        let (mode, requests) = (watch::Sender::new(Mode::Normal), watch::Sender::new(Vec::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), mode.clone(), requests.clone()));
        Self { address, mode, requests, tasks }
    }

    /// Creates the service and the APIService.
    pub async fn register(&self, server: &Server) {
        let ca = ok(std::fs::read(server.folder().join("data/pki/ca.crt")), "the CA");
        // Endpoints cannot have addresses of this machine.
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "metrics-server", "namespace": "kube-system"},
            "spec": {"type": "ExternalName", "externalName": "localhost"}});
        let api_service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": METRICS_API_SERVICE},
            "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
                "versionPriority": 100, "caBundle": BASE64_STANDARD.encode(ca),
                "service": {"name": "metrics-server", "namespace": "kube-system", "port": self.address.port()}}});
        server.apply(&service.to_string()).await;
        server.apply(&api_service.to_string()).await;
    }

    /// Changes how the server behaves.
    pub fn set_mode(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Returns the path, user and groups of each request since the last call, without those of the API server itself.
    pub fn requests(&self) -> Vec<String> {
        self.requests.send_replace(Vec::new())
    }

    /// Ends the server and all its connections.
    pub async fn kill(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    mode: watch::Sender<Mode>,
    requests: watch::Sender<Vec<String>>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else { return };
        let (tls, mode, requests) = (tls.clone(), mode.clone(), requests.clone());
        connections.spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(|request| answer(request, *mode.borrow(), &requests));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.with_upgrades().await;
        });
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(
    mut request: Request<Incoming>,
    mode: Mode,
    requests: &watch::Sender<Vec<String>>,
) -> Result<Response<Body>, Infallible> {
    let header = |name: &str| {
        let values = request.headers().get_all(name).iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect::<Vec<_>>()
            .join(",")
    };
    let path = request.uri().path().to_owned();
    let user = header("x-remote-user");
    let is_document = user == "system:kube-aggregator" || path.starts_with("/openapi") || path == METRICS;
    if user != "system:kube-aggregator" {
        requests.send_modify(|all| all.push(format!("{path} {user} {}", header("x-remote-group"))));
    }
    if path == ECHO
        && let Some(protocol) = request.headers().get(UPGRADE).cloned()
    {
        return Ok(echo(&mut request, protocol));
    }
    match mode {
        Mode::Failing => return Ok(status(StatusCode::SERVICE_UNAVAILABLE)),
        Mode::Silent if !is_document => std::future::pending().await,
        Mode::Redirecting if !is_document => {
            let mut redirect = status(StatusCode::FOUND);
            let target = HeaderValue::from_static("http://169.254.169.254/latest/meta-data/");
            redirect.headers_mut().insert("location", target);
            return Ok(redirect);
        }
        _ => {}
    }
    let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let mut response = match path.as_str() {
        METRICS => document(&resources()),
        "/openapi/v3" => document(&json!({"paths": {
            "apis/metrics.k8s.io/v1beta1": {"serverRelativeURL": "/openapi/v3/apis/metrics.k8s.io/v1beta1?hash=0A"},
            "apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=0B"}}})),
        "/openapi/v3/apis/metrics.k8s.io/v1beta1" => document(&schema()),
        "/apis/metrics.k8s.io/v1beta1/nodes" if watches => events(),
        "/apis/metrics.k8s.io/v1beta1/nodes" => {
            let usage = json!({"cpu": "250m", "memory": "512Mi"});
            document(&list("NodeMetrics", &[json!({"metadata": {"name": "n1"}, "usage": usage})]))
        }
        "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods" => {
            let usage = json!({"cpu": "10m", "memory": "20Mi"});
            let containers = json!([{"name": "main", "usage": usage}]);
            let pod = json!({"metadata": {"name": "p1", "namespace": "default"}, "containers": containers});
            document(&list("PodMetrics", &[pod]))
        }
        _ => status(StatusCode::NOT_FOUND),
    };
    if mode == Mode::Posing {
        for (name, value) in
            [("access-control-allow-origin", "*"), ("strict-transport-security", "max-age=0")]
        {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    }
    Ok(response)
}

/// Switches to a protocol in which the server sends back what it receives.
fn echo(request: &mut Request<Incoming>, protocol: HeaderValue) -> Response<Body> {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (mut reads, mut writes) = split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut reads, &mut writes).await;
        let _ = writes.shutdown().await;
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, protocol);
    response
}

fn resources() -> Value {
    let resource = |name: &str, namespaced: bool, kind: &str| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]});
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1",
        "resources": [resource("nodes", false, "NodeMetrics"), resource("pods", true, "PodMetrics")]})
}

fn list(kind: &str, items: &[Value]) -> Value {
    let complete = |item: &Value| {
        let mut item = item.clone();
        item["kind"] = json!(kind);
        item["apiVersion"] = json!("metrics.k8s.io/v1beta1");
        item["timestamp"] = json!("2026-01-01T00:00:00Z");
        item["window"] = json!("15s");
        item
    };
    let items: Vec<_> = items.iter().map(complete).collect();
    json!({"kind": format!("{kind}List"), "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items})
}

fn schema() -> Value {
    let kind = json!([{"group": "metrics.k8s.io", "version": "v1beta1", "kind": "NodeMetrics"}]);
    let usage = json!({"type": "object", "description": "The usage of a node in the window."});
    let node_metrics = json!({"type": "object", "description": "The resource usage of a node.",
        "properties": {"usage": usage}, "x-kubernetes-group-version-kind": kind});
    let reference = json!({"$ref": "#/components/schemas/NodeMetrics"});
    let get = json!({"x-kubernetes-action": "get", "x-kubernetes-group-version-kind": kind[0],
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}}});
    json!({"openapi": "3.0.0", "info": {"title": "metrics", "version": "1"},
        "paths": {"/apis/metrics.k8s.io/v1beta1/nodes/{name}": {"get": get}},
        "components": {"schemas": {"NodeMetrics": node_metrics}}})
}

/// Returns a watch with an event every few milliseconds.
fn events() -> Response<Body> {
    let events = stream::unfold(1, |number| async move {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let object = json!({"kind": "NodeMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {"name": format!("n{number}")}});
        Some((Bytes::from(format!("{}\n", json!({"type": "MODIFIED", "object": object}))), number + 1))
    });
    let events = events.map(|event| Ok(Frame::data(event)));
    Response::new(BodyExt::boxed_unsync(StreamBody::new(events)))
}

fn document(document: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(document.to_string())).boxed_unsync());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = code;
    response
}
