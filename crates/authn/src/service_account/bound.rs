//! Bound tokens, which expire and are bound to objects (upstream: `serviceaccount.NewValidator`).

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use super::claims::{self, LEEWAY, Private};
use super::{Info, KeyRing, Lookup, refused};
use crate::bearer::common;
use crate::jwt::{Algorithm, Claims, Unverified};
use crate::{AuthnError, Identity, Metrics, Objects, TokenAuthenticator};

/// The signature algorithms of service account tokens.
pub(super) const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::Es512];

/// Authenticates `TokenRequest` tokens while the account and the bound object exist.
pub struct BoundTokens {
    issuers: Vec<String>,
    keys: Arc<KeyRing>,
    objects: Arc<dyn Objects>,
    metrics: Option<Arc<Metrics>>,
}

impl BoundTokens {
    /// Accepts tokens of these issuers, signed with one of the keys.
    pub fn new(issuers: Vec<String>, keys: Arc<KeyRing>, objects: Arc<dyn Objects>) -> Self {
        Self { issuers, keys, objects, metrics: None }
    }

    /// Records metrics.
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Returns the token's data, and the number of seconds since it should have been replaced.
    fn check(&self, claims: &Claims, now: f64) -> Result<(Info, Option<f64>), AuthnError> {
        claims::check_times(claims, now)?;
        let private =
            Private::from_claims(claims).ok_or_else(|| refused("service account token has no claims"))?;
        let Private { namespace, node, pod, secret, serviceaccount: account, warnafter } = private;
        let lookup = Lookup { objects: &*self.objects, deleted_before: now - LEEWAY };
        lookup.account(&namespace, &account)?;
        if let Some(secret) = &secret {
            lookup.bound(("Secret", "secrets"), &namespace, secret)?;
        }
        match (&pod, &node) {
            // The node of a pod is informational; only the pod is checked.
            (Some(pod), _) => drop(lookup.bound(("Pod", "pods"), &namespace, pod)?),
            (None, Some(node)) => drop(lookup.bound(("Node", "nodes"), "", node)?),
            (None, None) => {}
        }
        let age = warnafter.filter(|at| *at != 0).map(|warn_after| now - warn_after as f64);
        let stale = age.filter(|age| *age > 0.0);
        if let (Some(_), Some(metrics)) = (age, &self.metrics) {
            if stale.is_some() { &metrics.stale_tokens } else { &metrics.valid_tokens }.inc();
        }
        let token_id = claims.text("jti").to_owned();
        Ok((Info { namespace, account, pod, node, token_id }, stale))
    }
}

#[async_trait]
impl TokenAuthenticator for BoundTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identity>, AuthnError> {
        let Some(token) = read(token, &self.issuers) else { return Ok(None) };
        let claims = verify(token, &self.keys).await?;
        let meant = common(&claims.audiences(), audiences);
        if meant.is_empty() {
            return Err(wrong_audience(&claims.audiences(), audiences));
        }
        let (info, stale) = self.check(&claims, claims::unix(SystemTime::now()))?;
        let stale = stale.map(|seconds| {
            let subject = claims.text("sub");
            let text = format!("subject: {subject}, seconds after warning threshold: {seconds:.0}");
            ("authentication.k8s.io/stale-token", text)
        });
        Ok(Some(Identity::new(info.into_user()).for_audiences(meant).with_annotations(stale)))
    }
}

/// Parses a token of one of the issuers; `None` for other issuers.
pub(super) fn read<'a>(token: &'a str, issuers: &[String]) -> Option<Unverified<'a>> {
    let token = Unverified::parse(token)?;
    let ours = issuers.iter().any(|issuer| issuer == token.claimed_issuer());
    (ours && ALGORITHMS.contains(&token.algorithm)).then_some(token)
}

pub(super) async fn verify(token: Unverified<'_>, keys: &KeyRing) -> Result<Claims, AuthnError> {
    let found = token.verify(keys.get().await.verifying());
    found.ok_or_else(|| refused("no key verifies the signature of the service account token"))
}

pub(super) fn wrong_audience(own: &[String], requested: &[String]) -> AuthnError {
    let list = |audiences: &[String]| {
        let quoted: Vec<String> = audiences.iter().map(|audience| format!("{audience:?}")).collect();
        quoted.join(" ")
    };
    let (own, requested) = (list(own), list(requested));
    refused(format!("token audiences [{own}] is invalid for the target audiences [{requested}]"))
}
