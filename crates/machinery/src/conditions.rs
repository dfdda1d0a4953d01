//! Conditions in the status of an object.

use serde_json::{Value, json};

use crate::meta;

/// Returns the condition of the given type.
pub fn find<'a>(object: &'a Value, condition_type: &str) -> Option<&'a Value> {
    let conditions = meta::value_at(object, &["status", "conditions"])?.as_array()?;
    conditions.iter().find(|condition| is_of_type(condition, condition_type))
}

/// Returns whether the condition of the given type exists and is `True`.
pub fn is_true(object: &Value, condition_type: &str) -> bool {
    find(object, condition_type).is_some_and(|condition| condition["status"] == "True")
}

/// Replaces the condition of the same type, or appends the condition. Keeps `lastTransitionTime` if the status does
/// not change.
pub fn set(object: &mut Value, mut condition: Value) {
    let Some(fields) = object.as_object_mut() else { return };
    let status = fields.entry("status").or_insert_with(|| json!({}));
    let Some(status) = status.as_object_mut() else { return };
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    let condition_type = condition["type"].as_str().unwrap_or_default();
    match conditions.iter_mut().find(|old| is_of_type(old, condition_type)) {
        Some(old) => {
            if old.get("status") == condition.get("status")
                && let Some(time) = old.get("lastTransitionTime")
            {
                condition["lastTransitionTime"] = time.clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

fn is_of_type(condition: &Value, condition_type: &str) -> bool {
    condition.get("type").and_then(Value::as_str) == Some(condition_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: &str, time: &str) -> Value {
        json!({"type": "Ready", "status": status, "lastTransitionTime": time})
    }

    #[test]
    fn last_transition_time_changes_only_with_the_status() {
        for mut object in [json!({}), json!({"status": null}), json!({"status": {"conditions": null}})] {
            let was_map = object.get("status").is_none_or(Value::is_object);
            set(&mut object, ready("False", "1"));
            assert_eq!(find(&object, "Ready").is_some(), was_map);
        }
        let mut object = json!({"status": {"conditions": [{"type": "Other", "status": "True"}]}});
        set(&mut object, ready("False", "1"));
        set(&mut object, ready("False", "2"));
        assert_eq!(find(&object, "Ready").unwrap()["lastTransitionTime"], "1");
        set(&mut object, ready("True", "3"));
        assert_eq!(object["status"]["conditions"][1], ready("True", "3"));
        assert!(is_true(&object, "Ready") && is_true(&object, "Other") && !is_true(&object, "None"));
    }
}
