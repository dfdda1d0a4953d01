//! Taints, tolerations and node affinity: the subset that controllers need to decide whether a pod fits a node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use nave_client::Object;

use crate::selectors::label;

/// The properties of a node that affect placement.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeView {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
}

impl NodeView {
    /// Decodes only these properties, as a node's status is large.
    ///
    /// # Errors
    /// The JSON is not a node.
    pub(crate) fn read(node: &Object<Node>) -> Result<Self, serde_json::Error> {
        let taints = node.json_at(&["spec", "taints"]).map(serde_json::from_slice::<Option<Vec<Taint>>>);
        Ok(Self {
            name: node.name().to_owned(),
            labels: node.labels().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            taints: taints.transpose()?.flatten().unwrap_or_default(),
        })
    }
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => text(&toleration.value) == text(&taint.value),
        Some("Exists") => true,
        Some(_) => false,
    }
}

/// Returns whether the tolerations tolerate all taints with these effects.
pub(crate) fn tolerates_all(tolerations: &[Toleration], taints: &[Taint], effects: &[&str]) -> bool {
    let mut concerned = taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    concerned.all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Returns whether a node matches a pod's node selector and required node affinity.
pub(crate) fn selects_node(spec: &PodSpec, node: &NodeView) -> bool {
    let by_labels =
        spec.node_selector.iter().flatten().all(|(key, value)| node.labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    by_labels && required.is_none_or(|required| matches(required, node))
}

/// Returns whether a node matches any of a selector's terms.
fn matches(selector: &NodeSelector, node: &NodeView) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// Returns whether a node meets all requirements of a term. An empty term matches no node.
fn term_matches(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let expressions = || term.match_expressions.iter().flatten();
    let fields = || term.match_fields.iter().flatten();
    (expressions().next().is_some() || fields().next().is_some())
        && expressions().all(|it| requirement_met(it, label(Some(&node.labels), &it.key)))
        && fields().all(|it| requirement_met(it, (it.key == "metadata.name").then_some(node.name.as_str())))
}

fn requirement_met(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let is_in = || requirement.values.iter().flatten().any(|wanted| Some(wanted.as_str()) == value);
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = || number(requirement.values.as_ref().and_then(|values| values.first()).map(String::as_str));
    match requirement.operator.as_str() {
        "In" => is_in(),
        "NotIn" => !is_in(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound()).is_some_and(|(value, bound)| value > bound),
        "Lt" => number(value).zip(bound()).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node() -> NodeView {
        let labels = [("zone", "a"), ("cores", "8")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        NodeView { name: "n1".to_owned(), labels: labels.into(), taints: Vec::new() }
    }

    fn selects(spec: &Value) -> bool {
        let mut whole = json!({"containers": []});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        selects_node(&serde_json::from_value(whole).unwrap(), &node())
    }

    #[test]
    fn toleration_matches_key_value_and_effect() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "k", "value": "v", "effect": "NoSchedule"})).unwrap();
        let cases = [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Equal", "value": "v"}), true),
            (json!({"key": "k", "value": "v", "effect": "NoSchedule"}), true),
            (json!({"key": "k", "value": "other"}), false),
            (json!({"key": "k"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
        ];
        for (toleration, expected) in cases {
            let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&parsed, &taint), expected, "{toleration}");
        }
        assert!(!tolerates_all(&[], std::slice::from_ref(&taint), &["NoSchedule"]));
        assert!(tolerates_all(&[], &[taint], &["NoExecute"]));
    }

    #[test]
    fn matches_labels_and_names() {
        let requirement = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        let cases = [
            (requirement("zone", "In", &["a", "b"]), true),
            (requirement("zone", "NotIn", &["a"]), false),
            (requirement("gone", "NotIn", &["a"]), true),
            (requirement("zone", "Exists", &[]), true),
            (requirement("gone", "DoesNotExist", &[]), true),
            (requirement("cores", "Gt", &["7"]), true),
            (requirement("cores", "Lt", &["7"]), false),
            (requirement("zone", "Gt", &["7"]), false),
            (requirement("zone", "Like", &["a"]), false),
        ];
        let required = |terms: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": terms}}}})
        };
        for (expression, expected) in cases {
            let spec = required(json!([{"matchExpressions": [expression]}]));
            assert_eq!(selects(&spec), expected, "{expression}");
        }
        let field = |name: &str| json!({"matchFields": [requirement("metadata.name", "In", &[name])]});
        assert!(selects(&required(json!([field("n2"), field("n1")]))), "one term is enough");
        assert!(!selects(&required(json!([field("n2"), {}]))), "an empty term selects nothing");
        assert!(!selects(&required(json!([]))));
    }

    #[test]
    fn node_selector_requires_all_labels() {
        assert!(selects(&json!({"nodeSelector": {"zone": "a"}})));
        assert!(!selects(&json!({"nodeSelector": {"zone": "a", "disk": "ssd"}})));
        assert!(selects(&json!({})));
    }
}
