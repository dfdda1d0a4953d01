//! Service accounts: their users and their tokens.
//!
//! | file | contents |
//! | --- | --- |
//! | [`claims`] | the claims: the account, and the bound object |
//! | [`keys`](KeyRing) | the keys that sign and verify |
//! | [`issuer`](Issuer) | issues tokens (`serviceaccounts/token`) |
//! | [`bound`](BoundTokens) | authenticates tokens while their account and bound object exist |
//! | [`legacy`](LegacyTokens) | authenticates tokens stored in secrets |
//! | [`discovery`] | OpenID Connect discovery documents |

mod bound;
pub mod claims;
pub mod discovery;
mod issuer;
mod keys;
mod legacy;
#[cfg(test)]
mod tests;

use nave_machinery::Value;
use nave_machinery::user::UserInfo;

pub use bound::BoundTokens;
pub use claims::{BoundObject, Reference};
pub use issuer::{Issued, Issuer, IssuerConfig};
pub use keys::{KeyRing, Keys};
pub use legacy::{LAST_USED, LegacyTokens, SecretUse};

use crate::{AuthnError, CREDENTIAL_ID, Objects};

/// The issuer of legacy tokens.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// The group of all service accounts.
pub const ALL_GROUP: &str = "system:serviceaccounts";
const USER_PREFIX: &str = "system:serviceaccount:";

/// The user name of a service account.
pub fn user_name(namespace: &str, name: &str) -> String {
    format!("{USER_PREFIX}{namespace}:{name}")
}

/// Splits a service account's user name into namespace and name; `None` for other users.
pub fn split_user_name(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(USER_PREFIX)?.split_once(':')?;
    let fits = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
    fits.then_some((namespace, name))
}

/// The groups of a service account in a namespace.
pub fn groups(namespace: &str) -> Vec<String> {
    vec![ALL_GROUP.to_owned(), format!("{ALL_GROUP}:{namespace}")]
}

/// The data of a token from which the user is built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Info {
    namespace: String,
    account: Reference,
    pod: Option<Reference>,
    node: Option<Reference>,
    /// The token's id (`jti`); empty if the token has no id.
    token_id: String,
}

impl Info {
    fn into_user(self) -> UserInfo {
        let mut user = UserInfo {
            name: user_name(&self.namespace, &self.account.name),
            uid: self.account.uid,
            groups: groups(&self.namespace),
            ..UserInfo::default()
        };
        let mut add = |key: &str, value: String| {
            if !value.is_empty() {
                user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
            }
        };
        if let Some(pod) = self.pod {
            add("pod-name", pod.name);
            add("pod-uid", pod.uid);
        }
        if let Some(node) = self.node {
            add("node-name", node.name);
            add("node-uid", node.uid);
        }
        if !self.token_id.is_empty() {
            user.extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={}", self.token_id)]);
        }
        user
    }
}

/// Looks up the account and the bound object.
struct Lookup<'a> {
    objects: &'a dyn Objects,
    /// Objects with an earlier deletion timestamp count as deleted, in seconds since 1970.
    deleted_before: f64,
}

impl Lookup<'_> {
    fn account(&self, namespace: &str, named: &Reference) -> Result<Value, AuthnError> {
        let Reference { name, uid } = named;
        let found = self.objects.get("serviceaccounts", namespace, name);
        let found = found.ok_or_else(|| refused(format!("serviceaccounts {name:?} not found")))?;
        let live = nave_machinery::meta::uid(&found);
        if live != uid {
            return Err(refused(format!("service account UID ({live}) does not match claim ({uid})")));
        }
        if self.is_gone(&found) {
            return Err(refused(format!("service account {namespace}/{name} has been deleted")));
        }
        Ok(found)
    }

    /// Checks that the object to which a token is bound exists and has the same uid. Errors name the given kind.
    fn bound(
        &self,
        (kind, resource): (&str, &str),
        namespace: &str,
        named: &Reference,
    ) -> Result<Value, AuthnError> {
        let found = self.objects.get(resource, namespace, &named.name).ok_or_else(invalidated)?;
        let live = nave_machinery::meta::uid(&found);
        if live != named.uid {
            let text = format!(
                "{kind} UID ({live}) does not match service account {} ref claim ({})",
                kind.to_lowercase(),
                named.uid
            );
            return Err(refused(text));
        }
        if self.is_gone(&found) { Err(invalidated()) } else { Ok(found) }
    }

    fn is_gone(&self, object: &Value) -> bool {
        let deleted = nave_machinery::meta::deletion_timestamp(object).map(claims::seconds);
        deleted.is_some_and(|at| at.is_none_or(|at| at < self.deleted_before))
    }
}

fn invalidated() -> AuthnError {
    refused("service account token has been invalidated")
}

fn refused(why: impl Into<String>) -> AuthnError {
    AuthnError::Token(why.into())
}
