//! The API behind the listener.
//!
//! ======================================================================================================
//! PLUG: the API server goes here. `open` gets the flags and the authentication chain and opens the store;
//! the other functions are called by `serve` in the order of its doc comment. Until then: health only.
//! ======================================================================================================

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::body::Incoming;
use nave_authn::{Credentials, Peer};
use nave_authz::{Attributes, PublicPaths, SystemMasters};
use nave_machinery::Status;

use super::ServeError;
use crate::flags::Config;

/// The API: its store and its pipeline.
pub(super) struct Api {
    authentication: nave_authn::Chain,
    authorization: nave_authz::Chain,
    ready: AtomicBool,
}

impl Api {
    /// Opens the store and builds the pipeline. Nobody is served yet.
    #[allow(clippy::unused_async)]
    pub(super) async fn open(config: &Config, authentication: nave_authn::Chain) -> Result<Self, ServeError> {
        let (min_request_timeout, node_ports) = (config.min_request_timeout, config.node_ports);
        tracing::debug!(?min_request_timeout, ?node_ports, range = %config.service_range, "for the API server");
        let authorization = nave_authz::Chain::new(vec![
            std::sync::Arc::new(SystemMasters),
            std::sync::Arc::new(PublicPaths),
        ]);
        Ok(Self { authentication, authorization, ready: AtomicBool::new(false) })
    }

    /// What /readyz says.
    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// The store's revision.
    #[allow(clippy::unused_self)]
    pub(super) fn revision(&self) -> u64 {
        0
    }

    /// Answers one request.
    pub(super) async fn handle(
        &self,
        request: Request<Incoming>,
        peer: Option<&Peer>,
    ) -> Response<Full<Bytes>> {
        self.answer(&request, peer).await.unwrap_or_else(|status| refuse(&status))
    }

    /// Ends all watches, so that the shutdown does not wait for them.
    #[allow(clippy::unused_self)]
    pub(super) fn end_watches(&self) {}

    /// Syncs and closes the store. Nobody is served any more.
    #[allow(clippy::unused_async, clippy::unused_self)]
    pub(super) async fn close(&self) -> Result<(), ServeError> {
        Ok(())
    }

    async fn answer(
        &self,
        request: &Request<Incoming>,
        peer: Option<&Peer>,
    ) -> Result<Response<Full<Bytes>>, Status> {
        let credentials = Credentials { peer, headers: request.headers() };
        let identity = self.authentication.authenticate(&credentials).await?;
        let verb = if request.method() == Method::GET { "get" } else { "other" };
        let attributes = Attributes { verb, path: request.uri().path(), ..Attributes::of(&identity.user) };
        self.authorization.authorize(&attributes).await?;
        match request.uri().path() {
            "/healthz" | "/livez" => Ok(Response::new(Full::from("ok"))),
            "/readyz" if self.ready.load(Ordering::Acquire) => Ok(Response::new(Full::from("ok"))),
            "/readyz" => Err(Status::service_unavailable("shutting down")),
            _ => Err(Status::no_such_path()),
        }
    }
}

fn refuse(status: &Status) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(status.to_value().to_string()));
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
