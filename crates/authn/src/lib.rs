//! Authentication: from the credentials of a request to the user it comes from.
//!
//! ```text
//! request ─→ Chain ─┬─ FrontProxy           headers of a proxy that shows the proxy CA's certificate
//!                   ├─ ClientCertificates   the certificate of the TLS connection
//!                   ├─ BearerTokens ─ CachedTokens ─┬─ StaticTokens         a file
//!                   │                               ├─ BootstrapTokens      secrets in kube-system
//!                   │                               ├─ service_account      tokens this server signed
//!                   │                               ├─ oidc                 tokens of identity providers
//!                   │                               └─ WebhookTokens        the answer of a webhook
//!                   └─ no credential: system:anonymous, or 401
//! ```
//!
//! An [`Authenticator`] answers one of three things, and [`Chain`] takes the first user found:
//!
//! | answer | meaning | what the chain does |
//! | --- | --- | --- |
//! | `Ok(Some(identity))` | a valid credential of this kind | the request is this user's |
//! | `Ok(None)` | no credential of my kind | tries the next authenticator |
//! | `Err(error)` | my kind of credential, and it is wrong | asks the next; if none finds a user: 401 |
//!
//! Invariants:
//! - A request with an invalid credential and no valid one is never anonymous.
//! - Every user but the anonymous one is in `system:authenticated`.
//! - No token, and no part of one, is in an error, a log line or `Debug` output. Token caches use a keyed hash as the
//!   key.
//! - A token is valid for certain audiences. A token for other audiences is refused, whoever signed it.
//! - The objects that a token is bound to are looked up by uid in the watch caches each time the token is checked.
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
pub use front_proxy::{FrontProxy, ProxyHeaders};
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
/// The key of `UserInfo::extra` that holds an id of the credential.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The credentials of a request.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The certificate the client presented in the TLS handshake, if it presented one.
    pub peer: Option<&'a PeerCertificate>,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The request path, decoded.
    pub path: &'a str,
}

/// A user, as an authenticator returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user, shared by all requests with the same credential.
    pub user: Arc<UserInfo>,
    /// Those of the requested audiences that the token is valid for; empty for credentials other than tokens.
    pub audiences: Vec<String>,
}

/// The reasons to refuse a credential. Clients only see a 401, except in token reviews, whose texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthnError {
    /// There is no credential, and anonymous requests are refused.
    #[error("the request has no credential")]
    NoCredential,
    /// More than one `Authorization` header: a proxy may have read a different one.
    #[error("the request has more than one Authorization header")]
    TwoCredentials,
    /// The subprotocol with the token is the only one, so there is none to negotiate.
    #[error("a WebSocket with a token needs another subprotocol")]
    MissingSubprotocol,
    /// No authenticator accepts the bearer token.
    #[error("invalid bearer token")]
    UnknownToken,
    /// The client certificate is not accepted.
    #[error("the client certificate is refused: {0}")]
    Certificate(#[from] CertificateError),
    /// The token's kind is known, and the token is invalid.
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

    /// Removes the headers this authenticator reads, so that no later stage and no server the request is proxied to
    /// sees or trusts them.
    fn strip(&self, _headers: &mut HeaderMap) {}
}

impl Identity {
    /// An identity without audiences.
    pub fn new(user: UserInfo) -> Self {
        Self { user: Arc::new(user), audiences: Vec::new() }.in_authenticated_group()
    }

    /// Sets the audiences.
    pub fn for_audiences(mut self, audiences: Vec<String>) -> Self {
        self.audiences = audiences;
        self
    }

    /// Adds `system:authenticated`, unless the authenticator has set one of the two groups itself.
    fn in_authenticated_group(mut self) -> Self {
        let decided = |group: &String| group == AUTHENTICATED_GROUP || group == UNAUTHENTICATED_GROUP;
        if !self.user.groups.iter().any(decided) {
            Arc::make_mut(&mut self.user).groups.push(AUTHENTICATED_GROUP.to_owned());
        }
        self
    }
}
