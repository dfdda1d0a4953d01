//! Who may ask for certificates, approve them and sign them (upstream: `plugin/pkg/admission/certificates`).
//!
//! Rights to approve and to sign are rights on `signers` of `certificates.k8s.io`, by the signer's name: `approve` or
//! `sign` on `example.com/serving`, or on `example.com/*` for all signers of the domain.

mod approval;
mod requester;
mod signing;
mod subject_restriction;
#[cfg(test)]
mod tests;

use base64::Engine;
use nave_authz::Chain;
use nave_machinery::user::UserInfo;
use nave_machinery::{Status, Value, meta};
use nave_resources::ResourceDef;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

pub use approval::CertificateApproval;
pub use requester::CertificateRequester;
pub use signing::CertificateSigning;
pub use subject_restriction::CertificateSubjectRestriction;

use super::{Attributes, Rights};

const GROUP: &str = "certificates.k8s.io";

fn is_request(def: &ResourceDef) -> bool {
    def.group == GROUP && def.resource == "certificatesigningrequests"
}

fn signer_name(request: &Value) -> &str {
    meta::str_at(request, &["spec", "signerName"]).unwrap_or_default()
}

/// Whether a user has the right to a verb on a signer, or on all signers of its domain.
///
/// # Errors
/// An authorizer has yet to answer.
fn may_with_signer(
    rights: &Rights,
    authorization: &Chain,
    user: &UserInfo,
    verb: &str,
    signer: &str,
) -> Result<bool, Status> {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer, &format!("{domain}/*")] {
        let asked = nave_authz::Attributes {
            verb,
            group: GROUP,
            version: "*",
            resource: "signers",
            name,
            ..nave_authz::Attributes::of(user)
        };
        if rights.may(authorization, &asked)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn forbidden(attributes: &Attributes<'_>, why: &str) -> Status {
    Status::forbidden(&attributes.def.group_resource(), attributes.name, why)
}

/// What `read` finds in the subject of a request, which is PEM in base64.
///
/// # Errors
/// It is no request.
pub(super) fn in_subject<T>(request: &str, read: impl FnOnce(&X509Name<'_>) -> T) -> Result<T, String> {
    let not_pem = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let bytes = base64::engine::general_purpose::STANDARD.decode(request).map_err(|_| not_pem())?;
    let (pem, _) = Pem::read(std::io::Cursor::new(&bytes)).map_err(|_| not_pem())?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err(not_pem());
    }
    let (_, request) =
        X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
    Ok(read(&request.certification_request_info.subject))
}
