//! Distributed claims: the token names an endpoint that returns the claim, and an access token for it (OpenID Connect
//! Core, 5.6.2; upstream: `claimResolver` of `oidc`).
//!
//! The endpoint returns another JWT, which is verified with the keys of its own issuer. The server calls endpoints only
//! for verified tokens, so only trusted issuers can choose endpoints.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use nave_machinery::{Map, Value};
use nave_webhook::Client;
use parking_lot::Mutex;
use serde::Deserialize;

use super::provider::Provider;
use crate::jwt::{Algorithm, Unverified};

/// The maximum number of issuers whose keys are cached.
const MAX_ISSUERS: usize = 64;

/// Resolves one distributed claim.
pub(super) struct ClaimResolver {
    claim: String,
    algorithms: Vec<Algorithm>,
    client: Client,
    issuers: Mutex<HashMap<String, Arc<Provider>>>,
}

/// The source of a claim. Aggregated claims (without an endpoint) are ignored.
#[derive(Deserialize)]
struct Source {
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    access_token: String,
}

impl ClaimResolver {
    /// Resolves `claim`; accepts responses signed with one of these algorithms.
    pub(super) fn new(claim: &str, algorithms: &[Algorithm], client: Client) -> Self {
        let (claim, algorithms) = (claim.to_owned(), algorithms.to_vec());
        Self { claim, algorithms, client, issuers: Mutex::default() }
    }

    /// The name of the claim.
    pub(super) fn claim(&self) -> &str {
        &self.claim
    }

    /// Returns the claim's value if the token names an endpoint for it instead of containing it. `checked` verifies the
    /// times and audiences of the response, as for the token itself.
    ///
    /// # Errors
    /// The claim cannot be fetched or verified.
    pub(super) async fn resolve(
        &self,
        claims: &Map,
        check: impl Fn(&crate::jwt::Claims) -> Result<(), String>,
    ) -> Result<Option<Value>, String> {
        let Some(source) = self.source(claims)? else { return Ok(None) };
        let claim = &self.claim;
        let token = self.fetch(&source).await;
        let token = token.map_err(|why| format!("while getting distributed claim {claim:?}: {why}"))?;
        let unreadable = || {
            let endpoint = &source.endpoint;
            format!("getting untrusted issuer from endpoint {endpoint} failed for claim {claim:?}")
        };
        let parsed = Unverified::parse(&token).ok_or_else(unreadable)?;
        if !self.algorithms.contains(&parsed.algorithm) {
            let algorithm = parsed.algorithm.name();
            return Err(format!("verify distributed claim token: unexpected algorithm {algorithm}"));
        }
        let issuer = self.issuer(parsed.claimed_issuer())?;
        let wrong = |why: String| format!("verify distributed claim token: {why}");
        let found = issuer.verify(&token).await.map_err(wrong)?;
        check(&found).map_err(wrong)?;
        found.get(claim).cloned().map(Some).ok_or_else(|| {
            let endpoint = &source.endpoint;
            format!("jwt returned by distributed claim endpoint {endpoint:?} did not contain claim: {claim}")
        })
    }

    /// Returns the claim's source; `None` if the token contains the claim itself or names no endpoint.
    fn source(&self, claims: &Map) -> Result<Option<Source>, String> {
        let (Some(names), None) = (claims.get("_claim_names"), claims.get(&self.claim)) else {
            return Ok(None);
        };
        let names = HashMap::<String, String>::deserialize(names);
        let names = names.map_err(|why| format!("error parsing distributed claim names: {why}"))?;
        let sources = claims.get("_claim_sources").ok_or("no claim sources")?;
        let Some(name) = names.get(&self.claim) else { return Ok(None) };
        let sources = HashMap::<String, Source>::deserialize(sources);
        let mut sources = sources.map_err(|why| format!("could not parse claim sources: {why}"))?;
        let source = sources.remove(name);
        let source = source.ok_or_else(|| {
            format!("id token _claim_names contained a source {name} missing in _claims_sources")
        })?;
        Ok((!source.endpoint.is_empty()).then_some(source))
    }

    async fn fetch(&self, source: &Source) -> Result<String, String> {
        let endpoint: Uri = source.endpoint.parse().map_err(|_| "the endpoint is not a URL".to_owned())?;
        if endpoint.scheme_str() != Some("https") {
            return Err("the endpoint is not an https URL".to_owned());
        }
        let mut headers = HeaderMap::new();
        if !source.access_token.is_empty() {
            let value = HeaderValue::try_from(format!("Bearer {}", source.access_token));
            let mut value = value.map_err(|_| "the access token cannot be sent".to_owned())?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let answer = self.client.send(Method::GET, &endpoint, headers, bytes::Bytes::new()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if !(StatusCode::OK..=StatusCode::PARTIAL_CONTENT).contains(&answer.status) {
            return Err(format!("error while getting distributed claim JWT: {}", answer.status));
        }
        String::from_utf8(answer.body.into())
            .map_err(|_| "could not decode distributed claim response".to_owned())
    }

    /// Returns the provider of a response's issuer. The responses name the issuers, so the cache is bounded.
    fn issuer(&self, url: &str) -> Result<Arc<Provider>, String> {
        let mut issuers = self.issuers.lock();
        if let Some(known) = issuers.get(url) {
            return Ok(Arc::clone(known));
        }
        let wrong = || format!("verifying untrusted issuer {url:?} failed");
        if !url.starts_with("https://") {
            return Err(wrong());
        }
        let provider = Provider::new(url, None, self.client.clone()).map_err(|_| wrong())?;
        if issuers.len() == MAX_ISSUERS {
            issuers.clear();
        }
        let provider = Arc::new(provider);
        issuers.insert(url.to_owned(), Arc::clone(&provider));
        Ok(provider)
    }
}
