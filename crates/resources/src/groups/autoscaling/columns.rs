//! Table columns of autoscalers.

use nave_machinery::Value;
use serde_json::json;

use crate::read;
use crate::table::{Column, abridged, age, name, number, text};

pub(super) fn columns() -> Vec<Column> {
    let (spec, status) =
        ("autoscaling.v2.HorizontalPodAutoscalerSpec", "autoscaling.v2.HorizontalPodAutoscalerStatus");
    let as_text = |column: Column| column.of_kind("string");
    vec![
        name(),
        text("Reference", |autoscaler| {
            let target = |field| read::text(autoscaler, field);
            format!("{}/{}", target("spec.scaleTargetRef.kind"), target("spec.scaleTargetRef.name"))
        })
        .described_by(spec, "scaleTargetRef"),
        text("Targets", targets).described_by(spec, "metrics"),
        Column::new("MinPods", |autoscaler: &Value, _| {
            match read::value_at(autoscaler, "spec.minReplicas") {
                Some(Value::Number(least)) => json!(least.to_string()),
                _ => json!("<unset>"),
            }
        })
        .described_by(spec, "minReplicas"),
        as_text(number("MaxPods", "spec.maxReplicas")).described_by(spec, "maxReplicas"),
        as_text(number("Replicas", "status.currentReplicas")).described_by(status, "currentReplicas"),
        age(),
    ]
}

/// Returns the first two metrics as `current/target`.
fn targets(autoscaler: &Value) -> String {
    let metrics = read::list(autoscaler, "spec.metrics");
    let statuses = read::list(autoscaler, "status.currentMetrics");
    let all: Vec<String> =
        metrics.iter().enumerate().map(|(index, metric)| target(metric, statuses.get(index))).collect();
    if all.is_empty() { "<none>".to_owned() } else { abridged(&all, 2, ", ") }
}

fn target(metric: &Value, status: Option<&Value>) -> String {
    let source = match read::text(metric, "type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let wanted = |field| metric.get(source).and_then(|it| it.get("target")).and_then(|it| it.get(field));
    let current = |field| {
        status.and_then(|it| it.get(source)).and_then(|it| it.get("current")).and_then(|it| it.get(field))
    };
    let shown =
        |value: Option<&Value>, missing: &str| value.and_then(Value::as_str).unwrap_or(missing).to_owned();
    let percent = |value: Option<&Value>, missing: &str| {
        value.and_then(Value::as_i64).map_or_else(|| missing.to_owned(), |percent| format!("{percent}%"))
    };
    let average =
        || format!("{}/{}", shown(current("averageValue"), "<unknown>"), shown(wanted("averageValue"), "0"));
    let has_average = wanted("averageValue").is_some();
    match source {
        "pods" => average(),
        "resource" | "containerResource" => {
            let resource = metric.get(source).map_or("", |it| read::text(it, "name"));
            let used = || {
                let (current, wanted) = (current("averageUtilization"), wanted("averageUtilization"));
                format!("{}/{}", percent(current, "<unknown>"), percent(wanted, "<auto>"))
            };
            format!("{resource}: {}", if has_average { average() } else { used() })
        }
        _ if has_average => format!("{} (avg)", average()),
        _ => format!("{}/{}", shown(current("value"), "<unknown>"), shown(wanted("value"), "0")),
    }
}
