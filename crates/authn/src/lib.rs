//! Authentication: from the credentials of a request to the user it comes from.
//!
//! ```text
//! request ─→ Chain ─┬─ FrontProxy           headers of a proxy that shows the proxy CA's certificate
//!                   ├─ ClientCertificates   the certificate of the TLS connection
//!                   ├─ BearerTokens ─ CachedTokens ─┬─ StaticTokens         a file
//!                   │                               ├─ BootstrapTokens      secrets in kube-system
//!                   │                               ├─ service_account      tokens this server signed
//!                   │                               ├─ oidc                 tokens of identity providers
//!                   │                               └─ WebhookTokens        somebody else's answer
//!                   └─ nobody's: system:anonymous, or none
//! ```
//!
//! An [`Authenticator`] answers one of three things, and [`Chain`] takes the first user found:
//!
//! | answer | meaning | what the chain does |
//! | --- | --- | --- |
//! | `Ok(Some(identity))` | this is my kind of credential, and it is good | the request is this user's |
//! | `Ok(None)` | no credential of my kind | asks the next |
//! | `Err(error)` | my kind of credential, and it is wrong | asks the next; if none finds a user: 401 |
//!
//! Invariants:
//! - A request that brings a wrong credential, and no right one, is never taken for an anonymous one.
//! - Every user but the anonymous one is in `system:authenticated`.
//! - No token, nor a part of one, is in an error, a log line or a `Debug` form; what is remembered of tokens is
//!   keyed by a keyed hash.
//! - A token is good for audiences; one that is not meant for this API is refused by it, whoever signed it.
//! - What a token is bound to is looked up when it is checked, in the watch caches, by uid.
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
/// The group all other users are in.
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";
/// The key of `UserInfo::extra` that tells which credential was used.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// What a request can show of who sent it.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The certificate the client presented in the TLS handshake, if it presented one.
    pub peer: Option<&'a PeerCertificate>,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The path asked for, decoded.
    pub path: &'a str,
}

/// A user, as an authenticator found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user, shared by all of its requests.
    pub user: Arc<UserInfo>,
    /// Of the audiences asked for, those that the token is meant for; empty for what is no token.
    pub audiences: Vec<String>,
}

/// Why a credential is refused. Clients learn of it no more than 401, but for reviews of tokens, whose texts are
/// upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthnError {
    /// There is no credential, and anonymous requests are not taken.
    #[error("the request has no credential")]
    NoCredential,
    /// More than one `Authorization` header: others on the way may have looked at another one.
    #[error("the request has more than one Authorization header")]
    TwoCredentials,
    /// A WebSocket's only subprotocol is the one with the token: there is none to agree on.
    #[error("a WebSocket with a token needs another subprotocol")]
    MissingSubprotocol,
    /// No authenticator knows the bearer token.
    #[error("invalid bearer token")]
    UnknownToken,
    /// The client certificate was presented, but cannot be believed.
    #[error("the client certificate is refused: {0}")]
    Certificate(#[from] CertificateError),
    /// The token is one kind's, and wrong.
    #[error("{0}")]
    Token(String),
    /// Several authenticators refused it.
    #[error("[{}]", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Several(Vec<AuthnError>),
}

impl AuthnError {
    /// What several authenticators said, if any did.
    fn of(mut errors: Vec<Self>) -> Option<Self> {
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

/// Objects of the core group, as the watch caches hold them.
pub trait Objects: Send + Sync {
    /// An object of a resource, such as `secrets`; the namespace is empty for cluster-scoped ones.
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value>;
}

/// One way of finding the user of a request.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Finds the user; `None` if the request has no credential of this kind.
    ///
    /// # Errors
    /// The credential is of this kind, and wrong.
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Identity>, AuthnError>;

    /// Removes what this authenticator looks at, so that no later stage, and nobody a request is passed on to, sees
    /// or believes it.
    fn strip(&self, _headers: &mut HeaderMap) {}
}

impl Identity {
    /// An identity of its own.
    pub fn new(user: UserInfo) -> Self {
        Self { user: Arc::new(user), audiences: Vec::new() }.in_authenticated_group()
    }

    /// The same identity, found by a token that is meant for these audiences.
    pub fn for_audiences(mut self, audiences: Vec<String>) -> Self {
        self.audiences = audiences;
        self
    }

    /// Adds the group of all authenticated users, unless the authenticator has decided about it already.
    fn in_authenticated_group(mut self) -> Self {
        let decided = |group: &String| group == AUTHENTICATED_GROUP || group == UNAUTHENTICATED_GROUP;
        if !self.user.groups.iter().any(decided) {
            Arc::make_mut(&mut self.user).groups.push(AUTHENTICATED_GROUP.to_owned());
        }
        self
    }
}
