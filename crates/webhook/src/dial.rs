//! Connections: the one place that resolves a host and dials it.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use http::uri::{Authority, Parts};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::service::{ResolveError, ServiceResolver};

/// The error of opening a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The service cannot be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The resolver returned an address that is not dialled.
    #[error("dial tcp {0}: the address is not a unicast address")]
    Refused(String),
    /// The connection cannot be opened.
    #[error("dial tcp {address}: {why}")]
    Connect { address: String, why: String },
}

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
    http: HttpConnector,
    service: Option<ServiceTarget>,
}

impl Dialer {
    pub(crate) fn new(service: Option<ServiceTarget>) -> Self {
        let mut http = HttpConnector::new();
        // TLS is the next layer.
        http.enforce_http(false);
        http.set_nodelay(true);
        Self { http, service }
    }

    /// Returns the URI of the address to dial.
    fn destination(&self, uri: Uri) -> Result<Uri, DialError> {
        let Some(service) = &self.service else { return Ok(uri) };
        let found = service.resolver.resolve(&service.namespace, &service.name, service.port)?;
        let address = found.to_string();
        if let Ok(ip) = found.host.parse::<IpAddr>()
            && !is_unicast(ip)
        {
            return Err(DialError::Refused(address));
        }
        let mut parts = Parts::default();
        parts.scheme = uri.scheme().cloned();
        parts.path_and_query = uri.path_and_query().cloned();
        let authority = Authority::try_from(address.as_str());
        let refused = |_| DialError::Refused(address.clone());
        parts.authority = Some(authority.map_err(refused)?);
        Uri::from_parts(parts).map_err(|_| DialError::Refused(address))
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (destination, mut http) = (self.destination(uri), self.http.clone());
        Box::pin(async move {
            let destination = destination?;
            let address = host_and_port(&destination);
            let failed = |why: String| DialError::Connect { address, why };
            http.call(destination).await.map_err(|error| failed(connect_error(&error)))
        })
    }
}

/// Returns whether an address identifies one host.
fn is_unicast(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

/// Formats the host and port of a URL as Go does.
pub(crate) fn host_and_port(uri: &Uri) -> String {
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16());
    let port = port.unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

/// Returns the cause of a failed connection, in Go's words where operators search for them.
fn connect_error(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let io = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()).last();
    match io.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::ConnectionRefused) => "connect: connection refused".to_owned(),
        Some(std::io::ErrorKind::NetworkUnreachable) => "connect: network is unreachable".to_owned(),
        Some(std::io::ErrorKind::HostUnreachable) => "connect: no route to host".to_owned(),
        Some(std::io::ErrorKind::TimedOut) => "i/o timeout".to_owned(),
        _ => crate::client::with_causes(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unicast_addresses_are_dialled() {
        for (ip, dialled) in [
            ("10.0.0.1", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_unicast(ip.parse().unwrap()), dialled, "{ip}");
        }
    }

    #[test]
    fn formats_addresses_as_go() {
        for (uri, expected) in [
            ("https://10.0.0.1/x", "10.0.0.1:443"),
            ("https://[::1]:8443/", "[::1]:8443"),
            ("http://a.example", "a.example:80"),
        ] {
            assert_eq!(host_and_port(&uri.parse().unwrap()), expected);
        }
    }
}
