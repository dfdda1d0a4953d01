//! Access control of certificate requests, approval, signing and trust bundles (upstream:
//! `plugin/pkg/admission/certificates`).
//!
//! The verbs `approve`, `sign` and `attest` are checked on the resource `signers` of `certificates.k8s.io`, with the
//! signer's name: for example `sign` on `example.com/serving`, or on `example.com/*` for all signers of the domain.

mod approval;
mod attest;
mod requester;
mod signing;
pub(super) mod subject;
mod subject_restriction;
#[cfg(test)]
mod tests;

use nave_authz::{Chain, Decision};
use nave_machinery::Object;
use nave_machinery::user::UserInfo;

use crate::Attributes;

pub(super) use approval::plugin as approval;
pub(super) use attest::plugin as attest;
pub use requester::set_certificate_requester;
pub(super) use signing::plugin as signing;
pub(super) use subject_restriction::plugin as subject_restriction;

const GROUP: &str = "certificates.k8s.io";

fn is_request(attributes: &Attributes<'_>) -> bool {
    attributes.is_resource(GROUP, "certificatesigningrequests")
}

fn signer_name(object: &Object) -> &str {
    object.str_at(&["spec", "signerName"]).unwrap_or_default()
}

/// Returns whether a user has a verb on a signer, or on all signers of its domain.
async fn has_verb_on_signer(authorizer: &Chain, user: &UserInfo, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer, &format!("{domain}/*")] {
        let attributes = nave_authz::Attributes {
            verb,
            group: GROUP,
            version: "*",
            resource: "signers",
            name,
            ..nave_authz::Attributes::for_user(user)
        };
        if authorizer.decide(&attributes).await.decision == Decision::Allow {
            return true;
        }
    }
    false
}
