//! Issues service account tokens.

use std::sync::Arc;

use nave_machinery::time::{self, Timestamp};
use nave_machinery::user::UserInfo;
use nave_machinery::{Value, meta};
use serde_json::json;

use super::claims::{BoundObject, Private, Reference};
use super::{Info, KeyRing, LEGACY_ISSUER, user_name};

/// The lifetime of tokens in volumes added by the ServiceAccount admission plugin, in seconds. Old workloads may not
/// reload such tokens.
const WARN_ONLY_SECONDS: i64 = 3607;
/// The extended lifetime of such tokens, in seconds: a year.
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// The configuration of the issuer.
#[derive(Clone, Debug, Default)]
pub struct IssuerConfig {
    /// The claim `iss`.
    pub issuer: String,
    /// The API server's audiences, which are the default.
    pub audiences: Vec<String>,
    /// The maximum lifetime, in seconds.
    pub max_expiration_seconds: Option<i64>,
    /// True if the lifetime of tokens in volumes added by the ServiceAccount admission plugin is extended
    /// (`--service-account-extend-token-expiration`).
    pub extend_expiration: bool,
}

/// Issues tokens.
#[derive(Clone, Debug)]
pub struct Issuer {
    config: IssuerConfig,
    keys: Arc<KeyRing>,
}

/// An issued token.
pub struct Issued {
    /// The token.
    pub token: String,
    /// The expiration time in the response to the client.
    pub expires: Timestamp,
    /// The lifetime in the response to the client, in seconds.
    pub expiration_seconds: i64,
    /// The id of the token (`jti`).
    pub token_id: String,
}

impl Issuer {
    /// Issues tokens signed with these keys.
    pub fn new(config: IssuerConfig, keys: Arc<KeyRing>) -> Self {
        Self { config, keys }
    }

    /// The API server's audiences.
    pub fn audiences(&self) -> &[String] {
        &self.config.audiences
    }

    /// Issues a token for a service account object, bound to another object.
    ///
    /// # Errors
    /// The cryptography library fails to sign.
    pub async fn issue(
        &self,
        account: &Value,
        bound: BoundObject,
        audiences: &[String],
        expiration_seconds: i64,
    ) -> Result<Issued, String> {
        let now = time::now();
        let expiration_seconds =
            self.config.max_expiration_seconds.map_or(expiration_seconds, |max| expiration_seconds.min(max));
        let extend = self.config.extend_expiration
            && expiration_seconds == WARN_ONLY_SECONDS
            && matches!(bound, BoundObject::Pod(..))
            && audiences.iter().all(|audience| self.config.audiences.contains(audience));
        let holds = if extend { EXTENDED_SECONDS } else { expiration_seconds };
        let (pod, secret, node) = match bound {
            BoundObject::None => (None, None, None),
            BoundObject::Pod(pod, node) => (Some(pod), None, node),
            BoundObject::Secret(secret) => (None, Some(secret), None),
            BoundObject::Node(node) => (None, None, Some(node)),
        };
        let token_id = uuid::Uuid::new_v4().to_string();
        let private = Private {
            namespace: meta::namespace(account).to_owned(),
            node,
            pod,
            secret,
            serviceaccount: Reference::to(account),
            warnafter: extend.then(|| now.unix_seconds() + expiration_seconds),
        };
        let issued_at = now.unix_seconds();
        let claims = json!({
            "aud": audiences,
            "exp": issued_at + holds,
            "iat": issued_at,
            "iss": self.config.issuer,
            "jti": token_id,
            Private::NAME: private,
            "nbf": issued_at,
            "sub": user_name(meta::namespace(account), meta::name(account)),
        });
        let token = self.sign(&claims).await?;
        Ok(Issued { token, expires: now.plus_seconds(expiration_seconds), expiration_seconds, token_id })
    }

    /// Issues a token without expiration for a service account, to be stored in `secret`.
    ///
    /// # Errors
    /// The cryptography library fails to sign.
    pub async fn issue_legacy(&self, account: &Value, secret: &Value) -> Result<String, String> {
        let namespace = meta::namespace(account);
        let claims = json!({
            "iss": LEGACY_ISSUER,
            "sub": user_name(namespace, meta::name(account)),
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": meta::name(secret),
            "kubernetes.io/serviceaccount/service-account.name": meta::name(account),
            "kubernetes.io/serviceaccount/service-account.uid": meta::uid(account),
        });
        self.sign(&claims).await
    }

    async fn sign(&self, claims: &Value) -> Result<String, String> {
        let signed = self.keys.get().await.signing().sign(claims);
        signed.map_err(|_| "the token cannot be signed".to_owned())
    }

    /// The user that the tokens of a service account authenticate as.
    pub fn user_of(account: &Value) -> UserInfo {
        Info {
            namespace: meta::namespace(account).to_owned(),
            account: Reference::to(account),
            ..Info::default()
        }
        .into_user()
    }
}
