//! Connections to a backend that serve several requests: HTTP/2 if the backend speaks it, otherwise HTTP/1.1 with
//! keep-alive.
//!
//! A pool has one TLS configuration, so a connection is never used with other authorities or another client certificate.
//! Each address has its own connections. A request is sent a second time only if the connection was closed before any
//! byte of it was sent.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nave_machinery::Status;
use nave_webhook::{BackendDialer, BackendError, BackendTls};
use tower_service::Service;

use super::backends::Backends;
use super::exchange::{MAX_HEAD, RequestBody};
use super::places::PlacedConnection;

/// Maximum number of idle connections to an address, as upstream's transports have.
const MAX_IDLE: usize = 25;
/// Time after which an idle connection is closed. Shorter than the 90 s after which upstream's servers close it, so that
/// no request is sent to a server that is closing.
const IDLE: Duration = Duration::from_mins(1);
/// Interval of pings on HTTP/2 connections, and the time for the answer (upstream: `HTTP2_READ_IDLE_TIMEOUT_SECONDS`,
/// `HTTP2_PING_TIMEOUT_SECONDS`).
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Flow-control window of a stream. Together the streams of a connection cannot exceed its window, so that clients that
/// read slowly do not stop the others.
const STREAM_WINDOW: u32 = 128 << 10;

/// The connections to one backend.
#[derive(Debug)]
pub(crate) struct Pool {
    client: legacy::Client<Connector, RequestBody>,
}

/// The reason why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolError {
    /// No connection may be opened now.
    #[error("{}", .0.message)]
    Busy(Box<Status>),
    /// No connection was opened.
    #[error(transparent)]
    Connect(BackendError),
    /// The connection fails, or the response is invalid.
    #[error("{}", nave_webhook::describe(.0))]
    Http(legacy::Error),
}

impl Pool {
    /// Creates a pool. At most `requests` are sent at the same time.
    pub(crate) fn new(backends: Arc<Backends>, tls: &BackendTls, requests: usize) -> Self {
        let dialer = backends.dialer.clone();
        Self::with_dialer(backends, dialer, tls, requests)
    }

    /// As [`Self::new`], with another dialer than that of the backends.
    pub(crate) fn with_dialer(
        backends: Arc<Backends>,
        dialer: BackendDialer,
        tls: &BackendTls,
        requests: usize,
    ) -> Self {
        let streams = u32::try_from(requests).unwrap_or(u32::MAX);
        let connection_window = STREAM_WINDOW.saturating_mul(streams).min(i32::MAX as u32);
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .timer(TokioTimer::new())
            .http1_max_buf_size(MAX_HEAD)
            .http2_max_header_list_size(MAX_HEAD as u32)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(connection_window)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(Connector { backends, dialer, tls: tls.clone().with_http2() });
        Self { client }
    }

    /// Sends a request to the address in its `Host` header, and waits for the head of the response.
    ///
    /// # Errors
    /// [`PoolError`].
    pub(super) async fn request(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, PoolError> {
        // HTTP/2 has the address in the target instead.
        let host = request.headers_mut().remove(header::HOST);
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let mut target = std::mem::take(request.uri_mut()).into_parts();
        (target.scheme, target.authority) = (Some(Scheme::HTTPS), authority);
        target.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        // Without an address, the client reports the target as invalid.
        *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
        self.client.request(request).await.map_err(PoolError::read)
    }
}

impl PoolError {
    /// Takes the error of the connector out of that of the client.
    fn read(error: legacy::Error) -> Self {
        let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
        let not_connected = causes.find_map(|cause| cause.downcast_ref::<NotConnected>()?.0.lock().take());
        not_connected.unwrap_or(Self::Http(error))
    }
}

/// The error of the connector, which the client returns as a source of its own.
#[derive(Debug, thiserror::Error)]
#[error("not connected")]
struct NotConnected(parking_lot::Mutex<Option<PoolError>>);

impl From<PoolError> for NotConnected {
    fn from(error: PoolError) -> Self {
        Self(parking_lot::Mutex::new(Some(error)))
    }
}

/// Opens connections, each of which holds a place until it is closed.
#[derive(Clone, Debug)]
struct Connector {
    backends: Arc<Backends>,
    dialer: BackendDialer,
    tls: BackendTls,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<PlacedConnection>;
    type Error = NotConnected;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NotConnected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotConnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let Self { backends, dialer, tls } = self.clone();
        Box::pin(async move {
            let host = target.host().unwrap_or_default().trim_matches(['[', ']']);
            let place = backends.shared_place(host).map_err(|status| PoolError::Busy(Box::new(status)))?;
            let port = target.port_u16().unwrap_or(443);
            let connected = dialer.connect_with_protocol(host, port, &tls).await;
            let (connection, is_http2) = connected.map_err(PoolError::Connect)?;
            Ok(TokioIo::new(PlacedConnection::new(connection, place).with_http2(is_http2)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures_util::future::join_all;
    use http::Method;
    use http_body_util::{Empty, Full, StreamBody};
    use hyper::service::service_fn;
    use hyper_util::server::conn::auto;
    use nave_webhook::{AddressPolicy, Roots, Tls};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::super::backends::{BackendLimits, ConnectionCounts, Kubelets};
    use super::super::exchange::{self, ExchangeError, Link};
    use super::*;

    /// A server that counts its connections.
    struct Server {
        address: SocketAddr,
        connections: Arc<AtomicUsize>,
    }

    impl Server {
        /// Starts a server with a protocol. It answers with the path, and without `keeps` it closes each connection after
        /// a response that does not say so.
        async fn start(protocol: &[u8], keeps: bool) -> Self {
            let pair = rcgen::generate_simple_self_signed(["b".to_owned()]).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
            let chain = vec![pair.cert.der().clone()];
            let mut config = builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
            config.alpn_protocols = vec![protocol.to_vec()];
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let connections = Arc::<AtomicUsize>::default();
            let count = Arc::clone(&connections);
            tokio::spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::Relaxed);
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        let Ok(socket) = acceptor.accept(socket).await else { return };
                        let ended = Arc::new(tokio::sync::Notify::new());
                        let served = Arc::clone(&ended);
                        let service = service_fn(move |request: Request<Incoming>| {
                            if !keeps {
                                served.notify_one();
                            }
                            let path = Bytes::from(request.uri().path().to_owned());
                            std::future::ready(Ok::<_, Infallible>(Response::new(Full::new(path))))
                        });
                        let builder = auto::Builder::new(TokioExecutor::new());
                        let serving = builder.serve_connection(TokioIo::new(socket), service);
                        let leave = async {
                            ended.notified().await;
                            // The response is on its way.
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        };
                        tokio::select! {
                            _ = serving => {}
                            () = leave => {}
                        }
                    });
                }
            });
            Self { address, connections }
        }

        fn count(&self) -> usize {
            self.connections.load(Ordering::Relaxed)
        }
    }

    fn backends(policy: AddressPolicy, places: usize) -> Arc<Backends> {
        let dialer =
            BackendDialer { policy, timeout: Duration::from_secs(10), egress: nave_webhook::Egress::Direct };
        let kubelets = Kubelets { address_types: Vec::new(), port: 0, tls: Arc::default() };
        let connections = ConnectionCounts { total: places, per_host: None, per_user: None };
        let limits = BackendLimits { connections, ..BackendLimits::default() };
        Arc::new(Backends::new(dialer, kubelets, None).with_limits(limits))
    }

    fn pool(backends: &Arc<Backends>) -> Pool {
        let tls = BackendTls::new(Tls { roots: Roots::Unchecked, ..Tls::default() }).unwrap();
        Pool::new(Arc::clone(backends), &tls, 100)
    }

    async fn get(pool: &Pool, server: &Server) -> Result<Bytes, ExchangeError> {
        let head = Request::get("/a?b").header(header::HOST, server.address.to_string()).body(()).unwrap();
        let body: Option<&mut Empty<Bytes>> = None;
        let exchange = exchange::send(Link::Pooled(pool), head, body).await?;
        Ok(exchange.read_all(1000).await.unwrap().into())
    }

    #[tokio::test]
    async fn a_connection_serves_many_requests() {
        let backends = backends(AddressPolicy::Unicast, 100);
        for (protocol, is_http2) in [(&b"http/1.1"[..], false), (b"h2", true)] {
            let (server, other) = (Server::start(protocol, true).await, Server::start(protocol, true).await);
            let pool = self::pool(&backends);
            for _ in 0..10 {
                assert_eq!(get(&pool, &server).await.unwrap(), "/a");
            }
            assert_eq!(server.count(), 1);
            let all = join_all((0..20).map(|_| get(&pool, &server))).await;
            assert!(all.iter().all(Result::is_ok));
            assert_eq!(server.count() == 1, is_http2, "{}", server.count());
            // Another address, and another configuration of TLS.
            let before = server.count();
            get(&pool, &other).await.unwrap();
            assert_eq!((server.count(), other.count()), (before, 1));
            get(&self::pool(&backends), &server).await.unwrap();
            assert_eq!(server.count(), before + 1);
        }
    }

    #[tokio::test]
    async fn a_connection_that_the_server_has_closed_is_not_used() {
        let server = Server::start(b"http/1.1", false).await;
        // A new connection has a place only after the one before has gone.
        let backends = backends(AddressPolicy::Unicast, 1);
        let pool = pool(&backends);
        for number in 1..=3 {
            let is_free = async {
                while backends.shared_place("127.0.0.1").is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_mins(1), is_free).await.unwrap();
            assert_eq!(get(&pool, &server).await.unwrap(), "/a");
            assert_eq!(server.count(), number);
        }
    }

    #[tokio::test]
    async fn a_body_that_is_cut_off_ends_its_connection() {
        let server = Server::start(b"http/1.1", true).await;
        let backends = backends(AddressPolicy::Unicast, 100);
        let pool = pool(&backends);
        get(&pool, &server).await.unwrap();
        // The server answers before the end of the body, which never comes.
        let piece = Ok::<_, Infallible>(hyper::body::Frame::data(Bytes::from_static(b"x")));
        let pieces = futures_util::stream::iter([piece]);
        let endless = futures_util::stream::StreamExt::chain(pieces, futures_util::stream::pending());
        let mut body = StreamBody::new(Box::pin(endless));
        let mut head = Request::new(());
        (*head.method_mut(), *head.uri_mut()) = (Method::POST, Uri::from_static("/a"));
        head.headers_mut().insert(header::HOST, server.address.to_string().parse().unwrap());
        let sent = exchange::send(Link::Pooled(&pool), head, Some(&mut body)).await;
        assert_eq!(sent.unwrap().read_all(1000).await.unwrap(), b"/a");
        get(&pool, &server).await.unwrap();
        assert_eq!(server.count(), 2);
    }

    #[tokio::test]
    async fn reports_why_there_is_no_connection() {
        let server = Server::start(b"h2", true).await;
        let failed = get(&pool(&backends(AddressPolicy::Remote, 1)), &server).await.unwrap_err();
        assert_eq!(failed.to_string(), format!("dial tcp {}: address not allowed", server.address));
        let failed = get(&pool(&backends(AddressPolicy::Unicast, 0)), &server).await.unwrap_err();
        let ExchangeError::Pool(PoolError::Busy(status)) = failed else { panic!("{failed}") };
        assert_eq!(status.code, 429);
        assert_eq!(server.count(), 0);
    }
}
