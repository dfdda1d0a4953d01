//! The order in which authenticators are asked, and who a request without a credential is from.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName};

use crate::{
    ANONYMOUS, Authenticator, AuthnError, Credentials, Identity, Metrics, UNAUTHENTICATED_GROUP, UserInfo,
};

/// Whether requests without a credential are taken for `system:anonymous`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// They are refused.
    #[default]
    Refused,
    /// They are, and authorization says what they may do.
    Everywhere,
    /// They are for these paths alone.
    On(Vec<String>),
}

/// An [`Anonymous`] that can change while requests are served.
#[derive(Debug, Default)]
pub struct AnonymousRule(ArcSwap<Anonymous>);

impl AnonymousRule {
    /// Holds this from the start.
    pub fn new(rule: Anonymous) -> Self {
        Self(ArcSwap::from_pointee(rule))
    }

    /// Holds this from now on.
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

/// The authenticators in the order they are asked.
pub struct Chain {
    authenticators: Vec<Arc<dyn Authenticator>>,
    anonymous: Arc<AnonymousRule>,
    anonymous_user: Identity,
    metrics: Option<Arc<Metrics>>,
}

impl Chain {
    /// A chain that refuses requests without a credential.
    pub fn new(authenticators: Vec<Arc<dyn Authenticator>>) -> Self {
        let groups = vec![UNAUTHENTICATED_GROUP.to_owned()];
        let user = UserInfo { name: ANONYMOUS.to_owned(), groups, ..UserInfo::default() };
        let anonymous_user = Identity::new(user);
        Self { authenticators, anonymous: Arc::default(), anonymous_user, metrics: None }
    }

    /// The same chain, which takes requests without a credential for `system:anonymous`.
    pub fn with_anonymous(self) -> Self {
        self.with_anonymous_rule(Arc::new(AnonymousRule::new(Anonymous::Everywhere)))
    }

    /// The same chain with a rule for requests without a credential.
    pub fn with_anonymous_rule(mut self, rule: Arc<AnonymousRule>) -> Self {
        self.anonymous = rule;
        self
    }

    /// The same chain, which counts.
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Finds the user of a request.
    ///
    /// # Errors
    /// No authenticator found a user, and a credential was wrong, or there was none and one is needed. Either is
    /// a 401.
    pub async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Identity, AuthnError> {
        let started = Instant::now();
        let found = self.ask(credentials).await;
        if let Some(metrics) = &self.metrics {
            metrics.attempted(&found, started.elapsed());
        }
        found
    }

    async fn ask(&self, credentials: &Credentials<'_>) -> Result<Identity, AuthnError> {
        let mut refused = Vec::new();
        for authenticator in &self.authenticators {
            match authenticator.authenticate(credentials).await {
                Ok(Some(identity)) => return Ok(identity.in_authenticated_group()),
                Ok(None) => {}
                Err(error) => refused.push(error),
            }
        }
        match AuthnError::of(refused) {
            Some(error) => {
                tracing::debug!(%error, path = credentials.path, "a credential is refused");
                Err(error)
            }
            None if self.anonymous.allows(credentials.path) => Ok(self.anonymous_user.clone()),
            None => Err(AuthnError::NoCredential),
        }
    }

    /// Removes from a request what authentication looked at, and the headers a proxy in front would set, whoever
    /// set them.
    pub fn strip(&self, headers: &mut HeaderMap) {
        for authenticator in &self.authenticators {
            authenticator.strip(headers);
        }
        remove_with_prefix(headers, PROXY_HEADERS);
    }
}

/// What the headers begin with that a front proxy conventionally sets.
const PROXY_HEADERS: &str = "x-remote-";

/// Removes the headers whose names begin so; the prefix is in lower case, as the names of headers are.
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

    /// Answers the same to all.
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
        }
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
        chain.authenticate(&Credentials { peer: None, headers: &HeaderMap::new(), path: "/" }).await
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

    #[tokio::test]
    async fn anonymous_requests_can_be_taken_for_some_paths() {
        let rule = Arc::new(AnonymousRule::new(Anonymous::On(vec!["/livez".into()])));
        let chain = Chain::new(Vec::new()).with_anonymous_rule(rule.clone());
        let ask = async |path| {
            chain.authenticate(&Credentials { peer: None, headers: &HeaderMap::new(), path }).await.is_ok()
        };
        assert!(ask("/livez").await);
        for other in ["/livez/", "/livez/ping", "/LIVEZ", "//livez", "/", "/api"] {
            assert!(!ask(other).await, "{other}");
        }
        rule.set(Anonymous::Refused);
        assert!(!ask("/livez").await);
    }

    #[test]
    fn headers_of_proxies_do_not_go_on() {
        let mut headers = HeaderMap::new();
        for name in ["x-remote-user", "x-remote-group", "x-remote-extra-scopes", "x-other"] {
            headers.append(name, http::HeaderValue::from_static("a"));
            headers.append(name, http::HeaderValue::from_static("b"));
        }
        Chain::new(Vec::new()).strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }
}
