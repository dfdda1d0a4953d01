//! Validation of resizes: changes of the CPU and memory of a pod and its containers (upstream:
//! `ValidatePodResize`).

use nave_machinery::{FieldError, FieldPath, Map, Value};

use super::update::same_but;
use super::{qos, validation};
use crate::read;
use crate::validate::{At, Errors};

/// The container fields that a resize may change.
const RESIZABLE: [&str; 2] = ["resources", "resizePolicy"];
/// The resources that a resize may change.
const RESIZABLE_RESOURCES: [&str; 2] = ["cpu", "memory"];
const KINDS: [&str; 2] = ["containers", "initContainers"];

/// Copies the resources of an updated pod with the same containers.
pub(super) fn copy_resources(pod: &mut Value, updated: &Value) {
    let Some(new) = updated.get("spec") else { return };
    let count = |pod: &Value, kind| elements(pod.get("spec"), kind).len();
    if KINDS.into_iter().any(|kind| count(pod, kind) != count(updated, kind)) {
        pod["spec"] = new.clone();
        return;
    }
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    set_or_remove(spec, "resources", new.get("resources"));
    for kind in KINDS {
        let wanted = elements(Some(new), kind);
        let Some(containers) = spec.get_mut(kind).and_then(Value::as_array_mut) else { continue };
        let same_names = containers.iter().zip(wanted).all(|(old, new)| old.get("name") == new.get("name"));
        if !same_names {
            // Validation reports renamed containers.
            *containers = wanted.to_vec();
            continue;
        }
        for (container, wanted) in containers.iter_mut().zip(wanted) {
            let Some(fields) = container.as_object_mut() else { continue };
            for field in RESIZABLE {
                set_or_remove(fields, field, wanted.get(field));
            }
        }
    }
}

fn elements<'a>(spec: Option<&'a Value>, kind: &str) -> &'a [Value] {
    spec.and_then(|spec| spec.get(kind)).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn set_or_remove(fields: &mut Map, field: &str, value: Option<&Value>) {
    match value {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}

/// Validates a resize.
pub(super) fn validate(pod: &Value, old: &Value) -> Errors {
    let refused = |why| Errors::from([FieldError::forbidden(&FieldPath::whole(), why)]);
    if crate::pod::is_mirror(old) {
        return refused("static pods cannot be resized");
    }
    if read::text(old, "spec.os.name") == "windows" {
        return refused("windows pods cannot be resized");
    }
    let mut errors = validation::pod_again(pod);
    let (root, old_root) = (At::root(pod), At::root(old));
    let (spec, old_spec) = (root.field("spec"), old_root.field("spec"));
    let before = qos::class(old);
    if qos::class(pod) != before {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&spec.path(), before, why));
    }
    if !is_supported(old) {
        errors.push(spec.forbidden("Pod running on node without support for resize"));
    }
    of_pod(spec, old_spec, &mut errors);
    if !read::list(old, "status.nodeAllocatableResourceClaimStatuses").is_empty() {
        errors.push(spec.forbidden("pods with node allocatable resource claims cannot be resized"));
    }
    let in_order = errors.len();
    for kind in KINDS {
        same_order(spec.field(kind), old_spec.field(kind), &mut errors);
    }
    if errors.len() > in_order {
        return errors;
    }
    for kind in KINDS {
        for (new, old) in spec.field(kind).items().zip(old_spec.field(kind).items()) {
            container(spec, new, old, kind, &mut errors);
        }
    }
    let others = ["containers", "initContainers", "resources"];
    if errors.is_empty() && !same_but(spec.map(), old_spec.map(), &others) {
        errors.push(spec.forbidden("only cpu and memory resources are mutable"));
    }
    errors
}

/// Returns whether the node reports the resources of running containers. Nodes that support resizing do so.
fn is_supported(pod: &Value) -> bool {
    let statuses = read::list(pod, "status.containerStatuses").iter();
    let mut running = statuses.filter(|status| read::map(status, "state.running").is_some());
    running.next().is_none_or(|status| status.get("resources").is_some_and(|it| !it.is_null()))
}

/// Checks the pod-level resources.
fn of_pod(spec: At, old_spec: At, errors: &mut Errors) {
    let (new, old) = (spec.field("resources"), old_spec.field("resources"));
    if old.is_set() && !new.is_set() {
        errors.push(new.forbidden("pod-level resources cannot be removed"));
        return;
    }
    for list in ["requests", "limits"] {
        if is_removed(new.field(list), old.field(list)) {
            let why = format!("pod-level resource {list} cannot be removed");
            errors.push(new.field(list).forbidden(why));
        }
    }
    if others(new) != others(old) {
        errors.push(spec.forbidden("only cpu and memory resources are mutable at pod-level"));
    }
}

fn same_order(new: At, old: At, errors: &mut Errors) {
    let kind = if new.path().as_str().ends_with(".containers") { "containers" } else { "initContainers" };
    if new.len() != old.len() {
        errors.push(new.forbidden(format!("{kind} may not be added or removed on resize")));
        return;
    }
    for (container, old) in new.items().zip(old.items()) {
        let name = container.field("name");
        if name.text() != old.field("name").text() {
            errors.push(name.forbidden(format!("{kind} may not be renamed or reordered on resize")));
        }
    }
}

fn container(spec: At, new: At, old: At, kind: &str, errors: &mut Errors) {
    let (resources, old_resources) = (new.field("resources"), old.field("resources"));
    for list in ["requests", "limits"] {
        if is_removed(resources.field(list), old_resources.field(list)) {
            errors.push(resources.field(list).forbidden(format!("resource {list} cannot be removed")));
        }
    }
    let is_same = others(resources) == others(old_resources)
        && same_but(new.map(), old.map(), &["resources"])
        && resources.field("claims").value() == old_resources.field("claims").value();
    if kind == "containers" {
        if !is_same {
            errors.push(spec.forbidden("only cpu and memory resources are mutable"));
        }
        return;
    }
    if !is_same {
        let why = "only cpu and memory resources for init or sidecar containers are mutable";
        errors.push(new.forbidden(why));
    }
    let restarts = |policy: &At| policy.field("restartPolicy").text() == "RestartContainer";
    if new.value() != old.value() && new.field("restartPolicy").text() != "Always" {
        for _ in new.field("resizePolicy").items().filter(restarts) {
            let why =
                "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            errors.push(new.forbidden(why));
        }
    }
}

/// Returns whether an update removes an amount.
fn is_removed(new: At, old: At) -> bool {
    old.entries().any(|(name, _)| !new.key(name).is_set())
}

/// Returns the requests and limits that a resize must not change.
fn others(resources: At) -> Vec<Vec<(String, Value)>> {
    let rest = |list| {
        let amounts = resources.field(list).map().into_iter().flatten();
        let fixed = amounts.filter(|(name, _)| !RESIZABLE_RESOURCES.contains(&name.as_str()));
        fixed.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    vec![rest("requests"), rest("limits")]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        let container = |name: &str| {
            json!({"name": name, "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
                "resources": {"requests": {"cpu": "1"}}})
        };
        json!({"metadata": {"name": "p"}, "spec": {
            "containers": [container("c")], "initContainers": [container("i")], "restartPolicy": "Always",
            "dnsPolicy": "Default", "terminationGracePeriodSeconds": 30,
        }})
    }

    fn fields(path: &str, value: Value) -> Vec<String> {
        let mut new = pod();
        let (parent, field) = path.rsplit_once('/').unwrap();
        new.pointer_mut(parent).unwrap()[field] = value;
        let mut kept = pod();
        copy_resources(&mut kept, &new);
        validate(&kept, &pod()).iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn resize_changes_only_cpu_and_memory() {
        let policy = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
        for (path, value, expected) in [
            ("/spec/containers/0/resources", json!({"requests": {"cpu": "2"}}), &[][..]),
            ("/spec/initContainers/0/resources", json!({"requests": {"cpu": "2"}}), &[]),
            ("/spec/containers/0/image", json!("other"), &[]),
            ("/spec/containers/0/resources", json!({}), &["spec.containers[0].resources.requests"]),
            (
                "/spec/containers/0/resources",
                json!({"requests": {"cpu": "1", "ephemeral-storage": "1"}}),
                &["spec"],
            ),
            ("/spec/containers/0/resizePolicy", policy.clone(), &["spec"]),
            ("/spec/initContainers/0/resizePolicy", policy, &["spec.initContainers[0]"]),
            ("/spec/containers/0/name", json!("d"), &["spec.containers[0].name"]),
            ("/spec/initContainers", json!([]), &["spec.initContainers"]),
            ("/spec/resources", json!({"requests": {"cpu": "3"}}), &[]),
        ] {
            assert_eq!(fields(path, value.clone()), expected, "{path} {value}");
        }
    }

    #[test]
    fn rejects_resize_of_unsupported_pods() {
        let mut windows = pod();
        windows["spec"]["os"] = json!({"name": "windows"});
        let mut mirror = pod();
        mirror["metadata"]["annotations"] = json!({crate::pod::MIRROR_ANNOTATION: ""});
        for old in [windows, mirror] {
            assert_eq!(validate(&pod(), &old)[0].field.as_str(), "[]");
        }
        let mut old = pod();
        let running = json!({"name": "c", "state": {"running": {}}});
        old["status"] = json!({"containerStatuses": [running]});
        assert_eq!(validate(&pod(), &old).len(), 1);
        old["status"]["containerStatuses"][0]["resources"] = json!({});
        assert_eq!(validate(&pod(), &old).len(), 0);
    }
}
