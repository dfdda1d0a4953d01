//! Annotations that mean something to the server (upstream: `ValidatePodSpecificAnnotations`).

use nave_machinery::{FieldError, FieldPath, Map, Value, meta};

use crate::pod::MIRROR_ANNOTATION;
use crate::read;
use crate::validate::Errors;

/// The prefix of the annotations that name the AppArmor profile of a container.
const APP_ARMOR_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Returns the errors in the annotations of a pod.
pub(crate) fn validate(pod: &Value) -> Errors {
    if crate::pod::is_mirror(pod) && read::text(pod, "spec.nodeName").is_empty() {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        return vec![FieldError::required(&path(MIRROR_ANNOTATION), why)];
    }
    Errors::new()
}

/// Returns the errors in a change of the annotations of a pod, through the pod or any of its subresources.
pub(crate) fn validate_update(pod: &Value, old: &Value) -> Errors {
    let none = Map::new();
    let annotations = |pod| meta::field(pod, "annotations").and_then(Value::as_object);
    let (new, old) = (annotations(pod).unwrap_or(&none), annotations(old).unwrap_or(&none));
    let mut errors = Errors::new();
    for (key, _) in old.iter().filter(|(key, value)| new.get(*key) != Some(value)) {
        if key.starts_with(APP_ARMOR_PREFIX) {
            errors.push(FieldError::forbidden(&path(key), "may not remove or update AppArmor annotations"));
        }
        if key == MIRROR_ANNOTATION {
            errors.push(FieldError::forbidden(&path(key), "may not remove or update mirror pod annotation"));
        }
    }
    for key in new.keys().filter(|key| !old.contains_key(*key)) {
        if key.starts_with(APP_ARMOR_PREFIX) {
            errors.push(FieldError::forbidden(&path(key), "may not add AppArmor annotations"));
        }
        if key == MIRROR_ANNOTATION {
            errors.push(FieldError::forbidden(&path(key), "may not add mirror pod annotation"));
        }
    }
    errors.extend(validate(pod));
    errors
}

fn path(key: &str) -> FieldPath {
    FieldPath::new("metadata").child("annotations").key(key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fixed_annotations_are_neither_added_changed_nor_removed() {
        let app_armor = format!("{APP_ARMOR_PREFIX}c");
        let pod =
            |annotations: Value| json!({"metadata": {"annotations": annotations}, "spec": {"nodeName": "n"}});
        for key in [MIRROR_ANNOTATION, app_armor.as_str()] {
            let states = [json!({}), json!({key: "a"}), json!({key: "b", "other": "x"}), json!(null)];
            for old in &states {
                for new in &states {
                    let changes = old.get(key) != new.get(key);
                    let errors = validate_update(&pod(new.clone()), &pod(old.clone()));
                    assert_eq!(!errors.is_empty(), changes, "{old} -> {new}");
                    let expected = FieldPath::new("metadata").child("annotations").key(key);
                    assert!(errors.iter().all(|error| error.field == expected), "{errors:?}");
                }
            }
        }
    }

    #[test]
    fn a_mirror_pod_has_a_node() {
        let mirror = json!({"metadata": {"annotations": {MIRROR_ANNOTATION: ""}}, "spec": {}});
        assert_eq!(validate(&mirror).len(), 1);
        assert_eq!(validate(&json!({"metadata": {}, "spec": {}})), []);
    }
}
