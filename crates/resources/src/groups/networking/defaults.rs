//! Defaults of network policies and ingress classes (upstream: `pkg/apis/networking/v1/defaults.go`).

use nave_machinery::{Map, Value};
use serde_json::json;

use crate::defaults::{each, object, object_at, set_absent};

pub(super) fn network_policy(policy: &mut Value) {
    let Some(spec) = policy.as_object_mut().and_then(|policy| object(policy, "spec")) else { return };
    for direction in ["ingress", "egress"] {
        for rule in each(spec, direction) {
            each(rule, "ports").for_each(|port| set_absent(port, "protocol", "TCP"));
        }
    }
    if is_empty(spec, "policyTypes") {
        // By default, a policy affects ingress. It also affects egress if it has egress rules.
        let types = if is_empty(spec, "egress") { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
}

fn is_empty(spec: &Map, field: &str) -> bool {
    spec.get(field).and_then(Value::as_array).is_none_or(Vec::is_empty)
}

pub(super) fn ingress_class(class: &mut Value) {
    if let Some(parameters) =
        class.as_object_mut().and_then(|class| object_at(class, &["spec", "parameters"]))
    {
        set_absent(parameters, "scope", "Cluster");
    }
}
