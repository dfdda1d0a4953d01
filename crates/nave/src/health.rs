//! `/healthz` and `/metrics` of `nave controllers` over plain HTTP, for probes and scrapers on the same machine.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use nave_client::leader_election::LeaderElector;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;

use crate::plain_http::{self, text};

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
        plain_http::serve(listener, move |method, path| self.answer(method, path)).await
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
