//! NodeDeclaredFeatureValidator refuses pod updates that require features that the pod's node does not declare
//! (upstream: `plugin/pkg/admission/nodedeclaredfeatures`).

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{Object, Status, Value};

use super::Parts;
use crate::{Attributes, Lister, Plugin, Validate};

/// The feature required to change pod-level resources.
const POD_RESOURCES: &str = "InPlacePodLevelResourcesVerticalScaling";
/// The feature required to resize a non-restartable init container.
const INIT_CONTAINERS: &str = "InPlacePodVerticalScalingInitContainers";

/// NodeDeclaredFeatureValidator.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::validating(NodeDeclaredFeatures { nodes: Arc::clone(&parts.cluster.nodes) })
}

struct NodeDeclaredFeatures {
    nodes: Arc<dyn Lister>,
}

#[async_trait]
impl Validate for NodeDeclaredFeatures {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_update() && attributes.is_pods() && matches!(attributes.subresource, "" | "resize")
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let (Some(pod), Some(old)) = (object, attributes.old) else { return Ok(()) };
        let node = pod.str_at(&["spec", "nodeName"]).unwrap_or_default();
        // An unchanged generation means an unchanged spec.
        if node.is_empty() || pod.generation() == old.generation() {
            return Ok(());
        }
        let required = required_features(pod, old);
        if required.is_empty() {
            return Ok(());
        }
        let not_found = || attributes.forbidden(pod, format_args!("node {node:?} not found"));
        let node = self.nodes.get("", node)?.ok_or_else(not_found)?;
        let declared = node.list_at(&["status", "declaredFeatures"]);
        let missing: Vec<_> =
            required.into_iter().filter(|name| !declared.iter().any(|it| it == name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (missing, node) = (missing.join(", "), node.name());
        let why = format!("pod update requires features {missing} which are not available on node {node:?}");
        Err(attributes.forbidden(pod, why))
    }
}

/// The features that a pod update requires of the node.
fn required_features(pod: &Object, old: &Object) -> Vec<&'static str> {
    let mut required = Vec::new();
    let resources = |pod: &Object| pod.value_at(&["spec", "resources"]).filter(|it| !it.is_null()).cloned();
    if resources(pod) != resources(old) {
        required.push(POD_RESOURCES);
    }
    let resized = |(new, old): (&Value, &Value)| {
        old.get("restartPolicy").is_none_or(|policy| policy != "Always")
            && new.get("resources") != old.get("resources")
    };
    let containers = |pod: &'_ Object| pod.list_at(&["spec", "initContainers"]).to_vec();
    if containers(pod).iter().zip(&containers(old)).any(resized) {
        required.push(INIT_CONTAINERS);
    }
    required
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Memory, Request, outcome, registry};

    #[tokio::test]
    async fn update_requires_declared_features() {
        let nodes = Arc::new(Memory::default());
        nodes.put(json!({"metadata": {"name": "old"}}));
        nodes.put(json!({"metadata": {"name": "new"}, "status": {"declaredFeatures": [POD_RESOURCES, INIT_CONTAINERS]}}));
        let plugin = NodeDeclaredFeatures { nodes };
        let pod = |node: &str, resources: Value, init: &str, policy: Value, generation: i64| {
            json!({"metadata": {"name": "p", "generation": generation}, "spec": {
                "nodeName": node, "resources": resources,
                "initContainers": [{"name": "i", "restartPolicy": policy, "resources": {"requests": {"cpu": init}}}]}})
        };
        let refused = |features: &str| {
            let why =
                format!("pod update requires features {features} which are not available on node \"old\"");
            Err((403, format!("pods \"p\" is forbidden: {why}")))
        };
        let amounts = || json!({"requests": {"cpu": "1"}});
        for (node, resources, init, policy, expected) in [
            ("old", json!(null), "1", json!(null), Ok(())),
            ("old", amounts(), "1", json!(null), refused(POD_RESOURCES)),
            ("old", json!(null), "2", json!(null), refused(INIT_CONTAINERS)),
            ("old", json!(null), "2", json!("Always"), Ok(())),
            ("old", amounts(), "2", json!(null), refused(&format!("{POD_RESOURCES}, {INIT_CONTAINERS}"))),
            ("new", amounts(), "2", json!(null), Ok(())),
            ("", amounts(), "2", json!(null), Ok(())),
            (
                "gone",
                amounts(),
                "1",
                json!(null),
                Err((403, "pods \"p\" is forbidden: node \"gone\" not found".to_owned())),
            ),
        ] {
            let new = pod(node, resources.clone(), init, policy.clone(), 2);
            let old = pod(node, json!(null), "1", policy, 1);
            let request = Request::new(registry(), "", "pods", new, old).with_subresource("resize");
            assert_eq!(outcome(request.validate(&plugin).await), expected, "{node} {resources} {init}");
        }
    }
}
