//! The annotations of autoscaling/v1. The types serialize to upstream's JSON, including the field order.

use nave_machinery::Value;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A metric to scale by in v1's annotation.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct MetricSpec {
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<ObjectSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<PodsSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<ResourceSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_resource: Option<ResourceSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external: Option<ExternalSource>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectSource {
    target: Reference,
    metric_name: String,
    target_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<Selector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_value: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodsSource {
    metric_name: String,
    target_average_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<Selector>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceSource {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_average_utilization: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_average_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ExternalSource {
    metric_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_selector: Option<Selector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_average_value: Option<String>,
}

impl MetricSpec {
    pub(super) fn from_v2(metric: &Value) -> Self {
        let target = |source: &Value, field| text_of(source, &["target", field]);
        let resource = |source: &Value| ResourceSource {
            name: name_of(source, "name"),
            target_average_utilization: int_of(source, &["target", "averageUtilization"]),
            target_average_value: target(source, "averageValue"),
            container: text_of(source, &["container"]),
        };
        Self {
            kind: name_of(metric, "type"),
            object: metric.get("object").map(|source| ObjectSource {
                target: read(source.get("describedObject")),
                metric_name: metric_name(source),
                target_value: target(source, "value").or_else(zero),
                selector: metric_selector(source),
                average_value: target(source, "averageValue"),
            }),
            pods: metric.get("pods").map(|source| PodsSource {
                metric_name: metric_name(source),
                target_average_value: target(source, "averageValue").or_else(zero),
                selector: metric_selector(source),
            }),
            resource: metric.get("resource").map(resource),
            container_resource: metric.get("containerResource").map(resource),
            external: metric.get("external").map(|source| ExternalSource {
                metric_name: metric_name(source),
                metric_selector: metric_selector(source),
                target_value: target(source, "value"),
                target_average_value: target(source, "averageValue"),
            }),
        }
    }

    pub(super) fn into_v2(self) -> Value {
        let mut metric = json!({"type": self.kind});
        if let Some(it) = self.object {
            let target = match it.average_value {
                Some(average) => json!({"type": "AverageValue", "averageValue": average}),
                None => json!({"type": "Value", "value": it.target_value.or_else(zero)}),
            };
            let described = json!(it.target);
            metric["object"] = json!({"describedObject": described, "metric": identifier(&it.metric_name, it.selector), "target": target});
        }
        if let Some(it) = self.pods {
            let target =
                json!({"type": "AverageValue", "averageValue": it.target_average_value.or_else(zero)});
            metric["pods"] = json!({"metric": identifier(&it.metric_name, it.selector), "target": target});
        }
        if let Some(it) = self.resource {
            metric["resource"] = it.into_v2();
        }
        if let Some(it) = self.container_resource {
            metric["containerResource"] = it.into_v2();
        }
        if let Some(it) = self.external {
            let kind = if it.target_value.is_some() { "Value" } else { "AverageValue" };
            let mut target = json!({"type": kind});
            set(&mut target, "value", it.target_value);
            set(&mut target, "averageValue", it.target_average_value);
            metric["external"] =
                json!({"metric": identifier(&it.metric_name, it.metric_selector), "target": target});
        }
        metric
    }
}

impl ResourceSource {
    fn into_v2(self) -> Value {
        let kind = if self.target_average_utilization.is_some() { "Utilization" } else { "AverageValue" };
        let mut target = json!({"type": kind});
        set(&mut target, "averageUtilization", self.target_average_utilization);
        set(&mut target, "averageValue", self.target_average_value);
        let mut source = json!({"name": self.name, "target": target});
        set(&mut source, "container", self.container);
        source
    }
}

/// The current value of a metric in v1's annotation.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct MetricStatus {
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<ObjectStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<PodsStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<ResourceStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_resource: Option<ResourceStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external: Option<ExternalStatus>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectStatus {
    target: Reference,
    metric_name: String,
    current_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<Selector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_value: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodsStatus {
    metric_name: String,
    current_average_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<Selector>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceStatus {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_average_utilization: Option<i32>,
    current_average_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ExternalStatus {
    metric_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_selector: Option<Selector>,
    current_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_average_value: Option<String>,
}

impl MetricStatus {
    pub(super) fn from_v2(metric: &Value) -> Self {
        let current = |source: &Value, field| text_of(source, &["current", field]);
        let resource = |source: &Value| ResourceStatus {
            name: name_of(source, "name"),
            current_average_utilization: int_of(source, &["current", "averageUtilization"]),
            current_average_value: current(source, "averageValue").or_else(zero),
            container: text_of(source, &["container"]),
        };
        Self {
            kind: name_of(metric, "type"),
            object: metric.get("object").map(|source| ObjectStatus {
                target: read(source.get("describedObject")),
                metric_name: metric_name(source),
                current_value: current(source, "value").or_else(zero),
                selector: metric_selector(source),
                average_value: current(source, "averageValue"),
            }),
            pods: metric.get("pods").map(|source| PodsStatus {
                metric_name: metric_name(source),
                current_average_value: current(source, "averageValue").or_else(zero),
                selector: metric_selector(source),
            }),
            resource: metric.get("resource").map(resource),
            container_resource: metric.get("containerResource").map(resource),
            external: metric.get("external").map(|source| ExternalStatus {
                metric_name: metric_name(source),
                metric_selector: metric_selector(source),
                current_value: current(source, "value").or_else(zero),
                current_average_value: current(source, "averageValue"),
            }),
        }
    }

    pub(super) fn into_v2(self) -> Value {
        let mut metric = json!({"type": self.kind});
        if let Some(it) = self.object {
            let current = values(it.current_value, it.average_value, None);
            let described = json!(it.target);
            metric["object"] = json!({"describedObject": described, "metric": identifier(&it.metric_name, it.selector), "current": current});
        }
        if let Some(it) = self.pods {
            let current = values(None, it.current_average_value, None);
            metric["pods"] = json!({"metric": identifier(&it.metric_name, it.selector), "current": current});
        }
        if let Some(it) = self.resource {
            metric["resource"] = it.into_v2();
        }
        if let Some(it) = self.container_resource {
            metric["containerResource"] = it.into_v2();
        }
        if let Some(it) = self.external {
            let current = values(it.current_value, it.current_average_value, None);
            metric["external"] =
                json!({"metric": identifier(&it.metric_name, it.metric_selector), "current": current});
        }
        metric
    }
}

impl ResourceStatus {
    fn into_v2(self) -> Value {
        let current = values(None, self.current_average_value, self.current_average_utilization);
        let mut source = json!({"name": self.name, "current": current});
        set(&mut source, "container", self.container);
        source
    }
}

/// The scaling behavior. The annotation has Go's field names, because upstream encodes its internal type.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Behavior {
    scale_up: Option<Rules>,
    scale_down: Option<Rules>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Rules {
    stabilization_window_seconds: Option<i32>,
    select_policy: Option<String>,
    policies: Option<Vec<Policy>>,
    tolerance: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Policy {
    r#type: String,
    value: i32,
    period_seconds: i32,
}

impl Behavior {
    pub(super) fn is_empty(&self) -> bool {
        self.scale_up.is_none() && self.scale_down.is_none()
    }

    pub(super) fn from_v2(behavior: &Value) -> Self {
        let rules = |field| behavior.get(field).filter(|it| it.is_object()).map(Rules::from_v2);
        Self { scale_up: rules("scaleUp"), scale_down: rules("scaleDown") }
    }

    pub(super) fn into_v2(self) -> Value {
        let mut behavior = json!({});
        set(&mut behavior, "scaleUp", self.scale_up.map(Rules::into_v2));
        set(&mut behavior, "scaleDown", self.scale_down.map(Rules::into_v2));
        behavior
    }
}

impl Rules {
    fn from_v2(rules: &Value) -> Self {
        let policy = |policy: &Value| Policy {
            r#type: name_of(policy, "type"),
            value: int_of(policy, &["value"]).unwrap_or_default(),
            period_seconds: int_of(policy, &["periodSeconds"]).unwrap_or_default(),
        };
        Self {
            stabilization_window_seconds: int_of(rules, &["stabilizationWindowSeconds"]),
            select_policy: text_of(rules, &["selectPolicy"]),
            policies: rules
                .get("policies")
                .and_then(Value::as_array)
                .map(|all| all.iter().map(policy).collect()),
            tolerance: text_of(rules, &["tolerance"]),
        }
    }

    fn into_v2(self) -> Value {
        let mut rules = json!({});
        set(&mut rules, "stabilizationWindowSeconds", self.stabilization_window_seconds);
        set(&mut rules, "selectPolicy", self.select_policy);
        let policy =
            |it: &Policy| json!({"type": it.r#type, "value": it.value, "periodSeconds": it.period_seconds});
        set(&mut rules, "policies", self.policies.map(|all| all.iter().map(policy).collect::<Vec<_>>()));
        set(&mut rules, "tolerance", self.tolerance);
        rules
    }
}

/// A condition of an autoscaler, identical in both versions.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Condition {
    r#type: String,
    status: String,
    last_transition_time: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
}

impl Condition {
    pub(super) fn from_v2(condition: &Value) -> Self {
        read(Some(condition))
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Reference {
    kind: String,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Selector {
    #[serde(skip_serializing_if = "Option::is_none")]
    match_labels: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    match_expressions: Option<Vec<Requirement>>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Requirement {
    key: String,
    operator: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Vec<String>>,
}

/// Decodes a part of a valid object; returns the type's default on a mismatch.
fn read<T: Default + for<'de> Deserialize<'de>>(value: Option<&Value>) -> T {
    value.and_then(|value| T::deserialize(value).ok()).unwrap_or_default()
}

fn text_of(value: &Value, path: &[&str]) -> Option<String> {
    let found = path.iter().try_fold(value, |place, part| place.get(part))?;
    match found {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn int_of(value: &Value, path: &[&str]) -> Option<i32> {
    let found = path.iter().try_fold(value, |place, part| place.get(part))?;
    found.as_i64().and_then(|number| i32::try_from(number).ok())
}

fn name_of(value: &Value, field: &str) -> String {
    text_of(value, &[field]).unwrap_or_default()
}

fn metric_name(source: &Value) -> String {
    text_of(source, &["metric", "name"]).unwrap_or_default()
}

fn metric_selector(source: &Value) -> Option<Selector> {
    source.pointer("/metric/selector").filter(|it| it.is_object()).map(|selector| read(Some(selector)))
}

fn identifier(name: &str, selector: Option<Selector>) -> Value {
    let mut identifier = json!({"name": name});
    set(&mut identifier, "selector", selector);
    identifier
}

fn values(value: Option<String>, average: Option<String>, utilization: Option<i32>) -> Value {
    let mut values = json!({});
    set(&mut values, "value", value);
    set(&mut values, "averageValue", average);
    set(&mut values, "averageUtilization", utilization);
    values
}

fn set<T: Serialize>(object: &mut Value, field: &str, value: Option<T>) {
    if let Some(value) = value.and_then(|value| serde_json::to_value(value).ok()) {
        object[field] = value;
    }
}

/// The quantity that Go writes for a required field without a value.
#[allow(clippy::unnecessary_wraps)]
fn zero() -> Option<String> {
    Some("0".to_owned())
}
