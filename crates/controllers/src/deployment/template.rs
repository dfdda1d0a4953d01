//! The pod template in a deployment's replica sets, with the hash label that distinguishes their pods.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::hash;
use crate::owners::controller_reference;

/// The label that holds the hash of the template.
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";

/// The maximum length of an object name.
const NAME_MAX: usize = 253;

/// The replica set with the deployment's current template; if several match, the oldest, so that the choice is stable.
pub(super) fn find_new<'a>(deployment: &Deployment, sets: &'a [ReplicaSet]) -> Option<&'a ReplicaSet> {
    let wanted = template_of(deployment);
    let equal = sets.iter().filter(|set| {
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template.is_some_and(|template| equal_ignoring_hash(template, wanted))
    });
    equal.min_by(|a, b| age_order(&a.metadata, &b.metadata))
}

/// Orders objects by age, then by name.
pub(super) fn age_order(a: &ObjectMeta, b: &ObjectMeta) -> std::cmp::Ordering {
    a.creation_timestamp.cmp(&b.creation_timestamp).then_with(|| a.name.cmp(&b.name))
}

/// Returns whether two templates are equal apart from the hash label.
pub(super) fn equal_ignoring_hash(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut metadata = template.metadata.clone().unwrap_or_default();
        if let Some(labels) = &mut metadata.labels {
            labels.remove(TEMPLATE_HASH);
        }
        metadata.labels = metadata.labels.filter(|labels| !labels.is_empty());
        metadata
    };
    a.spec == b.spec && plain(a) == plain(b)
}

/// A new replica set for the current template, with size 0 and without annotations. `collisions` is the number of names
/// already taken by other templates.
pub(super) fn new_set(deployment: &Deployment, collisions: Option<i32>) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = metadata.labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.clone());

    let owner = deployment.metadata.name.as_deref().unwrap_or_default();
    let prefix: String = owner.chars().take(NAME_MAX - 1 - hash.len()).collect();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            owner_references: Some(vec![controller_reference("apps/v1", "Deployment", &deployment.metadata)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// A hash of a template that is stable across processes and versions: FNV-1a over the JSON, whose maps are sorted.
fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // Cannot fail: the template was decoded from JSON.
    let json = serde_json::to_vec(template).unwrap_or_default();
    let salt = collisions.map(i32::to_le_bytes);
    let bytes = json.iter().chain(salt.iter().flatten());
    hash::name_safe_hash(bytes)
}

fn template_of(deployment: &Deployment) -> &PodTemplateSpec {
    static EMPTY: PodTemplateSpec = PodTemplateSpec { metadata: None, spec: None };
    deployment.spec.as_ref().map_or(&EMPTY, |spec| &spec.template)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::deployment;
    use super::*;

    #[test]
    fn template_hash_is_stable() {
        let set = new_set(&deployment(3), None);
        assert_eq!(set.metadata.name.as_deref(), Some("web-fdf6cb4cd"));
        assert_ne!(new_set(&deployment(3), Some(1)).metadata.name, set.metadata.name);
    }

    #[test]
    fn new_set_selects_only_its_own_pods() {
        let set = new_set(&deployment(3), None);
        let spec = set.spec.unwrap();
        let labels = spec.template.unwrap().metadata.unwrap().labels.unwrap();
        let hash = &labels[TEMPLATE_HASH];
        assert_eq!(&spec.selector.match_labels.unwrap()[TEMPLATE_HASH], hash);
        assert_eq!(set.metadata.labels.unwrap(), labels);
        assert!(set.metadata.name.unwrap().ends_with(hash.as_str()));
    }

    #[test]
    fn finds_set_of_the_current_template_by_content() {
        let deployment = deployment(3);
        let mut sets = [new_set(&deployment, None), new_set(&deployment, Some(7))];
        sets[0].metadata.creation_timestamp = serde_json::from_str("\"2026-01-02T00:00:00Z\"").unwrap();
        sets[1].metadata.creation_timestamp = serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
        assert_eq!(find_new(&deployment, &sets), Some(&sets[1]));
        let mut other = deployment;
        let template = &mut other.spec.as_mut().unwrap().template;
        template.spec.as_mut().unwrap().containers[0].image = Some("y".into());
        assert_eq!(find_new(&other, &sets), None);
    }
}
