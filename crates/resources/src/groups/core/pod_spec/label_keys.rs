//! Merges `matchLabelKeys` and `mismatchLabelKeys` of a new pod into its label selectors, as the scheduler expects
//! (upstream: `registry/core/pod/strategy.go`, KEP-3633 and KEP-3243).

use nave_machinery::{Map, Value, meta};
use serde_json::json;

use crate::defaults::{each, object_at};

/// Adds an expression with the pod's own value for each key that the pod has as a label. Selectors that are not set select
/// nothing and stay as they are.
pub(crate) fn merge(pod: &mut Value) {
    // Most pods have neither field, and need no copy of the labels.
    let may_select = |spec: &Value| spec.get("affinity").or(spec.get("topologySpreadConstraints")).is_some();
    if !pod.get("spec").is_some_and(may_select) {
        return;
    }
    let labels = meta::field(pod, "labels").and_then(Value::as_object).cloned().unwrap_or_default();
    let Some(spec) = pod.as_object_mut().and_then(|pod| object_at(pod, &["spec"])) else { return };
    each(spec, "topologySpreadConstraints").for_each(|constraint| {
        add(constraint, "matchLabelKeys", "In", &labels);
    });
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = object_at(spec, &["affinity", kind]) else { continue };
        each(affinity, "requiredDuringSchedulingIgnoredDuringExecution").for_each(|it| term(it, &labels));
        for preferred in each(affinity, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(it) = object_at(preferred, &["podAffinityTerm"]) {
                term(it, &labels);
            }
        }
    }
}

fn term(term: &mut Map, labels: &Map) {
    add(term, "matchLabelKeys", "In", labels);
    add(term, "mismatchLabelKeys", "NotIn", labels);
}

fn add(owner: &mut Map, keys: &str, operator: &str, labels: &Map) {
    let keys = owner.get(keys).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let expressions: Vec<Value> = keys
        .filter_map(|key| Some(json!({"key": key, "operator": operator, "values": [labels.get(key)?]})))
        .collect();
    let Some(selector) = object_at(owner, &["labelSelector"]).filter(|_| !expressions.is_empty()) else {
        return;
    };
    match selector.get_mut("matchExpressions").and_then(Value::as_array_mut) {
        Some(list) => list.extend(expressions),
        None => drop(selector.insert("matchExpressions".to_owned(), expressions.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_expressions_with_the_labels_of_the_pod() {
        let own = json!({"key": "own", "operator": "Exists"});
        let term = || json!({"matchLabelKeys": ["a", "absent"], "mismatchLabelKeys": ["b"], "labelSelector": {"matchExpressions": [own]}});
        let merged = || {
            let mut merged = term();
            merged["labelSelector"]["matchExpressions"] = json!([
                own,
                {"key": "a", "operator": "In", "values": ["1"]},
                {"key": "b", "operator": "NotIn", "values": ["2"]},
            ]);
            merged
        };
        let pod = |term: &dyn Fn() -> Value, spread: Value| {
            let all = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term()],
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term()}]});
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {
                "affinity": {"podAffinity": all, "podAntiAffinity": all},
                "topologySpreadConstraints": [{"matchLabelKeys": ["a"], "labelSelector": spread}, {"matchLabelKeys": ["a"]}]}})
        };
        let mut given = pod(&term, json!({}));
        merge(&mut given);
        let expression = json!({"key": "a", "operator": "In", "values": ["1"]});
        assert_eq!(given, pod(&merged, json!({"matchExpressions": [expression]})));

        let mut plain = json!({"metadata": {}, "spec": {"topologySpreadConstraints": [{"matchLabelKeys": ["a"], "labelSelector": {}}]}});
        let before = plain.clone();
        merge(&mut plain);
        assert_eq!(plain, before, "the pod has no such label");
    }
}
