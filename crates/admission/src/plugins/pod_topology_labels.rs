//! PodTopologyLabels copies the topology labels of the node to pods when they are bound (upstream:
//! `plugin/pkg/admission/podtopologylabels`).

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{Object, Status};

use super::Parts;
use crate::{Attributes, Lister, Mutate, Plugin};

/// The copied labels.
const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// PodTopologyLabels.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::mutating(PodTopologyLabels { nodes: Arc::clone(&parts.cluster.nodes) })
}

struct PodTopologyLabels {
    nodes: Arc<dyn Lister>,
}

#[async_trait]
impl Mutate for PodTopologyLabels {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_create() && attributes.is_pods() && matches!(attributes.subresource, "" | "binding")
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        let node = if attributes.is_object() {
            object.str_at(&["spec", "nodeName"])
        } else {
            let target = object.get("target").filter(|target| target["kind"] == "Node");
            target.and_then(|target| target.get("name")?.as_str())
        };
        let Some(name) = node.filter(|name| !name.is_empty()) else { return Ok(()) };
        // A node that does not exist has no labels to copy.
        let Some(node) = self.nodes.get("", name)? else { return Ok(()) };
        for key in LABELS {
            if let Some(value) = node.label(key)
                && object.label(key).is_none()
            {
                // The bind operation copies the labels of the binding to the pod.
                object.metadata_map_mut("labels").insert(key.to_owned(), value.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;
    use crate::testing::{Memory, Request, registry};

    #[tokio::test]
    async fn copies_node_labels_to_pods_and_bindings() {
        let nodes = Arc::new(Memory::default());
        nodes.put(json!({"metadata": {"name": "n", "labels": {LABELS[0]: "z", "other": "x"}}}));
        let plugin = PodTopologyLabels { nodes };
        for (subresource, object, expected) in [
            ("", json!({"metadata": {}, "spec": {"nodeName": "n"}}), json!({LABELS[0]: "z"})),
            (
                "",
                json!({"metadata": {"labels": {LABELS[0]: "own"}}, "spec": {"nodeName": "n"}}),
                json!({LABELS[0]: "own"}),
            ),
            ("", json!({"metadata": {}, "spec": {"nodeName": "gone"}}), Value::Null),
            ("", json!({"metadata": {}, "spec": {}}), Value::Null),
            (
                "binding",
                json!({"metadata": {}, "target": {"kind": "Node", "name": "n"}}),
                json!({LABELS[0]: "z"}),
            ),
            ("binding", json!({"metadata": {}, "target": {"kind": "Other", "name": "n"}}), Value::Null),
            ("eviction", json!({"metadata": {}, "target": {"kind": "Node", "name": "n"}}), Value::Null),
        ] {
            let mut request =
                Request::new(registry(), "", "pods", object, Value::Null).with_subresource(subresource);
            request.mutate(&plugin).await.unwrap();
            assert_eq!(request.object["metadata"]["labels"], expected, "{}", request.object);
        }
    }
}
