//! Tokens in secrets of type `kubernetes.io/service-account-token` (upstream: `serviceaccount`'s `TokensController`).
//!
//! | a secret whose account | |
//! | --- | --- |
//! | lives | gets a token, the namespace and the server's certificate authority |
//! | is gone, or another of its name | is deleted |
//! | lives, and which is gone itself | is forgotten by the account |

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use nave_client::{Action, Lister, Object, ObjectName, on_each};

use crate::api;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, TokenGenerator, Workers};

/// The type of the secrets.
const TYPE: &str = "kubernetes.io/service-account-token";
/// The annotations by which a secret names its account.
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// The keys of a secret's data.
const TOKEN: &str = "token";
const ROOT_CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";

/// The controller. It acts as the controller manager itself, so that it needs no token to make tokens.
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
        tracing::warn!("there is no key to sign with: secrets of service accounts stay without a token");
        return std::future::ready(()).boxed();
    };
    let mut builder = context.controller("serviceaccount_tokens_secret");
    let (secrets, accounts) = (builder.informer::<Secret>(), builder.informer::<ServiceAccount>());
    builder.map(&secrets, |secret| secret.annotation(ACCOUNT_NAME).map(|_| secret.key()));
    let (queue, known) = (builder.queue(), secrets.lister());
    builder.watch(
        &accounts,
        on_each(move |account: &Object<ServiceAccount>| {
            for secret in known.list_namespace(account.namespace()) {
                if secret.annotation(ACCOUNT_NAME).is_some_and(|name| name == account.name()) {
                    queue.add(secret.key());
                }
            }
        }),
    );
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
    /// In PEM, where it is known.
    root_ca: Option<Arc<str>>,
    secrets: Lister<Secret>,
    accounts: Lister<ServiceAccount>,
}

impl Reconciler for Tokens {
    /// Brings a secret and its account in agreement.
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(found) = self.secrets.get_by_key(&key) else { return self.forget(&key).await };
        let secret = found.decode()?;
        let Some(name) = account_of(&secret).filter(|_| !found.is_being_deleted()) else {
            return Ok(Action::Done);
        };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), key.namespace());
        match self.account(key.namespace(), name).await?.filter(|account| is_meant(&secret, account)) {
            None => {
                let preconditions =
                    Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
                let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                api::gone_is_fine(api.delete(key.name(), &options).await)?;
            }
            Some(account) => {
                if let Some(filled) = self.filled(secret, &account).await? {
                    api::gone_is_fine(api.replace(key.name(), &PostParams::default(), &filled).await)?;
                }
            }
        }
        Ok(Action::Done)
    }
}

impl Tokens {
    /// The account of a name. One that the cache does not have may have been made a moment ago.
    async fn account(&self, namespace: &str, name: &str) -> Result<Option<ServiceAccount>, SyncError> {
        if let Some(found) = self.accounts.get(namespace, name) {
            return Ok(Some(found.decode()?));
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(name).await?)
    }

    /// The secret with what it lacks; `None` if that is nothing.
    async fn filled(
        &self,
        mut secret: Secret,
        account: &ServiceAccount,
    ) -> Result<Option<Secret>, SyncError> {
        let mut changed = fill(&mut secret, account, self.root_ca.as_deref());
        if !has(&secret, TOKEN) {
            let token = self.generator.token(account, &secret).await.map_err(SyncError::Invalid)?;
            secret.data.get_or_insert_default().insert(TOKEN.to_owned(), ByteString(token.into_bytes()));
            changed = true;
        }
        Ok(changed.then_some(secret))
    }

    /// A secret is gone: accounts do not refer to it any longer.
    async fn forget(&self, key: &ObjectName) -> Result<Action, SyncError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), key.namespace());
        for found in self.accounts.list_namespace(key.namespace()) {
            let mut account = found.decode()?;
            let Some(secrets) = account.secrets.as_mut() else { continue };
            let before = secrets.len();
            secrets.retain(|secret| secret.name.as_deref() != Some(key.name()));
            if secrets.len() < before {
                api::gone_is_fine(api.replace(found.name(), &PostParams::default(), &account).await)?;
            }
        }
        Ok(Action::Done)
    }
}

/// The name of the account that a secret is for, if it is for one.
fn account_of(secret: &Secret) -> Option<&str> {
    let name = secret.metadata.annotations.as_ref()?.get(ACCOUNT_NAME)?;
    (secret.type_.as_deref() == Some(TYPE) && !name.is_empty()).then_some(name)
}

/// Returns whether a secret is for this very account, and not for one before it.
fn is_meant(secret: &Secret, account: &ServiceAccount) -> bool {
    let uid = secret.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ACCOUNT_UID));
    uid.is_none_or(|uid| uid.is_empty() || Some(uid) == account.metadata.uid.as_ref())
}

fn has(secret: &Secret, key: &str) -> bool {
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    data.is_some_and(|value| !value.0.is_empty())
}

/// Puts in what a secret should have besides its token; whether that changed it.
fn fill(secret: &mut Secret, account: &ServiceAccount, root_ca: Option<&str>) -> bool {
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
    fn a_secret_is_for_one_account() {
        assert_eq!(account_of(&secret("", &json!({}))), Some("a"));
        assert_eq!(account_of(&Secret { type_: Some("Opaque".into()), ..secret("", &json!({})) }), None);
        assert!(
            is_meant(&secret("", &json!({})), &account()) && is_meant(&secret("1", &json!({})), &account())
        );
        assert!(!is_meant(&secret("0", &json!({})), &account()));
    }

    #[test]
    fn what_is_missing_is_put_in_once() {
        let mut new = secret("", &json!({"more": "eA=="}));
        assert!(fill(&mut new, &account(), Some("CA")));
        assert!(!fill(&mut new, &account(), Some("CA")) && !fill(&mut new, &account(), None));
        assert!(!has(&new, TOKEN) && has(&new, "more"));
        let text = |secret: &Secret, key: &str| {
            String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
        };
        assert_eq!((text(&new, ROOT_CA).as_str(), text(&new, NAMESPACE).as_str()), ("CA", "n"));
        assert_eq!(new.metadata.annotations.as_ref().unwrap()[ACCOUNT_UID], "1");
        // The authority changes; what somebody else has put in as the namespace stays.
        assert!(fill(&mut new, &account(), Some("ANOTHER")));
        let mut own = secret("1", &json!({"namespace": "eA=="}));
        fill(&mut own, &account(), None);
        assert_eq!(text(&own, NAMESPACE), "x");
    }
}
