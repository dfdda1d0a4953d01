//! Connections to kubelets, pods and endpoints, for requests and streams that the server passes on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{self, ClientError, Tls, describe};
use crate::egress::{Egress, EgressStream};
use crate::tcp::{AddressPolicy, ConnectError};

/// A connection to a backend.
pub trait BackendConnection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> BackendConnection for T {}

/// The reason why a backend cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No connection was opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The TLS handshake failed.
    #[error("{0}")]
    Tls(String),
    /// The TLS handshake took too long.
    #[error("net/http: TLS handshake timeout")]
    TlsTimeout,
}

/// The TLS configuration of connections to backends: HTTP/1.1 only, because HTTP/2 has no upgrades, unless it says
/// otherwise. Connections with the same configuration resume the sessions of earlier ones.
#[derive(Clone, Debug)]
pub struct BackendTls {
    config: Arc<ClientConfig>,
    /// The name expected in the certificate, if it differs from the host.
    server_name: Option<ServerName<'static>>,
}

impl BackendTls {
    /// Creates a configuration.
    ///
    /// # Errors
    /// The roots, the certificate or its key, or the server name are invalid.
    pub fn new(tls: Tls) -> Result<Self, ClientError> {
        let server_name = tls
            .server_name
            .map(|name| ServerName::try_from(name.clone()).map_err(|_| ClientError::ServerName(name)));
        let server_name = server_name.transpose()?;
        let mut config = client::config(tls.roots, tls.identity)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), server_name })
    }

    /// Opens TLS on a connection to a host.
    pub(crate) async fn handshake<S>(
        &self,
        host: &str,
        stream: S,
        patience: Duration,
    ) -> Result<TlsStream<S>, BackendError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let invalid = |_| BackendError::Tls(format!("tls: {host:?} is not a valid server name"));
        let name = match (&self.server_name, host.parse::<IpAddr>()) {
            (Some(name), _) => name.clone(),
            (None, Ok(address)) => ServerName::IpAddress(address.into()),
            (None, Err(_)) => ServerName::try_from(host.to_owned()).map_err(invalid)?,
        };
        let handshake = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream);
        match tokio::time::timeout(patience, handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(BackendError::Tls(describe(&error))),
            Err(_) => Err(BackendError::TlsTimeout),
        }
    }

    /// Offers HTTP/2 too. The backend chooses.
    #[must_use]
    pub fn with_http2(mut self) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        self
    }
}

/// HTTP/2 in ALPN.
const HTTP2: &[u8] = b"h2";

/// Opens connections to backends.
#[derive(Clone, Debug)]
pub struct BackendDialer {
    /// The addresses that may be dialled.
    pub policy: AddressPolicy,
    /// Maximum time of the lookup, of dialling an address, and of the TLS handshake, each.
    pub timeout: Duration,
    /// The way to the backends.
    pub egress: Egress,
}

impl BackendDialer {
    /// Opens a connection to a host, with TLS if `tls` is given. The certificate must be valid for the host, or for the
    /// server name of `tls`.
    ///
    /// # Errors
    /// [`BackendError`].
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
        tls: Option<&BackendTls>,
    ) -> Result<Box<dyn BackendConnection>, BackendError> {
        Ok(match tls {
            None => Box::new(self.egress.connect(host, port, self.policy, self.timeout).await?),
            Some(tls) => Box::new(self.connect_tls(host, port, tls).await?),
        })
    }

    /// Opens a connection with TLS. Returns also whether the backend has chosen HTTP/2.
    ///
    /// # Errors
    /// [`BackendError`].
    pub async fn connect_with_protocol(
        &self,
        host: &str,
        port: u16,
        tls: &BackendTls,
    ) -> Result<(Box<dyn BackendConnection>, bool), BackendError> {
        let stream = self.connect_tls(host, port, tls).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        Ok((Box::new(stream), is_http2))
    }

    async fn connect_tls(
        &self,
        host: &str,
        port: u16,
        tls: &BackendTls,
    ) -> Result<TlsStream<EgressStream>, BackendError> {
        let stream = self.egress.connect(host, port, self.policy, self.timeout).await?;
        tls.handshake(host, stream, self.timeout).await
    }
}
