//! What no certificate is asked for.

use nave_authz::SYSTEM_MASTERS;
use nave_machinery::{Status, Value, meta};

use super::{forbidden, in_subject, is_request, signer_name};
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
        // What is no text is no group that the server would read out of the certificate either.
        let master = in_subject(request, |subject| {
            subject.iter_organization().any(|group| group.as_str() == Ok(SYSTEM_MASTERS))
        });
        match master {
            Ok(false) => Ok(()),
            Ok(true) => {
                let why = format!("use of {CLIENT_SIGNER} signer with {SYSTEM_MASTERS} group is not allowed");
                Err(forbidden(attributes, &why))
            }
            Err(why) => Err(forbidden(attributes, &format!("failed to parse CSR: {why}"))),
        }
    }
}
