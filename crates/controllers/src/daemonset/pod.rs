//! The pods of a daemon set: placement, construction, and target node.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    PodTemplateSpec, Toleration,
};
use nave_client::Object;

use super::spec_of;
use crate::history::REVISION_LABEL;
use crate::owners::controller_reference;
use crate::pods::{self, node_name};
use crate::scheduling::{NodeView, selects_node, tolerates_all};
use crate::selectors::label;

const NODE_NAME_FIELD: &str = "metadata.name";
/// Annotation of a set: its template generation, which pods have as a label.
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";

/// The taints that every daemon pod tolerates, so that it runs on unhealthy nodes.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// The placement decision for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The node should run a pod.
    ShouldRun,
    /// An existing pod may continue to run; no new pod is created.
    MayContinue,
    /// The node must not run a pod.
    MustNotRun,
}

/// Decides whether a node should run a pod of the set.
pub(super) fn fit(spec: &PodSpec, node: &NodeView) -> Fit {
    let named = spec.node_name.as_deref().filter(|name| !name.is_empty());
    if named.is_some_and(|name| name != node.name) || !selects_node(spec, node) {
        return Fit::MustNotRun;
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    if tolerates_all(tolerations, &node.taints, &["NoSchedule", "NoExecute"]) {
        Fit::ShouldRun
    } else if tolerates_all(tolerations, &node.taints, &["NoExecute"]) {
        Fit::MayContinue
    } else {
        Fit::MustNotRun
    }
}

/// The set's template with the labels, tolerations and node name rules of its pods.
pub(super) fn template(set: &DaemonSet, hash: &str) -> PodTemplateSpec {
    let mut template = spec_of(set).template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    if let Some(generation) = generation(set) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.to_owned());
    }
    labels.insert(REVISION_LABEL.to_owned(), hash.to_owned());
    let spec = template.spec.get_or_insert_default();
    let network = (spec.host_network == Some(true)).then_some(NETWORK_UNAVAILABLE);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    template
}

/// A pod for a node. Its node affinity makes the scheduler bind it to that node.
pub(super) fn new_pod(set: &DaemonSet, template: &PodTemplateSpec, node: &str) -> Pod {
    let owner = &set.metadata;
    let reference = controller_reference("apps/v1", "DaemonSet", owner);
    let namespace = owner.namespace.as_deref().unwrap_or_default();
    let mut pod =
        pods::from_template(template, namespace, owner.name.as_deref().unwrap_or_default(), reference);
    let requirement = NodeSelectorRequirement {
        key: NODE_NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), match_expressions: None };
    let spec = pod.spec.get_or_insert_default();
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    pod
}

/// Decodes the parts of a pod that the controller uses, including the affinity of an unbound pod.
///
/// # Errors
/// The JSON is not a pod.
pub(super) fn read(pod: &Object<Pod>) -> Result<Pod, serde_json::Error> {
    let read = pods::read(pod)?;
    if node_name(&read).is_some() { Ok(read) } else { pod.decode() }
}

/// The node that a pod is bound to or was created for.
pub(super) fn target_node(pod: &Pod) -> Option<&str> {
    if let Some(name) = node_name(pod) {
        return Some(name);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == NODE_NAME_FIELD && field.operator == "In");
    match names.next()?.values.as_deref() {
        Some([name]) => Some(name),
        _ => None,
    }
}

/// Returns whether a pod was created from the current template.
pub(super) fn is_updated(set: &DaemonSet, pod: &Pod, hash: &str) -> bool {
    let labels = pod.metadata.labels.as_ref();
    let of_generation = generation(set).is_some_and(|it| label(labels, GENERATION_LABEL) == Some(it));
    of_generation || label(labels, REVISION_LABEL) == Some(hash)
}

fn generation(set: &DaemonSet) -> Option<&str> {
    let generation = label(set.metadata.annotations.as_ref(), GENERATION_ANNOTATION)?;
    generation.parse::<i64>().is_ok().then_some(generation)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Taint;
    use serde_json::{Value, json};

    use super::super::fixtures::{node, set};
    use super::*;

    #[test]
    fn decides_placement_by_selector_and_taints() {
        let taint = |effect: &str| json!({"key": "k", "effect": effect});
        let cases: [(Value, Vec<Value>, Fit); 6] = [
            (json!({}), vec![], Fit::ShouldRun),
            (json!({"nodeSelector": {"disk": "ssd"}}), vec![], Fit::MustNotRun),
            (json!({"nodeName": "other"}), vec![], Fit::MustNotRun),
            (json!({}), vec![taint("NoSchedule")], Fit::MayContinue),
            (json!({}), vec![taint("NoExecute")], Fit::MustNotRun),
            (json!({"tolerations": [{"operator": "Exists"}]}), vec![taint("NoExecute")], Fit::ShouldRun),
        ];
        for (change, taints, expected) in cases {
            let mut spec = json!({"containers": []});
            spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let mut node = node("n1");
            let parsed = taints.iter().map(|it| serde_json::from_value::<Taint>(it.clone()).unwrap());
            node.taints = parsed.collect();
            assert_eq!(fit(&serde_json::from_value(spec).unwrap(), &node), expected, "{change} {taints:?}");
        }
    }

    #[test]
    fn new_pod_targets_its_node_and_tolerates_node_problems() {
        let mut set = set();
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}});
        let template_spec = set.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        template_spec.affinity = serde_json::from_value(affinity).unwrap();
        let pod = new_pod(&set, &template(&set, "abc"), "n7");
        assert_eq!(target_node(&pod), Some("n7"));
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.tolerations.as_ref().unwrap().len(), 6);
        assert!(is_updated(&set, &pod, "abc") && !is_updated(&set, &pod, "def"));
        let host = json!({"containers": [], "hostNetwork": true});
        set.spec.as_mut().unwrap().template.spec = serde_json::from_value(host).unwrap();
        assert_eq!(template(&set, "abc").spec.unwrap().tolerations.unwrap().len(), 7);
    }

    #[test]
    fn pod_of_the_current_generation_is_updated() {
        let mut set = set();
        set.metadata.annotations = Some([(GENERATION_ANNOTATION.to_owned(), "4".to_owned())].into());
        let pod = new_pod(&set, &template(&set, "abc"), "n");
        assert!(is_updated(&set, &pod, "def"));
        set.metadata.annotations = Some([(GENERATION_ANNOTATION.to_owned(), "5".to_owned())].into());
        assert!(!is_updated(&set, &pod, "def"));
    }

    #[test]
    fn pod_affine_to_several_nodes_has_no_target() {
        let pod = |values: &[&str]| -> Pod {
            let field = json!({"key": "metadata.name", "operator": "In", "values": values});
            serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [field]}]}}}}}))
            .unwrap()
        };
        assert_eq!(target_node(&pod(&["n1"])), Some("n1"));
        assert_eq!(target_node(&pod(&["n1", "n2"])), None);
        assert_eq!(target_node(&pod(&[])), None);
    }
}
