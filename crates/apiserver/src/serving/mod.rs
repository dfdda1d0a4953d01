//! The HTTPS listener: from accepted connections to calls of one handler.
//!
//! ```text
//! accept ─→ TLS handshake ─→ client certificate read ─→ HTTP/2 or HTTP/1.1 ─→ handler(request, connection)
//!  waits while     10 s           once a connection        as ALPN chose        once a request
//!  too many
//!  handshakes
//! ```
//!
//! Everything a client can make the server wait for or keep is bounded by [`Limits`] or a constant beside its use:
//! handshakes in flight and their time, sizes and time of headers, streams of a connection, streams reset before they
//! were served, bytes queued for a stream whose client does not read, and for how long. A connection costs nobody else: none of its
//! errors ends the listener.
//!
//! [`Server::start`] gives a [`Running`] server; [`Running::shutdown`] stops it in the order clients like best: no new
//! connections, the clients of those open are told to go (GOAWAY, `Connection: close`), requests in flight get until
//! the deadline, what is left is cut.

mod connection;
mod cork;
mod limit;
mod tls;

use std::{fmt, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Buf;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use nave_authn::PeerCertificate;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use limit::end_by;
pub use tls::{ServingCertificate, Tls, TlsError};

/// TLS handshakes under way at once; further connections wait in the listen queue.
const MAX_HANDSHAKES: usize = 1024;
/// How long accepting waits after an error that is not the connection's own, such as no free file descriptors.
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// An error of a response's body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

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
}

/// The version of HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Protocol {
    Http1,
    Http2,
}

/// What one connection may ask of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests at once on one HTTP/2 connection (`--http2-max-streams-per-connection`).
    pub http2_streams: u32,
    /// From the accepted connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the end of a request to the end of the next one's headers, on HTTP/1.1.
    pub header_read: Duration,
}

impl Default for Limits {
    /// The values of kube-apiserver.
    fn default() -> Self {
        Self { http2_streams: 250, handshake: Duration::from_secs(10), header_read: Duration::from_secs(32) }
    }
}

/// What the listener calls: all functions of this form are handlers.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The body of the responses.
    type Body: Body<Data: Buf + Send, Error: Into<BodyError>> + Send + 'static;
    /// Answers one request. It is dropped when the client goes away.
    fn handle(
        &self,
        request: Request<Incoming>,
        connection: Arc<ConnectionInfo>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static + use<Self>;
}

impl<F, Fut, B> Handler for F
where
    F: Fn(Request<Incoming>, Arc<ConnectionInfo>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Buf + Send, Error: Into<BodyError>> + Send + 'static,
{
    type Body = B;

    fn handle(
        &self,
        request: Request<Incoming>,
        connection: Arc<ConnectionInfo>,
    ) -> impl Future<Output = Response<B>> + Send + 'static + use<F, Fut, B> {
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
            handshake: self.limits.handshake,
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
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
    /// The listeners and the connections.
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
    handshake: Duration,
    handshakes: Arc<Semaphore>,
    running: Running,
}

impl Acceptor {
    async fn accept_all(self, listener: TcpListener, handler: impl Handler) {
        let mut backoff = FIRST_BACKOFF;
        // The semaphore is never closed.
        while let Ok(permit) = self.handshakes.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    backoff = FIRST_BACKOFF;
                    let (connection, handler) = (self.clone(), handler.clone());
                    self.running.tasks.spawn(async move {
                        if let Err(error) = connection.serve(stream, peer, permit, handler).await {
                            tracing::debug!(%peer, %error, "connection ended");
                        }
                    });
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(backoff).await;
                    backoff = LONGEST_BACKOFF.min(backoff * 2);
                }
            }
        }
    }

    async fn serve(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        handler: impl Handler,
    ) -> Result<(), BodyError> {
        connection::set_options(&stream)?;
        let local = stream.local_addr()?;
        let handshake = tokio::time::timeout(self.handshake, self.tls.accept(stream));
        let Some(handshake) = self.running.closing.run_until_cancelled(handshake).await else {
            return Ok(());
        };
        let accepted = handshake.map_err(|_| "the TLS handshake took too long")??;
        drop(permit);
        let tls::Accepted { stream, protocol, client_certificate } = accepted;
        let info = Arc::new(ConnectionInfo { peer, local, protocol, client_certificate });
        Ok(self.protocols.serve(stream, info, handler, &self.running).await?)
    }
}

/// Whether an error of `accept` is about the connection that was to be accepted, not about the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;
