//! Volume claims of a stateful set's pods, and the owners that the retention policy requires.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::identity::{claim_name, claim_templates, ordinal};
use super::{is_in_range, spec_of};
use crate::owners::controller_reference;

/// Returns the new claims of a pod, with the owners that the retention policy requires.
pub(super) fn new_claims(set: &StatefulSet, pod: &Pod, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let selector = spec_of(set).selector.match_labels.clone().unwrap_or_default();
    let claims = claim_templates(set).map(|template| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(selector.clone());
        claim.metadata.owner_references = corrected_owners(&claim.metadata, set, pod);
        claim.status = None;
        claim
    });
    claims.collect()
}

/// Returns whether a claim will be deleted together with an earlier pod of the same name. A new pod must not use
/// such a claim.
pub(super) fn is_stale(claim: &ObjectMeta, set: &StatefulSet, pod: &Pod) -> bool {
    Policy::from_set(set).deletes_when_scaled && has_stale_reference(claim, &Owner::pod(pod))
}

/// Returns whether a controller other than the set and the pod manages the claim.
pub(super) fn has_other_controller(claim: &ObjectMeta, set: &StatefulSet, pod: &Pod) -> bool {
    let policy = Policy::from_set(set);
    if !policy.deletes_when_scaled && !policy.deletes_when_deleted {
        return false;
    }
    let (set, pod) = (Owner::set(set), Owner::pod(pod));
    references(claim).any(|reference| {
        let of_set_or_pod = [&set, &pod].into_iter().find(|owner| owner.is_named_by(reference));
        match of_set_or_pod {
            // The reference names an earlier object with this name. The garbage collector will delete the claim.
            Some(owner) => owner.meta.uid.as_ref() != Some(&reference.uid),
            None => reference.controller == Some(true),
        }
    })
}

/// Returns the corrected owner references of a claim; `None` if they match the policy.
///
/// | when scaled down | when the set is deleted | owner |
/// | --- | --- | --- |
/// | retain | retain | none |
/// | retain | delete | the set |
/// | delete | retain | the pod after it is scaled down |
/// | delete | delete | the set; the pod after it is scaled down |
pub(super) fn corrected_owners(
    claim: &ObjectMeta,
    set: &StatefulSet,
    pod: &Pod,
) -> Option<Vec<OwnerReference>> {
    let (set_owner, pod_owner) = (Owner::set(set), Owner::pod(pod));
    if has_stale_reference(claim, &set_owner) || has_stale_reference(claim, &pod_owner) {
        return None;
    }
    let is_own = |reference: &&OwnerReference| set_owner.matches(reference) || pod_owner.matches(reference);
    let others = || references(claim).filter(|reference| !is_own(reference)).cloned().collect::<Vec<_>>();
    if has_other_controller(claim, set, pod) {
        return references(claim).any(|reference| is_own(&reference)).then(others);
    }
    let policy = Policy::from_set(set);
    let scaled_down = ordinal(set, pod).is_some_and(|ordinal| !is_in_range(set, ordinal));
    let by_pod = policy.deletes_when_scaled && scaled_down;
    let by_set = policy.deletes_when_deleted && !by_pod;
    let has = |owner: &Owner<'_>| references(claim).any(|reference| owner.matches(reference));
    let all_control = references(claim).filter(is_own).all(|reference| reference.controller == Some(true));
    if has(&set_owner) == by_set && has(&pod_owner) == by_pod && all_control {
        return None;
    }
    let mut corrected = others();
    corrected.extend(by_set.then(|| set_owner.reference()));
    corrected.extend(by_pod.then(|| pod_owner.reference()));
    Some(corrected)
}

fn references(claim: &ObjectMeta) -> impl Iterator<Item = &OwnerReference> {
    claim.owner_references.iter().flatten()
}

fn has_stale_reference(claim: &ObjectMeta, owner: &Owner<'_>) -> bool {
    let named = references(claim).find(|reference| owner.is_named_by(reference));
    named.is_some_and(|reference| owner.meta.uid.as_ref() != Some(&reference.uid))
}

/// The `persistentVolumeClaimRetentionPolicy`; both fields default to `Retain`.
struct Policy {
    deletes_when_scaled: bool,
    deletes_when_deleted: bool,
}

impl Policy {
    fn from_set(set: &StatefulSet) -> Self {
        let policy = spec_of(set).persistent_volume_claim_retention_policy.as_ref();
        let deletes = |policy: Option<&String>| policy.is_some_and(|policy| policy == "Delete");
        Self {
            deletes_when_scaled: deletes(policy.and_then(|policy| policy.when_scaled.as_ref())),
            deletes_when_deleted: deletes(policy.and_then(|policy| policy.when_deleted.as_ref())),
        }
    }
}

/// The set or the pod as the owner of claims.
struct Owner<'a> {
    api_version: &'static str,
    kind: &'static str,
    meta: &'a ObjectMeta,
}

impl<'a> Owner<'a> {
    fn set(set: &'a StatefulSet) -> Self {
        Self { api_version: "apps/v1", kind: "StatefulSet", meta: &set.metadata }
    }

    fn pod(pod: &'a Pod) -> Self {
        Self { api_version: "v1", kind: "Pod", meta: &pod.metadata }
    }

    fn is_named_by(&self, reference: &OwnerReference) -> bool {
        reference.api_version == self.api_version
            && reference.kind == self.kind
            && Some(&reference.name) == self.meta.name.as_ref()
    }

    fn matches(&self, reference: &OwnerReference) -> bool {
        self.meta.uid.as_ref() == Some(&reference.uid)
    }

    fn reference(&self) -> OwnerReference {
        controller_reference(self.api_version, self.kind, self.meta)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixtures::{pod, set};
    use super::*;

    fn with_policy(when_scaled: &str, when_deleted: &str) -> StatefulSet {
        let mut set = set(2);
        let policy = json!({"whenScaled": when_scaled, "whenDeleted": when_deleted});
        set.spec.as_mut().unwrap().persistent_volume_claim_retention_policy =
            serde_json::from_value(policy).unwrap();
        set
    }

    fn owned_by(owners: &[OwnerReference]) -> ObjectMeta {
        ObjectMeta { owner_references: Some(owners.to_vec()), ..ObjectMeta::default() }
    }

    #[test]
    fn retention_policy_determines_the_owner() {
        // Columns: the policy when scaled, the policy when deleted, the expected owner for a pod in range, and the
        // expected owner for a pod that is scaled down.
        let cases = [
            ("Retain", "Retain", "", ""),
            ("Retain", "Delete", "set", "set"),
            ("Delete", "Retain", "", "pod"),
            ("Delete", "Delete", "set", "pod"),
        ];
        for (when_scaled, when_deleted, in_range, scaled_down) in cases {
            let set = with_policy(when_scaled, when_deleted);
            for (ordinal, expected) in [(1, in_range), (2, scaled_down)] {
                let pod = pod(&set, ordinal, "r");
                let (by_set, by_pod) = (Owner::set(&set).reference(), Owner::pod(&pod).reference());
                let wanted = match expected {
                    "set" => vec![by_set.clone()],
                    "pod" => vec![by_pod.clone()],
                    _ => vec![],
                };
                let starts = [vec![], vec![by_set.clone()], vec![by_pod.clone()], vec![by_set, by_pod]];
                for start in starts {
                    let corrected = corrected_owners(&owned_by(&start), &set, &pod);
                    assert_eq!(corrected.unwrap_or(start), wanted, "{when_scaled} {when_deleted} {ordinal}");
                }
            }
        }
    }

    #[test]
    fn ignores_claims_of_other_controllers_and_earlier_owners() {
        let set = with_policy("Delete", "Delete");
        let pod = pod(&set, 1, "r");
        let mut other = Owner::set(&set).reference();
        (other.kind, other.uid) = ("Database".to_owned(), "other".to_owned());
        assert_eq!(corrected_owners(&owned_by(std::slice::from_ref(&other)), &set, &pod), None);
        assert!(has_other_controller(&owned_by(std::slice::from_ref(&other)), &set, &pod));
        let both = owned_by(&[other.clone(), Owner::set(&set).reference()]);
        assert_eq!(corrected_owners(&both, &set, &pod), Some(vec![other]));

        let mut earlier = Owner::pod(&pod).reference();
        earlier.uid = "earlier".to_owned();
        let claim = owned_by(&[earlier]);
        assert_eq!(corrected_owners(&claim, &set, &pod), None);
        assert!(is_stale(&claim, &set, &pod));
        assert!(!is_stale(&claim, &with_policy("Retain", "Delete"), &pod));
    }

    #[test]
    fn turns_reference_into_controller_reference() {
        let set = with_policy("Retain", "Delete");
        let pod = pod(&set, 1, "r");
        let mut reference = Owner::set(&set).reference();
        reference.controller = None;
        let corrected = corrected_owners(&owned_by(&[reference]), &set, &pod);
        assert_eq!(corrected, Some(vec![Owner::set(&set).reference()]));
    }

    #[test]
    fn new_claim_has_labels_of_template_and_selector() {
        let set = with_policy("Retain", "Delete");
        let claims = new_claims(&set, &pod(&set, 1, "r"), 1);
        let [claim] = claims.as_slice() else { panic!("{claims:?}") };
        assert_eq!(claim.metadata.name.as_deref(), Some("data-web-1"));
        let labels = claim.metadata.labels.clone().unwrap();
        assert_eq!((labels["app"].as_str(), labels["disk"].as_str()), ("web", "fast"));
        assert_eq!(claim.metadata.owner_references, Some(vec![Owner::set(&set).reference()]));
    }
}
