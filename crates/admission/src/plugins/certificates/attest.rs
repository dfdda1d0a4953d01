//! ClusterTrustBundleAttest: writing a trust bundle requires `attest` on its signer.

use async_trait::async_trait;
use nave_authz::Chain;
use nave_machinery::{Object, Status};

use super::{GROUP, has_verb_on_signer, signer_name};
use crate::plugins::{Parts, changes_ownership_only};
use crate::{Attributes, Plugin, Validate};

/// ClusterTrustBundleAttest.
pub(in crate::plugins) fn plugin(parts: &Parts) -> Plugin {
    Plugin::validating(TrustBundleAttest { authorizer: parts.authorizer.clone() })
}

pub(super) struct TrustBundleAttest {
    pub(super) authorizer: Chain,
}

#[async_trait]
impl Validate for TrustBundleAttest {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_write() && attributes.is_resource(GROUP, "clustertrustbundles")
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(bundle) = object else { return Ok(()) };
        // The new object has the signer of the stored object: validation refuses to change it.
        let signer = signer_name(bundle);
        if signer.is_empty() {
            return Ok(());
        }
        // Garbage collection and storage migration are exempt.
        let old = attributes.old.filter(|_| attributes.is_update());
        if old.is_some_and(|old| changes_ownership_only(bundle, old))
            || has_verb_on_signer(&self.authorizer, attributes.user, "attest", signer).await
        {
            return Ok(());
        }
        Err(attributes
            .forbidden(object, format_args!("user not permitted to attest for signerName {signer:?}")))
    }
}
