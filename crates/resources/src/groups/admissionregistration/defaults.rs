//! Defaults of webhook configurations and policies (upstream: `pkg/apis/admissionregistration/v1/defaults.go`).

use nave_machinery::{Map, Value};
use serde_json::json;

use crate::defaults::{each, object, object_at, set, set_absent};

pub(super) fn webhooks(configuration: &mut Value, mutating: bool) {
    let Some(fields) = configuration.as_object_mut() else { return };
    for webhook in each(fields, "webhooks") {
        set_absent(webhook, "failurePolicy", "Fail");
        set(webhook, "timeoutSeconds", 10);
        if mutating {
            set_absent(webhook, "reinvocationPolicy", "Never");
        }
        selectors(webhook);
        rules(webhook, "rules");
        if let Some(service) = object_at(webhook, &["clientConfig", "service"]) {
            set(service, "port", 443);
        }
    }
}

pub(super) fn policy(policy: &mut Value) {
    let Some(spec) = policy.as_object_mut().and_then(|policy| object(policy, "spec")) else { return };
    set_absent(spec, "failurePolicy", "Fail");
    match_resources(spec, "matchConstraints");
}

pub(super) fn binding(binding: &mut Value) {
    let Some(spec) = binding.as_object_mut().and_then(|binding| object(binding, "spec")) else { return };
    match_resources(spec, "matchResources");
}

fn match_resources(spec: &mut Map, field: &str) {
    let Some(matching) = object_at(spec, &[field]) else { return };
    selectors(matching);
    rules(matching, "resourceRules");
    rules(matching, "excludeResourceRules");
}

/// The default selectors match everything, including requests through other versions of an API.
fn selectors(map: &mut Map) {
    set_absent(map, "matchPolicy", "Equivalent");
    set(map, "namespaceSelector", json!({}));
    set(map, "objectSelector", json!({}));
}

fn rules(map: &mut Map, field: &str) {
    for rule in each(map, field) {
        set_absent(rule, "scope", "*");
    }
}
