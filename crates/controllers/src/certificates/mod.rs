//! Certificate signing requests: approved for kubelets, signed, and cleaned up (upstream: `certificates`).
//!
//! | module | purpose |
//! | --- | --- |
//! | [`request`] | decodes requests and checks them against the rules of their signer |
//! | [`approving`] | approves the client certificates of kubelets |
//! | [`signing`] | signs approved requests |
//! | [`cleaner`] | deletes old requests |

pub(crate) mod approving;
pub(crate) mod cleaner;
mod request;
pub(crate) mod signing;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

/// Returns whether a request has a condition of this type whose status is not `False`.
fn has_condition(request: &CertificateSigningRequest, type_: &str) -> bool {
    conditions(request).any(|condition| condition.type_ == type_ && condition.status != "False")
}

fn conditions(
    request: &CertificateSigningRequest,
) -> impl Iterator<Item = &CertificateSigningRequestCondition> {
    request.status.iter().flat_map(|status| status.conditions.iter().flatten())
}

/// The issued certificate.
fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(certificate.0.as_slice()).filter(|certificate| !certificate.is_empty())
}

#[cfg(test)]
mod fixtures {
    use serde_json::{Value, json};

    use super::CertificateSigningRequest;

    pub(super) fn request(spec: &Value, status: &Value) -> CertificateSigningRequest {
        let mut whole = json!({"metadata": {"name": "r", "creationTimestamp": "2026-01-01T11:00:00Z"},
            "spec": {"request": "", "signerName": "x/y", "usages": ["client auth"]}, "status": status});
        for (key, value) in spec.as_object().unwrap() {
            whole["spec"][key] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }
}
