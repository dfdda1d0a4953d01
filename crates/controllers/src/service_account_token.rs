//! Manages tokens in secrets of type `kubernetes.io/service-account-token` (upstream: `serviceaccount`'s
//! `TokensController`).
//!
//! The action depends on the account that a secret names:
//!
//! | account | action |
//! | --- | --- |
//! | exists | the secret gets a token, its namespace and the server's CA certificate |
//! | does not exist, or has another UID | the secret is deleted |
//!
//! After a secret is deleted, the reference to it is removed from its account.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use nave_client::{Action, Lister, ObjectName};

use crate::api;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, TokenGenerator, Workers};

const TYPE: &str = "kubernetes.io/service-account-token";
/// The annotations of a secret that name its account.
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// The keys of a secret's data.
const TOKEN: &str = "token";
const ROOT_CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";

/// Runs with the identity of the controller manager, so that creating tokens does not require a token.
pub(crate) const SERVICE_ACCOUNT_TOKEN: Descriptor = Descriptor {
    name: "serviceaccount-token-controller",
    alias: "serviceaccount-token",
    service_account: "",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-serviceaccount-token-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let Some(generator) = context.tokens.clone() else {
        tracing::warn!("no signing key: service account token secrets get no token");
        return std::future::ready(()).boxed();
    };
    let mut builder = context.controller("serviceaccount_tokens_secret");
    let (secrets, accounts) = (builder.informer::<Secret>(), builder.informer::<ServiceAccount>());
    builder.enqueue_mapped(&secrets, |secret| secret.annotation(ACCOUNT_NAME).map(|_| secret.key()));
    let lister = secrets.lister();
    builder.enqueue_mapped(&accounts, move |account| {
        let secrets = lister.list_namespace(account.namespace()).into_iter();
        secrets
            .filter(|secret| secret.annotation(ACCOUNT_NAME).is_some_and(|name| name == account.name()))
            .map(|secret| secret.key())
            .collect::<Vec<_>>()
    });
    builder.run(Tokens {
        client: context.client.clone(),
        generator,
        root_ca: context.root_ca.clone(),
        secrets: secrets.lister(),
        accounts: accounts.lister(),
    })
}

struct Tokens {
    client: kube::Client,
    generator: Arc<dyn TokenGenerator>,
    /// The CA certificate in PEM, if known.
    root_ca: Option<Arc<str>>,
    secrets: Lister<Secret>,
    accounts: Lister<ServiceAccount>,
}

impl Reconciler for Tokens {
    /// Completes or deletes a secret. If the secret no longer exists, removes the reference to it.
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(found) = self.secrets.get_by_key(&key) else { return self.remove_reference(&key).await };
        let secret = found.decode()?;
        let Some(name) = account_of(&secret).filter(|_| !found.is_being_deleted()) else {
            return Ok(Action::Done);
        };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), key.namespace());
        match self.account(key.namespace(), name).await?.filter(|account| names_account(&secret, account)) {
            None => {
                let preconditions =
                    Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
                let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                api::ignore_not_found(api.delete(key.name(), &options).await)?;
            }
            Some(account) => {
                if let Some(with_missing_data) = self.with_missing_data(secret, &account).await? {
                    api::ignore_not_found(
                        api.replace(key.name(), &PostParams::default(), &with_missing_data).await,
                    )?;
                }
            }
        }
        Ok(Action::Done)
    }
}

impl Tokens {
    /// Returns an account by name. Reads it live if the cache does not have it, as it may be new.
    async fn account(&self, namespace: &str, name: &str) -> Result<Option<ServiceAccount>, SyncError> {
        if let Some(found) = self.accounts.get(namespace, name) {
            return Ok(Some(found.decode()?));
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(name).await?)
    }

    /// Returns the secret with its missing data; `None` if the secret is complete.
    async fn with_missing_data(
        &self,
        mut secret: Secret,
        account: &ServiceAccount,
    ) -> Result<Option<Secret>, SyncError> {
        let mut changed = complete(&mut secret, account, self.root_ca.as_deref());
        if !has_data(&secret, TOKEN) {
            let token = self.generator.token(account, &secret).await.map_err(SyncError::Invalid)?;
            secret.data.get_or_insert_default().insert(TOKEN.to_owned(), ByteString(token.into_bytes()));
            changed = true;
        }
        Ok(changed.then_some(secret))
    }

    /// Removes the reference to a deleted secret from its account.
    async fn remove_reference(&self, key: &ObjectName) -> Result<Action, SyncError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), key.namespace());
        for found in self.accounts.list_namespace(key.namespace()) {
            let mut account = found.decode()?;
            let Some(secrets) = account.secrets.as_mut() else { continue };
            let before = secrets.len();
            secrets.retain(|secret| secret.name.as_deref() != Some(key.name()));
            if secrets.len() < before {
                api::ignore_not_found(api.replace(found.name(), &PostParams::default(), &account).await)?;
            }
        }
        Ok(Action::Done)
    }
}

/// Returns the name of a secret's account.
fn account_of(secret: &Secret) -> Option<&str> {
    let name = secret.metadata.annotations.as_ref()?.get(ACCOUNT_NAME)?;
    (secret.type_.as_deref() == Some(TYPE) && !name.is_empty()).then_some(name)
}

/// Returns whether a secret has the UID of this account, or no UID.
fn names_account(secret: &Secret, account: &ServiceAccount) -> bool {
    let uid = secret.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ACCOUNT_UID));
    uid.is_none_or(|uid| uid.is_empty() || Some(uid) == account.metadata.uid.as_ref())
}

fn has_data(secret: &Secret, key: &str) -> bool {
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    data.is_some_and(|value| !value.0.is_empty())
}

/// Sets a secret's namespace, CA certificate and annotation; returns whether anything changed.
fn complete(secret: &mut Secret, account: &ServiceAccount, root_ca: Option<&str>) -> bool {
    let before = secret.clone();
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.insert(ACCOUNT_UID.to_owned(), account.metadata.uid.clone().unwrap_or_default());
    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
    let data = secret.data.get_or_insert_default();
    if let Some(root_ca) = root_ca {
        data.insert(ROOT_CA.to_owned(), ByteString(root_ca.as_bytes().to_vec()));
    }
    if data.get(NAMESPACE).is_none_or(|there| there.0.is_empty()) {
        data.insert(NAMESPACE.to_owned(), ByteString(namespace.into_bytes()));
    }
    *secret != before
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn secret(uid: &str, data: &Value) -> Secret {
        serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "n", "annotations": {(ACCOUNT_NAME): "a", (ACCOUNT_UID): uid}},
            "type": TYPE, "data": data,
        }))
        .unwrap()
    }

    fn account() -> ServiceAccount {
        serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "n", "uid": "1"}})).unwrap()
    }

    #[test]
    fn secret_names_one_account_by_uid() {
        assert_eq!(account_of(&secret("", &json!({}))), Some("a"));
        assert_eq!(account_of(&Secret { type_: Some("Opaque".into()), ..secret("", &json!({})) }), None);
        assert!(
            names_account(&secret("", &json!({})), &account())
                && names_account(&secret("1", &json!({})), &account())
        );
        assert!(!names_account(&secret("0", &json!({})), &account()));
    }

    #[test]
    fn adds_missing_data_once() {
        let mut new = secret("", &json!({"more": "eA=="}));
        assert!(complete(&mut new, &account(), Some("CA")));
        assert!(!complete(&mut new, &account(), Some("CA")) && !complete(&mut new, &account(), None));
        assert!(!has_data(&new, TOKEN) && has_data(&new, "more"));
        let text = |secret: &Secret, key: &str| {
            String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
        };
        assert_eq!((text(&new, ROOT_CA).as_str(), text(&new, NAMESPACE).as_str()), ("CA", "n"));
        assert_eq!(new.metadata.annotations.as_ref().unwrap()[ACCOUNT_UID], "1");
        // The CA certificate is updated. A namespace that a user has set is kept.
        assert!(complete(&mut new, &account(), Some("ANOTHER")));
        let mut own = secret("1", &json!({"namespace": "eA=="}));
        complete(&mut own, &account(), None);
        assert_eq!(text(&own, NAMESPACE), "x");
    }
}
