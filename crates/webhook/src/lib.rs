//! Outgoing calls of the server to webhooks and other servers (upstream: `apiserver/pkg/util/webhook`).
//!
//! ```text
//! Webhook ── a kubeconfig file: address, authorities, credentials; retries with backoff
//!    └─ Client ── HTTPS: own roots, own client certificate, bounded response size and time, no redirects
//!        └─ Dialer ── resolves a service
//! ClientManager, HookClient ── a `WebhookClientConfig` in an object: URL or service, authorities
//!    └─ Connections ── HTTP/1.1 within the task of the call, shared by the webhooks of a server
//!        └─ Dialer
//! BackendDialer ── connections to kubelets, pods and endpoints, for streams
//! both ── `egress`: directly, or through a proxy
//!   └─ `tcp`: resolves a name, checks the addresses, dials exactly these
//! ```
//!
//! Invariants:
//! - The size of a response and the time of a call are bounded.
//! - Redirects are not followed: a call reaches the configured address or fails.
//! - A changed file applies to calls made at least one second later; an invalid one has no effect.
//! - No token, password or key appears in an error, a log line or `Debug` output.
//!
//! ```no_run
//! use std::{path::Path, time::Duration};
//! use nave_webhook::Webhook;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let webhook = Webhook::from_file(Path::new("authn.kubeconfig"), Duration::from_secs(30))?;
//! let review = serde_json::json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"});
//! let answer = webhook.call(&review).await?;
//! assert_eq!(answer["kind"], "TokenReview");
//! # Ok(())
//! # }
//! ```

mod answer;
mod backend;
mod body;
mod client;
mod connections;
mod dial;
mod egress;
mod exchange;
mod files;
mod hook;
mod hook_client;
mod kubeconfig;
mod metrics;
mod retry;
mod root_server;
mod service;
mod tcp;
#[cfg(feature = "testing")]
pub mod testing;
mod unchecked;
mod users;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use nave_machinery::backoff::Backoff;
use parking_lot::Mutex;
use retry::ATTEMPTS;
use serde_json::Value;

pub use answer::{AnswerError, parse as parse_answer};
pub use backend::{BackendConnection, BackendDialer, BackendError, BackendTls};
pub use client::{Client, ClientError, Response, Roots, Tls, describe};
pub use egress::{ConnectProxy, Egress, EgressError, EgressSelector, EgressStream, GrpcProxy};
pub use files::WatchedFiles;
pub use hook::{Address, ClientConfig, ClientConfigError, ClientManager};
pub use hook_client::{Answer, CallLimits, HookClient, HookError};
pub use kubeconfig::{FileError, Kubeconfig};
pub use metrics::CallMetrics;
pub use service::{Destination, ResolveError, Routing, ServiceResolver, Services};
pub use tcp::{AddressPolicy, ConnectError};
pub use users::Users;
use users::{Authorization, TokenFileError};

/// The error of a webhook call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request could not be sent, or no complete response was received.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The webhook responded with an error status.
    #[error("the webhook responded with status {0}")]
    Status(StatusCode),
    /// The response cannot be parsed.
    #[error("the webhook's response {0}")]
    Answer(#[from] AnswerError),
    /// The token file cannot be read.
    #[error("{}: {error}", .path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        error: std::io::Error,
    },
}

impl CallError {
    /// Returns whether a retry may succeed.
    fn is_transient(&self) -> bool {
        match self {
            Self::Client(error) => error.is_transient(),
            Self::Status(status) => *status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
            Self::Answer(_) | Self::TokenFile { .. } => false,
        }
    }
}

/// A webhook described by a kubeconfig file. Changes to the file or to a file it refers to apply to later calls. While
/// a changed file is invalid, the previous configuration stays in use.
pub struct Webhook {
    file: PathBuf,
    /// Appended to the server's URL; empty for a webhook, whose URL is complete.
    path: &'static str,
    timeout: Duration,
    egress: Egress,
    backoff: Backoff,
    attempts: u32,
    loaded: Mutex<Loaded>,
}

/// The configuration, with the state of its files when they were last read.
struct Loaded {
    target: Arc<Target>,
    files: WatchedFiles,
    /// Time of the last check for changes.
    checked: Instant,
}

/// Address and credentials of a webhook.
struct Target {
    client: Client,
    uri: Uri,
    /// Sent in addition to the client certificate.
    authorization: Authorization,
}

/// Minimum interval between checks of the files. Checks are made only before a call.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl Webhook {
    /// Reads the kubeconfig file. `timeout` applies to each attempt of a call.
    ///
    /// # Errors
    /// The file cannot be read or is not a valid webhook configuration.
    pub fn from_file(path: &Path, timeout: Duration) -> Result<Self, FileError> {
        Self::for_path(path, "", timeout, Egress::Direct)
    }

    /// As [`Self::from_file`], with the way to the webhook.
    ///
    /// # Errors
    /// See [`Self::from_file`].
    pub fn with_egress(path: &Path, timeout: Duration, egress: Egress) -> Result<Self, FileError> {
        Self::for_path(path, "", timeout, egress)
    }

    /// Reads the kubeconfig file of an API server. Calls create objects of the resource at `path`.
    ///
    /// # Errors
    /// See [`Self::from_file`].
    pub fn for_api_server(file: &Path, path: &'static str, timeout: Duration) -> Result<Self, FileError> {
        Self::for_path(file, path, timeout, Egress::Direct)
    }

    fn for_path(
        file: &Path,
        path: &'static str,
        timeout: Duration,
        egress: Egress,
    ) -> Result<Self, FileError> {
        let (target, files) = Target::read(file, path, timeout, &egress)?;
        let loaded = Loaded { target: Arc::new(target), files, checked: Instant::now() };
        let (file, backoff, loaded) = (file.to_owned(), Backoff::WEBHOOK, Mutex::new(loaded));
        Ok(Self { file, path, timeout, egress, backoff, attempts: ATTEMPTS, loaded })
    }

    /// Sets the backoff between attempts.
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the maximum number of attempts.
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Posts an object and returns the object in the response. Retries after errors that may be transient (connection
    /// errors, timeouts, 429, 5xx).
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn call(&self, object: &Value) -> Result<Value, CallError> {
        let (body, target) = (bytes::Bytes::from(object.to_string()), self.target());
        let attempt = || target.attempt(body.clone());
        retry::retry(self.backoff, self.attempts, CallError::is_transient, attempt).await
    }

    /// Sends a JSON document and ignores the content of the response. Repeats failed calls, whatever the failure.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn send(&self, document: bytes::Bytes) -> Result<(), CallError> {
        let target = self.target();
        let attempt = || async { target.post(document.clone()).await.map(drop) };
        retry::retry(self.backoff, self.attempts, |_: &CallError| true, attempt).await
    }

    fn target(&self) -> Arc<Target> {
        let mut loaded = self.loaded.lock();
        if loaded.checked.elapsed() >= CHECK_INTERVAL {
            loaded.checked = Instant::now();
            if loaded.files.changed() {
                match Target::read(&self.file, self.path, self.timeout, &self.egress) {
                    Ok((target, files)) => {
                        (loaded.target, loaded.files) = (Arc::new(target), files);
                        tracing::info!(file = %self.file.display(), "webhook config reloaded");
                    }
                    Err(error) => {
                        let file = self.file.display();
                        tracing::error!(%file, %error, "webhook config reload failed");
                    }
                }
            }
        }
        Arc::clone(&loaded.target)
    }
}

impl Target {
    /// Reads a kubeconfig file and appends `path` to the server's URL. Also returns the files to watch.
    fn read(
        file: &Path,
        path: &str,
        timeout: Duration,
        egress: &Egress,
    ) -> Result<(Self, WatchedFiles), FileError> {
        // The watch starts before the final read, so that changes in between are detected.
        let files = WatchedFiles::new(Kubeconfig::read(file)?.files);
        let found = Kubeconfig::read(file)?;
        let authorization =
            Authorization::new(found.token_file.as_deref(), found.token.as_deref(), found.password.as_ref())?;
        let client = Client::with_egress(found.tls, timeout, egress.clone())?;
        let uri = if path.is_empty() { found.server } else { joined(&found.server, path)? };
        Ok((Self { client, uri, authorization }, files))
    }

    async fn attempt(&self, body: bytes::Bytes) -> Result<Value, CallError> {
        Ok(answer::parse(&self.post(body).await?)?)
    }

    async fn post(&self, body: bytes::Bytes) -> Result<bytes::Bytes, CallError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let authorization = self.authorization.value().await;
        let authorization =
            authorization.map_err(|TokenFileError { path, error }| CallError::TokenFile { path, error })?;
        headers.extend(authorization.map(|value| (header::AUTHORIZATION, value)));
        let answer = self.client.post(&self.uri, headers, body).await?;
        if !answer.status.is_success() {
            return Err(CallError::Status(answer.status));
        }
        Ok(answer.body)
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Returns the URL of a path below a server's URL, which may have a path of its own.
fn joined(server: &Uri, path: &str) -> Result<Uri, FileError> {
    let text = format!("{}{path}", server.to_string().trim_end_matches('/'));
    text.parse().map_err(|_| FileError::Server(text))
}

/// Creates a header value that `Debug` output hides.
fn secret(text: &str) -> Result<HeaderValue, FileError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| FileError::Credential)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_paths_to_the_servers_url() {
        for (server, url) in [
            ("https://a:6443", "https://a:6443/apis/x"),
            ("https://a/", "https://a/apis/x"),
            ("https://a/k8s/clusters/c", "https://a/k8s/clusters/c/apis/x"),
        ] {
            assert_eq!(joined(&server.parse().unwrap(), "/apis/x").unwrap(), url);
        }
    }
}
