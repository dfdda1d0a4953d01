//! Token authentication by a webhook (`--authentication-token-webhook-config-file`) or by another API server
//! (`--authentication-kubeconfig`).

use async_trait::async_trait;
use nave_machinery::user::UserInfo;
use nave_machinery::{Value, meta};
use nave_webhook::Webhook;
use serde_json::json;

use crate::bearer::common;
use crate::{AuthnError, Identity, TokenAuthenticator};

/// The `TokenReview` version to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ReviewVersion {
    V1,
    V1Beta1,
}

/// Authenticates tokens with a `TokenReview` sent to a webhook.
pub struct WebhookTokens {
    webhook: Webhook,
    version: ReviewVersion,
    /// The API server's audiences. A token is valid for these if the webhook returns no audiences.
    audiences: Vec<String>,
    /// True if the other side checks a token for its own audiences when a request asks for those of this server.
    omits_audiences: bool,
}

impl WebhookTokens {
    /// Calls `webhook`. `audiences` are the API server's audiences.
    pub fn new(webhook: Webhook, version: ReviewVersion, audiences: Vec<String>) -> Self {
        Self { webhook, version, audiences, omits_audiences: false }
    }

    /// Asks another API server. `audiences` are this server's, if its flags name some; without them, a token must be
    /// for the other server, and is then accepted for `default_audiences`.
    pub fn delegated(
        webhook: Webhook,
        audiences: Option<Vec<String>>,
        default_audiences: Vec<String>,
    ) -> Self {
        let omits_audiences = audiences.is_none();
        let audiences = audiences.unwrap_or(default_audiences);
        Self { webhook, version: ReviewVersion::V1, audiences, omits_audiences }
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
        let omits_audiences = self.omits_audiences && audiences == self.audiences;
        let mut review = json!({
            "apiVersion": version, "kind": "TokenReview", "metadata": {}, "spec": {"token": token},
        });
        if !omits_audiences {
            review["spec"]["audiences"] = json!(audiences);
        }
        let answer = self.webhook.call(&review).await.map_err(|error| {
            tracing::warn!(%error, "authentication webhook call failed");
            AuthnError::Token(error.to_string())
        })?;
        if meta::kind(&answer) != "TokenReview" || meta::api_version(&answer) != version {
            return Err(AuthnError::Token(
                "the webhook's response is not a TokenReview of the expected version".into(),
            ));
        }
        let status = answer.get("status").unwrap_or(&Value::Null);
        if status.get("authenticated").and_then(Value::as_bool) != Some(true) {
            return match meta::str_at(status, &["error"]).filter(|error| !error.is_empty()) {
                Some(error) => Err(AuthnError::Token(error.to_owned())),
                None => Ok(None),
            };
        }
        let told = if omits_audiences { Vec::new() } else { texts(status.get("audiences")) };
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{Response, StatusCode};
    use nave_machinery::backoff::Backoff;
    use nave_webhook::testing::HttpsServer;

    use super::*;

    const TRUST: &str = "certificate-authority: ca.crt";
    const SHOW: &str = "client-certificate: client.crt, client-key: client.key";

    /// Answers a review according to its token.
    fn answer(request: &http::Request<Bytes>) -> Response<Bytes> {
        let mut review: Value = serde_json::from_slice(request.body()).unwrap();
        let user = json!({"username": "alice", "uid": "1", "groups": ["dev"], "extra": {"k": ["v"]}});
        let audiences = review["spec"]["audiences"].take();
        review["status"] = match review["spec"]["token"].as_str().unwrap() {
            "good" => json!({"authenticated": true, "user": user}),
            "echo" => json!({"authenticated": true, "user": user, "audiences": audiences}),
            "others" => json!({"authenticated": true, "user": user, "audiences": ["others"]}),
            "error" => json!({"error": "no such token"}),
            "odd" => json!({"authenticated": "true", "user": user}),
            _ => json!({"user": user}),
        };
        let mut response = Response::new(Bytes::new());
        match review["spec"]["token"].as_str().unwrap() {
            "down" => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            "kind" => review["kind"] = "Other".into(),
            "version" => review["apiVersion"] = "authentication.k8s.io/v9".into(),
            _ => {}
        }
        *response.body_mut() = review.to_string().into();
        response
    }

    #[tokio::test]
    async fn authenticates_tokens_with_a_webhook_over_tls() {
        let server = HttpsServer::start_for_clients(answer).await;
        let folder = tempfile::tempdir().unwrap();
        for version in [ReviewVersion::V1, ReviewVersion::V1Beta1] {
            let file = server.write_kubeconfig(folder.path(), TRUST, SHOW);
            let backoff = Backoff { initial: Duration::from_millis(1), ..Backoff::WEBHOOK };
            let webhook = Webhook::from_file(&file, Duration::from_mins(1)).unwrap();
            let webhook = webhook.with_backoff(backoff).with_attempts(2);
            let tokens = WebhookTokens::new(webhook, version, vec!["api".to_owned()]);
            let authenticate =
                async |token, audience: &str| tokens.authenticate_token(token, &[audience.to_owned()]).await;
            let found = authenticate("good", "api").await.unwrap().unwrap();
            assert_eq!((found.user.name.as_str(), found.user.uid.as_str()), ("alice", "1"));
            assert_eq!(found.user.groups, ["dev", "system:authenticated"]);
            assert_eq!(found.user.extra["k"], ["v"]);
            assert_eq!(found.audiences, ["api"]);
            assert_eq!(
                authenticate("good", "vault").await,
                Ok(None),
                "without audiences in the response, the token is for this API"
            );
            assert_eq!(authenticate("echo", "vault").await.unwrap().unwrap().audiences, ["vault"]);
            for unknown in ["others", "odd", "unknown"] {
                assert_eq!(authenticate(unknown, "api").await, Ok(None), "{unknown}");
            }
            for wrong in ["error", "down", "kind", "version"] {
                let error = authenticate(wrong, "api").await.unwrap_err();
                assert!(matches!(error, AuthnError::Token(_)), "{wrong}");
            }
        }
    }

    #[tokio::test]
    async fn delegated_reviews_name_audiences_only_if_needed() {
        let server = HttpsServer::start_for_clients(answer).await;
        let folder = tempfile::tempdir().unwrap();
        let file = server.write_kubeconfig(folder.path(), TRUST, SHOW);
        let texts = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        for (own, token, requested, expected) in [
            // The other server checks its own audiences, whatever their names.
            (None, "others", &["default"][..], Some(&["default"][..])),
            (None, "echo", &["vault"], Some(&["vault"])),
            (None, "others", &["vault"], None),
            (Some(&["mine"][..]), "echo", &["mine"], Some(&["mine"])),
            (Some(&["mine"]), "others", &["mine"], None),
        ] {
            let webhook = Webhook::for_api_server(&file, "/apis/x", Duration::from_mins(1)).unwrap();
            let tokens = WebhookTokens::delegated(webhook, own.map(texts), texts(&["default"]));
            let found = tokens.authenticate_token(token, &texts(requested)).await.unwrap();
            assert_eq!(found.map(|found| found.audiences), expected.map(texts), "{token} for {requested:?}");
        }
    }
}
