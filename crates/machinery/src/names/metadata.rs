//! Validation of `metadata`.

use std::collections::HashSet;

use serde_json::Value;

use super::field_manager::validate_managed_fields;
use super::{is_dns1123_label, is_qualified_name, is_valid_label_value};
use crate::{FieldError, FieldErrors, FieldPath, Map};

/// Maximum total size of an object's annotations in bytes, keys and values.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Metadata fields that an update may not change.
const IMMUTABLE: &[&str] =
    &["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// Validates labels.
pub fn validate_labels(labels: &Map, path: &FieldPath) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (key, value) in labels {
        errors.extend(
            is_qualified_name(key).into_iter().map(|why| FieldError::invalid(path, key.as_str(), why)),
        );
        let text = value.as_str().unwrap_or_default();
        errors.extend(is_valid_label_value(text).into_iter().map(|why| FieldError::invalid(path, text, why)));
    }
    errors
}

/// Validates annotations.
pub fn validate_annotations(annotations: &Map, path: &FieldPath) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let mut size = 0;
    for (key, value) in annotations {
        let lower = key.to_lowercase();
        errors.extend(
            is_qualified_name(&lower).into_iter().map(|why| FieldError::invalid(path, key.as_str(), why)),
        );
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_MAX));
    }
    errors
}

/// Validates the metadata of a new object; `name_rule` checks the name.
pub fn validate_object_meta(
    metadata: &Value,
    namespaced: bool,
    name_rule: impl Fn(&str) -> Vec<String>,
    path: &FieldPath,
) -> FieldErrors {
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default();
    let mut errors = FieldErrors::new();
    let (name, prefix) = (text("name"), text("generateName"));
    if !prefix.is_empty() {
        // A prefix may end with a dash, but a name may not.
        let completed = prefix.strip_suffix('-').map_or_else(|| prefix.to_owned(), |rest| format!("{rest}a"));
        let invalid = |why| FieldError::invalid(&path.child("generateName"), prefix, why);
        errors.extend(name_rule(&completed).into_iter().map(invalid));
    }
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    } else {
        let invalid = |why| FieldError::invalid(&path.child("name"), name, why);
        errors.extend(name_rule(name).into_iter().map(invalid));
    }
    let namespace = text("namespace");
    let at = || path.child("namespace");
    if !namespaced {
        if !namespace.is_empty() {
            errors.push(FieldError::forbidden(&at(), "not allowed on this type"));
        }
    } else if namespace.is_empty() {
        errors.push(FieldError::required(&at(), ""));
    } else {
        errors.extend(
            is_dns1123_label(namespace).into_iter().map(|why| FieldError::invalid(&at(), namespace, why)),
        );
    }
    errors.append(validate_parts(metadata, path));
    errors
}

/// Validates the metadata of an updated object against the old metadata.
pub fn validate_object_meta_update(new: &Value, old: &Value, path: &FieldPath) -> FieldErrors {
    let mut errors = new_finalizers_while_deleting(new, old, path);
    for field in IMMUTABLE {
        if present(new, field) != present(old, field) {
            errors.push(immutable(new, field, path));
        }
    }
    errors.append(validate_parts(new, path));
    errors
}

fn present<'a>(metadata: &'a Value, field: &str) -> Option<&'a Value> {
    metadata.get(field).filter(|value| !value.is_null())
}

fn immutable(metadata: &Value, field: &str, path: &FieldPath) -> FieldError {
    let value = metadata.get(field).cloned().unwrap_or(Value::Null);
    FieldError::invalid(&path.child(field), value, "field is immutable")
}

/// Validates the fields with the same rules on create and update.
fn validate_parts(metadata: &Value, path: &FieldPath) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if metadata.get("generation").and_then(Value::as_i64).is_some_and(|generation| generation < 0) {
        let value = metadata["generation"].clone();
        errors.push(FieldError::invalid(
            &path.child("generation"),
            value,
            "must be greater than or equal to 0",
        ));
    }
    if let Some(labels) = metadata.get("labels").and_then(Value::as_object) {
        errors.append(validate_labels(labels, &path.child("labels")));
    }
    if let Some(annotations) = metadata.get("annotations").and_then(Value::as_object) {
        errors.append(validate_annotations(annotations, &path.child("annotations")));
    }
    if let Some(owners) = metadata.get("ownerReferences").and_then(Value::as_array) {
        errors.append(validate_owner_references(owners, &path.child("ownerReferences")));
    }
    if let Some(finalizers) = metadata.get("finalizers").and_then(Value::as_array) {
        errors.append(validate_finalizers(finalizers, &path.child("finalizers")));
    }
    errors.extend(validate_managed_fields(metadata, &path.child("managedFields")));
    errors
}

fn validate_owner_references(owners: &[Value], path: &FieldPath) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let mut controller: Option<&str> = None;
    for owner in owners {
        // Upstream's message does not name the reference.
        let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default();
        let api_version = text("apiVersion");
        if api_version.is_empty() || api_version.matches('/').count() > 1 || api_version.ends_with('/') {
            let why = "version must not be empty";
            errors.push(FieldError::invalid(&path.child("apiVersion"), api_version, why));
        }
        for field in ["kind", "name", "uid"] {
            if text(field).is_empty() {
                errors.push(FieldError::invalid(&path.child(field), "", "must not be empty"));
            }
        }
        if api_version == "v1" && text("kind") == "Event" {
            errors.push(FieldError::invalid(path, "v1, Kind=Event", "is disallowed from being an owner"));
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            if let Some(first) = controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    text("name")
                );
                errors.push(FieldError::invalid(path, Value::Array(Vec::new()), why));
            }
            controller = Some(text("name"));
        }
    }
    errors
}

fn validate_finalizers(finalizers: &[Value], path: &FieldPath) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (mut orphan, mut foreground) = (false, false);
    for finalizer in finalizers {
        let name = finalizer.as_str().unwrap_or_default();
        orphan |= name == "orphan";
        foreground |= name == "foregroundDeletion";
        errors.extend(is_qualified_name(name).into_iter().map(|why| FieldError::invalid(path, name, why)));
    }
    if orphan && foreground {
        let why = "finalizers orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(path, Value::Array(Vec::new()), why));
    }
    errors
}

/// Checks that each finalizer is a standard finalizer or has a domain prefix, as most built-in kinds require.
pub fn validate_qualified_finalizers(metadata: &Value, path: &FieldPath) -> FieldErrors {
    let finalizers = metadata.get("finalizers").and_then(Value::as_array).into_iter().flatten();
    let names = finalizers.enumerate().filter_map(|(index, name)| Some((index, name.as_str()?)));
    let plain = names.filter(|(_, name)| !name.contains('/') && !STANDARD_FINALIZERS.contains(name));
    let why = "name is neither a standard finalizer name nor is it fully qualified";
    let path = path.child("finalizers");
    plain.map(|(index, name)| FieldError::invalid(&path.index(index), name, why)).collect()
}

/// Rejects new finalizers on an object that is being deleted.
fn new_finalizers_while_deleting(new: &Value, old: &Value, path: &FieldPath) -> FieldErrors {
    if present(old, "deletionTimestamp").is_none() {
        return FieldErrors::new();
    }
    // Both lists can have 100,000 names.
    let had: HashSet<&str> = finalizers(old).collect();
    let added: Vec<String> =
        finalizers(new).filter(|name| !had.contains(name)).map(|name| format!("{name:?}")).collect();
    if added.is_empty() {
        return FieldErrors::new();
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    // Upstream reports this twice, once for each set of rules; clients see both causes.
    FieldErrors::from([
        FieldError::forbidden(&path.child("finalizers"), why.clone()),
        FieldError::forbidden(&path.child("finalizers"), why),
    ])
}

fn finalizers(metadata: &Value) -> impl Iterator<Item = &str> {
    metadata.get("finalizers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Finalizers without a domain prefix.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::is_dns1123_subdomain;

    fn create(metadata: &Value, namespaced: bool) -> Vec<String> {
        let errors =
            validate_object_meta(metadata, namespaced, is_dns1123_subdomain, &FieldPath::new("metadata"));
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn validates_each_part_of_new_metadata() {
        assert!(create(&json!({"name": "a", "namespace": "b", "labels": {"x": "y"}}), true).is_empty());
        assert_eq!(create(&json!({"namespace": "b"}), true), ["metadata.name"]);
        assert_eq!(create(&json!({"name": "a"}), true), ["metadata.namespace"]);
        assert_eq!(create(&json!({"name": "a", "namespace": "b"}), false), ["metadata.namespace"]);
        assert_eq!(create(&json!({"name": "A"}), false), ["metadata.name"]);
        assert_eq!(create(&json!({"name": "a", "generateName": "a-"}), false), Vec::<String>::new());
        assert_eq!(
            create(&json!({"name": "a", "labels": {"a b": "c d"}}), false),
            ["metadata.labels", "metadata.labels"]
        );
        assert_eq!(
            create(&json!({"name": "a", "annotations": {"k": "x".repeat(ANNOTATIONS_MAX)}}), false),
            ["metadata.annotations"]
        );
        assert_eq!(create(&json!({"name": "a", "finalizers": ["a b"]}), false), ["metadata.finalizers"]);
        let entries = json!([{"operation": "Update", "manager": "a\tb"}]);
        assert_eq!(
            create(&json!({"name": "a", "managedFields": entries}), false),
            ["metadata.managedFields[0].manager"]
        );
        let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p"}]);
        assert_eq!(
            create(&json!({"name": "a", "ownerReferences": owners}), false),
            ["metadata.ownerReferences.uid"]
        );
    }

    #[test]
    fn update_cannot_change_the_identity() {
        let old = json!({"name": "a", "uid": "1", "creationTimestamp": "t"});
        let update = |new: Value| -> Vec<String> {
            let errors = validate_object_meta_update(&new, &old, &FieldPath::new("metadata"));
            errors.iter().map(|error| error.field.to_string()).collect()
        };
        assert!(update(old.clone()).is_empty());
        assert_eq!(
            update(json!({"name": "b", "uid": "2", "creationTimestamp": "t"})),
            ["metadata.name", "metadata.uid"]
        );
        for (field, value) in [("deletionTimestamp", json!("t")), ("deletionGracePeriodSeconds", json!(0))] {
            let mut new = json!({"name": "a", "uid": "1", "creationTimestamp": "t"});
            new[field] = value;
            assert_eq!(update(new), [format!("metadata.{field}")]);
        }
    }

    #[test]
    fn rejects_finalizers_without_a_domain() {
        let metadata =
            json!({"finalizers": ["kubernetes", "a/b", "orphan", "foregroundDeletion", "cleanup", "a.b"]});
        let errors = validate_qualified_finalizers(&metadata, &FieldPath::new("metadata"));
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        assert_eq!(
            found,
            [
                format!("metadata.finalizers[4]: Invalid value: \"cleanup\": {why}"),
                format!("metadata.finalizers[5]: Invalid value: \"a.b\": {why}"),
            ]
        );
        assert_eq!(validate_qualified_finalizers(&json!({}), &FieldPath::new("metadata")), []);
    }

    #[test]
    fn rejects_new_finalizers_during_deletion() {
        let old = json!({"deletionTimestamp": "t", "finalizers": ["a.b/c"]});
        let new = json!({"deletionTimestamp": "t", "finalizers": ["a.b/c", "a.b/d"]});
        let errors = validate_object_meta_update(&new, &old, &FieldPath::new("metadata"));
        assert_eq!(errors.len(), 2);
        assert!(validate_object_meta_update(&old, &new, &FieldPath::new("metadata")).is_empty());
    }
}
