//! OpenID Connect discovery, so that other services can verify service account tokens.

use nave_machinery::Value;
use serde_json::json;

use super::KeyRing;

/// The path of the provider configuration.
pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
/// The path of the key set.
pub const JWKS_PATH: &str = "/openid/v1/jwks";

/// The published metadata of the issuer.
pub struct Discovery {
    /// The issuer URL.
    pub issuer: String,
    /// The URL of the key set.
    pub jwks_uri: String,
    /// The published keys.
    pub keys: std::sync::Arc<KeyRing>,
}

impl Discovery {
    /// The provider configuration document.
    pub async fn configuration(&self) -> Value {
        let keys = self.keys.get().await;
        let mut algorithms: Vec<_> = keys.verifying().iter().map(|key| key.algorithm().name()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        json!({
            "issuer": self.issuer,
            "jwks_uri": self.jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }

    /// The keys as a JSON web key set.
    pub async fn key_set(&self) -> Value {
        let keys: Vec<Value> =
            self.keys.get().await.verifying().iter().map(crate::jwt::PublicKey::to_jwk).collect();
        json!({"keys": keys})
    }
}
