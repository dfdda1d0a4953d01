//! Connections of HTTP/1.1 over TLS to one server. They run within the calls that use them.
//!
//! A connection with a task of its own costs two wake-ups per call, often of another thread. Here the task of the call
//! writes the request and reads the response, so a call costs one write, one read and one wake-up.

use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::body::{self, LargePermit};
use crate::client::{ClientError, MAX_CALLS, Response};
use crate::dial::Dialer;
use crate::egress::EgressStream;
use crate::exchange::{Exchange, Metered};

/// Time after which an idle connection is closed.
const IDLE: Duration = Duration::from_secs(30);
/// Interval of the search for idle connections to close.
const SWEEP: Duration = Duration::from_secs(10);
/// Time for the alert that announces the end of a connection.
const CLOSING: Duration = Duration::from_secs(1);
/// Bytes that may be received in addition to the body of a response: the head, interim responses, the framing of chunks
/// and records. Also the bytes that a handshake may have.
const MAX_OVERHEAD_BYTES: usize = 1 << 20;

/// The connections to one server.
pub(crate) struct Connections {
    dialer: Dialer,
    tls: TlsConnector,
    /// The name that the server's certificate must have; `None` for the host of the URL.
    server_name: Option<ServerName<'static>>,
    idle: Mutex<Idle>,
}

/// The idle connections, in the order in which they were last used.
#[derive(Default)]
struct Idle {
    list: Vec<IdleConnection>,
    /// True while a task closes connections that are idle for long.
    is_swept: bool,
}

/// A connection, and the time from which it is idle.
type IdleConnection = (Box<Connection>, Instant);

/// A connection. Nothing happens on it between calls.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` once the connection is over. What it has received can still be read.
    driver: Option<Driver>,
    exchange: Arc<Exchange>,
}

/// Reads and writes on a connection while it is polled.
type Driver = http1::Connection<TokioIo<TlsStream<Metered<EgressStream>>>, Full<Bytes>>;

/// A response, with the right to hold it if it is large.
pub(crate) type Called = (Response, Option<LargePermit>);

/// The error of a call.
enum CallError {
    /// The connection was closed before any byte of the request was sent.
    Unsent(Box<Request<Full<Bytes>>>, ClientError),
    Failed(ClientError),
}

impl Connections {
    pub(crate) fn new(
        dialer: Dialer,
        mut tls: rustls::ClientConfig,
        server_name: Option<ServerName<'static>>,
    ) -> Self {
        // As upstream, because calls on one HTTP/2 connection would not be spread over the endpoints of a service.
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { dialer, tls: TlsConnector::from(Arc::new(tls)), server_name, idle: Mutex::default() }
    }

    /// Sends a request to the host of `server`. The request's own URI has only a path and a query. A large response waits
    /// for one of the permits of `large`, which is returned with it.
    ///
    /// # Errors
    /// There is no connection or no complete response, or its body is longer than `max_bytes`.
    pub(crate) async fn call(
        self: &Arc<Self>,
        server: &Uri,
        mut request: Request<Full<Bytes>>,
        max_bytes: usize,
        large: &Arc<Semaphore>,
    ) -> Result<Called, ClientError> {
        loop {
            let idle = self.take();
            let is_reused = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => Box::new(Box::pin(self.connect(server)).await?),
            };
            match connection.call(request, max_bytes, large).await {
                Ok(called) => {
                    if connection.sender.is_ready() || connection.is_usable() {
                        self.put(connection);
                    }
                    return Ok(called);
                }
                Err(CallError::Unsent(unsent, _)) if is_reused => request = *unsent,
                Err(CallError::Unsent(_, error) | CallError::Failed(error)) => return Err(error),
            }
        }
    }

    async fn connect(&self, server: &Uri) -> Result<Connection, ClientError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| ClientError::Connect(error);
        let name = if let Some(name) = &self.server_name {
            name.clone()
        } else {
            let host = server.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            ServerName::try_from(host.clone()).map_err(|_| ClientError::ServerName(host))?
        };
        let exchange = Arc::new(Exchange::new(MAX_OVERHEAD_BYTES));
        let stream = self.dialer.dial(server).await.map_err(|error| failed(error.into()))?;
        // Encrypted bytes are counted, because records can be empty.
        let stream = Metered::new(stream, Arc::clone(&exchange));
        let stream = self.tls.connect(name, stream).await.map_err(|error| failed(error.into()))?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(|error| failed(error.into()))?;
        Ok(Connection { sender, driver: Some(driver), exchange })
    }

    /// Removes the usable connection that was used last.
    fn take(&self) -> Option<Box<Connection>> {
        loop {
            let (mut connection, since) = self.idle.lock().list.pop()?;
            if since.elapsed() < IDLE && connection.is_usable() {
                return Some(connection);
            }
        }
    }

    fn put(self: &Arc<Self>, connection: Box<Connection>) {
        let idle = &mut *self.idle.lock();
        if idle.list.len() < MAX_CALLS {
            idle.list.push((connection, Instant::now()));
        }
        if !std::mem::replace(&mut idle.is_swept, true) {
            tokio::spawn(Self::sweep(Arc::downgrade(self)));
        }
    }

    /// Closes connections that are idle for long or that the server has closed, until none is left.
    async fn sweep(connections: Weak<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(connections) = connections.upgrade() else { return };
            let (closing, is_empty) = connections.remove_old();
            for (connection, _) in closing {
                connection.close().await;
            }
            if is_empty {
                return;
            }
        }
    }

    /// Removes the connections to close. Also returns whether none is left, which ends the search for them.
    fn remove_old(&self) -> (Vec<IdleConnection>, bool) {
        let idle = &mut *self.idle.lock();
        let is_old =
            |(connection, since): &mut IdleConnection| since.elapsed() >= IDLE || !connection.is_usable();
        let closing = idle.list.extract_if(.., is_old).collect();
        idle.is_swept = !idle.list.is_empty();
        (closing, idle.list.is_empty())
    }
}

impl Connection {
    /// Returns whether a request can be sent. Notices that the server has closed the connection.
    fn is_usable(&mut self) -> bool {
        drive(&mut self.driver, &mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Closes the connection with the alert of TLS that announces it.
    async fn close(self) {
        drop(self.sender);
        if let Some(driver) = self.driver {
            // The server need not hear of it.
            let _ = tokio::time::timeout(CLOSING, driver).await;
        }
    }

    /// Sends a request and reads the response.
    async fn call(
        &mut self,
        request: Request<Full<Bytes>>,
        max_bytes: usize,
        large: &Arc<Semaphore>,
    ) -> Result<Called, CallError> {
        let Self { sender, driver, exchange } = self;
        let running = exchange.start(max_bytes.saturating_add(MAX_OVERHEAD_BYTES));
        let sent = sender.try_send_request(request);
        let mut answer = pin!(async {
            let (parts, body) = sent
                .await
                .map_err(|mut error| {
                    let (unsent, error) = (error.take_message(), ClientError::Exchange(error.into_error()));
                    match unsent {
                        Some(request) => CallError::Unsent(Box::new(request), error),
                        None => CallError::Failed(error),
                    }
                })?
                .into_parts();
            let (body, permit) = body::read(body, max_bytes, Some(large)).await.map_err(CallError::Failed)?;
            Ok((Response { status: parts.status, headers: parts.headers, body }, permit))
        });
        let result = running
            .poll(|cx| {
                drive(driver, cx);
                answer.as_mut().poll(cx)
            })
            .await;
        match result {
            Err(CallError::Failed(_)) if exchange.is_too_long() => {
                Err(CallError::Failed(ClientError::TooLong(max_bytes)))
            }
            result => result,
        }
    }
}

/// Lets a connection read and write. Drops it at its end: its errors, and its end, are then reported to the answer.
fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if driver.as_mut().is_some_and(|driver| Pin::new(driver).poll(cx).is_ready()) {
        *driver = None;
    }
}
