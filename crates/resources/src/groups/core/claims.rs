//! Validation of persistent volume claims (upstream: `ValidatePersistentVolumeClaim`).

use nave_machinery::quantity::Quantity;
use nave_machinery::{FieldError, Map, Value, meta, names};
use serde_json::json;

use crate::defaults::object;
use crate::read;
use crate::resource_names;
use crate::validate::{
    At, Errors, IMMUTABLE, absent_or_one_of, checked, label_selector, quantity, required_text,
};

/// The legacy annotation for the storage class.
pub(super) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const DEPRECATED_CLASS: &str = "deprecated since v1.8; use \"storageClassName\" attribute instead";
const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub(super) const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const RESIZE_STATES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];
const FIXED: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

/// Drops a new data source unless it is a claim or a snapshot. Synchronizes `dataSource` and `dataSourceRef`
/// (KEP-1495).
pub(super) fn normalize_data_source(claim: &mut Value, old: Option<&Value>) {
    let was_set = |field: &str| old.is_some_and(|old| read::map(old, field).is_some());
    let in_use = was_set("spec.dataSource") || was_set("spec.dataSourceRef");
    let Some(spec) = claim.as_object_mut().and_then(|claim| object(claim, "spec")) else { return };
    let names_namespace =
        spec.get("dataSourceRef").is_some_and(|source| !read::text(source, "namespace").is_empty());
    if names_namespace && !was_set("spec.dataSourceRef") {
        spec.remove("dataSourceRef");
    }
    if !in_use
        && !spec.contains_key("dataSourceRef")
        && spec.get("dataSource").is_some_and(|source| !is_claim_or_snapshot(source))
    {
        spec.remove("dataSource");
    }
    if let Some(source) = spec.get("dataSource").filter(|_| !spec.contains_key("dataSourceRef")) {
        let source = source.clone();
        spec.insert("dataSourceRef".to_owned(), source);
    } else if let Some(source) = spec.get("dataSourceRef").filter(|_| !spec.contains_key("dataSource"))
        && read::text(source, "namespace").is_empty()
    {
        let mut source = source.clone();
        source.as_object_mut().and_then(|source| source.remove("namespace"));
        spec.insert("dataSource".to_owned(), source);
    }
}

fn is_claim_or_snapshot(source: &Value) -> bool {
    matches!(
        (read::text(source, "kind"), read::text(source, "apiGroup")),
        ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io")
    )
}

/// Checks the spec of a claim or of a claim template.
pub(crate) fn claim_spec(spec: At, errors: &mut Errors) {
    let modes = spec.field("accessModes");
    if modes.len() == 0 {
        errors.push(modes.required("at least 1 access mode is required"));
    }
    label_selector(spec.field("selector"), errors);
    access_modes(modes, errors);
    requested_storage(spec.field("resources"), errors);
    class_name(spec.field("storageClassName"), errors);
    absent_or_one_of(spec.field("volumeMode"), &VOLUME_MODES, errors);
    data_sources(spec, errors);
    class_name(spec.field("volumeAttributesClassName"), errors);
}

/// Checks a claim template of a pod: labels, annotations and spec.
pub(crate) fn claim_template(template: At, errors: &mut Errors) {
    let metadata = template.field("metadata");
    let path = metadata.path();
    let map = |field: &'static str| metadata.field(field).map();
    errors.extend(
        map("annotations")
            .into_iter()
            .flat_map(|map| names::validate_annotations(map, &path.child("annotations"))),
    );
    errors
        .extend(map("labels").into_iter().flat_map(|map| names::validate_labels(map, &path.child("labels"))));
    for (field, _) in metadata.map().into_iter().flatten() {
        if !matches!(field.as_str(), "annotations" | "labels" | "creationTimestamp") {
            errors.push(FieldError::forbidden(&path.child(field), "cannot be set"));
        }
    }
    claim_spec(template.field("spec"), errors);
}

pub(super) fn access_modes(modes: At, errors: &mut Errors) {
    for mode in modes.items() {
        if !ACCESS_MODES.contains(&mode.text()) {
            // Upstream reports the list instead of the item.
            errors.push(FieldError::not_supported(&modes.path(), mode.text(), &ACCESS_MODES));
        }
    }
    let has = |is_exclusive: bool| {
        modes.items().any(|mode| {
            ACCESS_MODES.contains(&mode.text()) && (mode.text() == "ReadWriteOncePod") == is_exclusive
        })
    };
    if has(true) && has(false) {
        errors.push(modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
}

/// Checks the requested storage. Upstream's error path omits `requests`.
fn requested_storage(resources: At, errors: &mut Errors) {
    let requests = resources.field("requests");
    let storage = resources.key("storage").with(requests.key("storage").value());
    match quantity(storage) {
        None => errors.push(storage.required("")),
        Some(size) => positive(storage, size, errors),
    }
}

pub(super) fn positive(at: At, size: Quantity, errors: &mut Errors) {
    if size.is_negative() || size.is_zero() {
        errors.push(FieldError::invalid(&at.path(), size.to_string(), "must be greater than zero"));
    }
}

/// Checks the name of a class, if present.
pub(super) fn class_name(at: At, errors: &mut Errors) {
    if !at.text().is_empty() {
        checked(at, names::is_dns1123_subdomain, errors);
    }
}

fn data_sources(spec: At, errors: &mut Errors) {
    let (source, reference) = (spec.field("dataSource"), spec.field("dataSourceRef"));
    for at in [source, reference] {
        if at.is_set() {
            data_source(at, errors);
        }
    }
    let namespace = reference.field("namespace");
    if !namespace.text().is_empty() {
        checked(namespace, names::is_dns1123_label, errors);
    }
    if !source.is_set() || !reference.is_set() {
        return;
    }
    let invalid = |why: &str| FieldError::invalid(&spec.path(), source.path().as_str(), why);
    let same = |field: &'static str| source.field(field).text() == reference.field(field).text();
    if !namespace.text().is_empty() {
        errors.push(invalid("may not be specified when dataSourceRef.namespace is specified"));
    } else if !["apiGroup", "kind", "name"].into_iter().all(same) {
        errors.push(invalid("must match dataSourceRef"));
    }
}

fn data_source(at: At, errors: &mut Errors) {
    required_text(at.field("name"), errors);
    required_text(at.field("kind"), errors);
    let (group, kind) = (at.field("apiGroup"), at.field("kind").text());
    if group.text().is_empty() && kind != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(&at.path(), kind, why));
    }
    class_name(group, errors);
}

pub(super) fn claim(claim: &Value) -> Errors {
    let mut errors = Errors::new();
    claim_spec(At::root(claim).field("spec"), &mut errors);
    errors
}

/// Validates an update. The volume name and the storage class may be set once; a bound claim may be resized and may
/// change its volume attributes class.
pub(super) fn claim_update(new: &Value, old: &Value) -> Errors {
    let mut errors = claim(new);
    let (root, old_root) = (At::root(new), At::root(old));
    let (spec, old_spec) = (root.field("spec"), old_root.field("spec"));
    let empty = Map::new();
    let (now, before) = (spec.map().unwrap_or(&empty), old_spec.map().unwrap_or(&empty));
    let may_set_class = may_set_class(new, old, &mut errors);
    let is_bound = read::text(new, "status.phase") == "Bound";
    let is_free = |name: &str| match name {
        "volumeName" => old_spec.field("volumeName").text().is_empty(),
        "storageClassName" => may_set_class,
        "volumeAttributesClassName" => is_bound,
        _ => false,
    };
    let is_same = |name: &str| match name {
        "resources" if is_bound => resources_but_storage(now) == resources_but_storage(before),
        _ => now.get(name) == before.get(name),
    };
    if now.keys().chain(before.keys()).any(|name| !is_free(name) && !is_same(name)) {
        errors.push(spec.forbidden(FIXED));
    }
    shrunk_size(new, old, spec, &mut errors);
    if now.get("volumeMode") != before.get("volumeMode") {
        let path = nave_machinery::FieldPath::new("volumeMode");
        errors.push(FieldError::invalid(&path, spec.field("volumeMode").text(), IMMUTABLE));
    }
    let attributes = spec.field("volumeAttributesClassName");
    if now.get("volumeAttributesClassName") != before.get("volumeAttributesClassName")
        && read::value_at(old, "status.currentVolumeAttributesClassName").is_some()
        && attributes.text().is_empty()
    {
        let given = if attributes.is_set() { "empty string" } else { "nil" };
        let why =
            format!("update to {given} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.push(attributes.forbidden(why));
    }
    errors
}

/// Returns whether a claim without a class may get the new class, which must match the annotation, if present.
fn may_set_class(new: &Value, old: &Value, errors: &mut Errors) -> bool {
    let class = |claim| read::value_at(claim, "spec.storageClassName").and_then(Value::as_str);
    let annotation = |claim| meta::annotation(claim, CLASS_ANNOTATION);
    let (now, before) = (annotation(new), annotation(old));
    let may_set =
        class(old).is_none() && class(new).is_some_and(|class| before.is_none_or(|old| old == class));
    if may_set && before.is_some() && (now.is_none() || now == before) {
        return true;
    }
    if now.unwrap_or_default() != before.unwrap_or_default() {
        let path = nave_machinery::FieldPath::new("metadata").child("annotations").child(CLASS_ANNOTATION);
        errors.push(FieldError::invalid(&path, now.unwrap_or_default(), IMMUTABLE));
    }
    may_set
}

/// Returns the resources of a spec without the storage request.
fn resources_but_storage(spec: &Map) -> Value {
    let mut resources = spec.get("resources").cloned().unwrap_or_else(|| json!({}));
    if let Some(requests) = resources.get_mut("requests").and_then(Value::as_object_mut) {
        requests.remove("storage");
    }
    resources
}

/// Checks that a reduced request stays above the capacity in the status.
fn shrunk_size(new: &Value, old: &Value, spec: At, errors: &mut Errors) {
    let amount = |claim, path| quantity(At::named("", read::value_at(claim, path))).unwrap_or(Quantity::ZERO);
    let request = "spec.resources.requests.storage";
    let size = amount(new, request);
    if size < amount(old, request) && size <= amount(old, "status.capacity.storage") {
        let resources = spec.field("resources");
        let requests = resources.field("requests");
        errors.push(requests.field("storage").forbidden("field can not be less than status.capacity"));
    }
}

pub(super) fn claim_status_update(claim: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(claim);
    let status = root.field("status");
    for (_, amount) in status.field("capacity").entries() {
        basic_amount(amount, &mut errors);
    }
    let states = status.field("allocatedResourceStatuses");
    for (name, state) in states.entries() {
        allocated_name(name, states, &mut errors);
        if !RESIZE_STATES.contains(&state.text()) {
            errors.push(FieldError::not_supported(&states.path(), name, &RESIZE_STATES));
        }
    }
    let allocated = status.field("allocatedResources");
    for (name, amount) in allocated.entries() {
        if allocated_name(name, allocated, &mut errors) {
            basic_amount(amount, &mut errors);
        }
    }
    errors
}

pub(super) fn basic_amount(at: At, errors: &mut Errors) {
    if let Some(amount) = quantity(at).filter(|amount| amount.is_negative()) {
        errors.push(FieldError::invalid(&at.path(), amount.value(), "must be a valid resource quantity"));
    }
}

fn allocated_name(name: &str, list: At, errors: &mut Errors) -> bool {
    let found = names::is_qualified_name(name);
    let is_known = !resource_names::is_native(name) || name == "storage";
    let is_valid = found.is_empty() && is_known;
    if found.is_empty() && !is_known {
        errors.push(FieldError::not_supported(&list.path(), name, &["storage"]));
    }
    errors.extend(found.into_iter().map(|why| FieldError::invalid(&list.path(), name, why)));
    is_valid
}

/// Warns about the legacy annotation and fractional bytes.
pub(super) fn warnings(claim: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if meta::annotation(claim, CLASS_ANNOTATION).is_some() {
        warnings.push(format!("metadata.annotations[{CLASS_ANNOTATION}]: {DEPRECATED_CLASS}"));
    }
    warnings.extend(spec_warnings(At::root(claim).field("spec")));
    warnings
}

/// Warns about fractional bytes in the spec of a claim or claim template.
pub(crate) fn spec_warnings(spec: At) -> Vec<String> {
    let resources = spec.field("resources");
    let mut warnings = Vec::new();
    for list in ["requests", "limits"] {
        let list = resources.field(list);
        let amount = list.key("storage");
        if let Some(size) = quantity(amount).filter(|size| size.milli_value() % 1000 != 0) {
            let text = size.to_string();
            warnings.push(format!(
                "{}: fractional byte value {text:?} is invalid, must be an integer",
                amount.path()
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(storage: &str) -> Value {
        json!({
            "metadata": {"name": "c"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}, "storageClassName": "a"},
            "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}},
        })
    }

    fn fields(errors: &Errors) -> Vec<String> {
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn claim_may_be_bound_and_resized() {
        for (path, value, expected) in [
            ("/spec/resources/requests/storage", json!("4Gi"), &[][..]),
            ("/spec/resources/requests/storage", json!("2500Mi"), &[]),
            ("/spec/resources/requests/storage", json!("1Gi"), &["spec.resources.requests.storage"]),
            ("/spec/volumeAttributesClassName", json!("gold"), &[]),
            ("/spec/volumeName", json!("pv"), &[]),
            ("/spec/storageClassName", json!("b"), &["spec"]),
            ("/spec/accessModes", json!(["ReadWriteMany"]), &["spec"]),
            ("/spec/volumeMode", json!("Block"), &["spec", "volumeMode"]),
        ] {
            let (old, mut new) = (bound("3Gi"), bound("3Gi"));
            let (parent, field) = path.rsplit_once('/').unwrap();
            new.pointer_mut(parent).unwrap()[field] = value.clone();
            assert_eq!(fields(&claim_update(&new, &old)), expected, "{path} {value}");
        }
        let mut pending = bound("3Gi");
        pending["status"] = json!({"phase": "Pending"});
        let mut grown = pending.clone();
        grown["spec"]["resources"]["requests"]["storage"] = json!("4Gi");
        assert_eq!(fields(&claim_update(&grown, &pending)), ["spec"]);
    }

    #[test]
    fn claim_without_class_may_get_one() {
        let claim = |class: Option<&str>, annotation: Option<&str>| {
            let mut claim = bound("2Gi");
            claim["spec"].as_object_mut().unwrap().remove("storageClassName");
            if let Some(class) = class {
                claim["spec"]["storageClassName"] = json!(class);
            }
            if let Some(annotation) = annotation {
                claim["metadata"]["annotations"] = json!({CLASS_ANNOTATION: annotation});
            }
            claim
        };
        for (new, old, errors) in [
            (claim(Some("a"), None), claim(None, None), 0),
            (claim(Some("a"), None), claim(Some(""), None), 1),
            (claim(Some("a"), Some("a")), claim(None, Some("a")), 0),
            (claim(Some("a"), None), claim(None, Some("a")), 0),
            (claim(Some("b"), Some("a")), claim(None, Some("a")), 1),
            (claim(None, Some("b")), claim(None, Some("a")), 1),
        ] {
            assert_eq!(claim_update(&new, &old).len(), errors, "{new} {old}");
        }
    }

    #[test]
    fn rejects_invalid_specs() {
        for (spec, expected) in [
            (json!({}), &["spec.accessModes", "spec.resources[storage]"][..]),
            (
                json!({"accessModes": ["x", "ReadWriteOncePod", "ReadWriteOnce"], "resources": {"requests": {"storage": "0"}}}),
                &["spec.accessModes", "spec.accessModes", "spec.resources[storage]"],
            ),
            (
                json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}, "storageClassName": "A b", "volumeMode": "x",
                    "dataSourceRef": {"kind": "x", "name": ""}}),
                &[
                    "spec.storageClassName",
                    "spec.volumeMode",
                    "spec.dataSourceRef.name",
                    "spec.dataSourceRef",
                ],
            ),
        ] {
            assert_eq!(fields(&claim(&json!({"spec": spec}))), expected, "{spec}");
        }
    }

    #[test]
    fn copies_between_data_source_fields() {
        let claim = |spec: Value| json!({"spec": spec});
        let snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
        for (spec, expected) in [
            (json!({"dataSource": {"kind": "x", "name": "y"}}), json!({})),
            (json!({"dataSource": snapshot}), json!({"dataSource": snapshot, "dataSourceRef": snapshot})),
            (json!({"dataSourceRef": snapshot}), json!({"dataSource": snapshot, "dataSourceRef": snapshot})),
            (json!({"dataSourceRef": {"kind": "a", "name": "b", "namespace": "c"}}), json!({})),
        ] {
            let mut object = claim(spec.clone());
            normalize_data_source(&mut object, None);
            assert_eq!(object, claim(expected), "{spec}");
        }
    }

    #[test]
    fn warns_about_fractional_bytes_and_legacy_annotations() {
        let mut claim = bound("1500m");
        claim["metadata"]["annotations"] = json!({CLASS_ANNOTATION: "a"});
        let expected = [
            format!("metadata.annotations[{CLASS_ANNOTATION}]: {DEPRECATED_CLASS}"),
            "spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer"
                .to_owned(),
        ];
        assert_eq!(warnings(&claim), expected);
    }

    #[test]
    fn rejects_invalid_status() {
        for (status, expected) in [
            (json!({"allocatedResources": {"storage": "1Gi"}}), &[][..]),
            (json!({"allocatedResources": {"cpu": "1"}}), &["status.allocatedResources"]),
            (json!({"allocatedResourceStatuses": {"storage": "x"}}), &["status.allocatedResourceStatuses"]),
            (json!({"capacity": {"storage": "-1"}}), &["status.capacity[storage]"]),
        ] {
            assert_eq!(fields(&claim_status_update(&json!({"status": status}))), expected, "{status}");
        }
    }
}
