//! Who approves and denies requests.

use nave_authz::Chain;
use nave_machinery::{Status, Value};

use super::{forbidden, is_request, may_with_signer, signer_name};
use crate::admission::{Attributes, Operation, Plugin, Rights};

/// Lets those approve or deny a request who may `approve` for its signer.
pub struct CertificateApproval {
    /// Who may what.
    pub authorization: Chain,
}

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn admit_by_rights(
        &self,
        attributes: &Attributes<'_>,
        _: Option<&mut Value>,
        rights: &Rights,
    ) -> Result<(), Status> {
        let Operation::Update(old) = attributes.operation else { return Ok(()) };
        if attributes.subresource != "approval" || !is_request(attributes.def) {
            return Ok(());
        }
        // The signer it was made for counts, whatever the update says.
        let signer = signer_name(old);
        if may_with_signer(rights, &self.authorization, attributes.user, "approve", signer)? {
            return Ok(());
        }
        let why = format!("user not permitted to approve requests with signerName {signer:?}");
        Err(forbidden(attributes, &why))
    }
}
