//! The mandatory objects, whose specs are fixed (upstream: `pkg/apis/flowcontrol/internalbootstrap`).

use nave_machinery::Value;
use serde_json::json;

use crate::semantic::is_equal;
use crate::validate::{At, Errors};

/// The name of the flow schema and the priority level for exempt requests.
pub(super) const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";

/// Checks that the spec of a mandatory flow schema equals the server's.
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
    if !is_equal(spec.value(), Some(&expected)) {
        errors.push(spec.invalid(format!("spec of '{name}' must equal the fixed value")));
    }
}

/// Checks that the spec of a mandatory priority level equals the server's. The shares of the exempt level may differ.
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
    if !is_equal(Some(&Value::Object(given)), Some(&expected)) {
        errors.push(spec.invalid(format!("spec of '{name}'{why} must equal the fixed value")));
    }
}
