//! Pods stay for a while on a node that is not ready or not reachable (upstream:
//! `plugin/pkg/admission/defaulttolerationseconds`).

use nave_machinery::{Status, Value};
use serde_json::json;

use super::{Attributes, Operation, Plugin, is};

/// The taints of such nodes.
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Lets pods that say nothing about these taints tolerate them for a time.
pub struct DefaultTolerationSeconds {
    /// For so many seconds.
    pub seconds: u32,
}

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Value>) -> Result<(), Status> {
        let written = matches!(attributes.operation, Operation::Create | Operation::Update(_));
        let concerns = written && is(attributes.def, "pods") && attributes.subresource.is_empty();
        let spec = object.filter(|_| concerns).and_then(|pod| pod.get_mut("spec"));
        let Some(spec) = spec.and_then(Value::as_object_mut) else { return Ok(()) };
        for taint in TAINTS {
            let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
            let Some(tolerations) = tolerations.as_array_mut() else { return Ok(()) };
            if !tolerations.iter().any(|toleration| concerns_taint(toleration, taint)) {
                tolerations.push(json!({
                    "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": self.seconds,
                }));
            }
        }
        Ok(())
    }
}

/// Whether a toleration says something about a taint that evicts.
fn concerns_taint(toleration: &Value, taint: &str) -> bool {
    let is_empty_or = |field: &str, text: &str| {
        toleration[field].as_str().is_none_or(|found| found.is_empty() || found == text)
    };
    is_empty_or("key", taint) && is_empty_or("effect", "NoExecute")
}

#[cfg(test)]
mod tests {
    use nave_machinery::user::UserInfo;
    use nave_resources::Registry;

    use super::*;

    fn tolerations(given: &Value) -> Value {
        let registry = Registry::builtin(nave_schema::builtin());
        let def = registry.all().find(|def| is(def, "pods")).unwrap();
        let user = UserInfo::default();
        let operation = Operation::Create;
        let attributes =
            Attributes { def, subresource: "", namespace: "n", name: "p", operation, user: &user };
        let mut pod = json!({"spec": {"tolerations": given}});
        DefaultTolerationSeconds { seconds: 300 }.admit(&attributes, Some(&mut pod)).unwrap();
        pod["spec"]["tolerations"].take()
    }

    #[test]
    fn what_a_pod_says_itself_stands() {
        let added = |taint: &str| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        let [not_ready, unreachable] = TAINTS;
        assert_eq!(tolerations(&json!([])), json!([added(not_ready), added(unreachable)]));
        let own = json!({"key": unreachable, "operator": "Exists"});
        assert_eq!(tolerations(&json!([own])), json!([own, added(not_ready)]));
        let all = json!({"operator": "Exists"});
        assert_eq!(tolerations(&json!([all])), json!([all]));
        let other = json!({"key": not_ready, "operator": "Exists", "effect": "NoSchedule"});
        assert_eq!(tolerations(&json!([other])), json!([other, added(not_ready), added(unreachable)]));
    }
}
