//! CertificateApproval: approving and denying a request requires `approve` on its signer.

use async_trait::async_trait;
use nave_authz::Chain;
use nave_machinery::{Object, Status};

use super::{has_verb_on_signer, is_request, signer_name};
use crate::plugins::Parts;
use crate::{Attributes, Plugin, Validate};

/// CertificateApproval.
pub(in crate::plugins) fn plugin(parts: &Parts) -> Plugin {
    Plugin::validating(CertificateApproval { authorizer: parts.authorizer.clone() })
}

pub(super) struct CertificateApproval {
    pub(super) authorizer: Chain,
}

#[async_trait]
impl Validate for CertificateApproval {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_update() && attributes.subresource == "approval" && is_request(attributes)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(old) = attributes.old else { return Ok(()) };
        // The stored request determines the signer; the update could name another signer.
        let signer = signer_name(old);
        if has_verb_on_signer(&self.authorizer, attributes.user, "approve", signer).await {
            return Ok(());
        }
        let why = format!("user not permitted to approve requests with signerName {signer:?}");
        Err(attributes.forbidden(object, why))
    }
}
