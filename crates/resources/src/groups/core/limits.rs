//! Limit ranges (upstream: `ValidateLimitRange`).

use std::collections::{BTreeMap, HashSet};

use nave_machinery::quantity::Quantity;
use nave_machinery::{FieldError, Map, Value, names};

use crate::defaults::{each, object, object_at};
use crate::resource_names;
use crate::strategy::Strategy;
use crate::validate::{At, Errors, quantity};

const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];

/// The strategy of limit ranges.
pub(super) struct LimitRangeStrategy;

impl Strategy for LimitRangeStrategy {
    fn names_objects(&self) -> bool {
        true
    }

    fn default(&self, range: &mut Value, _version: &str) {
        let Some(spec) = range.as_object_mut().and_then(|range| object_at(range, &["spec"])) else { return };
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
            type_name(kind, &mut errors);
            if !seen.insert(kind.text()) {
                errors.push(kind.duplicate());
            }
            limits(item, &mut errors);
        }
        errors
    }
}

/// Copies quantities that are missing in `to` from `from`.
fn fill(item: &mut Map, to: &str, from: &str) {
    let Some(Value::Object(quantities)) = item.get(from).cloned() else { return };
    let Some(to) = (!quantities.is_empty()).then(|| object(item, to)).flatten() else { return };
    for (name, quantity) in quantities {
        to.entry(name).or_insert(quantity);
    }
}

fn type_name(kind: At, errors: &mut Errors) {
    let name = kind.text();
    let found = names::is_qualified_name(name);
    if found.is_empty() && !name.contains('/') && !TYPES.contains(&name) {
        errors.push(kind.invalid("must be a standard limit type or fully qualified"));
    }
    errors.extend(found.into_iter().map(|why| kind.invalid_text(why)));
}

/// Checks the limits of one type of object: known resources with consistent quantities.
fn limits(item: At, errors: &mut Errors) {
    let kind = item.field("type").text();
    let mut of_resources: BTreeMap<&str, Limits> = BTreeMap::new();
    for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let list = item.field(field);
        if kind == "Pod" && matches!(field, "default" | "defaultRequest") {
            if list.len() > 0 {
                errors.push(list.forbidden("may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for (name, at) in list.entries() {
            match kind {
                "Pod" | "Container" => resource_names::container(name, at, errors),
                _ => resource_names::any(name, at, errors),
            }
            of_resources.entry(name).or_default().set(field, quantity(at));
        }
    }
    let storage = |field: &'static str| item.field(field).key("storage").is_set();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(item.field("limits").required(why));
    }
    for (name, limits) in of_resources {
        limits.in_order(name, item, errors);
        limits.ratio(name, item, errors);
    }
}

/// The quantities for one resource.
#[derive(Default)]
struct Limits {
    min: Option<Quantity>,
    max: Option<Quantity>,
    default: Option<Quantity>,
    default_request: Option<Quantity>,
    ratio: Option<Quantity>,
}

impl Limits {
    fn set(&mut self, field: &str, quantity: Option<Quantity>) {
        match field {
            "min" => self.min = quantity,
            "max" => self.max = quantity,
            "default" => self.default = quantity,
            "defaultRequest" => self.default_request = quantity,
            _ => self.ratio = quantity,
        }
    }

    /// Checks minimum <= default request <= default limit <= maximum.
    fn in_order(&self, name: &str, item: At, errors: &mut Errors) {
        let (min, max) = (("min", self.min), ("max", self.max));
        let (limit, request) = (("default", self.default), ("default request", self.default_request));
        for (lower, higher, field) in [
            (min, max, "min"),
            (min, request, "defaultRequest"),
            (request, max, "defaultRequest"),
            (request, ("default limit", limit.1), "defaultRequest"),
            (min, limit, "default"),
            (limit, max, "default"),
        ] {
            let (Some(low), Some(high)) = (lower.1, higher.1) else { continue };
            if low > high {
                let why = format!("{} value {low} is greater than {} value {high}", lower.0, higher.0);
                errors.push(invalid(item.field(field), name, low, why));
            }
        }
        if let (Some(limit), Some(request)) = (self.default, self.default_request)
            && !resource_names::may_overcommit(name)
            && !limit.is_same_amount(request)
        {
            let why = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
            errors.push(invalid(item.field("defaultRequest"), name, request, why));
        }
    }

    /// Checks that the limit/request ratio is at least 1 and at most the ratio of maximum to minimum.
    fn ratio(&self, name: &str, item: At, errors: &mut Errors) {
        let Some(ratio) = self.ratio else { return };
        let at = item.field("maxLimitRequestRatio");
        if ratio < Quantity::from_value(1) {
            errors.push(invalid(at, name, ratio, format!("ratio {ratio} is less than 1")));
        }
        if let (Some(min), Some(max)) = (self.min, self.max) {
            let most = max.as_f64() / min.as_f64();
            if ratio.as_f64() > most {
                let why = format!("ratio {ratio} is greater than max/min = {most:.6}");
                errors.push(invalid(at, name, ratio, why));
            }
        }
    }
}

/// Returns an error about the quantity of resource `name` in the list at `at`.
fn invalid(at: At, name: &str, shown: Quantity, why: String) -> FieldError {
    FieldError::invalid(&at.path().key(name), shown.to_string(), why)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the fields and types of the errors in a range with one item.
    fn errors_of(item: Value) -> Vec<String> {
        let range = json!({"spec": {"limits": [item]}});
        let errors = LimitRangeStrategy.validate(&range);
        errors.iter().map(|error| format!("{} {}", error.field, error.detail)).collect()
    }

    #[test]
    fn quantities_are_consistent() {
        for (item, expected) in [
            (json!({"type": "Container", "max": {"cpu": "2"}, "default": {"cpu": "1"}}), &[][..]),
            (
                json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}),
                &["spec.limits[0].min[cpu] min value 2 is greater than max value 1"],
            ),
            (
                json!({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}}),
                &[
                    "spec.limits[0].defaultRequest[cpu] default request value 2 is greater than default limit value 1",
                ],
            ),
            (
                json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "500m"}}),
                &["spec.limits[0].maxLimitRequestRatio[cpu] ratio 500m is less than 1"],
            ),
            (
                json!({"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}}),
                &["spec.limits[0].maxLimitRequestRatio[cpu] ratio 3 is greater than max/min = 2.000000"],
            ),
            (
                json!({"type": "Container", "default": {"hugepages-2Mi": "4Mi"}, "defaultRequest": {"hugepages-2Mi": "2Mi"}}),
                &[
                    "spec.limits[0].defaultRequest[hugepages-2Mi] default value 4Mi must equal to defaultRequest value 2Mi in hugepages-2Mi",
                ],
            ),
        ] {
            assert_eq!(errors_of(item.clone()), expected, "{item}");
        }
    }

    #[test]
    fn rejects_unknown_types_and_resources() {
        for (item, expected) in [
            (json!({"type": "example.com/Machine", "max": {"example.com/gpu": "1"}}), &[][..]),
            (
                json!({"type": "Machine"}),
                &["spec.limits[0].type must be a standard limit type or fully qualified"],
            ),
            (
                json!({"type": "Pod", "default": {"cpu": "1"}}),
                &["spec.limits[0].default may not be specified when `type` is 'Pod'"],
            ),
            (
                json!({"type": "PersistentVolumeClaim"}),
                &[
                    "spec.limits[0].limits either minimum or maximum storage value is required, but neither was provided",
                ],
            ),
            (
                json!({"type": "Container", "max": {"storage": "1"}}),
                &["spec.limits[0].max[storage] must be a standard resource for containers"],
            ),
        ] {
            assert_eq!(errors_of(item.clone()), expected, "{item}");
        }
        let twice = json!({"spec": {"limits": [{"type": "Pod"}, {"type": "Pod"}]}});
        assert_eq!(LimitRangeStrategy.validate(&twice).len(), 1);
    }
}
