//! CertificateSigning: issuing a certificate requires `sign` on the signer.

use async_trait::async_trait;
use nave_authz::Chain;
use nave_machinery::{Object, Status};

use super::{has_verb_on_signer, is_request, signer_name};
use crate::plugins::Parts;
use crate::{Attributes, Plugin, Validate};

/// CertificateSigning.
pub(in crate::plugins) fn plugin(parts: &Parts) -> Plugin {
    Plugin::validating(CertificateSigning { authorizer: parts.authorizer.clone() })
}

pub(super) struct CertificateSigning {
    pub(super) authorizer: Chain,
}

#[async_trait]
impl Validate for CertificateSigning {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_update() && attributes.subresource == "status" && is_request(attributes)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let (Some(new), Some(old)) = (object, attributes.old) else { return Ok(()) };
        if is_unchanged(new, old) {
            return Ok(());
        }
        let signer = signer_name(old);
        if has_verb_on_signer(&self.authorizer, attributes.user, "sign", signer).await {
            return Ok(());
        }
        let why = format!("user not permitted to sign requests with signerName {signer:?}");
        Err(attributes.forbidden(object, why))
    }
}

/// Returns whether an update leaves the signer's fields unchanged.
fn is_unchanged(new: &Object, old: &Object) -> bool {
    let is_same = |field| new.value_at(&["status", field]) == old.value_at(&["status", field]);
    is_same("certificate") && is_same("conditions")
}
