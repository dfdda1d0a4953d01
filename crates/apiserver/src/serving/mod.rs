//! The HTTPS listener: accepts connections and calls one handler per request.
//!
//! ```text
//! accept ─→ limits ─→ TLS handshake ─→ client certificate ─→ HTTP/2 or HTTP/1.1 ─→ handler(request, connection)
//!                      10 s              per connection         by ALPN               per request
//! ```
//!
//! [`Limits`], or a constant next to its use, bounds everything that a client can make the server wait for or keep:
//! open connections in total and per address; the duration of handshakes, of request heads and between requests; the
//! size of headers; the number of streams per connection, and of streams reset before they are served; the bytes queued
//! for a client that does not read, and the time they are queued. An error of a connection never ends the listener.
//!
//! [`Server::start`] returns a [`Running`] server. [`Running::shutdown`] stops it gracefully: it accepts no new
//! connections, asks clients to leave (GOAWAY, `Connection: close`), lets requests in flight complete until a deadline,
//! and cuts the remaining connections.

mod certificates;
mod connection;
mod connections;
mod cork;
mod limit;
mod socket;
mod tls;
mod watchdog;

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Buf;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use nave_authn::PeerCertificate;
use nave_machinery::backoff::Backoff;
use nave_metrics::Registrar;
use prometheus::{IntCounter, Registry};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::body::BodyError;
pub use crate::upgrade::Upgrade;
pub use certificates::{NamedCertificate, ServingCertificate};
pub use connections::ConnectionLimits;
use connections::{Connections, Slot};
use socket::Socket;
pub(crate) use socket::with_client_end;
pub use tls::{Tls, TlsError, TlsSettings};
use watchdog::Watchdog;

/// Pauses of the accept loop after an error not caused by a connection, such as a lack of file descriptors.
const ACCEPT_BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(5), Duration::from_secs(1));
/// Minimum interval between log lines about refused connections.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_mins(1);

/// A response and the deadline for its transmission.
#[derive(Debug)]
pub struct Served<B> {
    /// The response.
    pub response: Response<B>,
    /// The time at which the response is cut off; `None` for no limit.
    pub deadline: Option<Instant>,
    /// The protocol to run on the connection after the response, if the connection is upgraded.
    pub upgrade: Option<Upgrade>,
}

/// Properties of a connection, shared by its requests.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// The negotiated protocol.
    pub protocol: Protocol,
    /// The client's certificate; `None` if the client sent none. The handshake proves that the client has the key;
    /// authentication verifies the certificate's issuer.
    pub client_certificate: Option<PeerCertificate>,
    /// The entry of this connection among the open connections.
    open: OpenConnection,
    /// Cancelled when the client is asked to leave.
    leaving: CancellationToken,
}

impl ConnectionInfo {
    /// Asks the client to open another connection for further requests (GOAWAY, `Connection: close`). Requests in flight
    /// complete.
    pub fn ask_to_leave(&self) {
        self.leaving.cancel();
    }

    /// Records that a request of this connection was authenticated, so that the connection is not closed in favor of
    /// others.
    pub fn mark_authenticated(&self) {
        if !self.open.authenticated.swap(true, Ordering::Relaxed) {
            self.open.connections.authenticated(self.open.id);
        }
    }
}

/// One of the open connections.
struct OpenConnection {
    connections: Arc<Connections>,
    id: u64,
    authenticated: AtomicBool,
}

impl fmt::Debug for OpenConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenConnection").field(&self.id).finish()
    }
}

/// The HTTP version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Limits on unauthenticated clients and on each connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Limits on the number of connections.
    pub connections: ConnectionLimits,
    /// Concurrent requests on an HTTP/2 connection (`--http2-max-streams-per-connection`).
    pub http2_streams: u32,
    /// Maximum time from accepting the connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// Maximum time from the end of the TLS handshake to the end of the first request's head.
    pub first_request: Duration,
    /// Maximum time from the end of a connection's last request to the end of the next request's head.
    pub idle: Duration,
    /// Maximum number of requests of an HTTP/2 connection that the client abandons before they are answered. Each
    /// answered request allows one more. Beyond this number, the connection is closed.
    pub abandoned_requests: u32,
    /// True if other processes may listen on the same port (`--permit-port-sharing`).
    pub shares_port: bool,
}

impl Default for Limits {
    /// Returns the values of kube-apiserver where it has them, for a process that may open 1,024 file descriptors.
    fn default() -> Self {
        Self {
            connections: ConnectionLimits::for_descriptors(1024),
            http2_streams: 250,
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(32),
            idle: Duration::from_secs(90),
            abandoned_requests: 1000,
            shares_port: false,
        }
    }
}

/// Number of connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Listens on an address. A new process can listen although connections of an earlier one are closing.
fn listen(address: SocketAddr, shares_port: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if shares_port {
        socket.set_reuseport(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The handler of requests. Implemented by all functions with a matching signature.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The body of the responses.
    type Body: Body<Data: Buf + Send, Error: Into<BodyError>> + Send + Unpin + 'static;
    /// Handles a request. The future is dropped when the client disconnects.
    fn handle(
        &self,
        request: Request<Incoming>,
        connection: Arc<ConnectionInfo>,
    ) -> impl Future<Output = Served<Self::Body>> + Send + 'static + use<Self>;
}

impl<F, Fut, B> Handler for F
where
    F: Fn(Request<Incoming>, Arc<ConnectionInfo>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Served<B>> + Send + 'static,
    B: Body<Data: Buf + Send, Error: Into<BodyError>> + Send + Unpin + 'static,
{
    type Body = B;

    fn handle(
        &self,
        request: Request<Incoming>,
        connection: Arc<ConnectionInfo>,
    ) -> impl Future<Output = Served<B>> + Send + 'static + use<F, Fut, B> {
        self(request, connection)
    }
}

/// A server that listens but does not accept connections yet.
pub struct Server {
    listeners: Vec<TcpListener>,
    tls: Tls,
    limits: Limits,
    metrics: ServingMetrics,
}

/// The metrics of connections. Clones share them.
#[derive(Clone, Debug)]
pub struct ServingMetrics {
    handshake_errors: IntCounter,
}

impl ServingMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// A name is already registered.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let (name, help) = ("apiserver_tls_handshake_errors_total", "TLS handshakes that failed.");
        Ok(Self { handshake_errors: Registrar(registry).counter(name, help)? })
    }
}

impl Server {
    /// Listens on each address; port 0 selects a free port.
    ///
    /// # Errors
    /// Listening on an address fails. The error names the address.
    pub fn bind(
        addresses: &[SocketAddr],
        tls: Tls,
        limits: Limits,
        metrics: ServingMetrics,
    ) -> io::Result<Self> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            let listener = listen(*address, limits.shares_port);
            listeners
                .push(listener.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?);
        }
        Ok(Self { listeners, tls, limits, metrics })
    }

    /// Returns the addresses that the server listens on, in the given order, with the actual ports.
    pub fn local_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Starts to accept connections and to call `handler` for each request.
    #[expect(clippy::needless_pass_by_value, reason = "the listeners keep clones of it, the caller nothing")]
    pub fn start(self, handler: impl Handler) -> Running {
        let running = Running::default();
        let acceptor = Acceptor {
            protocols: Arc::new(connection::Protocols::new(&self.limits)),
            tls: self.tls,
            limits: self.limits,
            metrics: self.metrics,
            connections: Connections::new(self.limits.connections),
            running: running.clone(),
        };
        for listener in self.listeners {
            let (acceptor, handler) = (acceptor.clone(), handler.clone());
            let closing = running.closing.clone();
            running.tasks.spawn(async move {
                closing.run_until_cancelled(acceptor.accept_all(listener, handler)).await
            });
        }
        running
    }
}

/// A server that accepts connections until it is shut down.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// Cancelled to ask clients to disconnect.
    closing: CancellationToken,
    /// Cancelled to cut the remaining connections.
    cut: CancellationToken,
    /// The tasks of listeners, connections, and upgraded connections.
    tasks: TaskTracker,
}

/// The result of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All requests in flight completed.
    Completely,
    /// Connections were still open at the deadline and were cut.
    Cut {
        /// The number of connections.
        connections: usize,
    },
}

impl Running {
    /// Stops accepting connections, lets requests in flight complete for at most `patience`, and cuts the remaining
    /// connections. The handler must end long-running requests (watches).
    pub async fn shutdown(&self, patience: Duration) -> Drained {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_ok() {
            return Drained::Completely;
        }
        let connections = self.tasks.len();
        self.cut.cancel();
        self.tasks.wait().await;
        Drained::Cut { connections }
    }
}

impl Running {
    /// Runs the protocol of an upgraded connection until it ends or the server cuts it.
    fn spawn_upgrade(&self, upgrade: Upgrade) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move { cut.run_until_cancelled(upgrade.run()).await });
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completely => f.write_str("all requests completed"),
            Self::Cut { connections } => write!(f, "{connections} connections were cut"),
        }
    }
}

/// The state shared by the accept loops.
#[derive(Clone)]
struct Acceptor {
    protocols: Arc<connection::Protocols>,
    tls: Tls,
    limits: Limits,
    metrics: ServingMetrics,
    connections: Arc<Connections>,
    running: Running,
}

impl Acceptor {
    async fn accept_all(self, listener: TcpListener, handler: impl Handler) {
        let mut pauses = ACCEPT_BACKOFF.pauses();
        let mut refusal_logged: Option<Instant> = None;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    pauses.reset();
                    if let Some(slot) = self.connections.admit(peer.ip()).await {
                        self.spawn(stream, peer, slot, handler.clone());
                    } else if refusal_logged.is_none_or(|logged| logged.elapsed() >= REFUSAL_LOG_INTERVAL) {
                        refusal_logged = Some(Instant::now());
                        tracing::warn!(%peer, limits = ?self.limits.connections, "connection refused: too many connections");
                    }
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    self.connections.close_oldest();
                    tokio::time::sleep(pauses.next_pause()).await;
                }
            }
        }
    }

    /// Serves a connection in a separate task.
    fn spawn(&self, stream: TcpStream, peer: SocketAddr, slot: Slot, handler: impl Handler) {
        let (acceptor, close) = (self.clone(), slot.close.clone());
        self.running.tasks.spawn(async move {
            match close.run_until_cancelled(acceptor.serve(stream, peer, slot, handler)).await {
                None => tracing::debug!(%peer, "connection closed: unauthenticated while full, or too many resets"),
                Some(Err(error)) => tracing::debug!(%peer, %error, "connection ended"),
                Some(Ok(())) => {}
            }
        });
    }

    async fn serve(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        slot: Slot,
        handler: impl Handler,
    ) -> Result<(), BodyError> {
        let local = stream.local_addr()?;
        let (id, close) = (slot.id, slot.close.clone());
        let socket = Socket::new(stream, slot)?;
        let handshake = tokio::time::timeout(self.limits.handshake, self.tls.accept(socket));
        let Some(handshake) = self.running.closing.run_until_cancelled(handshake).await else {
            return Ok(());
        };
        let accepted = handshake.map_err(|_| BodyError::from("TLS handshake timed out"));
        let accepted = accepted.and_then(|accepted| accepted.map_err(BodyError::from));
        let accepted = accepted.inspect_err(|_| self.metrics.handshake_errors.inc())?;
        let tls::Accepted { stream, protocol, client_certificate } = accepted;
        let authenticated = AtomicBool::new(false);
        let open = OpenConnection { connections: self.connections, id, authenticated };
        let leaving = CancellationToken::new();
        let info = Arc::new(ConnectionInfo { peer, local, protocol, client_certificate, open, leaving });
        let watchdog = Watchdog::new(&self.limits, close);
        Ok(self.protocols.serve(stream, info, handler, &watchdog, &self.running).await?)
    }
}

/// Returns whether an error of `accept` concerns only the accepted connection, not the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;
