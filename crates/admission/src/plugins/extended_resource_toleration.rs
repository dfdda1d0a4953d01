//! ExtendedResourceToleration lets a pod that requests extended resources tolerate the taints of nodes dedicated to
//! these resources (upstream: `plugin/pkg/admission/extendedresourcetoleration`).

use std::collections::BTreeSet;

use async_trait::async_trait;
use nave_machinery::{Object, Status, Value, names};
use serde_json::json;

use super::pods::{ContainerKind, containers, list_mut, text};
use crate::{Attributes, Mutate, Plugin};

/// ExtendedResourceToleration.
pub(super) fn plugin() -> Plugin {
    Plugin::mutating(ExtendedResourceToleration)
}

struct ExtendedResourceToleration;

#[async_trait]
impl Mutate for ExtendedResourceToleration {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_write() && attributes.is_pods() && attributes.is_object()
    }

    async fn admit(&self, _: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        let resources = pod.get("spec").map(extended_resources).unwrap_or_default();
        if resources.is_empty() {
            return Ok(());
        }
        let Some(tolerations) = list_mut(pod.map_mut("spec"), "tolerations") else { return Ok(()) };
        for resource in resources {
            let wanted = json!({"key": resource, "operator": "Exists", "effect": "NoSchedule"});
            let is_same = |found: &&mut Value| {
                ["key", "operator", "effect", "value"]
                    .iter()
                    .all(|field| text(found, field) == text(&wanted, field))
            };
            match tolerations.iter_mut().find(is_same) {
                Some(found) => *found = wanted,
                None => tolerations.push(wanted),
            }
        }
        Ok(())
    }
}

/// The extended resources that the containers of a pod request.
fn extended_resources(spec: &Value) -> BTreeSet<String> {
    let asking = containers(spec).filter(|container| container.kind != ContainerKind::Ephemeral);
    let requests =
        asking.filter_map(|container| container.value.get("resources")?.get("requests")?.as_object());
    let names = requests.flat_map(|requests| requests.keys());
    names.filter(|name| is_extended(name)).cloned().collect()
}

/// Returns whether a resource is extended: its name has a domain other than `kubernetes.io` (upstream:
/// `IsExtendedResourceName`).
fn is_extended(name: &str) -> bool {
    let is_native = !name.contains('/') || name.contains("kubernetes.io/");
    !is_native
        && !name.starts_with("requests.")
        && names::is_qualified_name(&format!("requests.{name}")).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Request, registry};

    #[tokio::test]
    async fn tolerates_each_extended_resource_once() {
        let container = |resource: &str| json!({"name": "c", "resources": {"requests": {resource: "1"}}});
        let toleration = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
        let with_seconds =
            json!({"key": "a.b/c", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1});
        for (containers, given, expected) in [
            (json!([container("cpu")]), json!([]), json!([])),
            (json!([container("x.kubernetes.io/y")]), json!([]), json!([])),
            (
                json!([container("b.c/d"), container("a.b/c")]),
                json!([]),
                json!([toleration("a.b/c"), toleration("b.c/d")]),
            ),
            (json!([container("a.b/c")]), json!([toleration("a.b/c")]), json!([toleration("a.b/c")])),
            (json!([container("a.b/c")]), json!([with_seconds]), json!([toleration("a.b/c")])),
        ] {
            let pod = json!({"spec": {"containers": containers, "tolerations": given}});
            let mut request = Request::new(registry(), "", "pods", pod, Value::Null);
            request.mutate(&ExtendedResourceToleration).await.unwrap();
            assert_eq!(request.object["spec"]["tolerations"], expected);
        }
    }
}
