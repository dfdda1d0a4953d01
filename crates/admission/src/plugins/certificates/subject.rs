//! The subject of a certificate signing request.

use std::collections::BTreeSet;

use nave_authn::certificate_name;
use nave_resources::certificate_request;
use x509_parser::certification_request::{X509CertificationRequest, X509CertificationRequestInfo};
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::FromDer;

/// Returns the values of the attribute `oid` in the subject of a request in base64-encoded PEM.
///
/// # Errors
/// The text is not a request, or signers could interpret its subject differently.
pub(in crate::plugins) fn subject_values(request: &str, oid: &Oid<'_>) -> Result<Vec<String>, String> {
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

/// Refuses duplicate requested extensions, because signers could use different ones.
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
