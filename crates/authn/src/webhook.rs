//! Tokens that another service knows (`--authentication-token-webhook-config-file`).

use async_trait::async_trait;
use nave_machinery::user::UserInfo;
use nave_machinery::{Value, meta};
use nave_webhook::Webhook;
use serde_json::json;

use crate::bearer::common;
use crate::{AuthnError, Identity, TokenAuthenticator};

/// The version of `TokenReview` that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ReviewVersion {
    V1,
    V1Beta1,
}

/// Asks a webhook with a `TokenReview`.
pub struct WebhookTokens {
    webhook: Webhook,
    version: ReviewVersion,
    /// This API's own audiences: those of a token about which the webhook says nothing of them.
    audiences: Vec<String>,
}

impl WebhookTokens {
    /// Asks `webhook`, about tokens for this API with these audiences.
    pub fn new(webhook: Webhook, version: ReviewVersion, audiences: Vec<String>) -> Self {
        Self { webhook, version, audiences }
    }
}

#[async_trait]
impl TokenAuthenticator for WebhookTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identity>, AuthnError> {
        let version = match self.version {
            ReviewVersion::V1 => "authentication.k8s.io/v1",
            ReviewVersion::V1Beta1 => "authentication.k8s.io/v1beta1",
        };
        let review = json!({
            "apiVersion": version, "kind": "TokenReview", "metadata": {},
            "spec": {"token": token, "audiences": audiences},
        });
        let answer = self.webhook.call(&review).await.map_err(|error| {
            tracing::warn!(%error, "the authentication webhook cannot be asked");
            AuthnError::Token(error.to_string())
        })?;
        if meta::kind(&answer) != "TokenReview" || meta::api_version(&answer) != version {
            return Err(AuthnError::Token("the webhook's answer is no TokenReview of this version".into()));
        }
        let status = answer.get("status").unwrap_or(&Value::Null);
        if status.get("authenticated").and_then(Value::as_bool) != Some(true) {
            return match meta::str_at(status, &["error"]).filter(|error| !error.is_empty()) {
                Some(error) => Err(AuthnError::Token(error.to_owned())),
                None => Ok(None),
            };
        }
        let told = texts(status.get("audiences"));
        let meant = common(if told.is_empty() { &self.audiences } else { &told }, audiences);
        if meant.is_empty() {
            return Ok(None);
        }
        let user = user(status.get("user").unwrap_or(&Value::Null));
        Ok(Some(Identity::new(user).for_audiences(meant)))
    }
}

fn user(info: &Value) -> UserInfo {
    let text = |name: &str| info.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let extra = info.get("extra").and_then(Value::as_object).into_iter().flatten();
    UserInfo {
        name: text("username"),
        uid: text("uid"),
        groups: texts(info.get("groups")),
        extra: extra.map(|(key, values)| (key.clone(), texts(Some(values)))).collect(),
    }
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let all = list.and_then(Value::as_array).into_iter().flatten();
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}
