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

use std::collections::BTreeSet;

use nave_authn::certificate_name;
use nave_authz::Chain;
use nave_machinery::user::UserInfo;
use nave_machinery::{Status, Value, meta};
use nave_resources::{ResourceDef, certificate_request};
use x509_parser::certification_request::{X509CertificationRequest, X509CertificationRequestInfo};
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::FromDer;

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

/// The values of the attribute `oid` in the subject of a request, which is PEM in base64.
///
/// # Errors
/// The text is not a request, or a signer could read its subject in another way.
pub(super) fn subject_values(request: &str, oid: &Oid<'_>) -> Result<Vec<String>, String> {
    let der = certificate_request::der(request)?;
    let (rest, parsed) = X509CertificationRequest::from_der(&der).map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err("x509: trailing data".to_owned());
    }
    let info = &parsed.certification_request_info;
    check_extensions(info)?;
    let invalid = |error| format!("x509: invalid RDNSequence: invalid attribute value: {error}");
    certificate_name::check_readable(&info.subject).map_err(invalid)?;
    certificate_name::attribute_values(&info.subject, oid).map_err(invalid)
}

/// Refuses extensions that are requested twice: it would depend on the signer which of them counts.
fn check_extensions(info: &X509CertificationRequestInfo<'_>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for attribute in info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else { continue };
        for extension in &requested.extensions {
            if !seen.insert(extension.oid.as_bytes().to_vec()) {
                return Err("x509: certificate request contains duplicate requested extensions".to_owned());
            }
        }
    }
    Ok(())
}
