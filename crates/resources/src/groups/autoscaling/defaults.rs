//! Defaults of autoscalers (upstream: `pkg/apis/autoscaling/v2/defaults.go`).

use nave_machinery::{Map, Value};
use serde_json::json;

use crate::defaults::{object, object_at, set, set_absent};

/// The period of a scaling policy, in seconds.
const PERIOD: i64 = 15;

pub(super) fn autoscaler(autoscaler: &mut Value, version: &str) {
    let Some(spec) = autoscaler.as_object_mut().and_then(|it| object(it, "spec")) else { return };
    set(spec, "minReplicas", 1);
    // v1 has no list of metrics. Conversion adds the same default.
    if version == "v1" {
        return;
    }
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        spec.insert(
            "metrics".to_owned(),
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]),
        );
    }
    if let Some(behavior) = object_at(spec, &["behavior"]) {
        self::behavior(behavior);
    }
}

/// Sets the defaults of a given behavior. Scaling up has no stabilization window and adds 4 pods or 100% per period,
/// whichever is more.
fn behavior(behavior: &mut Map) {
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": PERIOD});
    if let Some(up) = object(behavior, "scaleUp") {
        set(up, "stabilizationWindowSeconds", 0);
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": PERIOD});
        rules(up, json!([pods, percent]));
    }
    if let Some(down) = object(behavior, "scaleDown") {
        rules(down, json!([percent]));
    }
}

fn rules(rules: &mut Map, policies: Value) {
    set_absent(rules, "selectPolicy", "Max");
    set(rules, "policies", policies);
}
