//! What no certificate is asked for.

use nave_authz::SYSTEM_MASTERS;
use nave_machinery::{Status, Value, meta};
use x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME;

use super::{forbidden, is_request, signer_name, subject_values};
use crate::admission::{Attributes, Operation, Plugin};

/// The signer of certificates with which users come to the server.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Refuses requests for certificates of `system:masters`, for whom no authorizer is asked.
pub struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Value>) -> Result<(), Status> {
        let (Operation::Create, Some(request)) = (attributes.operation, object.map(|object| &*object)) else {
            return Ok(());
        };
        let concerns = is_request(attributes.def) && attributes.subresource.is_empty();
        if !concerns || signer_name(request) != CLIENT_SIGNER {
            return Ok(());
        }
        let request = meta::str_at(request, &["spec", "request"]).unwrap_or_default();
        match subject_values(request, &OID_X509_ORGANIZATION_NAME) {
            Ok(groups) if groups.iter().all(|group| group != SYSTEM_MASTERS) => Ok(()),
            Ok(_) => {
                let why = format!("use of {CLIENT_SIGNER} signer with {SYSTEM_MASTERS} group is not allowed");
                Err(forbidden(attributes, &why))
            }
            Err(why) => Err(forbidden(attributes, &format!("failed to parse CSR: {why}"))),
        }
    }
}
