//! TaintNodesByCondition adds the not-ready taint to new nodes (upstream: `plugin/pkg/admission/nodetaint`).

use async_trait::async_trait;
use nave_machinery::{Object, Status};
use serde_json::json;

use super::pods::{list_mut, text};
use crate::{Attributes, Mutate, Plugin};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const NO_SCHEDULE: &str = "NoSchedule";

/// TaintNodesByCondition.
pub(super) fn plugin() -> Plugin {
    Plugin::mutating(NodeTaint)
}

struct NodeTaint;

#[async_trait]
impl Mutate for NodeTaint {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_create() && attributes.is_resource("", "nodes") && attributes.is_object()
    }

    async fn admit(&self, _: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let taints = object.and_then(|node| list_mut(node.map_mut("spec"), "taints"));
        let Some(taints) = taints else { return Ok(()) };
        let is_there = |taint| text(taint, "key") == NOT_READY && text(taint, "effect") == NO_SCHEDULE;
        if !taints.iter().any(is_there) {
            taints.push(json!({"key": NOT_READY, "effect": NO_SCHEDULE}));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;

    use super::*;
    use crate::testing::{Request, registry};

    #[tokio::test]
    async fn adds_the_taint_once() {
        let not_ready = json!({"key": NOT_READY, "effect": NO_SCHEDULE});
        let other = json!({"key": NOT_READY, "effect": "NoExecute"});
        for (given, expected) in [
            (json!({}), json!([not_ready])),
            (json!({"spec": {"taints": [not_ready]}}), json!([not_ready])),
            (json!({"spec": {"taints": [other]}}), json!([other, not_ready])),
            (json!({"spec": {"taints": null}}), json!([not_ready])),
        ] {
            let mut request = Request::new(registry(), "", "nodes", given, Value::Null);
            request.mutate(&NodeTaint).await.unwrap();
            assert_eq!(request.object["spec"]["taints"], expected);
        }
        let mut update = Request::new(registry(), "", "nodes", json!({}), json!({}));
        update.mutate(&NodeTaint).await.unwrap();
        assert_eq!(update.object, json!({}));
    }
}
