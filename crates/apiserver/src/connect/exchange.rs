//! One HTTP request and response, on a connection of its own or of a pool.
//!
//! No task is spawned for a connection of its own: it is polled by whoever waits for the response or reads its body, and
//! closed when they are dropped.

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::places::PlacedConnection;
use super::pool::{Pool, PoolError};
use crate::body::{BodyError, ResponseBody};

/// Maximum size of the head of a response, in bytes.
pub(super) const MAX_HEAD: usize = 1 << 20;
/// Maximum number of informational responses (1xx) before the response (Go: `max1xxResponses`).
const MAX_INFORMATIONAL: usize = 5;
/// Pieces of a request's body that wait to be sent.
const QUEUED_PIECES: usize = 2;

/// The reason why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The connection fails, or the response is invalid.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// A connection of a pool fails or cannot be opened, or the response is invalid.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The backend sends informational responses instead of a response.
    #[error("too many 1xx informational responses")]
    Informational,
    /// The backend upgrades a connection without a request for it.
    #[error("an upgrade that was not requested")]
    Upgrade,
    /// The backend does not respond in time.
    #[error("timeout awaiting response headers")]
    TimedOut,
}

/// A response whose body is read while the connection is polled.
pub(crate) struct Exchange {
    pub(crate) response: Response<Incoming>,
    driver: Driver,
    /// The body of the request, which is cut off when this is dropped.
    request_body: mpsc::Sender<Option<Bytes>>,
}

/// The connection of a request.
pub(crate) enum Link<'a> {
    /// A connection of its own.
    Own(PlacedConnection),
    /// A connection of a pool.
    Pooled(&'a Pool),
}

impl From<PlacedConnection> for Link<'_> {
    fn from(connection: PlacedConnection) -> Self {
        Self::Own(connection)
    }
}

/// Sends a request, with the body of a client's request if there is one, and waits for the head of the response. The
/// rest of the body is not sent if the backend responds before its end.
///
/// # Errors
/// [`ExchangeError`], except `TimedOut`: a log that is followed may start at any time, and some backends take long.
pub(crate) async fn send<B>(
    link: impl Into<Link<'_>>,
    request: Request<()>,
    body: Option<&mut B>,
) -> Result<Exchange, ExchangeError>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    let connection = match link.into() {
        Link::Own(connection) => connection,
        Link::Pooled(pool) => {
            return converse(|request| pool.request(request), Driver(None), request, body).await;
        }
    };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(connection)).await?;
    let driver = Driver(Some(Box::pin(async move {
        // The failure of a connection is also the failure of its response.
        let _ = connection.with_upgrades().await;
    })));
    converse(|request| sender.send_request(request), driver, request, body).await
}

/// Sends a request and waits for the head of the response, while the connection and the body are polled.
async fn converse<B, F, E>(
    send: impl FnOnce(Request<RequestBody>) -> F,
    mut driver: Driver,
    request: Request<()>,
    body: Option<&mut B>,
) -> Result<Exchange, ExchangeError>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    F: Future<Output = Result<Response<Incoming>, E>>,
    E: Into<ExchangeError>,
{
    let (request_body, receiver) = mpsc::channel(QUEUED_PIECES);
    let content = if body.is_some() { RequestBody::Pieces(receiver) } else { RequestBody::Empty };
    let mut request = request.map(|()| content);
    let informational = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&informational);
    hyper::ext::on_informational(&mut request, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let response = {
        let mut response = pin!(send(request));
        let mut sending = pin!(send_body(body, &request_body));
        poll_fn(|cx| {
            driver.poll(cx);
            let _ = sending.as_mut().poll(cx);
            if informational.load(Ordering::Relaxed) > MAX_INFORMATIONAL {
                return Poll::Ready(Err(ExchangeError::Informational));
            }
            response.as_mut().poll(cx).map_err(Into::into)
        })
        .await?
    };
    Ok(Exchange { response, driver, request_body })
}

/// Passes on a request of a client, with its body, and waits for the head of the response.
///
/// # Errors
/// The connection fails, or the backend upgrades a request that does not ask for it.
pub(crate) async fn pass_on<B>(
    request: &mut Request<B>,
    link: impl Into<Link<'_>>,
    target: Uri,
    headers: HeaderMap,
) -> Result<Exchange, ExchangeError>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    let head = head(request.method().clone(), target, headers);
    let has_body = !request.body().is_end_stream();
    let exchange = send(link, head, has_body.then(|| request.body_mut())).await?;
    if exchange.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(ExchangeError::Upgrade);
    }
    Ok(exchange)
}

/// Returns the head of a request.
pub(crate) fn head(method: Method, target: Uri, headers: HeaderMap) -> Request<()> {
    let mut head = Request::new(());
    (*head.method_mut(), *head.uri_mut(), *head.headers_mut()) = (method, target, headers);
    head
}

/// Sends the pieces of a body and its end. Never returns.
async fn send_body<B>(body: Option<&mut B>, pieces: &mpsc::Sender<Option<Bytes>>)
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    if let Some(body) = body {
        // A body that the client aborts has no end.
        while let Some(piece) = next_piece(body).await {
            let is_end = piece.is_none();
            if pieces.send(piece).await.is_err() || is_end {
                break;
            }
        }
    }
    pending::<()>().await;
}

/// Returns the next piece of a body; `Some(None)` at its end, `None` if the client has aborted it.
async fn next_piece<B>(body: &mut B) -> Option<Option<Bytes>>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        return match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Some(Some(data)),
                Err(_) => continue,
            },
            Some(Err(_)) => None,
            None => Some(None),
        };
    }
}

impl Exchange {
    /// Returns the body of the response for the client.
    pub(crate) fn into_body(self) -> ResponseBody {
        ResponseBody::try_stream(self.into_stream())
    }

    /// Reads the body of an error, at most `limit` bytes.
    pub(crate) async fn read(self, limit: usize) -> Vec<u8> {
        let mut stream = self.into_stream();
        let mut text = Vec::new();
        while text.len() < limit
            && let Some(Ok(piece)) = futures_util::StreamExt::next(&mut stream).await
        {
            text.extend_from_slice(&piece);
        }
        text.truncate(limit);
        text
    }

    /// Reads the whole body, at most `limit` bytes.
    ///
    /// # Errors
    /// The body is incomplete or too long.
    pub(crate) async fn read_all(self, limit: usize) -> Result<Vec<u8>, String> {
        let mut stream = self.into_stream();
        let mut bytes = Vec::new();
        while let Some(piece) = futures_util::StreamExt::next(&mut stream).await {
            bytes.extend_from_slice(&piece.map_err(|error| error.to_string())?);
            if bytes.len() > limit {
                return Err(format!("the response is longer than {limit} bytes"));
            }
        }
        Ok(bytes)
    }

    fn into_stream(self) -> ResponseStream {
        let Self { response, driver, request_body } = self;
        ResponseStream { body: response.into_body(), driver, _request_body: request_body }
    }

    /// Returns the future connection of a response with the status 101.
    pub(crate) fn into_upgrade(mut self) -> PendingUpgrade {
        PendingUpgrade { upgrade: hyper::upgrade::on(&mut self.response), driver: self.driver }
    }
}

/// A connection that switches to another protocol.
pub(crate) struct PendingUpgrade {
    upgrade: OnUpgrade,
    driver: Driver,
}

impl PendingUpgrade {
    /// Waits until the connection has switched.
    ///
    /// # Errors
    /// The connection fails.
    pub(crate) async fn complete(mut self) -> hyper::Result<TokioIo<Upgraded>> {
        let upgraded = poll_fn(|cx| {
            self.driver.poll(cx);
            Pin::new(&mut self.upgrade).poll(cx)
        });
        upgraded.await.map(TokioIo::new)
    }
}

/// Reads and writes the connection while it is polled.
struct Driver(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.0
            && connection.as_mut().poll(cx).is_ready()
        {
            self.0 = None;
        }
    }
}

struct ResponseStream {
    body: Incoming,
    driver: Driver,
    /// The backend may respond before the end of the request, and then sees its end as an abort only after the response.
    _request_body: mpsc::Sender<Option<Bytes>>,
}

impl Stream for ResponseStream {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.driver.poll(cx);
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    // Trailers are not passed on.
                    Err(_) => continue,
                },
                Some(Err(error)) => Some(Err(error.into())),
                None => None,
            });
        }
    }
}

/// The body of a request to a backend.
pub(super) enum RequestBody {
    Empty,
    /// `None` is the end. A body that ends otherwise fails, so the backend does not take it as complete.
    Pieces(mpsc::Receiver<Option<Bytes>>),
}

/// A request was abandoned before the end of its body.
#[derive(Debug, thiserror::Error)]
#[error("the request was abandoned")]
pub(super) struct Abandoned;

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Abandoned;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Abandoned>>> {
        let Self::Pieces(pieces) = &mut *self else { return Poll::Ready(None) };
        match ready!(pieces.poll_recv(cx)) {
            Some(Some(piece)) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            Some(None) => {
                *self = Self::Empty;
                Poll::Ready(None)
            }
            None => Poll::Ready(Some(Err(Abandoned))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http_body_util::Empty;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::connect::places::Places;

    /// Returns a connection and the backend's end of it.
    pub(in crate::connect) fn connection() -> (PlacedConnection, DuplexStream) {
        let (near, far) = duplex(1 << 10);
        let place = Places::with_total(2).take("backend", None).unwrap();
        (PlacedConnection::new(Box::new(near), place), far)
    }

    /// Sends a request to a backend that sends the bytes `times` times.
    pub(in crate::connect) async fn answer(
        bytes: &'static [u8],
        times: usize,
    ) -> Result<Exchange, ExchangeError> {
        let (connection, mut backend) = connection();
        tokio::spawn(async move {
            for _ in 0..times {
                if backend.write_all(bytes).await.is_err() {
                    return;
                }
            }
            // The connection stays open.
            pending::<()>().await;
        });
        let body: Option<&mut Empty<Bytes>> = None;
        send(connection, Request::get("/").body(()).unwrap(), body).await
    }

    #[tokio::test]
    async fn informational_responses_are_skipped_but_not_forever() {
        const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        let few = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(answer(few, 1).await.unwrap().response.status(), 200);
        for times in [MAX_INFORMATIONAL + 1, usize::MAX] {
            assert!(matches!(answer(INTERIM, times).await, Err(ExchangeError::Informational)), "{times}");
        }
    }

    #[tokio::test]
    async fn a_closed_exchange_gives_its_place_back() {
        let places = Places::with_total(1);
        let (near, far) = duplex(1 << 10);
        let connection = PlacedConnection::new(Box::new(near), places.take("a", None).unwrap());
        let body: Option<&mut Empty<Bytes>> = None;
        let mut sent = Box::pin(send(connection, Request::get("/").body(()).unwrap(), body));
        assert!(futures_util::poll!(&mut sent).is_pending());
        assert!(places.take("b", None).is_err());
        drop(sent);
        assert!(places.take("b", None).is_ok());
        drop(far);
    }
}
