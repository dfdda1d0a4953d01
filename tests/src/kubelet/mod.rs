//! A kubelet's HTTPS server, for the tests of streams: runs commands on this machine in place of containers.
//!
//! | path | behaviour |
//! | --- | --- |
//! | `/exec/…` | runs the command of the query; `echo-input` returns its input without a process |
//! | `/attach/…` | runs `cat` |
//! | `/portForward/…` | connects to the port on this machine |
//! | `/containerLogs/…` | prints the parameters of the request, and numbered lines with `follow`; for a pod `flood` endlessly many |
//! | `/redirect` | redirects to another host |
//! | others | prints the request |
//!
//! It speaks SPDY/3.1, and WebSocket if it was started so, as kubelets with the feature `ExtendWebSocketsToKubelet`.

mod commands;
mod ports;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nave_streams::remote_command::{self, Channels};
use nave_streams::spdy::{Role, Session};
use nave_streams::tunnel::tunnel;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, duplex};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role as Side;

use crate::{Server, ok, tls};

/// The name of the kubelet's node.
pub const KUBELET_NODE: &str = "streaming";

/// A kubelet that runs until the value is dropped.
pub struct StandInKubelet {
    /// The address.
    pub address: SocketAddr,
    state: Arc<State>,
    tasks: JoinSet<()>,
}

struct State {
    speaks_web_socket: bool,
    streams: AtomicUsize,
}

impl StandInKubelet {
    /// Starts a kubelet with a certificate of the server's CA that accepts only clients of that CA, and registers its
    /// node. `speaks_web_socket` declares the feature `ExtendWebSocketsToKubelet`.
    pub async fn start(server: &Server, speaks_web_socket: bool) -> Self {
        Self::start_with_ca(server, speaks_web_socket, &server.folder().join("data/pki")).await
    }

    /// As [`Self::start`], with a certificate of another CA: the files `ca.crt` and `ca.key` in the folder.
    pub async fn start_with_ca(server: &Server, speaks_web_socket: bool, ca: &Path) -> Self {
        let client_ca = CertificateDer::from_pem_file(server.folder().join("data/pki/ca.crt"));
        let tls = tls::server_config(ca, "127.0.0.1", ok(client_ca, "the client CA"));
        let listener = ok(TcpListener::bind("127.0.0.1:0").await, "the kubelet's port");
        let address = ok(listener.local_addr(), "the kubelet's port");
        let state = Arc::new(State { speaks_web_socket, streams: AtomicUsize::new(0) });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&state)));
        let kubelet = Self { address, state, tasks };
        kubelet.register(server).await;
        kubelet
    }

    async fn register(&self, server: &Server) {
        let port = self.address.port();
        let features =
            if self.state.speaks_web_socket { json!(["ExtendWebSocketsToKubelet"]) } else { json!([]) };
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": KUBELET_NODE}});
        server.apply(&node.to_string()).await;
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}, "declaredFeatures": features}});
        patch_status(server, "node", KUBELET_NODE, &status).await;
    }

    /// Creates a running pod on the node. Its address is this machine's.
    pub async fn run_pod(&self, server: &Server, name: &str) {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": KUBELET_NODE, "containers": [{"name": "main", "image": "none"}]}});
        server.apply(&pod.to_string()).await;
        let status = json!({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        patch_status(server, "pod", name, &status).await;
    }

    /// Returns the number of open streams: commands and port forwards.
    pub fn open_streams(&self) -> usize {
        self.state.streams.load(Ordering::Relaxed)
    }

    /// Ends the kubelet and all its connections.
    pub async fn kill(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn patch_status(server: &Server, resource: &str, name: &str, status: &Value) {
    let status = status.to_string();
    server.kubectl(&["patch", resource, name, "--subresource=status", "--type=merge", "-p", &status]).await;
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else { return };
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            // Streams are served by this task, so they end with the kubelet.
            let (upgrades, mut upgraded) = tokio::sync::mpsc::unbounded_channel();
            let service = service_fn(|request| {
                let response = handle(&state, request, &upgrades);
                async { Ok::<_, Infallible>(response) }
            });
            let connection =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
            let _ = connection.await;
            if let Ok(Stream { upgrade, kind }) = upgraded.try_recv()
                && let Ok(connection) = upgrade.await
            {
                state.streams.fetch_add(1, Ordering::Relaxed);
                let _counted = Counted(&state.streams);
                kind.serve(TokioIo::new(connection)).await;
            }
        });
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An upgraded connection.
struct Stream {
    upgrade: hyper::upgrade::OnUpgrade,
    kind: StreamKind,
}

struct StreamKind {
    is_web_socket: bool,
    /// `None` for a port forward.
    command: Option<(Channels, Vec<String>)>,
}

impl StreamKind {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, connection: S) {
        if !self.is_web_socket {
            return serve_spdy(connection, self.command).await;
        }
        let (near, far) = duplex(64 << 10);
        let socket = WebSocketStream::from_raw_socket(connection, Side::Server, None).await;
        match &self.command {
            Some((channels, _)) => {
                let translated = remote_command::run(socket, *channels, async { Ok(near) });
                tokio::join!(translated, serve_spdy(far, self.command));
            }
            None => {
                let _ = tokio::join!(tunnel(socket, near), serve_spdy(far, None));
            }
        }
    }
}

async fn serve_spdy<S>(connection: S, command: Option<(Channels, Vec<String>)>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (session, driver) = Session::start(connection, Role::Server);
    let work = async {
        match command {
            Some((channels, command)) => commands::run(session, channels, command).await,
            None => ports::forward(session).await,
        }
    };
    let mut driver = pin!(driver);
    tokio::select! {
        // The connection stays open until everything is written.
        () = work => drop(driver.await),
        _ = &mut driver => {}
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn handle(
    state: &State,
    mut request: Request<Incoming>,
    upgrades: &tokio::sync::mpsc::UnboundedSender<Stream>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let query = parse_query(request.uri().query().unwrap_or_default());
    let flag = |name: &str| query.iter().any(|(known, value)| known == name && value == "1");
    let channels =
        Channels { stdin: flag("input"), stdout: flag("output"), stderr: flag("error"), tty: flag("tty") };
    let words = || query.iter().filter(|(name, _)| name == "command").map(|(_, word)| word.clone()).collect();
    let command = match path.split('/').nth(1).unwrap_or_default() {
        "containerLogs" => return log(&query, path.contains("/flood/")),
        "redirect" => return redirect(),
        "exec" => Some((channels, words())),
        "attach" => Some((channels, vec!["cat".to_owned()])),
        "portForward" => None,
        _ => return print(&request),
    };
    if request.method() != "POST" && request.method() != "GET" {
        return text(StatusCode::METHOD_NOT_ALLOWED, "method");
    }
    let is_web_socket = has(request.headers(), &header::UPGRADE, "websocket");
    if is_web_socket && !state.speaks_web_socket {
        return text(StatusCode::BAD_REQUEST, "this kubelet speaks SPDY");
    }
    if !is_web_socket && !has(request.headers(), &header::UPGRADE, "SPDY/3.1") {
        return text(StatusCode::BAD_REQUEST, "Upgrade request required");
    }
    let response = switching(request.headers(), is_web_socket);
    let upgrade = hyper::upgrade::on(&mut request);
    let _ = upgrades.send(Stream { upgrade, kind: StreamKind { is_web_socket, command } });
    response
}

fn switching(headers: &HeaderMap, is_web_socket: bool) -> Response<Body> {
    let mut response =
        Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header("connection", "Upgrade");
    let offered = |name: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(|value| value.trim().to_owned()).collect::<Vec<_>>()
    };
    if is_web_socket {
        let key = headers.get("sec-websocket-key").map_or(&b""[..], |key| key.as_bytes());
        response = response.header("upgrade", "websocket").header("sec-websocket-accept", accept_key(key));
        if let Some(protocol) = offered("sec-websocket-protocol").first() {
            response = response.header("sec-websocket-protocol", protocol);
        }
    } else {
        response = response.header("upgrade", "SPDY/3.1");
        let known = ["v4.channel.k8s.io", "portforward.k8s.io"];
        if let Some(protocol) =
            offered("x-stream-protocol-version").iter().find(|it| known.contains(&it.as_str()))
        {
            response = response.header("x-stream-protocol-version", protocol);
        }
    }
    ok(response.body(UnsyncBoxBody::default()), "a response")
}

/// Computes `Sec-WebSocket-Accept` (RFC 6455, section 4.2.2).
fn accept_key(key: &[u8]) -> String {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(context.finish())
}

fn has(headers: &HeaderMap, name: &header::HeaderName, wanted: &str) -> bool {
    headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Prints the parameters; with `follow`, then a line every few milliseconds until the client goes, or long lines as fast
/// as they are taken.
fn log(query: &[(String, String)], is_flood: bool) -> Response<Body> {
    let parameters: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if parameters.iter().any(|parameter| parameter == "previous=true") {
        return text(StatusCode::BAD_REQUEST, "previous terminated container \"main\" not found");
    }
    let first = Bytes::from(format!("parameters: {}\n", parameters.join(" ")));
    if !parameters.iter().any(|parameter| parameter == "follow=true") {
        return Response::new(Full::new(first).boxed_unsync());
    }
    let lines = stream::unfold(1, move |number| async move {
        if is_flood {
            return Some((Bytes::from(vec![b'x'; 32 << 10]), number));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Bytes::from(format!("line {number}\n")), number + 1))
    });
    let all = stream::once(async { first }).chain(lines).map(|line| Ok(Frame::data(line)));
    Response::new(BodyExt::boxed_unsync(StreamBody::new(all)))
}

fn redirect() -> Response<Body> {
    let response =
        Response::builder().status(StatusCode::FOUND).header(header::LOCATION, "http://169.254.169.254/");
    ok(response.body(UnsyncBoxBody::default()), "a response")
}

/// Prints the request as JSON.
fn print(request: &Request<Incoming>) -> Response<Body> {
    let headers: HashMap<&str, &str> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()))
        .collect();
    let target = request.uri().path_and_query().map(ToString::to_string);
    let seen = json!({"method": request.method().as_str(), "target": target, "headers": headers});
    text(StatusCode::OK, &seen.to_string())
}

fn text(code: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())).boxed_unsync());
    *response.status_mut() = code;
    response
}

fn parse_query(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(a, b)| (decode(a), decode(b)))
        .collect()
}
