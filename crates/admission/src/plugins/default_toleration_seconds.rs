//! DefaultTolerationSeconds adds tolerations for nodes that are not ready or unreachable (upstream:
//! `plugin/pkg/admission/defaulttolerationseconds`).

use async_trait::async_trait;
use nave_machinery::{Object, Status, Value};
use serde_json::json;

use super::Parts;
use super::pods::{list_mut, text};
use crate::{Attributes, Mutate, Plugin};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// DefaultTolerationSeconds.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::mutating(DefaultTolerationSeconds {
        not_ready: parts.default_not_ready_toleration_seconds,
        unreachable: parts.default_unreachable_toleration_seconds,
    })
}

struct DefaultTolerationSeconds {
    /// The time for which pods tolerate a node that is not ready, in seconds.
    not_ready: i64,
    /// The time for which pods tolerate an unreachable node, in seconds.
    unreachable: i64,
}

#[async_trait]
impl Mutate for DefaultTolerationSeconds {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_write() && attributes.is_pods() && attributes.is_object()
    }

    async fn admit(&self, _: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let tolerations = object.and_then(|pod| list_mut(pod.map_at_mut(&["spec"])?, "tolerations"));
        let Some(tolerations) = tolerations else { return Ok(()) };
        for (taint, seconds) in [(NOT_READY, self.not_ready), (UNREACHABLE, self.unreachable)] {
            if !tolerations.iter().any(|toleration| concerns_taint(toleration, taint)) {
                tolerations.push(json!({
                    "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds,
                }));
            }
        }
        Ok(())
    }
}

/// Returns whether a toleration applies to a NoExecute taint.
fn concerns_taint(toleration: &Value, taint: &str) -> bool {
    let is_empty_or = |field: &str, expected: &str| {
        let found = text(toleration, field);
        found.is_empty() || found == expected
    };
    is_empty_or("key", taint) && is_empty_or("effect", "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Request, registry};

    async fn tolerations(given: &Value) -> Value {
        let pod = json!({"spec": {"tolerations": given}});
        let mut request = Request::new(registry(), "", "pods", pod, Value::Null);
        request.mutate(&DefaultTolerationSeconds { not_ready: 300, unreachable: 60 }).await.unwrap();
        request.object["spec"]["tolerations"].take()
    }

    #[tokio::test]
    async fn keeps_existing_tolerations() {
        let added = |taint: &str, seconds| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        let (not_ready, unreachable) = (added(NOT_READY, 300), added(UNREACHABLE, 60));
        assert_eq!(tolerations(&json!([])).await, json!([not_ready, unreachable]));
        assert_eq!(tolerations(&json!(null)).await, json!([not_ready, unreachable]));
        let own = json!({"key": UNREACHABLE, "operator": "Exists"});
        assert_eq!(tolerations(&json!([own])).await, json!([own, not_ready]));
        let all = json!({"operator": "Exists"});
        assert_eq!(tolerations(&json!([all])).await, json!([all]));
        let other = json!({"key": NOT_READY, "operator": "Exists", "effect": "NoSchedule"});
        assert_eq!(tolerations(&json!([other])).await, json!([other, not_ready, unreachable]));
    }
}
