//! Validation of autoscalers (upstream: `pkg/apis/autoscaling/validation`).

use nave_machinery::{FieldError, Value, names};

use crate::resource_names;
use crate::validate::{
    At, Errors, absent_or_one_of, checked, not_negative, one_of, quantity, quantity_not_negative,
    required_checked,
};

/// The maximum stabilization window and the maximum period of a policy, in seconds.
const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;

/// The metric types with the field of each type's source.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

/// The sources of a metric. The first source that is set is checked.
const CHECKED: [&str; 5] = ["object", "external", "pods", "resource", "containerResource"];

/// The check of an API version in a reference.
#[derive(Clone, Copy, PartialEq)]
enum ApiVersion {
    WithGroup,
    Any,
    /// Not checked, because the version is unchanged or a similar version is stored.
    Unchecked,
}

/// Validates an autoscaler. An update may keep faults of the stored autoscaler, `old`.
pub(super) fn autoscaler(autoscaler: &Value, old: Option<&Value>) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(autoscaler);
    let spec = root.field("spec");
    let old_spec = At::named("spec", old.and_then(|old| old.get("spec")));
    bounds(spec, old_spec, &mut errors);
    let target = spec.field("scaleTargetRef");
    reference(target, target_version(target, old_spec.field("scaleTargetRef")), &mut errors);
    let metrics = spec.field("metrics");
    let version = described_version(old_spec.field("metrics"));
    for metric in metrics.items() {
        self::metric(metric, version, &mut errors);
    }
    let scales_to_zero = |metric: At| matches!(metric.field("type").text(), "Object" | "External");
    if spec.field("minReplicas").int() == Some(0) && !metrics.items().any(scales_to_zero) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(metrics.forbidden(why));
    }
    let behavior = spec.field("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        scaling_rules(behavior.field(direction), &mut errors);
    }
    errors
}

/// Validates the status of an autoscaler.
pub(super) fn status(autoscaler: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(autoscaler);
    let status = root.field("status");
    not_negative(status.field("currentReplicas"), &mut errors);
    not_negative(status.field("desiredReplicas"), &mut errors);
    errors
}

fn bounds(spec: At, old: At, errors: &mut Errors) {
    let (least, most) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    // Scaling to zero is disabled by default. An autoscaler that already scales to zero may continue to do so.
    let lowest = i64::from(old.field("minReplicas").int() != Some(0));
    if least.int().is_some_and(|number| number < lowest) {
        errors.push(least.invalid(format!("must be greater than or equal to {lowest}")));
    }
    let max = most.int().unwrap_or_default();
    let mut wrong = |why: &str| errors.push(FieldError::invalid(&most.path(), max, why));
    if max < 0 {
        wrong("must be greater than or equal to 1");
    }
    if least.int().is_some_and(|min| max < min) {
        wrong("must be greater than or equal to `minReplicas`");
    }
    if max == 0 {
        errors.push(most.required("must be set and greater than 0"));
    }
}

fn target_version(target: At, old: At) -> ApiVersion {
    let is_same = |field| target.field(field).text() == old.field(field).text();
    if old.is_set() && is_same("apiVersion") && is_same("kind") {
        ApiVersion::Unchecked
    } else if target.field("kind").text() == "ReplicationController" {
        ApiVersion::Any
    } else {
        ApiVersion::WithGroup
    }
}

/// Returns how to check the API versions in object metrics: unchecked if a stored version is invalid.
fn described_version(old_metrics: At) -> ApiVersion {
    let is_wrong = |metric: At| {
        let source = metric.field("object");
        let described = source.field("describedObject");
        metric.field("type").text() == "Object"
            && wrong_version(described.field("apiVersion").text(), ApiVersion::Any).is_some()
    };
    if old_metrics.items().any(is_wrong) { ApiVersion::Unchecked } else { ApiVersion::Any }
}

fn reference(target: At, version: ApiVersion, errors: &mut Errors) {
    required_checked(target.field("kind"), names::is_path_segment_name, errors);
    required_checked(target.field("name"), names::is_path_segment_name, errors);
    let api_version = target.field("apiVersion");
    let wrong = wrong_version(api_version.text(), version);
    errors.extend(wrong.map(|why| api_version.invalid_text(why)));
}

fn wrong_version(text: &str, version: ApiVersion) -> Option<String> {
    match version {
        ApiVersion::Unchecked => None,
        _ if text.matches('/').count() > 1 => Some(format!("unexpected GroupVersion string: {text}")),
        ApiVersion::WithGroup if text.split_once('/').is_none_or(|(group, _)| group.is_empty()) => {
            Some("apiVersion must specify API group".to_owned())
        }
        _ => None,
    }
}

fn metric(metric: At, version: ApiVersion, errors: &mut Errors) {
    let kind = metric.field("type");
    if kind.text().is_empty() {
        errors.push(kind.required("must specify a metric source type"));
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.text()).map(|(_, field)| *field);
    if expected.is_none() {
        errors.push(kind.not_supported(&SOURCES.map(|(name, _)| name)));
    }
    let given: Vec<&str> = CHECKED.into_iter().filter(|field| metric.field(field).is_set()).collect();
    if let Some(first) = given.first() {
        source(metric, first, version, errors);
    }
    if expected.is_none() {
        // Upstream reports an unknown type twice.
        errors.push(kind.not_supported(&SOURCES.map(|(name, _)| name)));
    }
    if let Some(expected) = expected.filter(|expected| !given.contains(expected)) {
        errors.push(metric.field(expected).required("must populate information for the given metric source"));
    }
    if given.len() != 1 {
        let others = given.iter().filter(|field| Some(**field) != expected);
        let why = "must populate the given metric source only";
        errors.extend(others.map(|field| metric.field(field).forbidden(why)));
    }
}

fn source(metric: At, field: &'static str, version: ApiVersion, errors: &mut Errors) {
    let source = metric.field(field);
    match field {
        "object" => reference(source.field("describedObject"), version, errors),
        "containerResource" => container(source, errors),
        "resource" if source.field("name").text().is_empty() => {
            errors.push(source.field("name").required("must specify a resource name"));
        }
        _ => {}
    }
    if matches!(field, "object" | "external" | "pods") {
        identifier(source.field("metric"), errors);
    }
    let target = source.field("target");
    self::target(target, errors);
    let (value, average, utilization) =
        (target.field("value"), target.field("averageValue"), target.field("averageUtilization"));
    match field {
        "pods" if !average.is_set() => {
            errors.push(average.required("must specify a positive target averageValue"));
        }
        "object" if !value.is_set() && !average.is_set() => {
            errors.push(average.required("must set either a target value or averageValue"));
        }
        "external" if !value.is_set() && !average.is_set() => {
            errors.push(average.required("must set either a target value for metric or a per-pod target"));
        }
        "external" if value.is_set() && average.is_set() => {
            errors.push(value.forbidden("may not set both a target value for metric and a per-pod target"));
        }
        "resource" | "containerResource" => match (utilization.is_set(), average.is_set()) {
            (false, false) => {
                errors
                    .push(utilization.required("must set either a target raw value or a target utilization"));
            }
            (true, true) => {
                errors
                    .push(average.forbidden("may not set both a target raw value and a target utilization"));
            }
            _ => {}
        },
        _ => {}
    }
}

fn container(source: At, errors: &mut Errors) {
    let (resource, container) = (source.field("name"), source.field("container"));
    if resource.text().is_empty() {
        errors.push(resource.required("must specify a resource name"));
    } else {
        resource_names::container(resource.text(), resource, errors);
    }
    if container.text().is_empty() {
        errors.push(container.required("must specify a container"));
    } else {
        checked(container, names::is_dns1123_label, errors);
    }
}

fn identifier(metric: At, errors: &mut Errors) {
    let name = metric.field("name");
    if name.text().is_empty() {
        errors.push(name.required("must specify a metric name"));
    } else {
        checked(name, names::is_path_segment_name, errors);
    }
}

/// Checks that a target has a known type and positive amounts.
fn target(target: At, errors: &mut Errors) {
    let kind = target.field("type");
    if kind.text().is_empty() {
        errors.push(kind.required("must specify a metric target type"));
    }
    if !["AverageValue", "Utilization", "Value"].contains(&kind.text()) {
        errors.push(kind.invalid_text("must be either Utilization, Value, or AverageValue"));
    }
    for field in ["value", "averageValue"] {
        let amount = target.field(field);
        if quantity(amount).is_some_and(|it| it.is_negative() || it.is_zero()) {
            errors.push(amount.invalid("must be positive"));
        }
    }
    let utilization = target.field("averageUtilization");
    if utilization.int().is_some_and(|percent| percent < 1) {
        errors.push(utilization.invalid("must be greater than 0"));
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
    quantity_not_negative(rules.field("tolerance"), errors);
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
        it["spec"]["scaleTargetRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
        defaults::autoscaler(&mut it, "v2");
        it
    }

    fn errors_of(spec: &Value) -> Vec<String> {
        autoscaler(&whole(spec), None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn max_replicas_is_sufficient() {
        let spec = whole(&json!({"maxReplicas": 3}));
        assert_eq!(spec["spec"]["minReplicas"], 1);
        assert_eq!(spec["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(spec["spec"].get("behavior"), None);
        assert_eq!(errors_of(&json!({"maxReplicas": 3})), [""; 0]);
    }

    #[test]
    fn completes_a_given_behavior() {
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
    fn rejects_invalid_specs() {
        assert_eq!(
            errors_of(&json!({"minReplicas": 0, "maxReplicas": 0})),
            [
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                "spec.maxReplicas: Required value: must be set and greater than 0",
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
            ]
        );
        assert_eq!(
            errors_of(&json!({"minReplicas": 4, "maxReplicas": 3})),
            ["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"]
        );
        assert_eq!(
            errors_of(&json!({"maxReplicas": 1, "metrics": [{"type": "Pods"}, {"type": "X"}]})),
            [
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
                r#"spec.metrics[1].type: Unsupported value: "X": supported values: "ContainerResource", "External", "Object", "Pods", "Resource""#,
                r#"spec.metrics[1].type: Unsupported value: "X": supported values: "ContainerResource", "External", "Object", "Pods", "Resource""#,
            ]
        );
        let rules = json!({"stabilizationWindowSeconds": 3601, "policies": [{"type": "Y", "value": 0, "periodSeconds": 1801}]});
        assert_eq!(
            errors_of(&json!({"maxReplicas": 1, "behavior": {"scaleUp": rules}})),
            [
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                r#"spec.behavior.scaleUp.policies[0].type: Unsupported value: "Y": supported values: "Percent", "Pods""#,
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ]
        );
    }

    #[test]
    fn metric_has_one_source_with_a_target() {
        let target = json!({"type": "Value", "value": "1"});
        let metric = json!({"name": "m"});
        for (given, expected) in [
            (json!({}), &["type", "type", "type"][..]),
            (
                json!({"type": "Pods", "pods": {"metric": {}, "target": target}}),
                &["pods.metric.name", "pods.target.averageValue"],
            ),
            (
                json!({"type": "External", "external": {"metric": metric,
                    "target": {"type": "", "value": "1", "averageValue": "-1"}}}),
                &[
                    "external.target.type",
                    "external.target.type",
                    "external.target.averageValue",
                    "external.target.value",
                ],
            ),
            (
                json!({"type": "Object", "object": {"describedObject": {"kind": "a/b", "apiVersion": "a/b/c"},
                    "metric": metric, "target": target}}),
                &[
                    "object.describedObject.kind",
                    "object.describedObject.name",
                    "object.describedObject.apiVersion",
                ],
            ),
            (
                json!({"type": "ContainerResource", "containerResource": {"name": "pods", "container": "A",
                    "target": {"type": "Utilization", "averageUtilization": 0, "averageValue": "1"}}}),
                &[
                    "containerResource.name",
                    "containerResource.container",
                    "containerResource.target.averageUtilization",
                    "containerResource.target.averageValue",
                ],
            ),
            (
                json!({"type": "Resource", "resource": {"name": "cpu", "target": target},
                    "pods": {"metric": metric, "target": {"type": "AverageValue", "averageValue": "1"}}}),
                &["pods"],
            ),
        ] {
            let spec = whole(&json!({"maxReplicas": 1, "metrics": [given]}));
            let errors = autoscaler(&spec, None);
            let fields: Vec<_> = errors.iter().map(|error| error.field.to_string()).collect();
            let expected: Vec<_> = expected.iter().map(|field| format!("spec.metrics[0].{field}")).collect();
            assert_eq!(fields, expected, "{given}");
        }
    }

    #[test]
    fn stored_references_are_accepted() {
        let with = |reference: Value, most: u32| {
            let mut it = whole(&json!({"maxReplicas": most}));
            it["spec"]["scaleTargetRef"] = reference;
            it
        };
        let odd = json!({"apiVersion": "", "kind": "Deployment", "name": "web"});
        let controller = json!({"apiVersion": "v1", "kind": "ReplicationController", "name": "web"});
        assert_eq!(autoscaler(&with(controller, 1), None), []);
        assert_eq!(autoscaler(&with(odd.clone(), 1), None).len(), 1);
        assert_eq!(autoscaler(&with(odd.clone(), 2), Some(&with(odd, 1))), []);
    }

    #[test]
    fn status_counts_are_not_negative() {
        let errors = status(&json!({"status": {"currentReplicas": -1, "desiredReplicas": -1}}));
        assert_eq!(errors.len(), 2, "{errors:?}");
    }
}
