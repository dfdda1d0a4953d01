//! Bearer tokens in the `Authorization` header.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use http::{HeaderMap, header::AUTHORIZATION};

use crate::{Authenticator, AuthnError, Credentials, Identity};

/// One kind of token.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync {
    /// Finds the token's user; `None` if the token is not of this kind or not known.
    ///
    /// # Errors
    /// The token is of this kind, and wrong.
    async fn authenticate_token(&self, token: &str) -> Result<Option<Identity>, AuthnError>;
}

/// Asks each kind of token for the user of the one in the `Authorization` header.
pub struct BearerTokens {
    kinds: Vec<Arc<dyn TokenAuthenticator>>,
}

impl BearerTokens {
    /// Takes these kinds of token, asked in this order.
    pub fn new(kinds: Vec<Arc<dyn TokenAuthenticator>>) -> Self {
        Self { kinds }
    }
}

#[async_trait]
impl Authenticator for BearerTokens {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Identity>, AuthnError> {
        let Some(token) = bearer_token(credentials.headers) else {
            return Ok(None);
        };
        let mut refused = AuthnError::UnknownToken;
        for kind in &self.kinds {
            match kind.authenticate_token(&token).await {
                Ok(Some(identity)) => return Ok(Some(identity)),
                Ok(None) => {}
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

/// The token of `Authorization: Bearer TOKEN`; what follows a space after the token is not looked at, as upstream.
/// Bytes that are not text make a token that nobody knows, not one that is not there.
fn bearer_token(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let mut words = headers.get(AUTHORIZATION)?.as_bytes().trim_ascii().splitn(3, |byte| *byte == b' ');
    let scheme = words.next()?;
    let token = words.next()?;
    let found = scheme.eq_ignore_ascii_case(b"bearer") && !token.is_empty();
    found.then(|| String::from_utf8_lossy(token))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::{Chain, StaticTokens};

    async fn user_of(authorization: impl AsRef<[u8]>) -> Result<String, AuthnError> {
        let tokens = StaticTokens::parse("right,alice,1").unwrap();
        let chain = Chain::new(vec![Arc::new(BearerTokens::new(vec![Arc::new(tokens)]))]).with_anonymous();
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(authorization.as_ref()).unwrap());
        chain
            .authenticate(&Credentials { peer: None, headers: &headers })
            .await
            .map(|found| found.user.name.clone())
    }

    #[tokio::test]
    async fn a_token_is_read_as_upstream_reads_it() {
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
}
