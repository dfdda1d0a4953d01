//! The strategy of device taint rules (upstream: `pkg/registry/resource/devicetaintrule`).

use nave_machinery::{Value, names, time};

use super::parts::{each, pool_name};
use super::slices;
use crate::conditions::conditions;
use crate::defaults::{object_at, set_absent};
use crate::read;
use crate::strategy::Strategy;
use crate::table::{Column, age, elapsed, field, name};
use crate::validate::{At, Errors, driver_name, required_checked};

const CONDITIONS_MAX: usize = 8;
const TAINT: &str = "resource.v1.DeviceTaint";

pub(super) struct DeviceTaintRuleStrategy;

impl Strategy for DeviceTaintRuleStrategy {
    fn default(&self, rule: &mut Value, _version: &str) {
        if let Some(taint) = rule.as_object_mut().and_then(|rule| object_at(rule, &["spec", "taint"])) {
            set_absent(taint, "timeAdded", time::now().rfc3339());
        }
    }

    fn prepare_for_update(&self, rule: &mut Value, old: &Value) {
        let is_same = |path: &str| read::value_at(rule, path) == read::value_at(old, path);
        // The time is that of the effect, unless the client sets another one.
        if !is_same("spec.taint.effect")
            && is_same("spec.taint.timeAdded")
            && let Some(taint) = rule.as_object_mut().and_then(|rule| object_at(rule, &["spec", "taint"]))
        {
            taint.insert("timeAdded".to_owned(), time::now().rfc3339().into());
        }
    }

    fn validate(&self, rule: &Value) -> Errors {
        spec(rule, None)
    }

    fn validate_update(&self, rule: &Value, old: &Value) -> Errors {
        spec(rule, Some(old))
    }

    fn validate_status_update(&self, rule: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(rule);
        let status = root.field("status");
        let list = status.field("conditions");
        conditions(list, &mut errors);
        each(list, CONDITIONS_MAX, &mut errors, |_, _| {});
        errors
    }
}

pub(super) fn columns() -> Vec<Column> {
    vec![
        name(),
        field("Key", "spec.taint.key", "").described_by(TAINT, "key"),
        field("Value", "spec.taint.value", "").described_by(TAINT, "value"),
        field("Effect", "spec.taint.effect", "").described_by(TAINT, "effect"),
        elapsed("TimeAdded", "spec.taint.timeAdded", "").described_by(TAINT, "timeAdded"),
        age(),
    ]
}

fn spec(rule: &Value, old: Option<&Value>) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(rule);
    let spec = root.field("spec");
    let selector = spec.field("deviceSelector");
    let (driver, pool, device) = (selector.field("driver"), selector.field("pool"), selector.field("device"));
    if driver.is_set() {
        driver_name(driver, &mut errors);
    }
    if pool.is_set() {
        pool_name(pool, &mut errors);
    }
    if device.is_set() {
        required_checked(device, names::is_dns1123_label, &mut errors);
    }
    let taint = spec.field("taint");
    let old_effect = old.map(|old| read::text(old, "spec.taint.effect"));
    slices::taint_key_and_value(taint, &mut errors);
    if old_effect != Some(taint.field("effect").text()) {
        slices::taint_effect(taint, &mut errors);
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rejects_invalid_rules() {
        for (spec, expected) in [
            (json!({"taint": {"key": "a", "effect": "NoSchedule"}}), &[][..]),
            (
                json!({"taint": {"key": "", "effect": ""}}),
                &["spec.taint.key", "spec.taint.key", "spec.taint.effect"],
            ),
            (
                json!({"deviceSelector": {"driver": "-", "pool": "", "device": "A"}, "taint": {"key": "a", "effect": "X"}}),
                &[
                    "spec.deviceSelector.driver",
                    "spec.deviceSelector.pool",
                    "spec.deviceSelector.device",
                    "spec.taint.effect",
                ],
            ),
        ] {
            let errors = DeviceTaintRuleStrategy.validate(&json!({"spec": spec}));
            let fields: Vec<String> = errors.iter().map(|error| error.field.to_string()).collect();
            assert_eq!(fields, expected, "{spec}");
        }
        let old = json!({"spec": {"taint": {"key": "a", "effect": "Old"}}});
        assert!(DeviceTaintRuleStrategy.validate_update(&old, &old).is_empty());
        let many: Vec<Value> = (0..9)
            .map(|at| json!({"type": format!("T{at}"), "status": "True", "reason": "R", "lastTransitionTime": "x"}))
            .collect();
        let errors =
            DeviceTaintRuleStrategy.validate_status_update(&json!({"status": {"conditions": many}}), &old);
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn the_time_is_that_of_the_effect() {
        let rule =
            |effect: &str, time: &str| json!({"spec": {"taint": {"effect": effect, "timeAdded": time}}});
        let added = |mut new: Value| {
            DeviceTaintRuleStrategy.prepare_for_update(&mut new, &rule("None", "2020-01-01T00:00:00Z"));
            new["spec"]["taint"]["timeAdded"].as_str().unwrap().to_owned()
        };
        assert_eq!(added(rule("None", "2020-01-01T00:00:00Z")), "2020-01-01T00:00:00Z");
        assert_eq!(added(rule("NoExecute", "2021-01-01T00:00:00Z")), "2021-01-01T00:00:00Z");
        assert!(*added(rule("NoExecute", "2020-01-01T00:00:00Z")) > *"2021");
        let mut new = json!({"spec": {"taint": {}}});
        DeviceTaintRuleStrategy.default(&mut new, "v1alpha3");
        assert!(new["spec"]["taint"]["timeAdded"].is_string());
    }
}
