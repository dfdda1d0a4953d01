//! HTTPS, as a client.

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

/// An answer longer than this is refused, in bytes.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// An idle connection is kept this long for the next call.
const IDLE: Duration = Duration::from_secs(30);

/// Whom a client trusts, and what it shows.
#[derive(Default)]
pub struct Tls {
    /// Who may have signed the server's certificate.
    pub roots: Roots,
    /// The client's own certificate with its chain, and its key.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// The name the server's certificate must bear, if it is not the one in the address.
    pub server_name: Option<String>,
}

/// Certificate authorities.
#[derive(Clone, Debug, Default)]
pub enum Roots {
    /// Those of the operating system.
    #[default]
    System,
    /// These and no others.
    These(Vec<CertificateDer<'static>>),
    /// Nobody is asked: any server is believed to be the right one.
    Unchecked,
}

/// Why a client cannot be made, or a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The roots, the certificate or its key cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// A name that no certificate can bear.
    #[error("{0:?} is no name of a server")]
    ServerName(String),
    /// The request cannot be written.
    #[error("the request cannot be written: {0}")]
    Request(#[from] http::Error),
    /// No connection, or it broke.
    #[error("{}", with_causes(.0))]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// The answer broke off, or is too long.
    #[error("the answer cannot be read: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

impl ClientError {
    /// Whether the same call may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::TimedOut(_))
    }
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
}

/// A client with connections of its own, kept for the next call. Clones share them.
#[derive(Clone)]
pub struct Client {
    pool: PooledClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

impl Client {
    /// A client whose calls take at most `timeout`, the answer's body included.
    ///
    /// # Errors
    /// The roots, the certificate or its key cannot be used.
    pub fn new(tls: Tls, timeout: Duration) -> Result<Self, ClientError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match tls.roots {
            Roots::Unchecked => {
                let verifier = AnyServer(provider.signature_verification_algorithms);
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
            Roots::These(roots) => builder.with_root_certificates(store(roots)?),
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

    /// GET.
    ///
    /// # Errors
    /// No whole answer came in time; an answer of whatever status is none.
    pub async fn get(&self, uri: &Uri) -> Result<Answer, ClientError> {
        self.send(Method::GET, uri, HeaderMap::new(), Bytes::new()).await
    }

    /// POST.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn post(&self, uri: &Uri, headers: HeaderMap, body: Bytes) -> Result<Answer, ClientError> {
        self.send(Method::POST, uri, headers, body).await
    }

    /// A request of any method.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::builder().method(method).uri(uri.clone()).body(Full::new(body))?;
        *request.headers_mut() = headers;
        let whole = async {
            let response = self.pool.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            Ok(Answer { status, body: body.map_err(ClientError::Answer)?.to_bytes() })
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
    tracing::debug!(added, errors = found.errors.len(), "certificate authorities of the system");
    store
}

/// The library's error says what failed; why is in its sources.
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
