//! `node.k8s.io`: runtime classes.

use std::collections::HashSet;

use nave_machinery::{Value, names};

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::groups::core::pod_spec::warnings::deprecated_label;
use crate::groups::core::pod_spec::{resources, scheduling};
use crate::strategy::Strategy;
use crate::table::{age, field, name};
use crate::validate::{At, Errors, immutable, labels, required_checked};

pub(crate) fn group() -> GroupBuilder {
    let columns =
        vec![name(), field("Handler", "handler", "").described_by("node.v1.RuntimeClass", "handler"), age()];
    let classes = resource("RuntimeClass", "runtimeclasses")
        .cluster()
        .create_on_update()
        .conditional_update()
        .columns(columns)
        .strategy(RuntimeClassStrategy);
    declare("node.k8s.io", "io.k8s.api.node", vec![classes])
}

/// The strategy of runtime classes (upstream: `pkg/apis/node/validation`).
struct RuntimeClassStrategy;

impl Strategy for RuntimeClassStrategy {
    fn validate(&self, class: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(class);
        required_checked(root.field("handler"), names::is_dns1123_label, &mut errors);
        let overhead = root.field("overhead");
        resources::overhead(overhead.with(overhead.field("podFixed").value()), &mut errors);
        let scheduling = root.field("scheduling");
        labels(scheduling.field("nodeSelector"), &mut errors);
        tolerations(scheduling.field("tolerations"), &mut errors);
        errors
    }

    fn validate_update(&self, class: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(class);
        let (root, old) = (At::root(class), At::root(old));
        immutable(root.field("handler"), old.field("handler"), &mut errors);
        errors
    }

    fn warnings(&self, class: &Value, _old: Option<&Value>) -> Vec<String> {
        let root = At::root(class);
        let scheduling = root.field("scheduling");
        let selector = scheduling.field("nodeSelector");
        let labels = selector.entries().filter_map(|(key, _)| deprecated_label(key));
        labels.map(|why| format!("scheduling.nodeSelector: {why}")).collect()
    }
}

/// Checks that tolerations are unique, ignoring their durations.
fn tolerations(list: At, errors: &mut Errors) {
    scheduling::tolerations(list, errors);
    let mut seen = HashSet::new();
    for toleration in list.items() {
        let key = ["key", "operator", "value", "effect"].map(|field| toleration.field(field).text());
        if !seen.insert(key) {
            errors.push(toleration.duplicate());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn handler_is_immutable() {
        let class = |handler: &str| json!({"handler": handler, "overhead": {"podFixed": {"cpu": "10m"}}});
        assert!(RuntimeClassStrategy.validate(&class("runc")).is_empty());
        assert_eq!(RuntimeClassStrategy.validate(&class("Run C")).len(), 1);
        let errors = RuntimeClassStrategy.validate_update(&class("kata"), &class("runc"));
        assert_eq!(errors[0].to_string(), r#"handler: Invalid value: "kata": field is immutable"#);
    }

    #[test]
    fn rejects_invalid_scheduling() {
        let class = |more: Value| {
            let mut class = json!({"handler": "runc"});
            class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            class
        };
        let toleration = json!({"key": "a", "operator": "Exists"});
        for (more, expected) in [
            (json!({"scheduling": {"tolerations": [toleration]}}), &[][..]),
            (
                json!({"scheduling": {"tolerations": [toleration, toleration]}}),
                &["scheduling.tolerations[1]"],
            ),
            (json!({"scheduling": {"nodeSelector": {"a b": "c"}}}), &["scheduling.nodeSelector"]),
            (
                json!({"overhead": {"podFixed": {"example.com/x": "500m"}}}),
                &["overhead.limits[example.com/x]"],
            ),
        ] {
            let errors = RuntimeClassStrategy.validate(&class(more.clone()));
            let fields: Vec<_> = errors.iter().map(|error| error.field.to_string()).collect();
            assert_eq!(fields, expected, "{more}");
        }
        let old = class(json!({"scheduling": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}}));
        assert_eq!(RuntimeClassStrategy.warnings(&old, None).len(), 1);
    }
}
