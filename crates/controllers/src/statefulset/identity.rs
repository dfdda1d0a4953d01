//! Identity of a stateful set's pods: name, ordinal, labels and claims.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};

use super::spec_of;
use crate::history::REVISION_LABEL;
use crate::owners::controller_reference;
use crate::pods;
use crate::selectors::label;

const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// Splits a pod's name into the name of its set and its ordinal.
pub(super) fn parse(pod_name: &str) -> Option<(&str, i32)> {
    let (parent, ordinal) = pod_name.rsplit_once('-')?;
    if !ordinal.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((parent, ordinal.parse().ok()?))
}

/// Returns the ordinal of a pod of this set.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let (parent, ordinal) = parse(pod.metadata.name.as_deref()?)?;
    (Some(parent) == set.metadata.name.as_deref()).then_some(ordinal)
}

/// Returns the name of the pod with this ordinal.
pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default())
}

/// Creates a pod of the set at a revision.
pub(super) fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let owner = &set.metadata;
    let reference = controller_reference("apps/v1", "StatefulSet", owner);
    let namespace = owner.namespace.as_deref().unwrap_or_default();
    let mut pod =
        pods::from_template(template, namespace, owner.name.as_deref().unwrap_or_default(), reference);
    let name = pod_name(set, ordinal);
    pod.metadata.labels.get_or_insert_default().insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = spec_of(set).service_name.clone().filter(|service| !service.is_empty());
    pod.metadata.name = Some(name);
    conform(set, &mut pod, ordinal);
    pod
}

/// Sets the labels and volumes that a pod with this ordinal must have.
pub(super) fn conform(set: &StatefulSet, pod: &mut Pod, ordinal: i32) {
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME_LABEL.to_owned(), pod_name(set, ordinal));
    labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
    if storage_matches(set, pod, ordinal) {
        return;
    }
    let templates = claim_templates(set);
    let mut volumes: Vec<_> = templates.map(|template| volume(set, template, ordinal)).collect();
    let written = pod.spec.get_or_insert_default().volumes.take().unwrap_or_default();
    let is_claim =
        |name: &str| claim_templates(set).any(|template| template.metadata.name.as_deref() == Some(name));
    volumes.extend(written.into_iter().filter(|volume| !is_claim(&volume.name)));
    pod.spec.get_or_insert_default().volumes = Some(volumes);
}

/// Returns whether a pod has the name, the pod name label and the volumes for this ordinal.
pub(super) fn conforms(set: &StatefulSet, pod: &Pod, ordinal: i32) -> bool {
    let name = pod_name(set, ordinal);
    pod.metadata.name.as_ref() == Some(&name)
        && label(pod.metadata.labels.as_ref(), POD_NAME_LABEL) == Some(&name)
        && storage_matches(set, pod, ordinal)
}

fn storage_matches(set: &StatefulSet, pod: &Pod, ordinal: i32) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claims: BTreeMap<_, _> = volumes
        .filter_map(|volume| {
            Some((volume.name.as_str(), &volume.persistent_volume_claim.as_ref()?.claim_name))
        })
        .collect();
    claim_templates(set).all(|template| {
        let mounted = claims.get(template.metadata.name.as_deref().unwrap_or_default());
        mounted.is_some_and(|name| **name == claim_name(set, template, ordinal))
    })
}

fn volume(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> Volume {
    Volume {
        name: template.metadata.name.clone().unwrap_or_default(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(set, template, ordinal),
            read_only: None,
        }),
        ..Volume::default()
    }
}

/// The claim templates of the set.
pub(super) fn claim_templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    spec_of(set).volume_claim_templates.iter().flatten()
}

/// Returns the name of the claim for a template and an ordinal.
pub(super) fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}", template.metadata.name.as_deref().unwrap_or_default(), pod_name(set, ordinal))
}

/// Returns the revision label of a pod.
pub(super) fn revision(pod: &Pod) -> &str {
    label(pod.metadata.labels.as_ref(), REVISION_LABEL).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::set;
    use super::*;

    #[test]
    fn pod_name_ends_with_ordinal() {
        assert_eq!(parse("web-0"), Some(("web", 0)));
        assert_eq!(parse("my-web-12"), Some(("my-web", 12)));
        for name in ["web", "web-", "web-x", "web-+1", "web-99999999999"] {
            assert_eq!(
                parse(name).map(|(_, ordinal)| ordinal),
                parse("web-").map(|(_, ordinal)| ordinal),
                "{name}"
            );
        }
    }

    #[test]
    fn new_pod_has_identity_and_claims() {
        let set = set(3);
        let template = &spec_of(&set).template;
        let pod = new_pod(&set, template, "web-abc", 2);
        let labels = pod.metadata.labels.clone().unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-2"));
        assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-2");
        assert_eq!(labels["apps.kubernetes.io/pod-index"], "2");
        assert_eq!(labels["controller-revision-hash"], "web-abc");
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-2"), Some("nginx")));
        let volumes: Vec<_> = spec.volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
        assert_eq!(volumes, ["data", "tmp"]);
        let claim = spec.volumes.as_ref().unwrap()[0].persistent_volume_claim.as_ref().unwrap();
        assert_eq!(claim.claim_name, "data-web-2");
        assert!(conforms(&set, &pod, 2));
    }

    #[test]
    fn restores_label_and_claim_of_pod() {
        let set = set(3);
        let pod = new_pod(&set, &spec_of(&set).template, "web-abc", 2);
        let mut bare = pod.clone();
        bare.metadata.labels.as_mut().unwrap().remove(POD_NAME_LABEL);
        assert!(!conforms(&set, &bare, 2));
        bare.spec.as_mut().unwrap().volumes.as_mut().unwrap().remove(0);
        conform(&set, &mut bare, 2);
        assert_eq!(bare, pod);
    }
}
