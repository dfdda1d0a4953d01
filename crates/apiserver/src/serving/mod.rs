//! The HTTPS listener: from accepted connections to calls of one handler.
//!
//! ```text
//! accept ─→ count ─→ TLS handshake ─→ client certificate read ─→ HTTP/2 or HTTP/1.1 ─→ handler(request, connection)
//!           limits    10 s            once a connection          as ALPN chose         once a request
//! ```
//!
//! Everything a client can make the server wait for or keep is bounded by [`Limits`] or a constant beside its use: open
//! connections, in all and from one address; the time of handshakes, of request heads and between requests; sizes of
//! headers; streams of a connection, and streams reset before they were served; bytes queued for a stream whose client
//! does not read, and for how long. No error of a connection ends the listener.
//!
//! [`Server::start`] gives a [`Running`] server; [`Running::shutdown`] stops it in the order clients like best: no new
//! connections, the clients of those open are told to go (GOAWAY, `Connection: close`), requests in flight get until
//! the deadline, what is left is cut.

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
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::body::BodyError;
pub use crate::upgrade::Upgrade;
pub use connections::ConnectionLimits;
use connections::{Connections, Slot};
use socket::Socket;
pub use tls::{ServingCertificate, Tls, TlsError};
use watchdog::Watchdog;

/// How long accepting waits after an error that is not the connection's own, such as no free file descriptors.
const ACCEPT_BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(5), Duration::from_secs(1));
/// How often refused connections are logged.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_mins(1);

/// A response, and the time by which its client must have taken it.
#[derive(Debug)]
pub struct Served<B> {
    /// The response.
    pub response: Response<B>,
    /// The time at which the response is cut off; `None` for one that may last.
    pub deadline: Option<Instant>,
    /// What follows the response, if the connection continues in another protocol.
    pub upgrade: Option<Upgrade>,
}

/// What all requests of a connection have in common.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// The address the client connected to.
    pub local: SocketAddr,
    /// The protocol the two agreed on.
    pub protocol: Protocol,
    /// The certificate the client presented, and whose key it holds; whether it is believed is for authentication to
    /// say. `None` if it presented none.
    pub client_certificate: Option<PeerCertificate>,
    /// The connection among those that are open.
    open: OpenConnection,
}

impl ConnectionInfo {
    /// Notes that a request of this connection was authenticated: the connection is not closed for others any more.
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

/// The version of HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Limits on clients before they are authenticated, and on one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many connections may be open.
    pub connections: ConnectionLimits,
    /// Requests at once on one HTTP/2 connection (`--http2-max-streams-per-connection`).
    pub http2_streams: u32,
    /// From the accepted connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the end of the TLS handshake to the complete head of the first request.
    pub first_request: Duration,
    /// From the end of a connection's last request to the complete head of the next one.
    pub idle: Duration,
    /// Requests of one HTTP/2 connection that its client gives up before they are answered, in excess of those it lets
    /// finish. Beyond that the connection is closed.
    pub abandoned_requests: u32,
}

impl Default for Limits {
    /// The values of kube-apiserver where it has them, for a process that may open 1,024 descriptors.
    fn default() -> Self {
        Self {
            connections: ConnectionLimits::for_descriptors(1024),
            http2_streams: 250,
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(32),
            idle: Duration::from_secs(90),
            abandoned_requests: 1000,
        }
    }
}

/// What the listener calls: all functions of this form are handlers.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The body of the responses.
    type Body: Body<Data: Buf + Send, Error: Into<BodyError>> + Send + Unpin + 'static;
    /// Answers one request. It is dropped when the client goes away.
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

/// A server that listens, but does not accept connections yet.
pub struct Server {
    listeners: Vec<TcpListener>,
    tls: Tls,
    limits: Limits,
}

impl Server {
    /// Listens on each of the addresses; port 0 takes a free one.
    ///
    /// # Errors
    /// One of the addresses cannot be listened on; the error names it.
    pub async fn bind(addresses: &[SocketAddr], tls: Tls, limits: Limits) -> io::Result<Self> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            let listener = TcpListener::bind(address).await;
            listeners
                .push(listener.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?);
        }
        Ok(Self { listeners, tls, limits })
    }

    /// The addresses listened on, in the order given, with the ports taken.
    pub fn local_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Accepts connections from now on, and calls `handler` for each request.
    #[expect(clippy::needless_pass_by_value, reason = "the listeners keep clones of it, the caller nothing")]
    pub fn start(self, handler: impl Handler) -> Running {
        let running = Running::default();
        let acceptor = Acceptor {
            protocols: Arc::new(connection::Protocols::new(&self.limits)),
            tls: self.tls,
            limits: self.limits,
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
    /// Set when clients are to go.
    closing: CancellationToken,
    /// Set when what is left is to be cut.
    cut: CancellationToken,
    /// The listeners, the connections, and what follows on connections that were upgraded.
    tasks: TaskTracker,
}

/// How a shutdown ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All requests in flight were answered.
    Completely,
    /// The deadline came first, and these connections were cut.
    Cut {
        /// How many.
        connections: usize,
    },
}

impl Running {
    /// Stops accepting, lets requests in flight end for at most `patience`, cuts what is left. Long-running requests
    /// (watches) are the handler's to end.
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
    /// Runs what follows on an upgraded connection, until it ends or the server cuts what is left.
    fn spawn_upgrade(&self, upgrade: Upgrade) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move { cut.run_until_cancelled(upgrade.run()).await });
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completely => f.write_str("all requests were answered"),
            Self::Cut { connections } => write!(f, "{connections} connections were cut"),
        }
    }
}

/// What accepting a connection needs.
#[derive(Clone)]
struct Acceptor {
    protocols: Arc<connection::Protocols>,
    tls: Tls,
    limits: Limits,
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
                        tracing::warn!(%peer, limits = ?self.limits.connections, "too many connections: refused");
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

    /// Serves the connection in a task of its own.
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
        let accepted = handshake.map_err(|_| "the TLS handshake took too long")??;
        let tls::Accepted { stream, protocol, client_certificate } = accepted;
        let authenticated = AtomicBool::new(false);
        let open = OpenConnection { connections: self.connections, id, authenticated };
        let info = Arc::new(ConnectionInfo { peer, local, protocol, client_certificate, open });
        let watchdog = Watchdog::new(&self.limits, close);
        Ok(self.protocols.serve(stream, info, handler, &watchdog, &self.running).await?)
    }
}

/// Returns whether an error of `accept` is about the connection that was to be accepted, not about the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;
