//! Updates of pods through the subresources `ephemeralcontainers` and `resize` (upstream:
//! `podEphemeralContainersStrategy`, `podResizeStrategy`).

use std::collections::HashMap;

use nave_machinery::{FieldError, FieldPath, Value};

use super::{annotations, resize, validation};
use crate::read;
use crate::validate::{At, Errors};

/// Reverts the fields of a pod that an update through `subresource` must not change.
pub(crate) fn revert_other_fields(subresource: &str, pod: &mut Value, old: &Value) {
    let metadata = pod.get("metadata").cloned();
    let updated = std::mem::replace(pod, old.clone());
    match subresource {
        "ephemeralcontainers" => {
            set_or_remove(
                pod,
                &["spec", "ephemeralContainers"],
                read::value_at(&updated, "spec.ephemeralContainers"),
            );
        }
        "resize" => resize::copy_resources(pod, &updated),
        _ => {}
    }
    // Only the request's preconditions are kept from the new metadata.
    for field in ["resourceVersion", "uid"] {
        let value = metadata.as_ref().and_then(|metadata| metadata.get(field));
        set_or_remove(pod, &["metadata", field], value);
    }
}

/// Validates an update through a subresource.
pub(crate) fn validate(subresource: &str, pod: &Value, old: &Value) -> Errors {
    match subresource {
        "ephemeralcontainers" => ephemeral(pod, old),
        "resize" => resize::validate(pod, old),
        _ => validation::pod_again(pod),
    }
}

fn set_or_remove(pod: &mut Value, path: &[&str; 2], value: Option<&Value>) {
    let Some(fields) = pod.get_mut(path[0]).and_then(Value::as_object_mut) else { return };
    match value {
        Some(value) => fields.insert(path[1].to_owned(), value.clone()),
        None => fields.remove(path[1]),
    };
}

/// Returns containers by name; the last container wins if names are duplicated.
fn by_name(containers: &[Value]) -> HashMap<&str, &Value> {
    containers.iter().map(|container| (read::text(container, "name"), container)).collect()
}

/// Checks that ephemeral containers are only added. Existing containers are immutable.
fn ephemeral(pod: &Value, old: &Value) -> Errors {
    if crate::pod::is_mirror(old) {
        let why = "static pods do not support ephemeral containers";
        return [FieldError::forbidden(&FieldPath::whole(), why)].into();
    }
    let mut errors = validation::pod_again(pod);
    annotations::validate_update(pod, old, &mut errors);
    let root = At::root(pod);
    let spec = root.field("spec");
    let at = spec.field("ephemeralContainers");
    let now = by_name(read::list(pod, "spec.ephemeralContainers"));
    for before in read::list(old, "spec.ephemeralContainers") {
        let name = read::text(before, "name");
        let what = match now.get(name) {
            None => "removed",
            Some(container) if *container != before => "changed",
            Some(_) => continue,
        };
        errors.push(at.forbidden(format!("existing ephemeral containers {name:?} may not be {what}\n")));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p", "uid": "1", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Running"}})
    }

    #[test]
    fn subresource_update_changes_nothing_else() {
        let mut update = pod();
        update["spec"]["containers"][0]["image"] = json!("other");
        update["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}});
        update["spec"]["ephemeralContainers"] = json!([{"name": "dbg"}]);
        update["metadata"]["labels"] = json!({});
        let mut resized = update.clone();
        revert_other_fields("resize", &mut resized, &pod());
        let mut expected = pod();
        expected["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}});
        assert_eq!(resized, expected);
        revert_other_fields("ephemeralcontainers", &mut update, &pod());
        let mut expected = pod();
        expected["spec"]["ephemeralContainers"] = json!([{"name": "dbg"}]);
        assert_eq!(update, expected);
    }

    #[test]
    fn ephemeral_containers_can_only_be_added() {
        let with = |list: Value| {
            let container = |mut container: Value| {
                for (field, value) in [("terminationMessagePolicy", "File"), ("imagePullPolicy", "Always")] {
                    container[field] = json!(value);
                }
                container
            };
            let list: Vec<_> = list.as_array().unwrap().iter().cloned().map(container).collect();
            json!({"metadata": {"name": "p"}, "spec": {
                "containers": [container(json!({"name": "c", "image": "i"}))], "ephemeralContainers": list,
                "restartPolicy": "Always", "dnsPolicy": "Default", "terminationGracePeriodSeconds": 30,
            }})
        };
        let messages = |new: &Value, old: &Value| {
            let errors = validate("ephemeralcontainers", new, old);
            errors.iter().map(|error| error.detail.trim().to_owned()).collect::<Vec<_>>()
        };
        let old = with(json!([{"name": "a", "image": "x"}]));
        let more = with(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]));
        assert_eq!(messages(&more, &old), [""; 0]);
        let changed = with(json!([{"name": "a", "image": "y"}]));
        assert_eq!(messages(&changed, &old), [r#"existing ephemeral containers "a" may not be changed"#]);
        let removed = with(json!([]));
        assert_eq!(messages(&removed, &old), [r#"existing ephemeral containers "a" may not be removed"#]);
        let mut mirror = old.clone();
        mirror["metadata"]["annotations"] = json!({crate::pod::MIRROR_ANNOTATION: ""});
        assert_eq!(messages(&more, &mirror), ["static pods do not support ephemeral containers"]);
    }
}
