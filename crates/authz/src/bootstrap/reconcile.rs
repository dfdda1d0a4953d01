//! Reconciles existing roles and bindings with the default ones (upstream:
//! `component-helpers/auth/rbac/reconciliation`).

use nave_machinery::Value;
use serde::Deserialize;
use serde_json::Map;

use crate::rbac::{Rule, not_covered};

/// The result of a reconciliation.
#[derive(Clone, Debug, PartialEq)]
pub enum Reconciled {
    /// No update is needed: the object is complete, or excluded from updates.
    Right,
    /// Replace the object with this one.
    Update(Value),
    /// Delete and recreate the object: the role of a binding is immutable.
    Recreate,
}

/// Compares an existing object with the default one.
pub fn reconcile(existing: &Value, wanted: &Value) -> Reconciled {
    if existing["metadata"]["annotations"][AUTO_UPDATE].as_str() == Some("false") {
        return Reconciled::Right;
    }
    if wanted.get("roleRef") != existing.get("roleRef") {
        return Reconciled::Recreate;
    }
    let mut object = existing.clone();
    for place in ["labels", "annotations"] {
        add_entries(&mut object["metadata"], place, &wanted["metadata"][place]);
    }
    if wanted.get("roleRef").is_some() {
        add_subjects(&mut object, wanted);
    } else {
        add_rules(&mut object, wanted);
        add_selectors(&mut object, wanted);
    }
    if object == *existing { Reconciled::Right } else { Reconciled::Update(object) }
}

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Adds missing labels or annotations. Existing entries are not changed.
fn add_entries(metadata: &mut Value, place: &str, wanted: &Value) {
    let Some(metadata) = metadata.as_object_mut() else { return };
    let present = metadata.entry(place).or_insert_with(|| Value::Object(Map::new()));
    let Some(present) = present.as_object_mut() else { return };
    for (key, value) in wanted.as_object().into_iter().flatten() {
        present.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn add_subjects(object: &mut Value, wanted: &Value) {
    let present = elements(object, "subjects");
    let missing = elements(wanted, "subjects").iter().filter(|subject| !present.contains(subject));
    let missing: Vec<Value> = missing.cloned().collect();
    append(object, "subjects", missing);
}

fn add_rules(object: &mut Value, wanted: &Value) {
    if elements(object, "rules") == elements(wanted, "rules") {
        return;
    }
    let read = |role: &Value| -> Vec<Rule> {
        elements(role, "rules").iter().filter_map(|rule| Rule::deserialize(rule).ok()).collect()
    };
    let (present, wanted) = (read(object), read(wanted));
    // A role with too many rules to compare has been changed by a user, so it is left unchanged.
    let Ok(missing) = not_covered(&present.iter().collect::<Vec<_>>(), &wanted) else { return };
    append(
        object,
        "rules",
        missing.parts.into_iter().filter_map(|rule| serde_json::to_value(rule).ok()).collect(),
    );
}

/// Adds missing selectors to the aggregation rule, or removes the rule if the default role has none.
fn add_selectors(object: &mut Value, wanted: &Value) {
    const RULE: &str = "aggregationRule";
    const SELECTORS: &str = "clusterRoleSelectors";
    let Some(wanted) = wanted.get(RULE).filter(|rule| !rule.is_null()) else {
        object.as_object_mut().map(|object| object.remove(RULE));
        return;
    };
    let present = elements(&object[RULE], SELECTORS);
    let missing = elements(wanted, SELECTORS).iter().filter(|selector| !present.contains(selector));
    let missing: Vec<Value> = missing.cloned().collect();
    if missing.is_empty() {
        return;
    }
    if object[RULE].is_null() {
        object[RULE] = Value::Object(Map::new());
    }
    append(&mut object[RULE], SELECTORS, missing);
}

fn elements<'a>(object: &'a Value, list: &str) -> &'a [Value] {
    object.get(list).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn append(object: &mut Value, list: &str, more: Vec<Value>) {
    if more.is_empty() {
        return;
    }
    match &mut object[list] {
        Value::Array(present) => present.extend(more),
        absent => *absent = Value::Array(more),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(rules: &Value) -> Value {
        json!({"kind": "ClusterRole", "metadata": {"name": "r", "labels": {"a": "1"}, "annotations": {}}, "rules": rules})
    }

    fn rule(verbs: &[&str], resources: &[&str]) -> Value {
        json!({"verbs": verbs, "apiGroups": [""], "resources": resources})
    }

    #[test]
    fn adds_missing_entries_and_keeps_extra_ones() {
        let wanted = role(&json!([rule(&["get", "list"], &["pods"])]));
        let mut existing = role(&json!([rule(&["get", "watch"], &["pods", "nodes"])]));
        existing["metadata"]["labels"] = json!({"a": "2", "b": "3"});
        let Reconciled::Update(updated) = reconcile(&existing, &wanted) else { panic!("not updated") };
        assert_eq!(updated["metadata"]["labels"], json!({"a": "2", "b": "3"}));
        let rules = json!([rule(&["get", "watch"], &["pods", "nodes"]), rule(&["list"], &["pods"])]);
        assert_eq!(updated["rules"], rules);
        assert_eq!(reconcile(&updated, &wanted), Reconciled::Right);
    }

    #[test]
    fn autoupdate_false_prevents_updates() {
        let mut existing = role(&json!([]));
        let wanted = role(&json!([rule(&["get"], &["pods"])]));
        assert!(matches!(reconcile(&existing, &wanted), Reconciled::Update(_)));
        existing["metadata"]["annotations"][AUTO_UPDATE] = json!("false");
        assert_eq!(reconcile(&existing, &wanted), Reconciled::Right);
    }

    #[test]
    fn keeps_rules_of_aggregated_roles() {
        let mut wanted = role(&Value::Null);
        wanted["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"x": "true"}}]});
        let mut existing = role(&json!([rule(&["get"], &["pods"])]));
        let Reconciled::Update(updated) = reconcile(&existing, &wanted) else { panic!("not updated") };
        assert_eq!(updated["aggregationRule"], wanted["aggregationRule"]);
        assert_eq!(updated["rules"], existing["rules"]);
        assert_eq!(reconcile(&updated, &wanted), Reconciled::Right);
        // The aggregation rule is removed if the default role has no such rule.
        existing["aggregationRule"] = wanted["aggregationRule"].clone();
        let Reconciled::Update(updated) = reconcile(&existing, &role(&Value::Null)) else {
            panic!("not updated")
        };
        assert_eq!(updated.get("aggregationRule"), None);
    }

    #[test]
    fn adds_subjects_and_recreates_bindings_of_another_role() {
        let binding = |role: &str, subjects: &[&str]| {
            let subjects: Vec<Value> =
                subjects.iter().map(|name| json!({"kind": "User", "name": name})).collect();
            json!({"metadata": {}, "roleRef": {"name": role}, "subjects": subjects})
        };
        assert_eq!(reconcile(&binding("b", &[]), &binding("a", &[])), Reconciled::Recreate);
        let Reconciled::Update(updated) = reconcile(&binding("a", &["x"]), &binding("a", &["y", "x"])) else {
            panic!("not updated")
        };
        assert_eq!(updated["subjects"], binding("a", &["x", "y"])["subjects"]);
        assert_eq!(reconcile(&updated, &binding("a", &["y", "x"])), Reconciled::Right);
    }
}
