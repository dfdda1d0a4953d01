//! HTTPS client.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as PooledClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use nave_certificates::version_one;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::sync::Semaphore;

use crate::body;
use crate::dial::{DialError, Dialer};
use crate::egress::Egress;
use crate::hook_client::CallLimits;
use crate::root_server::RootServer;
use crate::unchecked::AnyServer;

/// Maximum length of a response body, in bytes, unless the caller sets one.
const MAX_RESPONSE_BYTES: usize = 4 << 20;
/// Time after which an idle connection is closed.
const IDLE: Duration = Duration::from_secs(30);
/// Time without a received byte after which a ping is sent while calls wait (client-go: `readIdleTimeout`). All calls
/// share a connection of HTTP/2: without pings, they would time out until the kernel gives it up, after a quarter of an
/// hour.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Time for the response to a ping (client-go: `pingTimeout`).
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum number of calls of a client at a time, so that a server that does not answer cannot use up the file
/// descriptors. Also the maximum number of idle connections: with fewer than the calls, calls would keep opening and
/// closing connections, and a handshake costs more than a call.
pub(crate) const MAX_CALLS: usize = 100;

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
    #[error("{}", describe(.0))]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// No connection could be opened.
    #[error("{}", describe(&**.0))]
    Connect(Box<dyn std::error::Error + Send + Sync>),
    /// The connection failed during the call.
    #[error("{}", describe(.0))]
    Exchange(hyper::Error),
    /// The response body is incomplete.
    #[error("cannot read the response: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The response body is too long.
    #[error("the response is longer than {0} bytes")]
    TooLong(usize),
    /// The call timed out.
    #[error("context deadline exceeded")]
    TimedOut(Duration),
}

impl ClientError {
    /// Returns whether a retry may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Connect(_) | Self::Exchange(_) | Self::TimedOut(_))
    }
}

/// The response of a server.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The complete body.
    pub body: Bytes,
}

/// An HTTPS client with its own connection pool. Clones share the pool.
#[derive(Clone)]
pub struct Client {
    pool: PooledClient<HttpsConnector<Dialer>, Full<Bytes>>,
    limits: CallLimits,
    calls: Arc<Semaphore>,
}

impl Client {
    /// Creates a client. Each call takes at most `timeout`, including reading the response body.
    ///
    /// # Errors
    /// The roots, the certificate or its key are invalid.
    pub fn new(tls: Tls, timeout: Duration) -> Result<Self, ClientError> {
        Self::with_egress(tls, timeout, Egress::Direct)
    }

    /// As [`Self::new`], with the way to the servers.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub fn with_egress(tls: Tls, timeout: Duration, egress: Egress) -> Result<Self, ClientError> {
        let limits = CallLimits { timeout, response_bytes: MAX_RESPONSE_BYTES };
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config(tls.roots, tls.identity)?).https_or_http();
        let connector = match tls.server_name {
            None => connector,
            Some(name) => connector.with_server_name_resolver(fixed_name(name)?),
        };
        let connector = connector.enable_all_versions().wrap_connector(Dialer::new(None, egress));
        Ok(Self::of_pool(pool(connector), limits))
    }

    fn of_pool(pool: PooledClient<HttpsConnector<Dialer>, Full<Bytes>>, limits: CallLimits) -> Self {
        Self { pool, limits, calls: Arc::new(Semaphore::new(MAX_CALLS)) }
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
        let limits = self.limits;
        let mut request = Request::builder().method(method).uri(uri.clone()).body(Full::new(body))?;
        *request.headers_mut() = headers;
        let whole = async {
            // The semaphore is never closed.
            let _call = self.calls.acquire().await;
            let (parts, body) = self.pool.request(request).await?.into_parts();
            let (body, _) = body::read(body, limits.response_bytes, None).await?;
            Ok(Response { status: parts.status, headers: parts.headers, body })
        };
        let timed_out = |_| ClientError::TimedOut(limits.timeout);
        tokio::time::timeout(limits.timeout, whole).await.map_err(timed_out)?
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("limits", &self.limits).finish_non_exhaustive()
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub(crate) fn config(roots: Roots, identity: Option<Identity>) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match roots {
        Roots::Unchecked => {
            let verifier = AnyServer(provider.signature_verification_algorithms);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        // A verifier needs a root; without one, every server is refused.
        Roots::Custom(roots) if roots.is_empty() => builder.with_root_certificates(RootCertStore::empty()),
        Roots::Custom(roots) => {
            let trusted = Arc::new(store(roots.clone())?);
            let inner = WebPkiServerVerifier::builder_with_provider(trusted, provider).build();
            let inner = inner.map_err(|error| rustls::Error::General(error.to_string()))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(RootServer { inner, roots }))
        }
        Roots::System => builder.with_root_certificates(system_roots()),
    };
    Ok(match identity {
        Some((chain, key)) => {
            let certified = version_one::certified_key(chain, key, builder.crypto_provider())?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    })
}

fn fixed_name(name: String) -> Result<FixedServerNameResolver, ClientError> {
    let fixed = ServerName::try_from(name.clone()).map_err(|_| ClientError::ServerName(name))?;
    Ok(FixedServerNameResolver::new(fixed))
}

fn pool(connector: HttpsConnector<Dialer>) -> PooledClient<HttpsConnector<Dialer>, Full<Bytes>> {
    PooledClient::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_CALLS)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(connector)
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

/// Describes a failed exchange by its innermost known cause, with Go's texts for those that operators search for.
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = || std::iter::successors(Some(error), |error| cause(*error));
    if let Some(dial) = causes().find_map(|cause| cause.downcast_ref::<DialError>()) {
        return dial.to_string();
    }
    if let Some(tls) = causes().find_map(|cause| cause.downcast_ref()) {
        return describe_tls(tls);
    }
    let is_end = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let http = cause.downcast_ref::<hyper::Error>();
        io == Some(io::ErrorKind::UnexpectedEof) || http.is_some_and(hyper::Error::is_incomplete_message)
    };
    if causes().any(is_end) {
        return "EOF".to_owned();
    }
    with_causes(error)
}

/// Returns the cause of an error, or the error that an I/O error contains, which `source` skips.
fn cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a (dyn std::error::Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(contained) => Some(contained),
        None => error.source(),
    }
}

fn describe_tls(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(why) = error else { return format!("tls: {error}") };
    let why = match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = presented.join(", ");
            format!("certificate is valid for {presented}, not {}", expected.to_str())
        }
        other => other.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {why}")
}

/// Formats an error with its sources, because hyper's message does not contain the cause.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
