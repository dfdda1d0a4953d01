//! Bearer tokens in the `Authorization` header or in the list of WebSocket subprotocols. Browsers use the latter, as
//! they cannot set headers when they open a WebSocket.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};

use crate::{Authenticator, AuthnError, Credentials, Identity};

/// The subprotocol that carries a token (upstream: `authentication/request/websocket`).
const PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Authenticates one kind of token.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync {
    /// Returns the token's user and the requested audiences for which the token is valid; `None` if the token is of
    /// another kind or unknown.
    ///
    /// # Errors
    /// The token is of this kind and invalid.
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identity>, AuthnError>;
}

/// Returns the audiences in both lists. Used for tokens that do not contain audiences.
pub(crate) fn common(own: &[String], requested: &[String]) -> Vec<String> {
    own.iter().filter(|audience| requested.contains(audience)).cloned().collect()
}

/// Tries several token authenticators in order.
pub struct TokenUnion {
    kinds: Vec<Arc<dyn TokenAuthenticator>>,
}

impl TokenUnion {
    /// Tries these authenticators in this order.
    pub fn new(kinds: Vec<Arc<dyn TokenAuthenticator>>) -> Self {
        Self { kinds }
    }
}

#[async_trait]
impl TokenAuthenticator for TokenUnion {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identity>, AuthnError> {
        let mut refused = Vec::new();
        for kind in &self.kinds {
            match kind.authenticate_token(token, audiences).await {
                Ok(Some(identity)) => return Ok(Some(identity)),
                Ok(None) => {}
                Err(error) => refused.push(error),
            }
        }
        AuthnError::combine(refused).map_or(Ok(None), Err)
    }
}

/// Authenticates the bearer token of a request.
pub struct BearerTokens {
    tokens: Arc<dyn TokenAuthenticator>,
    audiences: Vec<String>,
}

impl BearerTokens {
    /// Accepts tokens that are valid for one of `audiences`, the API server's audiences.
    pub fn new(tokens: Arc<dyn TokenAuthenticator>, audiences: Vec<String>) -> Self {
        Self { tokens, audiences }
    }
}

#[async_trait]
impl Authenticator for BearerTokens {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Identity>, AuthnError> {
        let Some(token) = bearer_token(credentials.headers)? else {
            return Ok(None);
        };
        let found = self.tokens.authenticate_token(&token, &self.audiences).await?;
        found.map(Some).ok_or(AuthnError::UnknownToken)
    }

    fn strip(&self, headers: &mut HeaderMap) {
        headers.remove(header::AUTHORIZATION);
        let protocols = protocols(headers).into_iter().filter(|protocol| !protocol.starts_with(PROTOCOL));
        let rest = protocols.collect::<Vec<_>>().join(", ");
        if headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL)
            && let Ok(rest) = HeaderValue::try_from(rest)
        {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, rest);
        }
    }
}

/// Returns the token of `Authorization: Bearer TOKEN`. Text after the token and a space is ignored, as in upstream.
/// A token that is not UTF-8 counts as unknown, not as absent.
fn bearer_token(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, AuthnError> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(header) = all.next() else {
        return websocket_token(headers);
    };
    if all.next().is_some() {
        return Err(AuthnError::TwoCredentials);
    }
    let mut words = header.as_bytes().trim_ascii().splitn(3, |byte| *byte == b' ');
    let (Some(scheme), Some(token)) = (words.next(), words.next()) else { return Ok(None) };
    let found = scheme.eq_ignore_ascii_case(b"bearer") && !token.is_empty();
    Ok(found.then(|| String::from_utf8_lossy(token)))
}

fn websocket_token(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, AuthnError> {
    let upgrades =
        headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !upgrades {
        return Ok(None);
    }
    let (tokens, others): (Vec<_>, Vec<_>) =
        protocols(headers).into_iter().partition(|protocol| protocol.starts_with(PROTOCOL));
    let token = match tokens.as_slice() {
        [] => return Ok(None),
        [token] => token.strip_prefix(PROTOCOL).unwrap_or_default(),
        _ => return Err(AuthnError::TwoCredentials),
    };
    // The server does not select the subprotocol with the token, and browsers close a connection without a selected
    // subprotocol.
    if others.is_empty() {
        return Err(AuthnError::MissingSubprotocol);
    }
    let token = BASE64_URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    token.map(|token| Some(Cow::Owned(token))).ok_or(AuthnError::UnknownToken)
}

fn protocols(headers: &HeaderMap) -> Vec<&str> {
    let all = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|list| list.split(',')).map(str::trim).filter(|protocol| !protocol.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Chain, StaticTokens};

    async fn user(headers: &HeaderMap) -> Result<String, AuthnError> {
        let audiences = vec!["api".to_owned()];
        let tokens = StaticTokens::parse("right,alice,1").unwrap().for_audiences(audiences.clone());
        let chain =
            Chain::new(vec![Arc::new(BearerTokens::new(Arc::new(tokens), audiences))]).with_anonymous();
        let credentials = Credentials { peer: None, headers, path: "/" };
        chain.authenticate(&credentials).await.map(|found| found.user.name.clone())
    }

    async fn user_of(authorization: impl AsRef<[u8]>) -> Result<String, AuthnError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_bytes(authorization.as_ref()).unwrap());
        user(&headers).await
    }

    #[tokio::test]
    async fn parses_the_authorization_header_as_upstream() {
        for good in ["Bearer right", "bearer right", " BEARER right ", "Bearer right and more"] {
            assert_eq!(user_of(good).await.as_deref(), Ok("alice"), "{good:?}");
        }
        for none in ["right", "Basic cmlnaHQ=", "Bearer ", "Bearer  right", ""] {
            assert_eq!(user_of(none).await.as_deref(), Ok("system:anonymous"), "{none:?}");
        }
        for wrong in ["Bearer wrong", "Bearer Right", "Bearer right2"] {
            assert_eq!(user_of(wrong).await, Err(AuthnError::UnknownToken), "{wrong:?}");
        }
        assert_eq!(user_of(b"Bearer \xff").await, Err(AuthnError::UnknownToken));
    }

    #[tokio::test]
    async fn rejects_two_authorization_headers() {
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer right"));
        }
        assert_eq!(user(&headers).await, Err(AuthnError::TwoCredentials));
    }

    #[tokio::test]
    async fn reads_token_from_websocket_subprotocol() {
        let authenticate = async |protocols: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::try_from(protocols).unwrap());
            let found = user(&headers).await;
            BearerTokens::new(Arc::new(TokenUnion::new(Vec::new())), Vec::new()).strip(&mut headers);
            (found, headers[header::SEC_WEBSOCKET_PROTOCOL].to_str().unwrap().to_owned())
        };
        let (right, wrong) = (format!("{PROTOCOL}cmlnaHQ"), format!("{PROTOCOL}d3Jvbmc"));
        let rest = "v5.channel.k8s.io".to_owned();
        assert_eq!(authenticate(&format!("{right}, {rest}")).await, (Ok("alice".into()), rest.clone()));
        assert_eq!(
            authenticate(&format!("{rest},{wrong}")).await,
            (Err(AuthnError::UnknownToken), rest.clone())
        );
        assert_eq!(
            authenticate(&format!("{right}, {right}, {rest}")).await.0,
            Err(AuthnError::TwoCredentials)
        );
        assert_eq!(authenticate(&right).await, (Err(AuthnError::MissingSubprotocol), String::new()));
        assert_eq!(authenticate(&rest).await, (Ok("system:anonymous".into()), rest));
    }
}
