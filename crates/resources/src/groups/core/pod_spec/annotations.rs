//! Annotations that the server interprets (upstream: `ValidatePodSpecificAnnotations`).

use std::cell::LazyCell;
use std::collections::BTreeSet;

use nave_machinery::{FieldError, FieldPath, Map, Value, meta};

use super::CONTAINERS;
use super::volumes::descending;
use crate::pod::MIRROR_ANNOTATION;
use crate::validate::{At, Errors};

/// The prefix of the annotations for AppArmor profiles of containers.
pub(super) const APP_ARMOR_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
pub(super) const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
/// The prefix of the annotations for seccomp profiles of containers.
pub(super) const SECCOMP_PREFIX: &str = "container.seccomp.security.alpha.kubernetes.io/";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The types of profiles that annotations select for containers. Few pods have any.
pub(super) struct Profiles {
    pub seccomp: bool,
    pub app_armor: bool,
}

impl Profiles {
    pub(super) fn from_annotations(annotations: Option<&Map>) -> Self {
        let has = |prefix| annotations.is_some_and(|map| map.keys().any(|key| key.starts_with(prefix)));
        Self { seccomp: has(SECCOMP_PREFIX), app_armor: has(APP_ARMOR_PREFIX) }
    }
}

/// Checks the annotations of a pod or template.
pub(super) fn validate(annotations: At, spec: At, errors: &mut Errors) {
    let mirror = annotations.key(MIRROR_ANNOTATION);
    if mirror.is_set() && spec.field("nodeName").text().is_empty() {
        errors.push(mirror.invalid("must set spec.nodeName if mirror pod annotation is set"));
    }
    let cost = annotations.key(DELETION_COST);
    if cost.is_set() && !is_cost(cost.text()) {
        errors.push(cost.invalid("must be a 32bit integer"));
    }
    let containers: LazyCell<BTreeSet<&str>, _> = LazyCell::new(|| {
        CONTAINERS
            .into_iter()
            .flat_map(|kind| {
                spec.field(kind).items().map(|container| container.field("name").text()).collect::<Vec<_>>()
            })
            .collect()
    });
    for (key, profile) in annotations.entries() {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_PREFIX) {
            seccomp(key, profile, annotations, errors);
        } else if let Some(container) = key.strip_prefix(APP_ARMOR_PREFIX) {
            if !containers.contains(container) {
                errors.push(FieldError::invalid(&profile.path(), container, "container not found"));
            }
            if !is_app_armor_profile(profile.text()) {
                errors.push(profile.invalid(format!("invalid AppArmor profile name: {:?}", profile.text())));
            }
        }
    }
}

/// Returns whether a text is a 32-bit integer without leading zeros or a plus sign.
fn is_cost(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    (text == "0" || digits.starts_with(|c: char| ('1'..='9').contains(&c))) && text.parse::<i32>().is_ok()
}

/// Checks a seccomp annotation. As upstream, the error path is `annotations.<key>`, not `annotations[<key>]`.
fn seccomp(key: &str, profile: At, annotations: At, errors: &mut Errors) {
    let text = profile.text();
    if matches!(text, "runtime/default" | "docker/default" | "unconfined") {
        return;
    }
    let path = annotations.path().child(key);
    let mut found = Errors::new();
    match text.strip_prefix("localhost/") {
        Some(file) => {
            let file = Value::from(file);
            descending(profile.with(Some(&file)), &mut found);
        }
        None => found.push(profile.invalid("must be a valid seccomp profile")),
    }
    errors.extend(found.into_iter().map(|error| FieldError { field: path.clone(), ..error }));
}

fn is_app_armor_profile(profile: &str) -> bool {
    matches!(profile, "" | "runtime/default" | "unconfined") || profile.starts_with("localhost/")
}

/// Checks that fields match the annotations that they replaced.
pub(super) fn match_fields(annotations: At, spec: At, errors: &mut Errors) {
    let context = spec.field("securityContext");
    let seccomp = |annotation: At, context: At, errors: &mut Errors| {
        if annotation.is_set()
            && let Some((kind, file)) = profile(context, "seccompProfile")
            && let Some(field) = differs(annotation.text(), kind, file)
        {
            let why = format!(
                "seccomp {} in annotation and field must match",
                if field == "type" { "type" } else { "profile" }
            );
            let path = context.field("seccompProfile").path().child(field);
            errors.push(FieldError::forbidden(&path, why));
        }
    };
    seccomp(annotations.key(SECCOMP_POD), context, errors);
    let profiles = Profiles::from_annotations(annotations.map());
    if !profiles.seccomp && !profiles.app_armor {
        return;
    }
    let os = spec.field("os");
    let is_windows = os.field("name").text() == "windows";
    for kind in CONTAINERS {
        for container in spec.field(kind).items() {
            let (name, own) = (container.field("name").text(), container.field("securityContext"));
            let key = format!("{SECCOMP_PREFIX}{name}");
            let value = annotations.map().and_then(|map| map.get(&key));
            seccomp(annotations.with(value), own, errors);
            let key = format!("{APP_ARMOR_PREFIX}{name}");
            let annotation = annotations.map().and_then(|map| map.get(&key)).and_then(Value::as_str);
            let wanted = profile(own, "appArmorProfile").or_else(|| profile(context, "appArmorProfile"));
            if let (Some(annotation), Some((kind, file)), false) = (annotation, wanted, is_windows)
                && let Some(field) = differs(annotation, kind, file)
            {
                let what = if field == "type" { "type" } else { "profile" };
                let path = own.path().child("appArmorProfile").child(field);
                let why = format!("apparmor {what} in annotation and field must match");
                errors.push(FieldError::forbidden(&path, why));
            }
        }
    }
}

/// Returns the type and the file of the profile in a field of a security context.
fn profile<'v>(context: At<'_, 'v>, field: &'static str) -> Option<(&'v str, &'v str)> {
    let profile = context.field(field);
    profile.is_set().then(|| (profile.field("type").text(), profile.field("localhostProfile").text()))
}

/// Returns the field of a profile that does not match the annotation.
pub(super) fn differs(annotation: &str, kind: &str, file: &str) -> Option<&'static str> {
    match (kind, annotation.strip_prefix("localhost/")) {
        ("Unconfined", _) => (annotation != "unconfined").then_some("type"),
        ("RuntimeDefault", _) => {
            (!matches!(annotation, "runtime/default" | "docker/default")).then_some("type")
        }
        ("Localhost", None) => Some("type"),
        ("Localhost", Some(named)) => (named != file).then_some("localhostProfile"),
        _ => None,
    }
}

/// Checks that an update of a pod, including through a subresource, does not change the AppArmor and mirror pod
/// annotations, and validates all annotations.
pub(crate) fn validate_update(pod: &Value, old: &Value, errors: &mut Errors) {
    let none = Map::new();
    let annotations = |pod| meta::field(pod, "annotations").and_then(Value::as_object);
    let (new, before) = (annotations(pod).unwrap_or(&none), annotations(old).unwrap_or(&none));
    for (key, _) in before.iter().filter(|(key, value)| new.get(*key) != Some(value)) {
        if key.starts_with(APP_ARMOR_PREFIX) {
            errors.push(FieldError::forbidden(&path(key), "may not remove or update AppArmor annotations"));
        }
        if key == MIRROR_ANNOTATION {
            errors.push(FieldError::forbidden(&path(key), "may not remove or update mirror pod annotation"));
        }
    }
    for key in new.keys().filter(|key| !before.contains_key(*key)) {
        if key.starts_with(APP_ARMOR_PREFIX) {
            errors.push(FieldError::forbidden(&path(key), "may not add AppArmor annotations"));
        }
        if key == MIRROR_ANNOTATION {
            errors.push(FieldError::forbidden(&path(key), "may not add mirror pod annotation"));
        }
    }
    let root = At::root(pod);
    let metadata = root.field("metadata");
    validate(metadata.field("annotations"), root.field("spec"), errors);
}

fn path(key: &str) -> FieldPath {
    FieldPath::new("metadata").child("annotations").key(key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn immutable_annotations_cannot_be_added_changed_or_removed() {
        let app_armor = format!("{APP_ARMOR_PREFIX}c");
        let pod = |annotations: Value| json!({"metadata": {"annotations": annotations}, "spec": {"nodeName": "n", "containers": [{"name": "c"}]}});
        for key in [MIRROR_ANNOTATION, app_armor.as_str()] {
            let states = [json!({}), json!({key: "unconfined"}), json!({key: "", "other": "x"}), json!(null)];
            for old in &states {
                for new in &states {
                    let changes = old.get(key) != new.get(key);
                    let mut errors = Errors::new();
                    validate_update(&pod(new.clone()), &pod(old.clone()), &mut errors);
                    assert_eq!(!errors.is_empty(), changes, "{old} -> {new}");
                    let expected = FieldPath::new("metadata").child("annotations").key(key);
                    assert!(errors.iter().all(|error| error.field == expected), "{errors:?}");
                }
            }
        }
    }

    #[test]
    fn rejects_invalid_annotation_values() {
        for (key, value, errors) in [
            (MIRROR_ANNOTATION, "", 1),
            (DELETION_COST, "-5", 0),
            (DELETION_COST, "05", 1),
            (DELETION_COST, "3000000000", 1),
            (SECCOMP_POD, "runtime/default", 0),
            (SECCOMP_POD, "localhost/../a", 1),
            (SECCOMP_POD, "x", 1),
            ("container.apparmor.security.beta.kubernetes.io/c", "localhost/x", 0),
            ("container.apparmor.security.beta.kubernetes.io/d", "x", 2),
        ] {
            let pod = json!({"annotations": {key: value}, "spec": {"containers": [{"name": "c"}]}});
            let root = At::root(&pod);
            let mut found = Errors::new();
            validate(root.field("annotations"), root.field("spec"), &mut found);
            assert_eq!(found.len(), errors, "{key}={value}");
        }
    }

    #[test]
    fn annotations_and_fields_must_agree() {
        let container = json!({"name": "c", "securityContext": {
            "seccompProfile": {"type": "RuntimeDefault"}, "appArmorProfile": {"type": "Localhost", "localhostProfile": "a"}}});
        for (prefix, value, errors) in [
            (SECCOMP_PREFIX, "runtime/default", 0),
            (SECCOMP_PREFIX, "unconfined", 1),
            (APP_ARMOR_PREFIX, "localhost/a", 0),
            (APP_ARMOR_PREFIX, "localhost/b", 1),
            (APP_ARMOR_PREFIX, "unconfined", 1),
        ] {
            let pod =
                json!({"annotations": {format!("{prefix}c"): value}, "spec": {"containers": [container]}});
            let root = At::root(&pod);
            let mut found = Errors::new();
            match_fields(root.field("annotations"), root.field("spec"), &mut found);
            assert_eq!(found.len(), errors, "{prefix} {value}");
        }
    }
}
