//! API approval of definitions in the Kubernetes community's groups (KEP-1111).

use nave_machinery::{FieldError, FieldPath};
use nave_structural::formats::RequestUri;

use crate::validate::{At, Errors};

/// The annotation that links to the approval.
const ANNOTATION: &str = "api-approved.kubernetes.io";

const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

/// The state of an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// The annotation is missing.
    Missing,
    /// The annotation states that the API is unapproved.
    Bypassed,
    /// The annotation is a URL.
    Approved,
    /// The annotation is something else.
    Invalid,
}

impl Approval {
    /// Parses the annotation. Returns the state and the message of the condition
    /// `KubernetesAPIApprovalPolicyConformant`.
    pub fn of(annotation: &str) -> (Self, String) {
        let is_url =
            RequestUri::parse(annotation).is_some_and(|uri| !uri.scheme.is_empty() && !uri.host.is_empty());
        let needed = format!("protected groups must have approval annotation {ANNOTATION:?}");
        if annotation.is_empty() {
            (Self::Missing, format!("{needed}, {SEE}"))
        } else if annotation.starts_with("unapproved") {
            (Self::Bypassed, format!("not approved: {annotation:?}"))
        } else if is_url {
            (Self::Approved, format!("approved in {annotation}"))
        } else {
            (
                Self::Invalid,
                format!("{needed} with either a URL or a reason starting with \"unapproved\", {SEE}"),
            )
        }
    }
}

/// Returns whether a group belongs to the Kubernetes community.
pub fn is_protected_group(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|domain| {
        group.strip_suffix(domain).is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
    })
}

/// Checks the approval. An update that does not change the state is accepted.
pub(super) fn check(root: At, old: Option<At>, errors: &mut Errors) {
    if !is_protected_group(root.field("spec").field("group").text()) {
        return;
    }
    let annotation = |root: At| -> String {
        root.field("metadata").field("annotations").key(ANNOTATION).text().to_owned()
    };
    let new = annotation(root);
    let (state, why) = Approval::of(&new);
    if old.is_some_and(|old| Approval::of(&annotation(old)).0 == state) {
        return;
    }
    let path = FieldPath::new("metadata").child("annotations").key(ANNOTATION);
    match state {
        Approval::Missing => errors.push(FieldError::required(&path, why)),
        Approval::Invalid => errors.push(FieldError::invalid(&path, new, why)),
        Approval::Bypassed | Approval::Approved => {}
    }
}
