//! Connections to the hosts of URLs and to services, for the HTTP client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tower_service::Service;

use crate::egress::{Egress, EgressStream};
use crate::service::{Destination, ResolveError, ServiceResolver};
use crate::tcp::{AddressPolicy, ConnectError};

/// The error of opening a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The service cannot be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The connection cannot be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Maximum time of a lookup and of dialling an address. Calls have their own, usually shorter, limits.
const PATIENCE: Duration = Duration::from_secs(30);

/// A service that is resolved again for each connection, as its address may change.
#[derive(Clone)]
pub(crate) struct ServiceTarget {
    pub(crate) resolver: Arc<ServiceResolver>,
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) port: u16,
}

/// Opens TCP connections to the host of a URL, or to the address of a service.
#[derive(Clone)]
pub(crate) struct Dialer {
    service: Option<ServiceTarget>,
    egress: Egress,
}

impl Dialer {
    pub(crate) fn new(service: Option<ServiceTarget>, egress: Egress) -> Self {
        Self { service, egress }
    }

    /// Opens a connection to the host of a URL, or to the service if there is one.
    ///
    /// # Errors
    /// [`DialError`].
    pub(crate) async fn dial(&self, uri: &Uri) -> Result<EgressStream, DialError> {
        let Destination { host, port } = self.destination(uri)?;
        // Administrators choose the hosts of webhooks, which may be on this machine.
        Ok(self.egress().connect(&host, port, AddressPolicy::Unicast, PATIENCE).await?)
    }

    /// Returns the way to the destination: the server itself is dialled directly.
    fn egress(&self) -> Egress {
        let is_own =
            |target: &ServiceTarget| target.resolver.is_own(&target.namespace, &target.name, target.port);
        if self.service.as_ref().is_some_and(is_own) { Egress::Direct } else { self.egress.clone() }
    }

    /// Returns the host and port to dial.
    fn destination(&self, uri: &Uri) -> Result<Destination, DialError> {
        let Some(service) = &self.service else {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            return Ok(Destination { host, port: port_of(uri) });
        };
        Ok(service.resolver.resolve(&service.namespace, &service.name, service.port)?)
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<EgressStream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial(&uri).await.map(TokioIo::new) })
    }
}

fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 })
}
