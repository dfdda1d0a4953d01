//! HTTPS client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as PooledClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::unchecked::AnyServer;

/// Maximum length of a response body, in bytes.
const MAX_RESPONSE_BYTES: usize = 4 << 20;
/// Time after which an idle connection is closed.
const IDLE: Duration = Duration::from_secs(30);

/// TLS configuration of a client.
#[derive(Default)]
pub struct Tls {
    /// Certificate authorities for the server's certificate.
    pub roots: Roots,
    /// The client certificate chain and its key.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// Name expected in the server's certificate, if it differs from the host in the address.
    pub server_name: Option<String>,
}

/// Certificate authorities.
#[derive(Clone, Debug, Default)]
pub enum Roots {
    /// The operating system's certificate authorities.
    #[default]
    System,
    /// Only these certificate authorities.
    Custom(Vec<CertificateDer<'static>>),
    /// The server's certificate is not verified.
    Unchecked,
}

/// The error of creating a client or of a call.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The roots, the certificate or its key are invalid.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The name is not a valid server name.
    #[error("{0:?} is not a valid server name")]
    ServerName(String),
    /// The request is invalid.
    #[error("invalid request: {0}")]
    Request(#[from] http::Error),
    /// The connection failed.
    #[error("{}", with_causes(.0))]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// The response body is incomplete or too long.
    #[error("cannot read the response: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The call timed out.
    #[error("no response within {0:?}")]
    TimedOut(Duration),
}

impl ClientError {
    /// Returns whether a retry may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::TimedOut(_))
    }
}

/// The response of a server.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: StatusCode,
    /// The complete body.
    pub body: Bytes,
}

/// An HTTPS client with its own connection pool. Clones share the pool.
#[derive(Clone)]
pub struct Client {
    pool: PooledClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

impl Client {
    /// Creates a client. Each call takes at most `timeout`, including reading the response body.
    ///
    /// # Errors
    /// The roots, the certificate or its key are invalid.
    pub fn new(tls: Tls, timeout: Duration) -> Result<Self, ClientError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match tls.roots {
            Roots::Unchecked => {
                let verifier = AnyServer(provider.signature_verification_algorithms);
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
            Roots::Custom(roots) => builder.with_root_certificates(store(roots)?),
            Roots::System => builder.with_root_certificates(system_roots()),
        };
        let config = match tls.identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        let builder = match tls.server_name {
            None => builder,
            Some(name) => {
                let fixed = ServerName::try_from(name.clone()).map_err(|_| ClientError::ServerName(name))?;
                builder.with_server_name_resolver(FixedServerNameResolver::new(fixed))
            }
        };
        let pool = PooledClient::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(builder.enable_all_versions().build());
        Ok(Self { pool, timeout })
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// Only transport errors and timeouts are errors; any HTTP status is `Ok`.
    pub async fn get(&self, uri: &Uri) -> Result<Response, ClientError> {
        self.send(Method::GET, uri, HeaderMap::new(), Bytes::new()).await
    }

    /// Sends a POST request.
    ///
    /// # Errors
    /// See [`Self::get`].
    pub async fn post(&self, uri: &Uri, headers: HeaderMap, body: Bytes) -> Result<Response, ClientError> {
        self.send(Method::POST, uri, headers, body).await
    }

    /// Sends a request with any method.
    ///
    /// # Errors
    /// See [`Self::get`].
    pub async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, ClientError> {
        let mut request = Request::builder().method(method).uri(uri.clone()).body(Full::new(body))?;
        *request.headers_mut() = headers;
        let whole = async {
            let response = self.pool.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
            Ok(Response { status, body: body.map_err(ClientError::Body)?.to_bytes() })
        };
        tokio::time::timeout(self.timeout, whole).await.map_err(|_| ClientError::TimedOut(self.timeout))?
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

fn store(roots: Vec<CertificateDer<'static>>) -> Result<RootCertStore, ClientError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root)?;
    }
    Ok(store)
}

fn system_roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = store.add_parsable_certificates(found.certs);
    tracing::debug!(added, errors = found.errors.len(), "system certificate authorities loaded");
    store
}

/// Formats an error with its sources, because hyper's message does not contain the cause.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
