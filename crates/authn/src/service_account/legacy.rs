//! Legacy tokens, which do not expire. Each is stored in a secret of type `kubernetes.io/service-account-token`
//! (upstream: `serviceaccount.NewLegacyValidator`).

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine, prelude::BASE64_STANDARD};
use nave_machinery::{Value, meta, time};
use tokio::sync::mpsc;

use super::bound::{read, verify, wrong_audience};
use super::claims::Reference;
use super::{Info, KeyRing, LEGACY_ISSUER, Lookup, refused, split_user_name};
use crate::bearer::common;
use crate::jwt::Claims;
use crate::{AuthnError, Identity, Metrics, Objects, TokenAuthenticator};

/// The label of a secret whose token an operator or the cleaner has invalidated.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// The label of a secret that holds the day of the token's last use.
pub const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// The first recorded use of a secret's token on a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// The secret's namespace.
    pub namespace: String,
    /// The secret's name.
    pub name: String,
    /// The day, formatted `2006-01-02`.
    pub date: String,
}

/// Authenticates tokens stored in secrets.
pub struct LegacyTokens {
    issuers: Vec<String>,
    keys: Arc<KeyRing>,
    audiences: Vec<String>,
    objects: Arc<dyn Objects>,
    /// True if the secret and the account must exist (`--service-account-lookup`).
    lookup: bool,
    metrics: Option<Arc<Metrics>>,
    uses: Option<mpsc::Sender<SecretUse>>,
}

impl LegacyTokens {
    /// Accepts tokens signed with one of the keys. They are valid for `audiences`, the API server's audiences.
    pub fn new(keys: Arc<KeyRing>, audiences: Vec<String>, objects: Arc<dyn Objects>, lookup: bool) -> Self {
        let issuers = vec![LEGACY_ISSUER.to_owned()];
        Self { issuers, keys, audiences, objects, lookup, metrics: None, uses: None }
    }

    /// Records metrics.
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Sends token uses to `uses`; drops them if the channel is full.
    pub fn with_use_reports(mut self, uses: mpsc::Sender<SecretUse>) -> Self {
        self.uses = Some(uses);
        self
    }

    /// Returns the user of a token, with audit annotations about it.
    fn check(&self, token: &str, claims: &Claims) -> Result<Identity, AuthnError> {
        let named =
            |name: &str, missing: &str| match claims.text(&format!("kubernetes.io/serviceaccount/{name}")) {
                "" => Err(refused(format!("{missing} claim is missing"))),
                text => Ok(text.to_owned()),
            };
        let namespace = named("namespace", "namespace")?;
        let secret = named("secret.name", "secretName")?;
        let account = Reference {
            name: named("service-account.name", "serviceAccountName")?,
            uid: named("service-account.uid", "serviceAccountUID")?,
        };
        if split_user_name(claims.text("sub")) != Some((&namespace, &account.name)) {
            return Err(refused("sub claim does not match the namespace and name of the service account"));
        }
        let mut annotations = vec![("authentication.k8s.io/legacy-token", claims.text("sub").to_owned())];
        if self.lookup {
            annotations.push((self.look_up(token, &namespace, &secret, &account)?, secret));
        }
        if let Some(metrics) = &self.metrics {
            metrics.legacy_tokens.inc();
        }
        let info = Info { namespace, account, ..Info::default() };
        Ok(Identity::new(info.into_user()).with_annotations(annotations))
    }

    /// Reports the use of a secret's token, unless the secret's label already has the current day.
    fn report_use(&self, secret: &Value) {
        let Some(uses) = &self.uses else { return };
        let date: String = time::now().rfc3339().chars().take("2006-01-02".len()).collect();
        if meta::label(secret, LAST_USED) == Some(&date) {
            return;
        }
        let (namespace, name) = (meta::namespace(secret).to_owned(), meta::name(secret).to_owned());
        // If the channel is full, the next use is reported instead.
        let _ = uses.try_send(SecretUse { namespace, name, date });
    }

    /// Checks that the secret holds this token, and that the account exists. Returns the key of the audit annotation for
    /// the kind of secret.
    fn look_up(
        &self,
        token: &str,
        namespace: &str,
        secret: &str,
        account: &Reference,
    ) -> Result<&'static str, AuthnError> {
        let found = self.objects.get("secrets", namespace, secret);
        let found = found.filter(|secret| meta::deletion_timestamp(secret).is_none());
        let found = found.ok_or_else(|| refused("Token has been invalidated"))?;
        let kept = meta::str_at(&found, &["data", "token"]).unwrap_or_default();
        let kept = BASE64_STANDARD.decode(kept).unwrap_or_default();
        if verify_slices_are_equal(&kept, token.as_bytes()).is_err() {
            return Err(refused("Token does not match server's copy"));
        }
        if meta::label(&found, INVALID_SINCE).is_some() {
            if let Some(metrics) = &self.metrics {
                metrics.invalid_legacy_auto_tokens.inc();
            }
            let why = format!(
                "the token in secret {namespace}/{secret} for service account {namespace}/{} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
                account.name
            );
            return Err(refused(why));
        }
        // No grace period: deleting the account invalidates the token immediately.
        let lookup = Lookup { objects: &*self.objects, deleted_before: f64::INFINITY };
        let account = lookup.account(namespace, account)?;
        let listed = account.get("secrets").and_then(Value::as_array).into_iter().flatten();
        let auto = listed.into_iter().any(|listed| listed["name"] == secret);
        if let Some(metrics) = &self.metrics {
            (if auto { &metrics.legacy_auto_tokens } else { &metrics.legacy_manual_tokens }).inc();
        }
        self.report_use(&found);
        Ok(if auto {
            "authentication.k8s.io/legacy-token-autogenerated-secret"
        } else {
            "authentication.k8s.io/legacy-token-manual-secret"
        })
    }
}

#[async_trait]
impl TokenAuthenticator for LegacyTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identity>, AuthnError> {
        let Some(parsed) = read(token, &self.issuers) else { return Ok(None) };
        let claims = verify(parsed, &self.keys).await?;
        let meant = common(&self.audiences, audiences);
        if meant.is_empty() {
            return Err(wrong_audience(&self.audiences, audiences));
        }
        Ok(Some(self.check(token, &claims)?.for_audiences(meant)))
    }
}
