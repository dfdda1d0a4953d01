//! Authentication: from the credentials of a request to the user it comes from.
//!
//! ```text
//! request ─→ Chain ─┬─ ClientCertificates   the certificate of the TLS connection
//!                   ├─ BearerTokens ──────── StaticTokens, …   the Authorization header
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
//! - No token, nor a part of one, is in an error, a log line or a `Debug` form.
//!
//! ```
//! use std::sync::Arc;
//! use nave_authn::{BearerTokens, Chain, Credentials, StaticTokens};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let tokens = StaticTokens::parse(r#"s3cret,alice,1001,"dev,ops""#)?;
//! let chain = Chain::new(vec![Arc::new(BearerTokens::new(vec![Arc::new(tokens)]))]).with_anonymous();
//!
//! let mut headers = http::HeaderMap::new();
//! headers.insert("authorization", "Bearer s3cret".parse()?);
//! let found = chain.authenticate(&Credentials { peer: None, headers: &headers }).await?;
//! assert_eq!(found.user.groups, ["dev", "ops", "system:authenticated"]);
//! # Ok(())
//! # }
//! ```

mod bearer;
mod certificate;
pub mod jwt;
mod token_file;

use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;
use nave_machinery::Status;
pub use nave_machinery::user::UserInfo;

pub use bearer::{BearerTokens, TokenAuthenticator};
pub use certificate::{CertificateError, ClientCertificates, Peer, PeerCertificate};
pub use token_file::{StaticTokens, TokenFileError};

/// The user of a request without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of the user of a request without credentials.
pub const UNAUTHENTICATED_GROUP: &str = "system:unauthenticated";
/// The group all other users are in.
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";

/// What a request can show of who sent it.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The certificate the client presented in the TLS handshake, if it presented one.
    pub peer: Option<&'a Peer>,
    /// The request's headers.
    pub headers: &'a HeaderMap,
}

/// A user, as an authenticator found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user, shared by all of its requests.
    pub user: Arc<UserInfo>,
}

/// Why a credential is refused. Clients learn of it no more than 401.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthnError {
    /// There is no credential, and anonymous requests are not taken.
    #[error("the request has no credential")]
    NoCredential,
    /// No authenticator knows the bearer token.
    #[error("the bearer token is not known")]
    UnknownToken,
    /// The client certificate was presented, but cannot be believed.
    #[error("the client certificate is refused: {0}")]
    Certificate(#[from] CertificateError),
}

impl From<AuthnError> for Status {
    fn from(_: AuthnError) -> Self {
        Self::unauthorized()
    }
}

/// One way of finding the user of a request.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Finds the user; `None` if the request has no credential of this kind.
    ///
    /// # Errors
    /// The credential is of this kind, and wrong.
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Identity>, AuthnError>;
}

/// The authenticators in the order they are asked.
pub struct Chain {
    authenticators: Vec<Arc<dyn Authenticator>>,
    anonymous: Option<Identity>,
}

impl Chain {
    /// A chain that refuses requests without a credential.
    pub fn new(authenticators: Vec<Arc<dyn Authenticator>>) -> Self {
        Self { authenticators, anonymous: None }
    }

    /// The same chain, which takes requests without a credential for `system:anonymous`.
    pub fn with_anonymous(mut self) -> Self {
        let groups = vec![UNAUTHENTICATED_GROUP.to_owned()];
        let user = UserInfo { name: ANONYMOUS.to_owned(), groups, ..UserInfo::default() };
        self.anonymous = Some(Identity { user: Arc::new(user) });
        self
    }

    /// Finds the user of a request.
    ///
    /// # Errors
    /// No authenticator found a user, and a credential was wrong, or there was none and one is needed. Either is
    /// a 401.
    pub async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Identity, AuthnError> {
        let mut refused = None;
        for authenticator in &self.authenticators {
            match authenticator.authenticate(credentials).await {
                Ok(Some(identity)) => return Ok(identity.in_authenticated_group()),
                Ok(None) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            Some(error) => Err(error),
            None => self.anonymous.clone().ok_or(AuthnError::NoCredential),
        }
    }
}

impl Identity {
    /// An identity of its own.
    pub fn new(user: UserInfo) -> Self {
        Self { user: Arc::new(user) }.in_authenticated_group()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers the same to all.
    struct Fixed(Result<Option<Identity>, AuthnError>);

    #[async_trait]
    impl Authenticator for Fixed {
        async fn authenticate(&self, _: &Credentials<'_>) -> Result<Option<Identity>, AuthnError> {
            self.0.clone()
        }
    }

    fn user(name: &str) -> Identity {
        Identity { user: Arc::new(UserInfo { name: name.into(), ..UserInfo::default() }) }
    }

    async fn ask(
        answers: &[Result<Option<Identity>, AuthnError>],
        anonymous: bool,
    ) -> Result<Identity, AuthnError> {
        let mut chain = Chain::new(Vec::new());
        for answer in answers {
            chain.authenticators.push(Arc::new(Fixed(answer.clone())));
        }
        let chain = if anonymous { chain.with_anonymous() } else { chain };
        chain.authenticate(&Credentials { peer: None, headers: &HeaderMap::new() }).await
    }

    #[tokio::test]
    async fn the_first_user_found_wins_even_after_a_wrong_credential() {
        let found =
            ask(&[Err(AuthnError::UnknownToken), Ok(None), Ok(Some(user("a"))), Ok(Some(user("b")))], true)
                .await
                .unwrap();
        assert_eq!(found.user.name, "a");
        assert_eq!(found.user.groups, [AUTHENTICATED_GROUP]);
    }

    #[tokio::test]
    async fn a_wrong_credential_is_never_anonymous() {
        assert_eq!(
            ask(&[Ok(None), Err(AuthnError::UnknownToken)], true).await,
            Err(AuthnError::UnknownToken)
        );
        assert_eq!(Status::from(AuthnError::UnknownToken).code, 401);
    }

    #[tokio::test]
    async fn without_a_credential_the_user_is_anonymous_or_refused() {
        let nobody = ask(&[Ok(None)], true).await.unwrap();
        assert_eq!(nobody.user.name, ANONYMOUS);
        assert_eq!(nobody.user.groups, [UNAUTHENTICATED_GROUP]);
        assert_eq!(ask(&[Ok(None)], false).await, Err(AuthnError::NoCredential));
    }
}
