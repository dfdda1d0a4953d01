//! Conversion between autoscaling/v1, which supports only a CPU target, and v2. Annotations store the data that v1
//! has no field for.
//!
//! As in upstream, annotations that cannot be decoded are dropped, because v1 clients could not repair them.

use nave_machinery::{Map, Value, meta};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::annotated::{Behavior, Condition, MetricSpec, MetricStatus};
use crate::convert::ConversionError;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const ANNOTATIONS: [&str; 4] = [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR];

/// The default CPU utilization of v1, in percent.
const DEFAULT_CPU_UTILIZATION: i64 = 80;

pub(super) fn v1_to_v2(object: &mut Value) -> Result<(), ConversionError> {
    let annotations = take_annotations(object);
    let fields = object.as_object_mut().ok_or(ConversionError::NotAnObject)?;
    let metrics = annotation::<Vec<MetricSpec>>(&annotations, METRICS).unwrap_or_default();
    let behavior = annotation::<Behavior>(&annotations, BEHAVIOR).filter(|behavior| !behavior.is_empty());
    if let Some(spec) = struct_mut(fields, "spec") {
        let mut metrics: Vec<Value> = metrics.into_iter().map(MetricSpec::into_v2).collect();
        match spec.remove("targetCPUUtilizationPercentage") {
            Some(percent @ Value::Number(_)) => metrics.push(cpu_metric(&percent)),
            _ if metrics.is_empty() => metrics.push(cpu_metric(&json!(DEFAULT_CPU_UTILIZATION))),
            _ => {}
        }
        spec.insert("metrics".to_owned(), Value::Array(metrics));
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), behavior.into_v2());
        }
    }
    if let Some(status) = struct_mut(fields, "status") {
        let percent = status.remove("currentCPUUtilizationPercentage").filter(Value::is_number);
        let current = match annotation::<Vec<MetricStatus>>(&annotations, CURRENT_METRICS) {
            Some(current) if !current.is_empty() => {
                Value::Array(current.into_iter().map(MetricStatus::into_v2).collect())
            }
            _ => percent.map_or(Value::Null, |percent| json!([cpu_status(&percent)])),
        };
        status.insert("currentMetrics".to_owned(), current);
        if let Some(conditions) =
            annotation::<Vec<Condition>>(&annotations, CONDITIONS).filter(|it| !it.is_empty())
        {
            status.insert("conditions".to_owned(), json!(conditions));
        }
        if status.get("currentReplicas").and_then(Value::as_i64) == Some(0) {
            status.remove("currentReplicas");
        }
        status.entry("desiredReplicas").or_insert(json!(0));
    }
    fields.insert("apiVersion".to_owned(), json!("autoscaling/v2"));
    Ok(())
}

pub(super) fn v2_to_v1(object: &mut Value) -> Result<(), ConversionError> {
    take_annotations(object);
    let fields = object.as_object_mut().ok_or(ConversionError::NotAnObject)?;
    let mut annotations = Map::new();
    if let Some(spec) = struct_mut(fields, "spec") {
        let metrics = take_list(spec, "metrics");
        // Upstream converts the first CPU metric with a utilization to the field, and all other metrics to the
        // annotation.
        let first_cpu = metrics.iter().find(|metric| is_cpu(metric));
        if let Some(percent) =
            first_cpu.and_then(|metric| metric.pointer("/resource/target/averageUtilization"))
        {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), percent.clone());
        }
        let others: Vec<MetricSpec> =
            metrics.iter().filter(|metric| !has_cpu_target(metric)).map(MetricSpec::from_v2).collect();
        annotate_list(&mut annotations, METRICS, &others);
        if let Some(behavior) = spec.remove("behavior").filter(Value::is_object) {
            annotate(&mut annotations, BEHAVIOR, &Behavior::from_v2(&behavior));
        }
    }
    if let Some(status) = struct_mut(fields, "status") {
        let current = take_list(status, "currentMetrics");
        let cpu = current.iter().filter(|metric| is_cpu(metric));
        if let Some(percent) =
            cpu.filter_map(|metric| metric.pointer("/resource/current/averageUtilization")).next_back()
        {
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent.clone());
        }
        let current: Vec<MetricStatus> = current.iter().map(MetricStatus::from_v2).collect();
        annotate_list(&mut annotations, CURRENT_METRICS, &current);
        let conditions: Vec<Condition> =
            take_list(status, "conditions").iter().map(Condition::from_v2).collect();
        annotate_list(&mut annotations, CONDITIONS, &conditions);
        status.entry("currentReplicas").or_insert(json!(0));
        status.entry("desiredReplicas").or_insert(json!(0));
    }
    fields.insert("apiVersion".to_owned(), json!("autoscaling/v1"));
    add_annotations(object, annotations);
    Ok(())
}

/// Removes and returns the annotations that hold v2 data.
fn take_annotations(object: &mut Value) -> Map {
    let mut taken = Map::new();
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return taken;
    };
    for key in ANNOTATIONS {
        if let Some(value) = annotations.remove(key) {
            taken.insert(key.to_owned(), value);
        }
    }
    if annotations.is_empty() {
        meta::remove(object, "annotations");
    }
    taken
}

fn add_annotations(object: &mut Value, more: Map) {
    if more.is_empty() {
        return;
    }
    let Some(metadata) = meta::metadata_mut(object) else { return };
    match metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        Some(annotations) => annotations.extend(more),
        None => drop(metadata.insert("annotations".to_owned(), Value::Object(more))),
    }
}

fn annotation<T: DeserializeOwned>(annotations: &Map, key: &str) -> Option<T> {
    serde_json::from_str(annotations.get(key)?.as_str()?).ok()
}

fn annotate<T: Serialize>(annotations: &mut Map, key: &str, data: &T) {
    if let Ok(text) = serde_json::to_string(data) {
        annotations.insert(key.to_owned(), Value::String(text));
    }
}

fn annotate_list<T: Serialize>(annotations: &mut Map, key: &str, data: &[T]) {
    if !data.is_empty() {
        annotate(annotations, key, &data);
    }
}

/// Returns a required struct of the object, created empty if absent.
fn struct_mut<'a>(fields: &'a mut Map, name: &str) -> Option<&'a mut Map> {
    fields.entry(name).or_insert_with(|| json!({})).as_object_mut()
}

fn take_list(fields: &mut Map, name: &str) -> Vec<Value> {
    match fields.remove(name) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn is_cpu(metric: &Value) -> bool {
    metric.get("type").is_some_and(|kind| kind == "Resource")
        && metric.pointer("/resource/name").is_some_and(|name| name == "cpu")
}

fn has_cpu_target(metric: &Value) -> bool {
    is_cpu(metric) && metric.pointer("/resource/target/averageUtilization").is_some_and(Value::is_number)
}

fn cpu_metric(percent: &Value) -> Value {
    json!({"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn cpu_status(percent: &Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2() -> Value {
        json!({
            "kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2",
            "metadata": {"name": "h", "annotations": {"mine": "kept"}},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
                "minReplicas": 1, "maxReplicas": 3,
                "metrics": [
                    {"type": "Resource", "resource": {
                        "name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                    {"type": "Resource", "resource": {
                        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
                "behavior": {
                    "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                        {"type": "Pods", "value": 4, "periodSeconds": 15},
                        {"type": "Percent", "value": 100, "periodSeconds": 15}]},
                    "scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max", "policies": [
                        {"type": "Percent", "value": 100, "periodSeconds": 15}]},
                },
            },
            "status": {"desiredReplicas": 0, "currentMetrics": null},
        })
    }

    #[test]
    fn stores_v2_data_in_annotations() {
        let mut object = v2();
        v2_to_v1(&mut object).unwrap();
        let behavior = concat!(
            r#"{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max","Policies":["#,
            r#"{"Type":"Pods","Value":4,"PeriodSeconds":15},{"Type":"Percent","Value":100,"PeriodSeconds":15}],"#,
            r#""Tolerance":null},"ScaleDown":{"StabilizationWindowSeconds":60,"SelectPolicy":"Max","Policies":["#,
            r#"{"Type":"Percent","Value":100,"PeriodSeconds":15}],"Tolerance":null}}"#,
        );
        let metrics = r#"[{"type":"Resource","resource":{"name":"memory","targetAverageValue":"1Gi"}}]"#;
        assert_eq!(
            object,
            json!({
                "kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1",
                "metadata": {"name": "h", "annotations": {"mine": "kept", BEHAVIOR: behavior, METRICS: metrics}},
                "spec": {
                    "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
                    "minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
                },
                "status": {"currentReplicas": 0, "desiredReplicas": 0},
            })
        );
        v1_to_v2(&mut object).unwrap();
        assert_eq!(object, v2());
    }

    #[test]
    fn all_metric_types_survive_the_round_trip() {
        let target = json!({"kind": "Service", "name": "s", "apiVersion": "v1"});
        let named = json!({"name": "m", "selector": {"matchLabels": {"a": "b"}}});
        let specs = json!([
            {"type": "Object", "object": {
                "describedObject": target, "metric": named, "target": {"type": "Value", "value": "5"}}},
            {"type": "Object", "object": {"describedObject": target, "metric": {"name": "m"},
                "target": {"type": "AverageValue", "averageValue": "5"}}},
            {"type": "Pods", "pods": {"metric": named, "target": {"type": "AverageValue", "averageValue": "2"}}},
            {"type": "ContainerResource", "containerResource": {
                "name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 7}}},
            {"type": "External", "external": {"metric": named, "target": {"type": "Value", "value": "9"}}},
            {"type": "External", "external": {"metric": {"name": "q"},
                "target": {"type": "AverageValue", "averageValue": "1"}}},
        ]);
        let statuses = json!([
            {"type": "Object", "object": {"describedObject": target, "metric": named, "current": {"value": "4"}}},
            {"type": "Pods", "pods": {"metric": {"name": "m"}, "current": {"averageValue": "2"}}},
            {"type": "Resource", "resource": {
                "name": "cpu", "current": {"averageUtilization": 3, "averageValue": "30m"}}},
            {"type": "External", "external": {"metric": named, "current": {"value": "9", "averageValue": "1"}}},
        ]);
        let conditions = json!([{"type": "AbleToScale", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "r", "message": "m"}]);
        let mut object = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"maxReplicas": 1, "metrics": specs},
            "status": {"currentReplicas": 2, "desiredReplicas": 3, "currentMetrics": statuses, "conditions": conditions},
        });
        let before = object.clone();
        v2_to_v1(&mut object).unwrap();
        assert_eq!(object["status"]["currentCPUUtilizationPercentage"], 3);
        assert!(object["spec"].get("metrics").is_none());
        v1_to_v2(&mut object).unwrap();
        assert_eq!(object, before);
    }

    #[test]
    fn v1_without_target_defaults_to_80_percent() {
        let mut object = json!({"apiVersion": "autoscaling/v1", "metadata": {"annotations": {METRICS: "not JSON"}}, "spec": {}});
        v1_to_v2(&mut object).unwrap();
        assert_eq!(
            object,
            json!({
                "apiVersion": "autoscaling/v2", "metadata": {}, "spec": {"metrics": [cpu_metric(&json!(80))]},
                "status": {"currentMetrics": null, "desiredReplicas": 0},
            })
        );
        assert_eq!(v1_to_v2(&mut json!(1)), Err(ConversionError::NotAnObject));
    }
}
