//! Replication controllers and pod templates.

use nave_machinery::Value;

use super::pod_spec::{defaults, disabled, validation, warnings};
use crate::defaults::{object, object_at};
use crate::strategy::Strategy;
use crate::validate::{At, Errors, not_negative};

/// The strategy of pod templates.
pub(super) struct PodTemplateStrategy;

impl Strategy for PodTemplateStrategy {
    fn default(&self, template: &mut Value, _version: &str) {
        if let Some(spec) = template.as_object_mut().and_then(|it| object_at(it, &["template", "spec"])) {
            defaults::pod_spec(spec);
        }
    }

    fn prepare_for_create(&self, template: &mut Value) {
        disabled::drop_fields(template, None, disabled::IN_POD_TEMPLATE);
    }

    fn prepare_for_update(&self, template: &mut Value, old: &Value) {
        disabled::drop_fields(template, Some(old), disabled::IN_POD_TEMPLATE);
    }

    fn validate(&self, template: &Value) -> Errors {
        let mut errors = Errors::new();
        validation::template(At::root(template).field("template"), &mut errors);
        errors
    }

    fn warnings(&self, template: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::workload(template, old, "")
    }
}

/// The strategy of replication controllers.
pub(super) struct ReplicationControllerStrategy;

impl Strategy for ReplicationControllerStrategy {
    fn default(&self, controller: &mut Value, _version: &str) {
        defaults::template(controller);
        let labels =
            controller.pointer("/spec/template/metadata/labels").filter(|it| it.is_object()).cloned();
        let (Some(labels), Some(fields)) = (labels, controller.as_object_mut()) else { return };
        for (parent, field) in [("spec", "selector"), ("metadata", "labels")] {
            let Some(parent) = object(fields, parent) else { continue };
            if parent.get(field).and_then(Value::as_object).is_none_or(serde_json::Map::is_empty) {
                parent.insert(field.to_owned(), labels.clone());
            }
        }
    }

    fn prepare_for_create(&self, controller: &mut Value) {
        disabled::drop_fields(controller, None, disabled::IN_WORKLOAD);
    }

    fn prepare_for_update(&self, controller: &mut Value, old: &Value) {
        disabled::drop_fields(controller, Some(old), disabled::IN_WORKLOAD);
    }

    fn validate(&self, controller: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(controller);
        let spec = root.field("spec");
        not_negative(spec.field("minReadySeconds"), &mut errors);
        let selector = spec.field("selector");
        if selector.len() == 0 {
            errors.push(selector.required(""));
        }
        not_negative(spec.field("replicas"), &mut errors);
        let template = spec.field("template");
        if !template.is_set() {
            errors.push(template.required(""));
            return errors;
        }
        let metadata = template.field("metadata");
        let labels = metadata.field("labels");
        let selects = selector.entries().all(|(key, value)| labels.key(key).value() == value.value());
        if selector.len() > 0 && !selects {
            errors.push(labels.invalid("`selector` does not match template `labels`"));
        }
        validation::template(template, &mut errors);
        validation::runs_on(template, "ReplicationController", &mut errors);
        errors
    }

    fn validate_status_update(&self, controller: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(controller);
        let status = root.field("status");
        for field in
            ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"]
        {
            not_negative(status.field(field), &mut errors);
        }
        let count = |field| status.field(field).int().unwrap_or_default();
        for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
            if count(field) > count("replicas") {
                errors.push(status.field(field).invalid("cannot be greater than status.replicas"));
            }
        }
        if count("availableReplicas") > count("readyReplicas") {
            errors.push(status.field("availableReplicas").invalid("cannot be greater than readyReplicas"));
        }
        errors
    }

    fn warnings(&self, controller: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::named_workload(controller, old, "template")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn status_counts_are_consistent() {
        for (status, errors) in [
            (json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1}), 0),
            (json!({"replicas": 1, "readyReplicas": 2, "availableReplicas": 0}), 1),
            (json!({"replicas": 2, "readyReplicas": 0, "availableReplicas": 1}), 1),
            (json!({"replicas": -1}), 4),
        ] {
            let controller = json!({"status": status});
            let found = ReplicationControllerStrategy.validate_status_update(&controller, &json!({}));
            assert_eq!(found.len(), errors, "{status}");
        }
    }
}
