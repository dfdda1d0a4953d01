//! Connections to aggregated servers.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use nave_machinery::user::UserInfo;
use nave_webhook::{BackendError, Destination, ResolveError, ServiceResolver};
use tokio::sync::watch;

use super::api_service::{Remote, Transport};
use super::identity::{self, ProxyIdentity, UserError};
use crate::connect::backends::Backends;
use crate::connect::exchange::{self, Exchange, Link};
use crate::connect::places::{Place, PlacedConnection};

/// Resolves the services of aggregated servers and connects to them.
pub(super) struct Servers {
    resolver: ServiceResolver,
    identity: watch::Receiver<ProxyIdentity>,
    pub(super) backends: Arc<Backends>,
    /// True if redirects reach clients.
    pub(super) forwards_redirects: bool,
}

/// The reason why an aggregated server does not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerError {
    /// The service cannot be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The service is this server.
    #[error("the service is this server itself")]
    Itself,
    /// TLS cannot be set up.
    #[error("{0}")]
    Tls(String),
    /// No connection was opened.
    #[error(transparent)]
    Connect(#[from] BackendError),
    /// No connection may be opened now.
    #[error("{0}")]
    Busy(String),
    /// The user cannot be sent.
    #[error(transparent)]
    User(#[from] UserError),
    /// The request is invalid.
    #[error(transparent)]
    Request(#[from] http::Error),
    /// The connection failed, or the response is invalid.
    #[error("{0}")]
    Exchange(String),
    /// The response did not arrive in time.
    #[error("context deadline exceeded")]
    TimedOut,
}

/// A complete response.
pub(super) struct Fetched {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Maximum size of a document, in bytes.
const MAX_DOCUMENT: usize = 8 << 20;
/// Maximum time to read a document, as upstream.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(5);

impl Servers {
    pub(super) fn new(
        resolver: ServiceResolver,
        identity: watch::Receiver<ProxyIdentity>,
        backends: Arc<Backends>,
        forwards_redirects: bool,
    ) -> Self {
        Self { resolver, identity, backends, forwards_redirects }
    }

    /// Returns the address of a server.
    pub(super) fn resolve(&self, remote: &Remote) -> Result<Destination, ServerError> {
        // A request to this server would come back to it for ever.
        if (&*remote.namespace, &*remote.service) == ("default", "kubernetes") {
            return Err(ServerError::Itself);
        }
        Ok(self.resolver.resolve(&remote.namespace, &remote.service, remote.port)?)
    }

    /// Returns the connections to a server with the current client certificate.
    pub(super) fn transport(&self, remote: &Remote) -> Result<Arc<Transport>, ServerError> {
        remote.transport(&self.identity.borrow(), &self.backends).map_err(ServerError::Tls)
    }

    /// Opens a connection of its own, which holds the place until it is closed.
    pub(super) async fn connect(
        &self,
        remote: &Remote,
        destination: &Destination,
        place: Place,
    ) -> Result<PlacedConnection, ServerError> {
        let transport = self.transport(remote)?;
        let dialer = &self.backends.dialer;
        let connection = dialer.connect(&destination.host, destination.port, Some(&transport.tls)).await?;
        Ok(PlacedConnection::new(connection, place))
    }

    /// Sends a GET request as a user on a new connection, and waits for the head of the response. A new connection shows
    /// that the server can be reached and has a valid certificate.
    pub(super) async fn probe(
        &self,
        remote: &Remote,
        destination: &Destination,
        path: &str,
        user: &UserInfo,
    ) -> Result<Exchange, ServerError> {
        let head = get(destination, path, user, HeaderMap::new())?;
        let place = self.backends.shared_place(&destination.host);
        let place = place.map_err(|status| ServerError::Busy(status.message))?;
        send(self.connect(remote, destination, place).await?, head).await
    }

    /// Reads a document as a user.
    pub(super) async fn fetch(
        &self,
        remote: &Remote,
        path: &str,
        user: &UserInfo,
        headers: HeaderMap,
    ) -> Result<Fetched, ServerError> {
        let fetch = async {
            let destination = self.resolve(remote)?;
            let transport = self.transport(remote)?;
            let exchange =
                send(Link::Pooled(&transport.pool), get(&destination, path, user, headers)?).await?;
            let (status, headers) = (exchange.response.status(), exchange.response.headers().clone());
            let body = exchange.read_all(MAX_DOCUMENT).await.map_err(ServerError::Exchange)?;
            Ok(Fetched { status, headers, body })
        };
        tokio::time::timeout(DOCUMENT_TIMEOUT, fetch).await.unwrap_or(Err(ServerError::TimedOut))
    }
}

fn get(
    destination: &Destination,
    path: &str,
    user: &UserInfo,
    mut headers: HeaderMap,
) -> Result<Request<()>, ServerError> {
    identity::set_user(&mut headers, user)?;
    let host = HeaderValue::try_from(destination.to_string()).map_err(http::Error::from)?;
    headers.insert(header::HOST, host);
    Ok(exchange::head(Method::GET, Uri::try_from(path).map_err(http::Error::from)?, headers))
}

async fn send(link: impl Into<Link<'_>>, head: Request<()>) -> Result<Exchange, ServerError> {
    let no_body: Option<&mut Empty<bytes::Bytes>> = None;
    let sent = exchange::send(link, head, no_body).await;
    sent.map_err(|error| ServerError::Exchange(error.to_string()))
}

/// Returns the user as whom this server reads the documents of aggregated servers.
pub(super) fn aggregator_user() -> UserInfo {
    UserInfo {
        name: "system:kube-aggregator".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..UserInfo::default()
    }
}
