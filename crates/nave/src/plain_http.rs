//! A small HTTP/1.1 server without TLS, for probes on the same machine.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Maximum number of concurrent connections. Only a few probes and scrapers are expected.
const CONNECTIONS: usize = 32;
/// Timeout of a client for sending a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum lifetime of a connection, because its client may have stopped reading.
const CONNECTION_TIME: Duration = Duration::from_mins(2);

/// Serves requests until the future is dropped. `answer` gets the method and the path.
pub(crate) async fn serve<F>(listener: TcpListener, answer: F) -> Infallible
where
    F: Fn(&Method, &str) -> Response<Full<Bytes>> + Send + Sync + 'static,
{
    let (answer, room) = (Arc::new(answer), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let place = Arc::clone(&room).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            // The process has probably run out of file descriptors; others may be closed soon.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = answer(request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            let served = http.serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIME, served).await {
                tracing::debug!(%error, "connection of a probe ended");
            }
            drop(place);
        });
    }
}

/// Returns a response of plain text.
pub(crate) fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}
