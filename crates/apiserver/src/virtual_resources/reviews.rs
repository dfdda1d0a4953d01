//! `TokenReview` and `SelfSubjectReview`: the user of a token, and the requesting user.

use std::sync::Arc;

use async_trait::async_trait;
use nave_authn::{AuthnError, TokenAuthenticator};
use nave_machinery::user::UserInfo;
use nave_machinery::{Status, Value, meta, time};
use serde_json::{Map, json};

use crate::endpoints::virtual_resource::{VirtualRequest, VirtualResource};

/// Serves token reviews (upstream: `tokenreview.REST`).
pub(super) struct TokenReviews {
    pub(super) tokens: Arc<dyn TokenAuthenticator>,
    /// The audiences of this API, used for reviews without audiences.
    pub(super) audiences: Vec<String>,
}

#[async_trait]
impl VirtualResource for TokenReviews {
    async fn create(&self, _: &VirtualRequest<'_>, mut review: Value) -> Result<Value, Status> {
        let token = meta::str_at(&review, &["spec", "token"]).unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let named = meta::value_at(&review, &["spec", "audiences"]).and_then(Value::as_array);
        let named: Vec<String> =
            named.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let audiences = if named.is_empty() { &self.audiences } else { &named };
        let found = self.tokens.authenticate_token(token, audiences).await;
        review["status"] = match found.and_then(|found| found.ok_or(AuthnError::UnknownToken)) {
            Ok(found) => {
                json!({"authenticated": true, "user": user(&found.user), "audiences": found.audiences})
            }
            Err(error) => json!({"user": {}, "error": error.to_string()}),
        };
        Ok(review)
    }
}

/// Serves reviews of the requesting user.
pub(super) struct SelfSubjectReviews;

#[async_trait]
impl VirtualResource for SelfSubjectReviews {
    async fn create(&self, request: &VirtualRequest<'_>, mut review: Value) -> Result<Value, Status> {
        meta::set(&mut review, "creationTimestamp", time::now().rfc3339().into());
        review["status"] = json!({"userInfo": user(request.context.user())});
        Ok(review)
    }
}

/// Converts a user to `UserInfo`; empty fields are omitted.
fn user(user: &UserInfo) -> Value {
    let mut info = Map::new();
    let mut add = |name: &str, value: Value, empty: bool| {
        if !empty {
            info.insert(name.to_owned(), value);
        }
    };
    add("username", json!(user.name), user.name.is_empty());
    add("uid", json!(user.uid), user.uid.is_empty());
    add("groups", json!(user.groups), user.groups.is_empty());
    add("extra", json!(user.extra), user.extra.is_empty());
    Value::Object(info)
}
