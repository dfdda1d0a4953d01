//! The parts of a pod that have subresources of their own: `ephemeralcontainers` and `resize`
//! (upstream: `podEphemeralContainersStrategy`, `podResizeStrategy`).

use std::collections::HashMap;

use nave_machinery::Value;
use serde_json::json;

use super::{qos, validation};
use crate::read;
use crate::validate::{At, Errors};

/// What of a container a resize may change.
const RESIZABLE: [&str; 2] = ["resources", "resizePolicy"];

/// The resources of which a resize may change the amount.
const RESIZABLE_RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Keeps of an updated pod what may be changed through a part; everything else is as before.
pub(crate) fn keep(part: &str, pod: &mut Value, old: &Value) {
    let metadata = pod.get("metadata").cloned();
    let updated = std::mem::replace(pod, old.clone());
    match part {
        "ephemeralcontainers" => {
            put(pod, &["spec", "ephemeralContainers"], read::at(&updated, "spec.ephemeralContainers"));
        }
        "resize" => {
            for kind in ["containers", "initContainers"] {
                resize(pod, &updated, kind);
            }
        }
        _ => {}
    }
    // An update of a part changes no metadata but what tells one version of the object from another.
    for field in ["resourceVersion", "uid"] {
        let value = metadata.as_ref().and_then(|metadata| metadata.get(field));
        put(pod, &["metadata", field], value);
    }
}

/// What is wrong with an update of a part.
pub(crate) fn validate(part: &str, pod: &Value, old: &Value) -> Errors {
    let mut errors = validation::pod_again(pod);
    match part {
        "ephemeralcontainers" => ephemeral(pod, old, &mut errors),
        "resize" => resized(pod, old, &mut errors),
        _ => {}
    }
    errors
}

fn put(pod: &mut Value, path: &[&str; 2], value: Option<&Value>) {
    let Some(fields) = pod.get_mut(path[0]).and_then(Value::as_object_mut) else { return };
    match value {
        Some(value) => fields.insert(path[1].to_owned(), value.clone()),
        None => fields.remove(path[1]),
    };
}

/// Containers by their names, of those with the same name the first.
fn by_name(containers: &[Value]) -> HashMap<&str, &Value> {
    containers.iter().rev().map(|container| (read::text(container, "name"), container)).collect()
}

/// Takes the resources of containers that are still there under the same name.
fn resize(pod: &mut Value, updated: &Value, kind: &str) {
    let wanted = updated.get("spec").and_then(|spec| spec.get(kind)).and_then(Value::as_array);
    let (Some(wanted), Some(containers)) = (wanted, pod["spec"].get_mut(kind).and_then(Value::as_array_mut))
    else {
        return;
    };
    let wanted = by_name(wanted);
    for container in containers {
        let Some(other) = wanted.get(read::text(container, "name")) else { continue };
        let Some(fields) = container.as_object_mut() else { continue };
        for field in RESIZABLE {
            match other.get(field) {
                Some(value) => fields.insert(field.to_owned(), value.clone()),
                None => fields.remove(field),
            };
        }
    }
}

/// Ephemeral containers may be added; those that are there stay as they are.
fn ephemeral(pod: &Value, old: &Value, errors: &mut Errors) {
    let root = At::root(pod);
    let spec = root.field("spec");
    let at = spec.field("ephemeralContainers");
    if crate::pod::is_mirror(pod) {
        let path = nave_machinery::FieldPath::new("");
        errors.push(nave_machinery::FieldError::forbidden(
            &path,
            "static pods do not support ephemeral containers",
        ));
    }
    let now = by_name(read::list(pod, "spec.ephemeralContainers"));
    for before in read::list(old, "spec.ephemeralContainers") {
        let name = read::text(before, "name");
        match now.get(name) {
            None => errors
                .push(at.forbidden(format!("existing ephemeral containers {name:?} may not be removed\n"))),
            Some(container) if *container != before => {
                errors.push(
                    at.forbidden(format!("existing ephemeral containers {name:?} may not be changed\n")),
                );
            }
            Some(_) => {}
        }
    }
}

/// A resize changes amounts of cpu and memory, never the class of service.
fn resized(pod: &Value, old: &Value, errors: &mut Errors) {
    let root = At::root(pod);
    let spec = root.field("spec");
    let (class, before) = (qos::class(pod), qos::class(old));
    if class != before {
        errors.push(nave_machinery::FieldError::invalid(
            &spec.path(),
            before,
            "Pod QOS Class may not change as a result of resizing",
        ));
    }
    if ["containers", "initContainers"].iter().any(|kind| others(pod, kind) != others(old, kind)) {
        errors.push(spec.forbidden("only cpu and memory resources are mutable"));
    }
}

/// The resources of a kind of containers without those that may be resized.
fn others(pod: &Value, kind: &str) -> Vec<Value> {
    let list = pod["spec"].get(kind).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let rest = |container: &Value| {
        let mut resources = container.get("resources").cloned().unwrap_or_else(|| json!({}));
        for field in ["requests", "limits"] {
            if let Some(amounts) = resources.get_mut(field).and_then(Value::as_object_mut) {
                amounts.retain(|name, _| !RESIZABLE_RESOURCES.contains(&name.as_str()));
                if amounts.is_empty()
                    && let Some(resources) = resources.as_object_mut()
                {
                    resources.remove(field);
                }
            }
        }
        resources
    };
    list.iter().map(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p", "uid": "1", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Running"}})
    }

    #[test]
    fn a_part_changes_nothing_else() {
        let mut update = pod();
        update["spec"]["containers"][0]["image"] = json!("other");
        update["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}});
        update["spec"]["ephemeralContainers"] = json!([{"name": "dbg"}]);
        update["metadata"]["labels"] = json!({});
        let mut resized = update.clone();
        keep("resize", &mut resized, &pod());
        let mut expected = pod();
        expected["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}});
        assert_eq!(resized, expected);
        keep("ephemeralcontainers", &mut update, &pod());
        let mut expected = pod();
        expected["spec"]["ephemeralContainers"] = json!([{"name": "dbg"}]);
        assert_eq!(update, expected);
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        let messages = |pod: &Value, old: &Value| {
            let mut errors = Errors::new();
            ephemeral(pod, old, &mut errors);
            errors.iter().map(|error| error.detail.trim().to_owned()).collect::<Vec<_>>()
        };
        let with = |list: Value| json!({"metadata": {}, "spec": {"ephemeralContainers": list}});
        let old = with(json!([{"name": "a", "image": "x"}]));
        assert!(messages(&with(json!([{"name": "a", "image": "x"}, {"name": "b"}])), &old).is_empty());
        assert_eq!(
            messages(&with(json!([{"name": "a", "image": "y"}])), &old),
            [r#"existing ephemeral containers "a" may not be changed"#]
        );
        assert_eq!(
            messages(&with(json!([])), &old),
            [r#"existing ephemeral containers "a" may not be removed"#]
        );
    }

    #[test]
    fn a_resize_keeps_the_class_and_what_is_neither_cpu_nor_memory() {
        let messages = |resources: Value| {
            let mut new = pod();
            new["spec"]["containers"][0]["resources"] = resources;
            let mut errors = Errors::new();
            resized(&new, &pod(), &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(messages(json!({"requests": {"cpu": "2"}})).is_empty());
        assert_eq!(
            messages(json!({})),
            [r#"spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing"#]
        );
        assert_eq!(
            messages(json!({"requests": {"cpu": "1", "example.com/gpu": "1"}})),
            ["spec: Forbidden: only cpu and memory resources are mutable"]
        );
    }
}
