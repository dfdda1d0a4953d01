//! Validation of updates of jobs (upstream: `ValidateJobUpdate`).

use nave_machinery::{FieldError, Value};
use serde_json::json;

use super::validation;
use crate::read;
use crate::validate::{At, Errors, IMMUTABLE};

const FIXED: [&str; 6] =
    ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy", "selector"];
/// The scheduling fields of the template's spec, which are mutable while a job is suspended.
const PLACEMENT: [&str; 3] = ["nodeSelector", "tolerations", "schedulingGates"];
/// The number of errors above which the second check is skipped.
const MAX_ERRORS_FOR_SECOND_CHECK: usize = 64;

pub(super) fn job(new: &Value, old: &Value) -> Errors {
    let label = |key: &str| {
        let labels = read::map(old, "spec.template.metadata.labels");
        labels.is_some_and(|labels| labels.contains_key(key))
    };
    let has_labels = label("batch.kubernetes.io/job-name") && label("batch.kubernetes.io/controller-uid");
    let mut errors = validation::job(new, has_labels);
    let (root, old_root) = (At::root(new), At::root(old));
    let (spec, old_spec) = (root.field("spec"), old_root.field("spec"));
    if errors.len() <= MAX_ERRORS_FOR_SECOND_CHECK {
        validation::job_spec_with_selector(spec, &mut errors);
    }
    completions(spec, old_spec, &mut errors);
    template(new, old, &mut errors);
    for field in FIXED {
        fixed(spec.field(field), old_spec.field(field), &mut errors);
    }
    errors
}

fn fixed(at: At, old: At, errors: &mut Errors) {
    if at.value() != old.value() {
        let shown = at.value().cloned().unwrap_or_default();
        errors.push(FieldError::invalid(&at.path(), shown, IMMUTABLE));
    }
}

/// Checks that completions are immutable, except that an indexed job may set them to its parallelism.
fn completions(spec: At, old_spec: At, errors: &mut Errors) {
    let at = spec.field("completions");
    if spec.field("completionMode").text() != "Indexed" {
        fixed(at, old_spec.field("completions"), errors);
    } else if at.is_set()
        && at.int() != old_spec.field("completions").int()
        && at.int() != spec.field("parallelism").int()
    {
        errors.push(at.invalid("can only be modified in tandem with spec.parallelism"));
    }
}

/// Checks the template. The scheduling fields and resources of a suspended job's pods are mutable.
fn template(new: &Value, old: &Value, errors: &mut Errors) {
    let is_suspended = read::flag(old, "spec.suspend");
    let has_not_started = read::value_at(old, "status.startTime").is_none_or(Value::is_null);
    let is_open = is_suspended
        && (has_not_started || read::condition_is_true(old, "Suspended"))
        && read::int(old, "status.active") == 0;
    let at = |job| read::value_at(job, "spec.template").cloned().unwrap_or_else(|| json!({}));
    let (template, mut expected) = (at(new), at(old));
    if is_open {
        take_placement(&mut expected, &template);
        take_resources(&mut expected, &template);
    }
    // Upstream reports the spec of a mutable template, but the whole of an immutable template.
    let (path, same) = if is_open {
        ("template.spec", template.get("spec") == expected.get("spec"))
    } else {
        ("template", template == expected)
    };
    if !same {
        let path = nave_machinery::FieldPath::new("spec").child(path);
        errors.push(FieldError::invalid(&path, json!({}), IMMUTABLE));
    }
}

fn take_placement(template: &mut Value, new: &Value) {
    let affinity = read::value_at(new, "spec.affinity.nodeAffinity");
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in PLACEMENT {
        match read::value_at(new, "spec").and_then(|spec| spec.get(field)) {
            Some(value) => spec.insert(field.to_owned(), value.clone()),
            None => spec.remove(field),
        };
    }
    let mut kept = spec.get("affinity").and_then(Value::as_object).cloned().unwrap_or_default();
    match affinity {
        Some(affinity) => kept.insert("nodeAffinity".to_owned(), affinity.clone()),
        None => kept.remove("nodeAffinity"),
    };
    if kept.is_empty() && read::map(new, "spec.affinity").is_none() {
        spec.remove("affinity");
    } else {
        spec.insert("affinity".to_owned(), Value::Object(kept));
    }
}

/// Copies the resources of the containers if their number and names are equal.
fn take_resources(template: &mut Value, new: &Value) {
    for path in ["spec.containers", "spec.initContainers"] {
        let wanted = read::list(new, path);
        let pointer = format!("/{}", path.replace('.', "/"));
        let containers = template.pointer_mut(&pointer).and_then(Value::as_array_mut);
        let Some(containers) = containers.filter(|containers| containers.len() == wanted.len()) else {
            continue;
        };
        for (container, new) in containers.iter_mut().zip(wanted) {
            if container.get("name") != new.get("name") {
                continue;
            }
            let Some(fields) = container.as_object_mut() else { continue };
            match new.get("resources") {
                Some(resources) => fields.insert("resources".to_owned(), resources.clone()),
                None => fields.remove("resources"),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::validation::tests::{fields, job_with};
    use super::*;

    fn changed(mut old: Value, path: &str, value: Value) -> Vec<String> {
        let mut new = old.clone();
        let (parent, field) = path.rsplit_once('/').unwrap();
        new.pointer_mut(parent).unwrap()[field] = value;
        old["metadata"]["labels"] = json!({});
        fields(&job(&new, &old))
    }

    #[test]
    fn rejects_changes_of_immutable_fields() {
        for (path, value, expected) in [
            ("/spec/parallelism", json!(3), &[][..]),
            ("/spec/suspend", json!(true), &[]),
            ("/spec/completions", json!(3), &["spec.completions"]),
            ("/spec/template/spec/nodeSelector", json!({"a": "b"}), &["spec.template"]),
            ("/spec/managedBy", json!("example.com/x"), &["spec.managedBy"]),
        ] {
            assert_eq!(changed(job_with(json!({})), path, value.clone()), expected, "{path} {value}");
        }
        let indexed = job_with(json!({"completionMode": "Indexed", "parallelism": 3}));
        assert_eq!(changed(indexed.clone(), "/spec/completions", json!(3)), [""; 0]);
        assert_eq!(changed(indexed, "/spec/completions", json!(4)), ["spec.completions"]);
    }

    #[test]
    fn suspended_job_accepts_scheduling_and_resource_changes() {
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}});
        let term = json!([{"topologyKey": "a", "labelSelector": {}}]);
        let pods = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}});
        for (path, value, expected) in [
            ("/spec/template/spec/nodeSelector", json!({"a": "b"}), &[][..]),
            ("/spec/template/spec/affinity", affinity, &[]),
            ("/spec/template/spec/affinity", pods, &["spec.template.spec"]),
            ("/spec/template/spec/containers/0/resources", json!({"limits": {"cpu": "1"}}), &[]),
            ("/spec/template/spec/containers/0/image", json!("other"), &["spec.template.spec"]),
            ("/spec/template/metadata/annotations", json!({"a": "b"}), &[]),
        ] {
            let suspended = job_with(json!({"suspend": true}));
            assert_eq!(changed(suspended, path, value.clone()), expected, "{path} {value}");
        }
        let mut started = job_with(json!({"suspend": true}));
        started["status"] = json!({"startTime": "2026-01-01T00:00:00Z"});
        assert_eq!(
            changed(started.clone(), "/spec/template/spec/nodeSelector", json!({"a": "b"})),
            ["spec.template"]
        );
        started["status"]["conditions"] = json!([{"type": "Suspended", "status": "True"}]);
        assert_eq!(changed(started, "/spec/template/spec/nodeSelector", json!({"a": "b"})), [""; 0]);
    }
}
