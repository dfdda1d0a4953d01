//! PodResizeValidator refuses resizes beyond the node's allocatable resources (upstream:
//! `plugin/pkg/admission/podresize`).

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use nave_machinery::quantity::Quantity;
use nave_machinery::{Object, Status, time};
use nave_resources::quota;
use serde::Deserialize;

use super::Parts;
use crate::{Attributes, Lister, Plugin, Validate};

const OS_LABEL: &str = "kubernetes.io/os";

/// PodResizeValidator.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::validating(PodResize { nodes: Arc::clone(&parts.cluster.nodes) })
}

struct PodResize {
    nodes: Arc<dyn Lister>,
}

#[async_trait]
impl Validate for PodResize {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_update() && attributes.is_pods() && attributes.subresource == "resize"
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let (Some(pod), Some(old)) = (object, attributes.old) else { return Ok(()) };
        let node = pod.str_at(&["spec", "nodeName"]).unwrap_or_default();
        // An unchanged generation means an unchanged spec.
        if node.is_empty() || pod.generation() == old.generation() {
            return Ok(());
        }
        let not_found = || attributes.forbidden(pod, format_args!("node {node:?} not found"));
        let node = self.nodes.get("", node)?.ok_or_else(not_found)?;
        let refused = |reason: &str, why: String| attributes.forbidden(pod, why).with_cause(reason, "", "");
        runs_linux(&node).map_err(|why| refused("UnsupportedPlatform", why))?;
        fits(pod, &node).map_err(|why| refused("NodeCapacity", why))
    }
}

fn fits(pod: &Object, node: &Object) -> Result<(), String> {
    let allocatable = |resource| {
        let amount = node.str_at(&["status", "allocatable", resource]);
        amount.and_then(|amount| Quantity::parse(amount).ok()).unwrap_or(Quantity::ZERO)
    };
    let pod = Pod::deserialize(pod.as_value()).map_err(|error| format!("failed to convert pod: {error}"))?;
    let usage = quota::pod(&pod, time::now());
    let requested = |name: &str| usage.get(name).copied().unwrap_or(Quantity::ZERO);
    let amounts = [
        ("cpu", requested("requests.cpu").milli_value(), allocatable("cpu").milli_value()),
        ("memory", requested("requests.memory").value(), allocatable("memory").value()),
    ];
    let exceeded: Vec<_> = amounts
        .iter()
        .filter(|(_, requested, allocatable)| requested > allocatable)
        .map(|(name, requested, allocatable)| {
            format!("{name}, requested: {requested}, allocatable: {allocatable}")
        })
        .collect();
    if exceeded.is_empty() {
        return Ok(());
    }
    Err(format!("node didn't have enough allocatable resources: {}", exceeded.join("; ")))
}

fn runs_linux(node: &Object) -> Result<(), String> {
    match node.label(OS_LABEL) {
        None | Some("linux") => Ok(()),
        Some(other) => {
            Err(format!("pod resize is only supported on linux nodes, node {:?} is {other:?}", node.name()))
        }
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;
    use crate::testing::{Memory, Request, outcome, registry};

    #[tokio::test]
    async fn resize_must_fit_the_node() {
        let nodes = Arc::new(Memory::default());
        for (name, os) in [("lin", "linux"), ("win", "windows")] {
            nodes.put(json!({"metadata": {"name": name, "labels": {OS_LABEL: os}},
                "status": {"allocatable": {"cpu": "1500m", "memory": "1Gi"}}}));
        }
        let plugin = PodResize { nodes };
        let pod = |node: &str, cpu: &str, memory: &str, generation: i64| -> Value {
            json!({"metadata": {"name": "p", "generation": generation}, "spec": {"nodeName": node, "containers": [
                {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}})
        };
        let refused = |why: &str| Err((403, format!(r#"pods "p" is forbidden: {why}"#)));
        for (node, cpu, memory, generation, expected) in [
            ("lin", "1500m", "1Gi", 2, Ok(())),
            (
                "lin",
                "1501m",
                "1Gi",
                2,
                refused(
                    "node didn't have enough allocatable resources: cpu, requested: 1501, allocatable: 1500",
                ),
            ),
            (
                "lin",
                "2",
                "2Gi",
                2,
                refused(
                    "node didn't have enough allocatable resources: cpu, requested: 2000, allocatable: 1500; memory, requested: 2147483648, allocatable: 1073741824",
                ),
            ),
            (
                "win",
                "9",
                "1Gi",
                2,
                refused(r#"pod resize is only supported on linux nodes, node "win" is "windows""#),
            ),
            ("gone", "1", "1Gi", 2, refused(r#"node "gone" not found"#)),
            ("gone", "1", "1Gi", 1, Ok(())),
            ("", "9", "9Gi", 2, Ok(())),
        ] {
            let (new, old) = (pod(node, cpu, memory, generation), pod(node, "100m", "100Mi", 1));
            let request = Request::new(registry(), "", "pods", new, old).with_subresource("resize");
            assert_eq!(outcome(request.validate(&plugin).await), expected);
        }
    }
}
