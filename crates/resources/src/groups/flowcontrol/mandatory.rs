//! The objects whose specs are fixed (upstream: `pkg/apis/flowcontrol/internalbootstrap`).

use nave_machinery::{Map, Value};
use serde_json::json;

use crate::validate::{At, Errors};

/// The name of the schema and of the level of requests that are never queued.
pub(super) const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";

/// The spec of a mandatory schema stays as the server makes it.
pub(super) fn schema(name: &str, spec: At, errors: &mut Errors) {
    let subjects: &[&str] = match name {
        EXEMPT => &["system:masters"],
        CATCH_ALL => &["system:unauthenticated", "system:authenticated"],
        _ => return,
    };
    let groups = subjects.iter().map(|name| json!({"kind": "Group", "group": {"name": name}}));
    let mut expected = json!({
        "priorityLevelConfiguration": {"name": name},
        "matchingPrecedence": if name == EXEMPT { 1 } else { 10_000 },
        "rules": [{
            "subjects": groups.collect::<Vec<_>>(),
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
            }],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }],
    });
    if name == CATCH_ALL {
        expected["distinguisherMethod"] = json!({"type": "ByUser"});
    }
    if !is_same(spec.value(), &expected) {
        errors.push(spec.invalid(format!("spec of '{name}' must equal the fixed value")));
    }
}

/// The spec of a mandatory level stays as the server makes it, but for the shares of the exempt one.
pub(super) fn level(name: &str, spec: At, errors: &mut Errors) {
    let (expected, but, why) = match name {
        EXEMPT => (json!({"type": "Exempt"}), "exempt", " except the 'spec.exempt' field"),
        CATCH_ALL => {
            let limited = json!({
                "nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}, "lendablePercent": 0,
            });
            (json!({"type": "Limited", "limited": limited}), "", "")
        }
        _ => return,
    };
    let mut given = spec.map().cloned().unwrap_or_default();
    given.remove(but);
    if !is_same(Some(&Value::Object(given)), &expected) {
        errors.push(spec.invalid(format!("spec of '{name}'{why} must equal the fixed value")));
    }
}

/// Whether a spec is the expected one, where absent fields and empty ones are the same.
fn is_same(given: Option<&Value>, expected: &Value) -> bool {
    given.is_some_and(|given| without_empty(given) == without_empty(expected))
}

fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let fields = map.iter().map(|(name, value)| (name.clone(), without_empty(value)));
            Value::Object(fields.filter(|(_, value)| !is_empty(value)).collect::<Map>())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_empty).collect()),
        other => other.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
