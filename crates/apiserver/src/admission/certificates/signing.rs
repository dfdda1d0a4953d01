//! Who signs requests.

use nave_authz::Chain;
use nave_machinery::{Status, Value, meta};

use super::{forbidden, is_request, may_with_signer, signer_name};
use crate::admission::{Attributes, Operation, Plugin, Rights};

/// Lets those put a certificate or conditions into a request's status who may `sign` for its signer.
pub struct CertificateSigning {
    /// Who may what.
    pub authorization: Chain,
}

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn admit_by_rights(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Value>,
        rights: &Rights,
    ) -> Result<(), Status> {
        let (Operation::Update(old), Some(new)) = (attributes.operation, object.map(|object| &*object))
        else {
            return Ok(());
        };
        if attributes.subresource != "status" || !is_request(attributes.def) || unchanged(new, old) {
            return Ok(());
        }
        let signer = signer_name(old);
        if may_with_signer(rights, &self.authorization, attributes.user, "sign", signer)? {
            return Ok(());
        }
        let why = format!("user not permitted to sign requests with signerName {signer:?}");
        Err(forbidden(attributes, &why))
    }
}

/// Whether an update leaves alone what a signer writes.
fn unchanged(new: &Value, old: &Value) -> bool {
    let same = |field| meta::at(new, &["status", field]) == meta::at(old, &["status", field]);
    same("certificate") && same("conditions")
}
