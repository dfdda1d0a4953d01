//! Listening for connections and their limits.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{EtcdServer, ServerTls};

/// Maximum number of connections.
const CONNECTIONS: usize = 1000;
/// Maximum number of connections of one IPv4 address or IPv6 network, so that one client cannot take all of them: a
/// connection counts before its client has shown a certificate.
const CONNECTIONS_OF_ADDRESS: usize = 250;
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
        let addresses = Arc::<Addresses>::default();
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
            let Some(of_address) = addresses.take(peer.ip()) else {
                tracing::debug!(%peer, "etcd client has too many connections");
                continue;
            };
            let (server, tls) = (self.clone(), tls.clone());
            connections.spawn(async move {
                if let Err(error) = server.serve_stream(stream, tls.as_deref()).await {
                    tracing::debug!(%peer, error, "connection of an etcd client ended");
                }
                drop((place, of_address));
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

/// The numbers of open connections by address.
#[derive(Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// A connection of an address, which counts until it is dropped.
struct OfAddress {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// Counts a connection; `None` if the address has its share.
    fn take(self: &Arc<Self>, peer: IpAddr) -> Option<OfAddress> {
        let address = network(peer);
        let mut open = self.0.lock();
        let count = open.entry(address).or_default();
        if *count >= CONNECTIONS_OF_ADDRESS {
            return None;
        }
        *count += 1;
        Some(OfAddress { addresses: Arc::clone(self), address })
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut open = self.addresses.0.lock();
        let Some(count) = open.get_mut(&self.address) else { return };
        *count -= 1;
        if *count == 0 {
            open.remove(&self.address);
        }
    }
}

/// Returns the address, or the network of /64 for IPv6, of which one client has all addresses.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_the_connections_of_an_address() {
        let addresses = Arc::<Addresses>::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (one, same, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"),
        ] {
            let mut open: Vec<_> =
                (0..CONNECTIONS_OF_ADDRESS).map(|_| addresses.take(ip(one)).unwrap()).collect();
            assert!(addresses.take(ip(same)).is_none(), "{same}");
            assert!(addresses.take(ip(other)).is_some(), "{other}");
            open.pop();
            assert!(addresses.take(ip(same)).is_some(), "{same}");
        }
        assert!(addresses.0.lock().is_empty());
    }
}
