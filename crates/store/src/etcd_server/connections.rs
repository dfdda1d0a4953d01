//! Listening for connections and their limits.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{EtcdServer, ServerTls};

/// Maximum number of connections.
const CONNECTIONS: usize = 1000;
/// Maximum number of concurrent calls of a connection.
const STREAMS: u32 = 1000;
/// Time for a TLS handshake, and for the head of an HTTP/1.1 request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Interval and timeout of pings, so that connections of vanished clients end.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after a failed accept: the process has probably run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that accepts connections.
pub struct Listener {
    socket: TcpListener,
    tls: Option<ServerTls>,
}

impl Listener {
    /// Listens at an address, without TLS if `tls` is `None`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: SocketAddr, tls: Option<ServerTls>) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await?, tls })
    }

    /// Returns the address with the actual port.
    ///
    /// # Errors
    /// The operating system refuses to tell.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl EtcdServer {
    /// Serves connections until the future is dropped, which cuts them.
    pub async fn serve(self, listener: Listener) -> Infallible {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let tls = listener.tls.map(Arc::new);
        let mut connections = JoinSet::new();
        loop {
            let place = Arc::clone(&room).acquire_owned().await;
            let accepted = listener.socket.accept().await;
            while connections.try_join_next().is_some() {}
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (server, tls) = (self.clone(), tls.clone());
            connections.spawn(async move {
                if let Err(error) = server.serve_stream(stream, tls.as_deref()).await {
                    tracing::debug!(%peer, error, "connection of an etcd client ended");
                }
                drop(place);
            });
        }
    }

    async fn serve_stream(self, stream: TcpStream, tls: Option<&ServerTls>) -> Result<(), String> {
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let Some(tls) = tls else { return self.serve_connection(stream).await };
        let accepted = tokio::time::timeout(PATIENCE, tls.accept(stream)).await;
        self.serve_connection(accepted.map_err(|_| "no handshake in time".to_owned())??).await
    }

    async fn serve_connection<Io>(self, io: Io) -> Result<(), String>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let service = service_fn(|request: Request<Incoming>| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        builder.serve_connection(TokioIo::new(io), service).await.map_err(|error| error.to_string())
    }
}
