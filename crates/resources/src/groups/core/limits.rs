//! Limit ranges and resource quotas.

use nave_machinery::{FieldError, Map, Value, names};

use crate::defaults::{at, each, object};
use crate::strategy::Strategy;
use crate::validate::{At, Errors, quantity_not_negative};

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
