//! Service account tokens in secrets: signed by the server itself, or by `nave controllers` with its own key.

use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use nave_authn::jwt::SigningKey;
use nave_authn::service_account::{Issuer, IssuerConfig, KeyRing, Keys};
use nave_controllers::frame::TokenGenerator;
use serde_json::json;

use crate::flags::FlagError;

/// Issues tokens for secrets.
pub(crate) struct SecretTokens(pub(crate) Issuer);

impl SecretTokens {
    /// Creates an issuer that signs with the key in a file.
    ///
    /// # Errors
    /// The file has no valid key.
    pub(crate) fn with_key(flag: &'static str, file: &Path) -> Result<Self, FlagError> {
        let pem = std::fs::read(file).map_err(|why| FlagError::file(flag, file, why))?;
        let key = SigningKey::from_pem(&pem).map_err(|why| FlagError::file(flag, file, why))?;
        let keys = Arc::new(KeyRing::new(Keys::new(key, Vec::new())));
        Ok(Self(Issuer::new(IssuerConfig::default(), keys)))
    }
}

impl TokenGenerator for SecretTokens {
    fn token<'a>(
        &'a self,
        account: &'a ServiceAccount,
        secret: &'a Secret,
    ) -> BoxFuture<'a, Result<String, String>> {
        let of = &account.metadata;
        let account = json!({"metadata": {"name": of.name, "namespace": of.namespace, "uid": of.uid}});
        let secret = json!({"metadata": {"name": secret.metadata.name}});
        async move { self.0.issue_legacy(&account, &secret).await }.boxed()
    }
}
