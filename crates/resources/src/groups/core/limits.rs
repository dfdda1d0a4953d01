//! Limit ranges and resource quotas.

use std::collections::HashSet;

use nave_machinery::{FieldError, Map, Value, names};

use crate::defaults::{at, each, object};
use crate::strategy::Strategy;
use crate::validate::{At, Errors, checked, quantity, quantity_not_negative, required_text};

/// What is particular to limit ranges.
pub(super) struct LimitRangeStrategy;

impl Strategy for LimitRangeStrategy {
    fn default(&self, range: &mut Value, _version: &str) {
        let Some(spec) = range.as_object_mut().and_then(|range| at(range, &["spec"])) else { return };
        for item in each(spec, "limits").filter(|item| item.get("type").is_some_and(|it| it == "Container")) {
            fill(item, "default", "max");
            fill(item, "defaultRequest", "default");
            fill(item, "defaultRequest", "min");
        }
    }

    fn validate(&self, range: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(range);
        let spec = root.field("spec");
        let mut seen = HashSet::new();
        for item in spec.field("limits").items() {
            let kind = item.field("type");
            if required_text(kind, &mut errors) {
                checked(kind, names::is_qualified_name, &mut errors);
            }
            if !seen.insert(kind.text()) {
                errors.push(kind.duplicate());
            }
            limits(item, &mut errors);
        }
        errors
    }
}

/// The quantities of one type of object: each of a resource, and in an order that can hold.
fn limits(item: At, errors: &mut Errors) {
    let kind = item.field("type").text();
    let of_pods = kind == "Pod";
    for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let list = item.field(field);
        if of_pods && matches!(field, "default" | "defaultRequest") && list.len() > 0 {
            errors.push(list.forbidden("may not be specified when `type` is 'Pod'"));
        }
        for (name, quantity) in list.entries() {
            let found = names::is_qualified_name(name);
            errors.extend(found.into_iter().map(|why| FieldError::invalid(&quantity.path(), name, why)));
        }
    }
    let storage = |field: &'static str| item.field(field).key("storage").is_set();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(item.required(why));
    }
    for (lower, higher, at) in [
        ("min", "max", "min"),
        ("min", "defaultRequest", "defaultRequest"),
        ("defaultRequest", "max", "defaultRequest"),
        ("min", "default", "default"),
        ("default", "max", "default"),
        ("defaultRequest", "default", "defaultRequest"),
    ] {
        in_order(item, lower, higher, at, errors);
    }
    for (_, ratio) in item.field("maxLimitRequestRatio").entries() {
        if quantity(ratio).is_some_and(|it| it.milli_value() < 1000) {
            errors.push(ratio.invalid(format!("ratio {} is less than 1", ratio.text())));
        }
    }
}

/// What is `lower` may not exceed what is `higher`, for any resource; told of the field `at`.
fn in_order(item: At, lower: &'static str, higher: &'static str, at: &'static str, errors: &mut Errors) {
    let (low, high, place) = (item.field(lower), item.field(higher), item.field(at));
    for (name, less) in low.entries() {
        let more = high.key(name);
        let (Some(small), Some(large)) = (quantity(less), quantity(more)) else { continue };
        if small > large {
            let words = |field| match field {
                "defaultRequest" => "default request",
                field => field,
            };
            let why = format!(
                "{} value {} is greater than {} value {}",
                words(lower),
                less.text(),
                words(higher),
                more.text()
            );
            errors.push(place.key(name).invalid(why));
        }
    }
}

/// What is particular to quotas.
pub(super) struct QuotaStrategy;

impl Strategy for QuotaStrategy {
    fn validate(&self, quota: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(quota);
        let spec = root.field("spec");
        quantities(spec.field("hard"), &mut errors);
        errors
    }

    fn validate_status_update(&self, quota: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(quota);
        let status = root.field("status");
        quantities(status.field("hard"), &mut errors);
        quantities(status.field("used"), &mut errors);
        errors
    }
}

fn quantities(list: At, errors: &mut Errors) {
    for (name, quantity) in list.entries() {
        let found = names::is_qualified_name(name);
        errors.extend(found.into_iter().map(|why| FieldError::invalid(&quantity.path(), name, why)));
        quantity_not_negative(quantity, errors);
    }
}

/// Puts the quantities of `from` into `to` where it has none.
fn fill(item: &mut Map, to: &str, from: &str) {
    let Some(Value::Object(quantities)) = item.get(from).cloned() else { return };
    let Some(to) = (!quantities.is_empty()).then(|| object(item, to)).flatten() else { return };
    for (name, quantity) in quantities {
        to.entry(name).or_insert(quantity);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_quantities_of_a_range_are_in_order() {
        let range = json!({"spec": {"limits": [
            {"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "500m"}},
            {"type": "Container", "default": {"cpu": "1"}},
            {"type": "Pod", "default": {"cpu": "1"}},
            {"type": "PersistentVolumeClaim"},
        ]}});
        let shown: Vec<String> =
            LimitRangeStrategy.validate(&range).iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                r#"spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1"#,
                r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1"#,
                r#"spec.limits[1].type: Duplicate value: "Container""#,
                "spec.limits[2].default: Forbidden: may not be specified when `type` is 'Pod'",
                "spec.limits[3]: Required value: either minimum or maximum storage value is required, but neither was provided",
            ]
        );
    }
}
