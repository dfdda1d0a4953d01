//! Authentication: determines the user of a request from its credentials.
//!
//! ```text
//! request ─→ Chain ─┬─ FrontProxy           headers of a proxy with a certificate of the proxy CA
//!                   ├─ ClientCertificates   the certificate of the TLS connection
//!                   ├─ BearerTokens ─ CachedTokens ─┬─ StaticTokens         a file
//!                   │                               ├─ BootstrapTokens      secrets in kube-system
//!                   │                               ├─ service_account      tokens this server signed
//!                   │                               ├─ oidc                 tokens of identity providers
//!                   │                               └─ WebhookTokens        the answer of a webhook
//!                   └─ no credential: system:anonymous, or 401
//! ```
//!
//! An [`Authenticator`] returns one of three results, and [`Chain`] returns the first user found:
//!
//! | result | meaning | action of the chain |
//! | --- | --- | --- |
//! | `Ok(Some(identity))` | a valid credential of this kind | returns this user |
//! | `Ok(None)` | no credential of this kind | calls the next authenticator |
//! | `Err(error)` | an invalid credential of this kind | calls the next; 401 if none finds a user |
//!
//! Invariants:
//! - A request with an invalid credential is never anonymous.
//! - Every user except the anonymous user is in `system:authenticated`.
//! - Errors, logs and `Debug` output never contain a token or a part of a token. Token caches use keyed hashes as keys.
//! - A token is valid for certain audiences. A token for other audiences is refused, regardless of its issuer.
//! - Each check of a bound token looks up its objects in the watch caches and compares their uids.
//!
//! ```
//! use std::sync::Arc;
//! use nave_authn::{BearerTokens, Chain, Credentials, StaticTokens};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let audiences = vec!["https://kubernetes.default.svc".to_owned()];
//! let tokens = StaticTokens::parse(r#"s3cret,alice,1001,"dev,ops""#)?.for_audiences(audiences.clone());
//! let tokens = BearerTokens::new(Arc::new(tokens), audiences);
//! let chain = Chain::new(vec![Arc::new(tokens)]).with_anonymous();
//!
//! let mut headers = http::HeaderMap::new();
//! headers.insert("authorization", "Bearer s3cret".parse()?);
//! let found = chain.authenticate(&Credentials { peer: None, headers: &headers, path: "/" }).await?;
//! assert_eq!(found.user.groups, ["dev", "ops", "system:authenticated"]);
//! # Ok(())
//! # }
//! ```

mod bearer;
mod bootstrap_token;
mod certificate;
mod chain;
pub mod config;
mod front_proxy;
pub mod jwt;
mod metrics;
pub mod oidc;
pub mod service_account;
mod token_cache;
mod token_file;
mod webhook;

use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;
pub use nave_machinery::user::UserInfo;
use nave_machinery::{Status, Value};

pub use bearer::{BearerTokens, TokenAuthenticator, TokenUnion};
pub use bootstrap_token::BootstrapTokens;
pub use certificate::name as certificate_name;
pub use certificate::{
    CertificateError, ClientCa, ClientCaError, ClientCertificates, PeerCertificate, certificates_to_pem,
};
pub use chain::{Anonymous, AnonymousRule, Chain};
pub use front_proxy::{FrontProxy, ProxyHeaders, ProxyRules};
pub use metrics::Metrics;
pub use token_cache::CachedTokens;
pub use token_file::{StaticTokens, TokenFileError};
pub use webhook::{ReviewVersion, WebhookTokens};

/// The user of a request without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of the user of a request without credentials.
pub const UNAUTHENTICATED_GROUP: &str = "system:unauthenticated";
/// The group of all other users.
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";
/// The key of `UserInfo::extra` for the id of the credential.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The credentials of a request.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The client certificate of the TLS handshake, if the client presented one.
    pub peer: Option<&'a PeerCertificate>,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The request path, decoded.
    pub path: &'a str,
}

/// An authenticated user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user, shared by all requests with the same credential.
    pub user: Arc<UserInfo>,
    /// The requested audiences for which the token is valid; empty for credentials other than tokens.
    pub audiences: Vec<String>,
    /// Audit annotations about the credential.
    pub annotations: Vec<(&'static str, String)>,
}

/// The reasons to refuse a credential. Clients see them only in token reviews, with upstream's messages; other
/// responses are a plain 401.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthnError {
    /// The request has no credential, and anonymous requests are refused.
    #[error("the request has no credential")]
    NoCredential,
    /// The request has several `Authorization` headers or token subprotocols. A proxy may have read a different one.
    #[error("the request has more than one Authorization header")]
    TwoCredentials,
    /// The client offers no subprotocol other than the token, so none can be selected.
    #[error("a WebSocket with a token needs another subprotocol")]
    MissingSubprotocol,
    /// No authenticator accepts the bearer token.
    #[error("invalid bearer token")]
    UnknownToken,
    /// The client certificate is refused.
    #[error("the client certificate is refused: {0}")]
    Certificate(#[from] CertificateError),
    /// A token of a known kind is invalid.
    #[error("{0}")]
    Token(String),
    /// Several authenticators refused the request.
    #[error("[{}]", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Several(Vec<AuthnError>),
}

impl AuthnError {
    /// Combines the errors of several authenticators, if there are any.
    fn combine(mut errors: Vec<Self>) -> Option<Self> {
        match errors.len() {
            0 | 1 => errors.pop(),
            _ => Some(Self::Several(errors)),
        }
    }
}

impl From<AuthnError> for Status {
    fn from(_: AuthnError) -> Self {
        Self::unauthorized()
    }
}

/// Read access to objects of the core group in the watch caches.
pub trait Objects: Send + Sync {
    /// Returns the object; `resource` is a plural such as `secrets`, and `namespace` is empty for cluster-scoped
    /// resources.
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value>;
}

/// Authenticates requests with one kind of credential.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Returns the user; `None` if the request has no credential of this kind.
    ///
    /// # Errors
    /// The credential is of this kind and invalid.
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Identity>, AuthnError>;

    /// Removes the headers that this authenticator reads, so that later stages and proxied servers do not see or trust
    /// them.
    fn strip(&self, _headers: &mut HeaderMap) {}
}

impl Identity {
    /// An identity without audiences.
    pub fn new(user: UserInfo) -> Self {
        Self { user: Arc::new(user), audiences: Vec::new(), annotations: Vec::new() }.in_authenticated_group()
    }

    /// Sets the audiences.
    pub fn for_audiences(mut self, audiences: Vec<String>) -> Self {
        self.audiences = audiences;
        self
    }

    /// Adds audit annotations about the credential.
    pub fn with_annotations(mut self, annotations: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.annotations.extend(annotations);
        self
    }

    /// Adds `system:authenticated`, unless the user is already in it or in `system:unauthenticated`.
    fn in_authenticated_group(mut self) -> Self {
        let decided = |group: &String| group == AUTHENTICATED_GROUP || group == UNAUTHENTICATED_GROUP;
        if !self.user.groups.iter().any(decided) {
            Arc::make_mut(&mut self.user).groups.push(AUTHENTICATED_GROUP.to_owned());
        }
        self
    }
}
