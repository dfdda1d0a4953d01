//! Webhooks whose address is in an object of the API: conversion and admission (upstream:
//! `apiserver/pkg/util/webhook`).

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use lru::LruCache;
use nave_machinery::duration;
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

use crate::client::{Client, ClientError, Response, Roots, Tls};
use crate::dial::{Dialer, ServiceTarget};
use crate::egress::EgressSelector;
use crate::kubeconfig::FileError;
use crate::metrics::CallMetrics;
use crate::service::ServiceResolver;
use crate::users::{Authorization, HostCredentials, Users};

/// Number of clients that are kept, each with its idle connections (upstream: `defaultCacheSize`).
const CLIENTS: NonZeroUsize = NonZeroUsize::new(200).expect("not zero");
/// The port of a URL or a service reference without a port.
const HTTPS_PORT: u16 = 443;
/// Number of calls that a webhook can defer by `Retry-After` (client-go: `maxRetries`).
const DEFERRALS: usize = 10;
/// Maximum length of a response text in an error, in bytes (client-go: `maxUnstructuredResponseTextBytes`).
const MAX_TEXT_BYTES: usize = 2048;

/// A `WebhookClientConfig` of `admissionregistration.k8s.io/v1` or `apiextensions.k8s.io/v1`: the address of a webhook
/// and the authorities for its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientConfig {
    /// The address.
    pub address: Address,
    /// The certificate authorities (PEM). If it is empty, those of the operating system.
    pub ca_bundle: Vec<u8>,
}

/// The address of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An HTTPS URL.
    Url(String),
    /// A service in the cluster.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The path of the URL, empty or with a leading slash.
        path: String,
        /// The service's port.
        port: u16,
    },
}

/// The reason why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientConfigError {
    /// Neither a service nor a URL is set.
    #[error("webhook configuration must have either service or URL")]
    NoAddress,
    /// The URL is invalid, or its scheme is not HTTPS.
    #[error("Unparsable URL: {0:?}")]
    Url(String),
    /// The bundle contains no certificate.
    #[error("unable to load root certificates: unable to parse bytes as PEM block")]
    CaBundle,
    /// The user of the host cannot be used.
    #[error(transparent)]
    User(FileError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Client(ClientError),
}

impl ClientConfig {
    /// Reads a `clientConfig`.
    ///
    /// # Errors
    /// It has no address, or its bundle is not base64. Validation of the objects of the API refuses both.
    pub fn from_json(config: &Value) -> Result<Self, ClientConfigError> {
        let text = |place: &Value, field: &str| place[field].as_str().unwrap_or_default().to_owned();
        let address = if let service @ Value::Object(_) = &config["service"] {
            let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            Address::Service {
                namespace: text(service, "namespace"),
                name: text(service, "name"),
                path: text(service, "path"),
                port: port.filter(|port| *port != 0).unwrap_or(HTTPS_PORT),
            }
        } else {
            Address::Url(config["url"].as_str().ok_or(ClientConfigError::NoAddress)?.to_owned())
        };
        let bundle = config["caBundle"].as_str().unwrap_or_default();
        let mut ca_bundle = BASE64_STANDARD.decode(bundle).map_err(|_| ClientConfigError::CaBundle)?;
        if ca_bundle.iter().all(u8::is_ascii_whitespace) {
            ca_bundle.clear();
        }
        Ok(Self { address, ca_bundle })
    }

    fn uri(&self) -> Result<Uri, ClientConfigError> {
        let text = match &self.address {
            Address::Url(url) => url.clone(),
            Address::Service { namespace, name, path, port } => {
                format!("https://{name}.{namespace}.svc:{port}{path}")
            }
        };
        let uri: Option<Uri> = text.parse().ok();
        uri.filter(|uri| uri.scheme_str() == Some("https")).ok_or(ClientConfigError::Url(text))
    }

    /// Returns the authorities for the certificate.
    ///
    /// # Errors
    /// The bundle contains no certificate.
    pub fn roots(&self) -> Result<Roots, ClientConfigError> {
        if self.ca_bundle.is_empty() {
            return Ok(Roots::System);
        }
        let found: Vec<_> = CertificateDer::pem_slice_iter(&self.ca_bundle).filter_map(Result::ok).collect();
        if found.is_empty() { Err(ClientConfigError::CaBundle) } else { Ok(Roots::Custom(found)) }
    }
}

/// Creates the clients of webhooks and keeps those that were used last. Webhooks with the same configuration share
/// connections; a changed configuration has a client of its own, so it applies to the next call.
pub struct ClientManager {
    resolver: Arc<ServiceResolver>,
    users: Option<Users>,
    metrics: Option<CallMetrics>,
    egress: EgressSelector,
    clients: Mutex<LruCache<ClientConfig, HookClient>>,
}

impl ClientManager {
    /// Creates a manager without clients.
    pub fn new(resolver: ServiceResolver) -> Self {
        let clients = Mutex::new(LruCache::new(CLIENTS));
        let egress = EgressSelector::default();
        Self { resolver: Arc::new(resolver), users: None, metrics: None, egress, clients }
    }

    /// Records the calls of all clients.
    #[must_use]
    pub fn with_metrics(mut self, metrics: CallMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Sets the ways to services and to the hosts of URLs.
    #[must_use]
    pub fn with_egress(mut self, egress: EgressSelector) -> Self {
        self.egress = egress;
        self
    }

    /// Creates a manager without clients that resolves services in the same way. Its clients authenticate as `users`.
    #[must_use]
    pub fn with_users(&self, users: Users) -> Self {
        let (resolver, clients) = (Arc::clone(&self.resolver), Mutex::new(LruCache::new(CLIENTS)));
        let egress = self.egress.clone();
        Self { resolver, users: Some(users), metrics: self.metrics.clone(), egress, clients }
    }

    /// Returns the client of a configuration.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn client(&self, config: &ClientConfig) -> Result<HookClient, ClientConfigError> {
        if let Some(client) = self.clients.lock().get(config) {
            return Ok(client.clone());
        }
        let uri = config.uri()?;
        let (mut server_name, mut service) = (None, None);
        if let Address::Service { namespace, name, port, .. } = &config.address {
            server_name = Some(format!("{name}.{namespace}.svc"));
            let resolver = Arc::clone(&self.resolver);
            let (namespace, name) = (Arc::from(namespace.as_str()), Arc::from(name.as_str()));
            service = Some(ServiceTarget { resolver, namespace, name, port: *port });
        }
        let credentials = match &self.users {
            Some(users) => {
                let host = server_name.as_deref().or_else(|| uri.host()).unwrap_or_default();
                users.for_host(host, uri.port_u16().unwrap_or(HTTPS_PORT)).map_err(ClientConfigError::User)?
            }
            None => HostCredentials::default(),
        };
        let HostCredentials { identity, authorization } = credentials;
        let tls = Tls { roots: config.roots()?, server_name, identity };
        let egress = if service.is_some() { &self.egress.cluster } else { &self.egress.control_plane };
        let dialer = Dialer::new(service, egress.clone());
        let client = Client::with_dialer(tls, dialer).map_err(ClientConfigError::Client)?;
        let client = HookClient { client, uri, authorization, metrics: self.metrics.clone() };
        self.clients.lock().put(config.clone(), client.clone());
        Ok(client)
    }
}

/// The error of a call of a webhook. The texts are those of client-go.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// No complete response was received.
    #[error("Post {url:?}: {error}")]
    Transport {
        /// The URL of the call.
        url: String,
        /// The cause.
        error: ClientError,
    },
    /// The webhook responded with an error status.
    #[error("{message}")]
    Status {
        /// The HTTP status.
        status: StatusCode,
        /// The message of a `Status` in the response, or a description of the response.
        message: String,
    },
    /// The response is empty.
    #[error("0-length response with status code: {} and content type: {content_type}", .status.as_u16())]
    Empty {
        /// The HTTP status.
        status: StatusCode,
        /// The value of the header `Content-Type`.
        content_type: String,
    },
}

impl HookError {
    /// Returns whether the time for the call is over.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Transport { error: ClientError::TimedOut(_), .. })
    }
}

/// The bounds of a call.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// Time for the whole call. The webhook sees it as the query parameter `timeout`.
    pub timeout: Duration,
    /// Maximum length of the response, in bytes.
    pub response_bytes: usize,
}

/// The client of a webhook. Clones share connections.
#[derive(Clone)]
pub struct HookClient {
    client: Client,
    uri: Uri,
    authorization: Authorization,
    metrics: Option<CallMetrics>,
}

impl HookClient {
    /// Posts a JSON document and returns the body of the response. Redirects are errors. A webhook that responds with
    /// `Retry-After` and 429 or a server error is called again within the time limit. `trace_parent` is the header of
    /// the trace that the call belongs to.
    ///
    /// # Errors
    /// No response was received, or it has an error status or no body.
    pub async fn post(
        &self,
        document: Bytes,
        limits: CallLimits,
        trace_parent: Option<&str>,
    ) -> Result<Bytes, HookError> {
        let query = format!("timeout={}", duration::write_nanos(nanos(whole_seconds(limits.timeout))));
        let path = match self.uri.path() {
            "" => "/",
            path => path,
        };
        let url = format!("https://{}{path}?{query}", self.uri.authority().map_or("", |host| host.as_str()));
        let failed = |error: ClientError| HookError::Transport { url: url.clone(), error };
        let uri = Uri::try_from(&url).map_err(|error| failed(ClientError::Request(error.into())))?;
        let response = self.exchange(&uri, &document, limits, trace_parent).await.map_err(failed)?;
        // Other successes have no body of their own (client-go).
        if !(200..=206).contains(&response.status.as_u16()) {
            let (status, message) = (response.status, error_message(&response));
            return Err(HookError::Status { status, message });
        }
        if response.body.is_empty() {
            let content_type = content_type(&response.headers).to_owned();
            return Err(HookError::Empty { status: response.status, content_type });
        }
        Ok(response.body)
    }

    /// Calls until the webhook does not ask for another attempt.
    async fn exchange(
        &self,
        uri: &Uri,
        body: &Bytes,
        limits: CallLimits,
        trace_parent: Option<&str>,
    ) -> Result<Response, ClientError> {
        let mut headers = headers();
        if let Some(value) = trace_parent.and_then(|header| HeaderValue::try_from(header).ok()) {
            headers.insert("traceparent", value);
        }
        let authorization =
            self.authorization.value().await.map_err(|error| ClientError::Body(error.into()))?;
        headers.extend(authorization.map(|value| (header::AUTHORIZATION, value)));
        let (end, mut deferrals) = (Instant::now() + limits.timeout, 0);
        loop {
            let left = CallLimits { timeout: end.saturating_duration_since(Instant::now()), ..limits };
            let started = Instant::now();
            let sent = self.client.send_within(Method::POST, uri, headers.clone(), body.clone(), left).await;
            if let Some(metrics) = &self.metrics {
                metrics.posted(uri, body.len(), &sent, started.elapsed());
            }
            let response = sent.map_err(|error| match error {
                ClientError::TimedOut(_) => ClientError::TimedOut(limits.timeout),
                other => other,
            })?;
            let wait = retry_after(&response).filter(|_| deferrals < DEFERRALS);
            let Some(wait) = wait.filter(|wait| Instant::now() + *wait < end) else { return Ok(response) };
            deferrals += 1;
            tokio::time::sleep(wait).await;
        }
    }
}

/// Rounds up to seconds, as client-go shows timeouts.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name, value| headers.insert(name, HeaderValue::from_static(value));
    add(header::CONTENT_TYPE, "application/json");
    add(header::ACCEPT, "application/json, */*");
    add(header::USER_AGENT, "kube-apiserver-admission");
    headers
}

/// Returns the time after which a webhook asks to be called again.
fn retry_after(response: &Response) -> Option<Duration> {
    let status = response.status;
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return None;
    }
    let seconds = response.headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Describes a response with an error status as client-go does: by the `Status` in it, or by its code and text.
fn error_message(response: &Response) -> String {
    if let Ok(status) = serde_json::from_slice::<Value>(&response.body)
        && (status["kind"].as_str(), status["apiVersion"].as_str()) == (Some("Status"), Some("v1"))
        && status["status"] == "Failure"
        && let Some(message) = status["message"].as_str()
    {
        return clip(message).to_owned();
    }
    let content_type = content_type(&response.headers);
    let is_text = content_type.is_empty() || content_type.starts_with("text/");
    let text = String::from_utf8_lossy(&response.body);
    let text = if is_text { clip(text.trim()) } else { "unknown" };
    match response.status.as_u16() {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        406 if matches!(text, "" | "unknown") => {
            "the server was unable to respond with a content type that the client supports".to_owned()
        }
        403 | 406 | 415 => text.to_owned(),
        409 => "the server reported a conflict".to_owned(),
        422 => "the server rejected our request due to an error in our request".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request".to_owned(),
        500..=599 => format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
}

fn clip(text: &str) -> &str {
    let end = (0..=MAX_TEXT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
