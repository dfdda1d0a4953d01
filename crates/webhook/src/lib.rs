//! The calls that the server itself makes to others (upstream: `apiserver/pkg/util/webhook`).
//!
//! ```text
//! Webhook ── a kubeconfig-style file: where, whom to trust, as whom; retries with backoff
//!    └─ Client ── HTTPS: its own roots, its own certificate, bounded answers, bounded time, no redirects
//! ```
//!
//! Invariants:
//! - An answer is read up to a bound, and a call ends within its time.
//! - No redirect is followed: a call reaches the address that was configured, or fails.
//! - A file that changes holds for the next call; one that cannot be used changes nothing.
//! - No token, password or key is in an error, a log line or a `Debug` form.
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

mod client;
mod files;
mod kubeconfig;
mod retry;
#[cfg(feature = "testing")]
pub mod testing;
mod unchecked;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use nave_machinery::backoff::Backoff;
use parking_lot::Mutex;
use retry::ATTEMPTS;
use serde_json::Value;

pub use client::{Answer, Client, ClientError, Roots, Tls};
pub use files::Watched;
pub use kubeconfig::{FileError, Kubeconfig};

/// Why a webhook gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing came back.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The webhook refused, or failed.
    #[error("the webhook answered with status {0}")]
    Status(StatusCode),
    /// The answer is no JSON.
    #[error("the webhook's answer is not JSON")]
    NotJson,
    /// The file with the token to show cannot be read.
    #[error("{}: {error}", .path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl CallError {
    /// Whether the same call may succeed a moment later.
    fn is_transient(&self) -> bool {
        match self {
            Self::Client(error) => error.is_transient(),
            Self::Status(status) => *status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
            Self::NotJson | Self::TokenFile { .. } => false,
        }
    }
}

/// One webhook, as a kubeconfig-style file describes it. Where the file changes, or one that it names, calls are made as
/// it says then; where it says nothing that can be used, as before.
pub struct Webhook {
    file: PathBuf,
    timeout: Duration,
    backoff: Backoff,
    attempts: u32,
    known: Mutex<Known>,
}

/// What a file said when it was last read.
struct Known {
    target: Arc<Target>,
    files: Watched,
    /// When the files were last looked at.
    looked: Instant,
}

/// Whom to call, and how.
struct Target {
    client: Client,
    uri: Uri,
    user: User,
}

/// What the server shows of itself to a webhook, besides a certificate.
enum User {
    Nobody,
    /// The value of the `Authorization` header.
    Header(HeaderValue),
    /// A file with a bearer token, which may change.
    TokenFile(PathBuf),
}

/// Files are looked at before a call, but not more often than this.
const LOOK: Duration = Duration::from_secs(1);

impl Webhook {
    /// Reads the file; a call takes at most `timeout` an attempt.
    ///
    /// # Errors
    /// The file cannot be read, or describes no webhook.
    pub fn from_file(path: &Path, timeout: Duration) -> Result<Self, FileError> {
        let (target, files) = Target::read(path, timeout)?;
        let known = Known { target: Arc::new(target), files, looked: Instant::now() };
        let (file, backoff, known) = (path.to_owned(), Backoff::WEBHOOK, Mutex::new(known));
        Ok(Self { file, timeout, backoff, attempts: ATTEMPTS, known })
    }

    /// The same webhook with another backoff between attempts.
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The same webhook with another number of attempts.
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Posts an object and returns the object answered. What may be transient (no connection, 429, 5xx) is tried
    /// again.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn call(&self, object: &Value) -> Result<Value, CallError> {
        let (body, target) = (bytes::Bytes::from(object.to_string()), self.target());
        let attempt = || target.attempt(body.clone());
        retry::retry(self.backoff, self.attempts, CallError::is_transient, attempt).await
    }

    fn target(&self) -> Arc<Target> {
        let mut known = self.known.lock();
        if known.looked.elapsed() >= LOOK {
            known.looked = Instant::now();
            if known.files.changed() {
                match Target::read(&self.file, self.timeout) {
                    Ok((target, files)) => {
                        (known.target, known.files) = (Arc::new(target), files);
                        tracing::info!(file = %self.file.display(), "a webhook is called as its file now says");
                    }
                    Err(error) => {
                        let file = self.file.display();
                        tracing::error!(%file, %error, "a webhook is called as before");
                    }
                }
            }
        }
        Arc::clone(&known.target)
    }
}

impl Target {
    /// What a file says, and the files it was read from.
    fn read(path: &Path, timeout: Duration) -> Result<(Self, Watched), FileError> {
        // Watched before they are read for good, so that no change falls in between.
        let files = Watched::new(Kubeconfig::read(path)?.files);
        let found = Kubeconfig::read(path)?;
        let user = match (found.token_file, found.token, found.password) {
            (Some(file), ..) => User::TokenFile(file),
            (None, Some(token), _) => User::Header(secret(&format!("Bearer {token}"))?),
            (None, None, Some((name, password))) => {
                let pair = BASE64_STANDARD.encode(format!("{name}:{password}"));
                User::Header(secret(&format!("Basic {pair}"))?)
            }
            (None, None, None) => User::Nobody,
        };
        let client = Client::new(found.tls, timeout)?;
        Ok((Self { client, uri: found.server, user }, files))
    }

    async fn attempt(&self, body: bytes::Bytes) -> Result<Value, CallError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        match &self.user {
            User::Nobody => {}
            User::Header(value) => {
                headers.insert(header::AUTHORIZATION, value.clone());
            }
            User::TokenFile(path) => {
                let in_file = |error| CallError::TokenFile { path: path.clone(), error };
                let token = tokio::fs::read_to_string(path).await.map_err(in_file)?;
                let value = secret(&format!("Bearer {}", token.trim()));
                let value = value.map_err(|_| in_file(std::io::ErrorKind::InvalidData.into()))?;
                headers.insert(header::AUTHORIZATION, value);
            }
        }
        let answer = self.client.post(&self.uri, headers, body).await?;
        if !answer.status.is_success() {
            return Err(CallError::Status(answer.status));
        }
        serde_json::from_slice(&answer.body).map_err(|_| CallError::NotJson)
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("file", &self.file).finish_non_exhaustive()
    }
}

/// A header that no `Debug` form shows.
fn secret(text: &str) -> Result<HeaderValue, FileError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| FileError::Credential)?;
    value.set_sensitive(true);
    Ok(value)
}
