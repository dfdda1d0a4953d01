//! Tokens of identity providers (OpenID Connect): JWTs of the issuers in the configuration.

mod distributed;
pub(crate) mod expression;
mod mapping;
mod provider;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use nave_cel::CompileError;
use nave_webhook::{Client, ClientError, Roots, Tls};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use self::distributed::ClaimResolver;
use self::mapping::Mapping;
use self::provider::Provider;
use crate::config::JwtConfig;
use crate::jwt::{Algorithm, Claims, Unverified};
use crate::{AuthnError, Identity, TokenAuthenticator};

/// The timeout of calls to a provider.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(30);
/// The tolerance before a token's `nbf` for differing clocks, in seconds, as in upstream.
const NOT_BEFORE_LEEWAY: f64 = 300.0;

/// The reasons why an issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The issuer's URL is invalid.
    #[error("the issuer's URL is invalid: {0}")]
    Address(#[from] http::Error),
    /// The issuer's CA bundle cannot be used.
    #[error("the issuer's certificate authority cannot be used: {0}")]
    CertificateAuthority(String),
    /// The HTTP client cannot be built.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An expression does not compile.
    #[error(transparent)]
    Expression(#[from] CompileError),
}

/// Authenticates the tokens of one issuer.
pub struct IssuerTokens {
    issuer: String,
    /// The accepted audiences. A token must have one of them.
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    provider: Provider,
    mapping: Mapping,
    /// Resolves the groups claim if it is distributed.
    groups: Option<ClaimResolver>,
    /// The API server's audiences.
    api_audiences: Vec<String>,
}

impl IssuerTokens {
    /// Creates the authenticator from a validated configuration. Tokens must be signed with one of `algorithms`.
    ///
    /// # Errors
    /// The issuer cannot be used.
    pub fn new(
        config: &JwtConfig,
        algorithms: &[Algorithm],
        api_audiences: &[String],
    ) -> Result<Self, IssuerError> {
        let issuer = &config.issuer;
        let roots = if issuer.certificate_authority.is_empty() {
            Roots::System
        } else {
            let found = CertificateDer::pem_slice_iter(issuer.certificate_authority.as_bytes());
            let found = found.collect::<Result<Vec<_>, _>>();
            Roots::Custom(found.map_err(|error| IssuerError::CertificateAuthority(error.to_string()))?)
        };
        let client = Client::new(Tls { roots, ..Tls::default() }, PROVIDER_TIMEOUT)?;
        let claim = &config.claim_mappings.groups.claim;
        let groups = (!claim.is_empty()).then(|| ClaimResolver::new(claim, algorithms, client.clone()));
        Ok(Self {
            groups,
            issuer: issuer.url.clone(),
            audiences: issuer.audiences.clone(),
            algorithms: algorithms.to_vec(),
            provider: Provider::new(&issuer.url, issuer.discovery_url.as_deref(), client)?,
            mapping: Mapping::new(config)?,
            api_audiences: api_audiences.to_vec(),
        })
    }

    fn check(&self, claims: &Claims, now: f64) -> Result<(), String> {
        let named = claims.audiences();
        if !named.iter().any(|audience| self.audiences.contains(audience)) {
            return Err(format!("expected audience in {:?} got {named:?}", self.audiences));
        }
        if claims.time("exp").is_none_or(|exp| exp < now) {
            return Err("token is expired".to_owned());
        }
        let early =
            claims.get("nbf").is_some() && claims.time("nbf").is_none_or(|nbf| now + NOT_BEFORE_LEEWAY < nbf);
        if early { Err("current time before the nbf (not before) time".to_owned()) } else { Ok(()) }
    }
}

#[async_trait]
impl TokenAuthenticator for IssuerTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identity>, AuthnError> {
        let meant = crate::bearer::common(&self.api_audiences, audiences);
        let Some(parsed) = Unverified::parse(token) else { return Ok(None) };
        if parsed.claimed_issuer() != self.issuer || meant.is_empty() {
            return Ok(None);
        }
        let refused = |why: String| AuthnError::Token(format!("oidc: {why}"));
        if !self.algorithms.contains(&parsed.algorithm) {
            return Err(refused(format!("verify token: unexpected algorithm {}", parsed.algorithm.name())));
        }
        let claims = self.provider.verify(token).await;
        let mut claims = claims.map_err(|why| refused(format!("verify token: {why}")))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.check(&claims, now).map_err(|why| refused(format!("verify token: {why}")))?;
        if let Some(resolver) = &self.groups {
            let checked = |claims: &Claims| self.check(claims, now);
            let found = resolver.resolve(claims.as_map(), checked).await;
            let found =
                found.map_err(|why| refused(format!("could not expand distributed claims: {why}")))?;
            if let Some(value) = found {
                claims.set(resolver.claim(), value);
            }
        }
        let user = self.mapping.user(&claims).map_err(refused)?;
        Ok(Some(Identity::new(user).for_audiences(meant)))
    }
}

/// The configured issuers, which can be replaced while the server runs.
#[derive(Default)]
pub struct Issuers(ArcSwap<Vec<IssuerTokens>>);

impl Issuers {
    /// Replaces the issuers.
    pub fn replace(&self, issuers: Vec<IssuerTokens>) {
        self.0.store(Arc::new(issuers));
    }
}

#[async_trait]
impl TokenAuthenticator for Issuers {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identity>, AuthnError> {
        let issuers = self.0.load_full();
        for issuer in issuers.iter() {
            // Issuer URLs are unique, so at most one issuer recognizes a token.
            if let Some(found) = issuer.authenticate_token(token, audiences).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}
