//! CertificateSubjectRestriction refuses client certificates for the group `system:masters`, which bypasses
//! authorization.

use async_trait::async_trait;
use nave_authz::SYSTEM_MASTERS;
use nave_machinery::{Object, Status};
use x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME;

use super::subject::subject_values;
use super::{is_request, signer_name};
use crate::{Attributes, Plugin, Validate};

/// The signer of client certificates.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// CertificateSubjectRestriction.
pub(in crate::plugins) fn plugin() -> Plugin {
    Plugin::validating(CertificateSubjectRestriction)
}

pub(super) struct CertificateSubjectRestriction;

#[async_trait]
impl Validate for CertificateSubjectRestriction {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_create() && attributes.is_object() && is_request(attributes)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(request) = object.filter(|request| signer_name(request) == CLIENT_SIGNER) else {
            return Ok(());
        };
        let encoded = request.str_at(&["spec", "request"]).unwrap_or_default();
        match subject_values(encoded, &OID_X509_ORGANIZATION_NAME) {
            Ok(groups) if groups.iter().all(|group| group != SYSTEM_MASTERS) => Ok(()),
            Ok(_) => {
                let why = format!("use of {CLIENT_SIGNER} signer with {SYSTEM_MASTERS} group is not allowed");
                Err(attributes.forbidden(request, why))
            }
            Err(why) => Err(attributes.forbidden(request, format_args!("failed to parse CSR: {why}"))),
        }
    }
}
