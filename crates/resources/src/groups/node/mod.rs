//! `node.k8s.io`: ways to run containers.

use nave_machinery::{FieldError, Value, names};

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::strategy::Strategy;
use crate::table::{age, field, name};
use crate::validate::{At, Errors, checked, immutable, labels, quantity_not_negative};

pub(crate) fn group() -> GroupBuilder {
    let columns = vec![name(), field("Handler", "handler", "").of("node.v1.RuntimeClass", "handler"), age()];
    let classes = resource("RuntimeClass", "runtimeclasses")
        .cluster()
        .create_on_update()
        .conditional_update()
        .columns(columns)
        .strategy(RuntimeClassStrategy);
    declare("node.k8s.io", "io.k8s.api.node", vec![classes])
}

/// What is particular to ways to run containers (upstream: `pkg/apis/node/validation`).
struct RuntimeClassStrategy;

impl Strategy for RuntimeClassStrategy {
    fn validate(&self, class: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(class);
        checked(root.field("handler"), names::is_dns1123_label, &mut errors);
        let overhead = root.field("overhead");
        for (resource, quantity) in overhead.field("podFixed").entries() {
            let found = names::is_qualified_name(resource);
            errors.extend(found.into_iter().map(|why| FieldError::invalid(&quantity.path(), resource, why)));
            quantity_not_negative(quantity, &mut errors);
        }
        let scheduling = root.field("scheduling");
        labels(scheduling.field("nodeSelector"), &mut errors);
        errors
    }

    fn validate_update(&self, class: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(class);
        let (root, old) = (At::root(class), At::root(old));
        immutable(root.field("handler"), old.field("handler"), &mut errors);
        errors
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_keeps_its_handler() {
        let class = |handler: &str| json!({"handler": handler, "overhead": {"podFixed": {"cpu": "10m"}}});
        assert!(RuntimeClassStrategy.validate(&class("runc")).is_empty());
        assert_eq!(RuntimeClassStrategy.validate(&class("Run C")).len(), 1);
        let errors = RuntimeClassStrategy.validate_update(&class("kata"), &class("runc"));
        assert_eq!(errors[0].to_string(), r#"handler: Invalid value: "kata": field is immutable"#);
    }
}
