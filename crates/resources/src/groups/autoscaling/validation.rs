//! What autoscalers must be (upstream: `pkg/apis/autoscaling/validation`).

use nave_machinery::{FieldError, Value, names};

use crate::validate::{
    At, Errors, absent_or_one_of, label_selector, one_of, quantity, required_checked, required_text,
};

/// The longest look back when scaling, and the longest period of a rule, in seconds.
const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;

/// The types of metrics, and the field that holds what is particular to each.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

pub(super) fn autoscaler(autoscaler: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(autoscaler);
    let spec = root.field("spec");
    let (least, most) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    if least.int().is_some_and(|number| number < 1) {
        errors.push(least.invalid("must be greater than or equal to 1"));
    }
    let max = most.int().unwrap_or_default();
    if max < 1 {
        errors.push(FieldError::invalid(&most.path(), max, "must be greater than 0"));
    }
    if least.int().is_some_and(|min| max < min) {
        errors.push(FieldError::invalid(&most.path(), max, "must be greater than or equal to `minReplicas`"));
    }
    reference(spec.field("scaleTargetRef"), &mut errors);
    for metric in spec.field("metrics").items() {
        self::metric(metric, &mut errors);
    }
    let behavior = spec.field("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        scaling_rules(behavior.field(direction), &mut errors);
    }
    errors
}

fn reference(target: At, errors: &mut Errors) {
    required_checked(target.field("kind"), names::is_path_segment_name, errors);
    required_checked(target.field("name"), names::is_path_segment_name, errors);
}

fn metric(metric: At, errors: &mut Errors) {
    let kind = metric.field("type");
    if !required_text(kind, errors) {
        return;
    }
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == kind.text()) else {
        let supported: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
        errors.push(kind.not_supported(&supported));
        return;
    };
    for (_, other) in SOURCES.iter().filter(|(_, other)| other != field) {
        if metric.field(other).is_set() {
            let why = format!("must populate the given metric source only ({field})");
            errors.push(metric.field(other).forbidden(why));
        }
    }
    let source = metric.field(field);
    if !source.is_set() {
        errors.push(source.required("must populate information for the given metric source"));
        return;
    }
    match *field {
        "resource" => resource(source, errors),
        "containerResource" => {
            required_text(source.field("container"), errors);
            resource(source, errors);
        }
        "pods" => {
            identifier(source.field("metric"), errors);
            target(source.field("target"), &["averageValue"], errors);
        }
        "external" => {
            identifier(source.field("metric"), errors);
            target(source.field("target"), &["value", "averageValue"], errors);
        }
        _ => {
            reference(source.field("describedObject"), errors);
            identifier(source.field("metric"), errors);
            target(source.field("target"), &["value", "averageValue"], errors);
        }
    }
}

fn resource(source: At, errors: &mut Errors) {
    required_text(source.field("name"), errors);
    target(source.field("target"), &["averageUtilization", "averageValue"], errors);
}

fn identifier(metric: At, errors: &mut Errors) {
    required_checked(metric.field("name"), names::is_path_segment_name, errors);
    label_selector(metric.field("selector"), errors);
}

/// A target of a known type, one of the `possible` amounts, and that above 0.
fn target(target: At, possible: &[&'static str], errors: &mut Errors) {
    let kind = target.field("type");
    if required_text(kind, errors) {
        one_of(kind, &["AverageValue", "Utilization", "Value"], errors);
    }
    let utilization = target.field("averageUtilization");
    if utilization.int().is_some_and(|percent| percent < 1) {
        errors.push(utilization.invalid("must be greater than 0"));
    }
    for field in ["value", "averageValue"] {
        let amount = target.field(field);
        if quantity(amount).is_some_and(|it| it.is_negative() || it.is_zero()) {
            errors.push(amount.invalid("must be positive"));
        }
    }
    let given = possible.iter().filter(|field| target.field(field).is_set()).count();
    if given == 0 {
        let names = possible.join(" or ");
        errors.push(target.field(possible[0]).required(format!("must set a target: {names}")));
    } else if given > 1 && possible.contains(&"averageUtilization") {
        errors.push(utilization.forbidden("may not set both a target raw value and a target utilization"));
    }
}

fn scaling_rules(rules: At, errors: &mut Errors) {
    if !rules.is_set() {
        return;
    }
    let window = rules.field("stabilizationWindowSeconds");
    match window.int() {
        Some(seconds) if seconds < 0 => errors.push(window.invalid("must be greater than or equal to zero")),
        Some(seconds) if seconds > WINDOW_MAX => {
            errors.push(window.invalid(format!("must be less than or equal to {WINDOW_MAX}")));
        }
        _ => {}
    }
    absent_or_one_of(rules.field("selectPolicy"), &["Disabled", "Max", "Min"], errors);
    let policies = rules.field("policies");
    if policies.len() == 0 {
        errors.push(policies.required("must specify at least one Policy"));
    }
    for policy in policies.items() {
        one_of(policy.field("type"), &["Percent", "Pods"], errors);
        for field in ["value", "periodSeconds"] {
            let number = policy.field(field);
            if number.int().unwrap_or_default() <= 0 {
                let shown = number.int().unwrap_or_default();
                errors.push(FieldError::invalid(&number.path(), shown, "must be greater than zero"));
            }
        }
        let period = policy.field("periodSeconds");
        if period.int().is_some_and(|seconds| seconds > PERIOD_MAX) {
            errors.push(period.invalid(format!("must be less than or equal to {PERIOD_MAX}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::defaults;
    use super::*;

    fn whole(spec: &Value) -> Value {
        let mut it = json!({"spec": spec});
        it["spec"]["scaleTargetRef"] = json!({"kind": "Deployment", "name": "web"});
        defaults::autoscaler(&mut it, "v2");
        it
    }

    fn found(spec: &Value) -> Vec<String> {
        autoscaler(&whole(spec)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_bound_is_enough() {
        let spec = whole(&json!({"maxReplicas": 3}));
        assert_eq!(spec["spec"]["minReplicas"], 1);
        assert_eq!(spec["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(spec["spec"].get("behavior"), None);
        assert_eq!(found(&json!({"maxReplicas": 3})), [""; 0]);
    }

    #[test]
    fn where_a_behavior_is_given_it_is_completed() {
        let spec =
            whole(&json!({"maxReplicas": 3, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}));
        let behavior = &spec["spec"]["behavior"];
        assert_eq!(behavior["scaleUp"]["stabilizationWindowSeconds"], 0);
        assert_eq!(behavior["scaleUp"]["policies"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            behavior["scaleDown"],
            json!({"stabilizationWindowSeconds": 60, "selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]})
        );
    }

    #[test]
    fn what_cannot_be_scaled_by_is_told() {
        assert_eq!(
            found(&json!({"minReplicas": 0, "maxReplicas": 0})),
            [
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                "spec.maxReplicas: Invalid value: 0: must be greater than 0",
            ]
        );
        assert_eq!(
            found(&json!({"minReplicas": 4, "maxReplicas": 3})),
            ["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"]
        );
        assert_eq!(
            found(&json!({"maxReplicas": 1, "metrics": [{"type": "Pods"}, {"type": "X"}]})),
            [
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
                r#"spec.metrics[1].type: Unsupported value: "X": supported values: "ContainerResource", "External", "Object", "Pods", "Resource""#,
            ]
        );
        let rules = json!({"stabilizationWindowSeconds": 3601, "policies": [{"type": "Y", "value": 0, "periodSeconds": 1801}]});
        assert_eq!(
            found(&json!({"maxReplicas": 1, "behavior": {"scaleUp": rules}})),
            [
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                r#"spec.behavior.scaleUp.policies[0].type: Unsupported value: "Y": supported values: "Percent", "Pods""#,
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ]
        );
    }
}
