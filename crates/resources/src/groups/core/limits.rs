//! Limit ranges and resource quotas.

use nave_machinery::{Map, Value};

use crate::defaults::{at, each, object};
use crate::strategy::Strategy;

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

/// Puts the quantities of `from` into `to` where it has none.
fn fill(item: &mut Map, to: &str, from: &str) {
    let Some(Value::Object(quantities)) = item.get(from).cloned() else { return };
    let Some(to) = (!quantities.is_empty()).then(|| object(item, to)).flatten() else { return };
    for (name, quantity) in quantities {
        to.entry(name).or_insert(quantity);
    }
}
