//! The order of authenticators, and the handling of requests without a credential.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName};

use crate::{
    ANONYMOUS, Authenticator, AuthnError, Credentials, Identity, Metrics, UNAUTHENTICATED_GROUP, UserInfo,
};

/// The handling of requests without a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// All requests without a credential are refused.
    #[default]
    Refused,
    /// All requests without a credential are `system:anonymous`.
    Everywhere,
    /// Requests for these paths are `system:anonymous`; others are refused.
    On(Vec<String>),
}

/// An [`Anonymous`] that can change while requests are served.
#[derive(Debug, Default)]
pub struct AnonymousRule(ArcSwap<Anonymous>);

impl AnonymousRule {
    /// Starts with this rule.
    pub fn new(rule: Anonymous) -> Self {
        Self(ArcSwap::from_pointee(rule))
    }

    /// Replaces the rule.
    pub fn set(&self, rule: Anonymous) {
        self.0.store(Arc::new(rule));
    }

    fn allows(&self, path: &str) -> bool {
        match &**self.0.load() {
            Anonymous::Refused => false,
            Anonymous::Everywhere => true,
            Anonymous::On(paths) => paths.iter().any(|allowed| allowed == path),
        }
    }
}

/// The authenticators, in order.
pub struct Chain {
    authenticators: Vec<Arc<dyn Authenticator>>,
    anonymous: Arc<AnonymousRule>,
    anonymous_user: Identity,
    metrics: Option<Arc<Metrics>>,
}

impl Chain {
    /// Creates a chain that refuses requests without a credential.
    pub fn new(authenticators: Vec<Arc<dyn Authenticator>>) -> Self {
        let groups = vec![UNAUTHENTICATED_GROUP.to_owned()];
        let user = UserInfo { name: ANONYMOUS.to_owned(), groups, ..UserInfo::default() };
        let anonymous_user = Identity::new(user);
        Self { authenticators, anonymous: Arc::default(), anonymous_user, metrics: None }
    }

    /// Accepts requests without a credential as `system:anonymous`.
    pub fn with_anonymous(self) -> Self {
        self.with_anonymous_rule(Arc::new(AnonymousRule::new(Anonymous::Everywhere)))
    }

    /// Sets the rule for requests without a credential.
    pub fn with_anonymous_rule(mut self, rule: Arc<AnonymousRule>) -> Self {
        self.anonymous = rule;
        self
    }

    /// Records metrics.
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Authenticates a request.
    ///
    /// # Errors
    /// Always a 401: no authenticator found a user, and a credential is invalid or a required credential is missing.
    pub async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Identity, AuthnError> {
        let started = Instant::now();
        let found = self.try_authenticators(credentials).await;
        if let Some(metrics) = &self.metrics {
            metrics.attempted(&found, started.elapsed());
        }
        found
    }

    async fn try_authenticators(&self, credentials: &Credentials<'_>) -> Result<Identity, AuthnError> {
        let mut refused = Vec::new();
        for authenticator in &self.authenticators {
            match authenticator.authenticate(credentials).await {
                Ok(Some(identity)) => return Ok(identity.in_authenticated_group()),
                Ok(None) => {}
                Err(error) => refused.push(error),
            }
        }
        match AuthnError::combine(refused) {
            Some(error) => {
                tracing::debug!(%error, path = credentials.path, "authentication failed");
                Err(error)
            }
            None if self.anonymous.allows(credentials.path) => Ok(self.anonymous_user.clone()),
            None => Err(AuthnError::NoCredential),
        }
    }

    /// Removes the credentials that authenticators read, and all front proxy headers, whether trusted or not.
    pub fn strip(&self, headers: &mut HeaderMap) {
        for authenticator in &self.authenticators {
            authenticator.strip(headers);
        }
        remove_with_prefix(headers, PROXY_HEADERS);
    }
}

/// The conventional prefix of front proxy headers.
const PROXY_HEADERS: &str = "x-remote-";

/// Removes the headers with this prefix. The prefix must be in lower case.
pub(crate) fn remove_with_prefix(headers: &mut HeaderMap, prefix: &str) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use nave_machinery::Status;

    use super::*;
    use crate::AUTHENTICATED_GROUP;

    /// Returns the same result for every request.
    struct Fixed(Result<Option<Identity>, AuthnError>);

    #[async_trait]
    impl Authenticator for Fixed {
        async fn authenticate(&self, _: &Credentials<'_>) -> Result<Option<Identity>, AuthnError> {
            self.0.clone()
        }
    }

    fn user(name: &str) -> Identity {
        Identity {
            user: Arc::new(UserInfo { name: name.into(), ..UserInfo::default() }),
            audiences: Vec::new(),
            annotations: Vec::new(),
        }
    }

    async fn authenticate(
        answers: &[Result<Option<Identity>, AuthnError>],
        anonymous: bool,
    ) -> Result<Identity, AuthnError> {
        let mut chain = Chain::new(Vec::new());
        for answer in answers {
            chain.authenticators.push(Arc::new(Fixed(answer.clone())));
        }
        let chain = if anonymous { chain.with_anonymous() } else { chain };
        chain.authenticate(&Credentials { peer: None, headers: &HeaderMap::new(), path: "/" }).await
    }

    #[tokio::test]
    async fn first_user_wins_even_after_invalid_credential() {
        let found = authenticate(
            &[Err(AuthnError::UnknownToken), Ok(None), Ok(Some(user("a"))), Ok(Some(user("b")))],
            true,
        )
        .await
        .unwrap();
        assert_eq!(found.user.name, "a");
        assert_eq!(found.user.groups, [AUTHENTICATED_GROUP]);
    }

    #[tokio::test]
    async fn invalid_credential_is_never_anonymous() {
        assert_eq!(
            authenticate(&[Ok(None), Err(AuthnError::UnknownToken)], true).await,
            Err(AuthnError::UnknownToken)
        );
        assert_eq!(Status::from(AuthnError::UnknownToken).code, 401);
    }

    #[tokio::test]
    async fn request_without_credential_is_anonymous_or_refused() {
        let nobody = authenticate(&[Ok(None)], true).await.unwrap();
        assert_eq!(nobody.user.name, ANONYMOUS);
        assert_eq!(nobody.user.groups, [UNAUTHENTICATED_GROUP]);
        assert_eq!(authenticate(&[Ok(None)], false).await, Err(AuthnError::NoCredential));
    }

    #[tokio::test]
    async fn anonymous_requests_can_be_limited_to_paths() {
        let rule = Arc::new(AnonymousRule::new(Anonymous::On(vec!["/livez".into()])));
        let chain = Chain::new(Vec::new()).with_anonymous_rule(rule.clone());
        let authenticate = async |path| {
            chain.authenticate(&Credentials { peer: None, headers: &HeaderMap::new(), path }).await.is_ok()
        };
        assert!(authenticate("/livez").await);
        for other in ["/livez/", "/livez/ping", "/LIVEZ", "//livez", "/", "/api"] {
            assert!(!authenticate(other).await, "{other}");
        }
        rule.set(Anonymous::Refused);
        assert!(!authenticate("/livez").await);
    }

    #[test]
    fn strips_front_proxy_headers_of_any_client() {
        let mut headers = HeaderMap::new();
        for name in ["x-remote-user", "x-remote-group", "x-remote-extra-scopes", "x-other"] {
            headers.append(name, http::HeaderValue::from_static("a"));
            headers.append(name, http::HeaderValue::from_static("b"));
        }
        Chain::new(Vec::new()).strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }
}
