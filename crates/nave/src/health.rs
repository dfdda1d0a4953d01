//! `/healthz` and `/metrics` of `nave controllers` over plain HTTP, for probes and scrapers on the same machine.

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
use nave_client::leader_election::LeaderElector;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Maximum number of concurrent connections. Only a few probes and scrapers are expected.
const CONNECTIONS: usize = 32;
/// Timeout of a client for sending a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum lifetime of a connection, because its client may have stopped reading.
const CONNECTION_TIME: Duration = Duration::from_mins(2);
/// A leader whose Lease expired more than this long ago is stuck.
const TOLERANCE: Duration = Duration::from_secs(20);

/// The state that the endpoints report on.
pub(crate) struct Health {
    /// The leader election, if it is enabled.
    pub(crate) elector: Option<Arc<LeaderElector>>,
    /// The metrics.
    pub(crate) registry: Registry,
}

impl Health {
    /// Serves requests until the future is dropped.
    pub(crate) async fn serve(self, listener: TcpListener) -> Infallible {
        let (health, room) = (Arc::new(self), Arc::new(Semaphore::new(CONNECTIONS)));
        loop {
            let place = Arc::clone(&room).acquire_owned().await;
            let Ok((stream, _)) = listener.accept().await else {
                // The process has probably run out of file descriptors; others may be closed soon.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let health = Arc::clone(&health);
            tokio::spawn(async move {
                let answer = service_fn(|request: Request<Incoming>| {
                    let answer = health.answer(request.method(), request.uri().path());
                    async move { Ok::<_, Infallible>(answer) }
                });
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
                let served = http.serve_connection(TokioIo::new(stream), answer);
                if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIME, served).await {
                    tracing::debug!(%error, "health connection ended");
                }
                drop(place);
            });
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        match path {
            "/healthz" | "/healthz/leaderElection" | "/livez" | "/readyz" => self.healthz(),
            "/metrics" => match TextEncoder::new().encode_to_string(&self.registry.gather()) {
                Ok(metrics) => text(StatusCode::OK, metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        }
    }

    /// Checks that the leader renews its Lease.
    fn healthz(&self) -> Response<Full<Bytes>> {
        let checked = self.elector.as_ref().map_or(Ok(()), |elector| elector.check(TOLERANCE));
        let Err(error) = checked else { return text(StatusCode::OK, "ok".to_owned()) };
        let body = format!("[-]leaderElection failed: {error}\nhealthz check failed\n");
        text(StatusCode::INTERNAL_SERVER_ERROR, body)
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}
