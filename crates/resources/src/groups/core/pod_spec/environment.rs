//! Environment variables of containers, and references to fields of the pod.

use std::cell::LazyCell;
use std::collections::HashMap;

use nave_machinery::{FieldError, names};

use super::CONTAINERS;
use super::volumes::absolute_or_relative;
use crate::validate::{At, Errors, checked, quantity, required_checked, required_text};

const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
/// The pod fields that a variable can refer to, in addition to labels and annotations.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// All pod fields that the downward API supports.
const KNOWN_FIELDS: [&str; 15] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.host",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const CPU_DIVISORS: [&str; 2] = ["1", "1m"];
const BYTE_DIVISORS: [&str; 13] =
    ["1", "1E", "1Ei", "1G", "1Gi", "1Ki", "1M", "1Mi", "1P", "1Pi", "1T", "1Ti", "1k"];

pub(super) fn variable(variable: At, errors: &mut Errors) {
    required_checked(variable.field("name"), variable_name, errors);
    let from = variable.field("valueFrom");
    if !from.is_set() {
        return;
    }
    if from.field("fieldRef").is_set() {
        field_reference(from.field("fieldRef"), &FIELDS, errors);
    }
    if from.field("resourceFieldRef").is_set() {
        resource_reference(from.field("resourceFieldRef"), false, errors);
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        let reference = from.field(source);
        if reference.is_set() {
            checked(reference.field("name"), names::is_dns1123_subdomain, errors);
            required_checked(reference.field("key"), names::is_config_map_key, errors);
        }
    }
    file_key(from.field("fileKeyRef"), errors);
    let sources = SOURCES.iter().filter(|source| from.field(source).is_set()).count();
    let why = if sources == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
    } else if !variable.field("value").text().is_empty() {
        "may not be specified when `value` is not empty"
    } else if sources > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    errors.push(FieldError::invalid(&from.path(), "", why));
}

fn file_key(file: At, errors: &mut Errors) {
    if !file.is_set() {
        return;
    }
    required_checked(file.field("key"), variable_name, errors);
    required_checked(file.field("volumeName"), names::is_dns1123_label, errors);
    let path = file.field("path");
    if required_text(path, errors) {
        absolute_or_relative(path, errors);
    }
}

/// Checks that files of variables are in `emptyDir` volumes.
pub(super) fn file_volumes(spec: At, errors: &mut Errors) {
    let list = spec.field("volumes");
    let is_empty_dir: LazyCell<HashMap<_, _>, _> = LazyCell::new(|| {
        list.items().map(|volume| (volume.field("name").text(), volume.field("emptyDir").is_set())).collect()
    });
    for kind in CONTAINERS {
        for container in spec.field(kind).items() {
            for variable in container.field("env").items() {
                let from = variable.field("valueFrom");
                let file = from.field("fileKeyRef");
                if !file.is_set() {
                    continue;
                }
                let volume = file.field("volumeName");
                match is_empty_dir.get(volume.text()) {
                    None => errors.push(volume.not_found()),
                    Some(false) => {
                        errors.push(volume.invalid_text("referenced volume must be of type emptyDir"));
                    }
                    Some(true) => {}
                }
            }
        }
    }
}

/// Checks a reference to one of `fields`, a label or an annotation.
pub(super) fn field_reference(reference: At, fields: &[&str], errors: &mut Errors) {
    let (version, path) = (reference.field("apiVersion"), reference.field("fieldPath"));
    if !required_text(version, errors) || !required_text(path, errors) {
        return;
    }
    let refused = |why: String| path.invalid(format!("error converting fieldPath: {why}"));
    if version.text() != "v1" {
        errors.push(refused(format!("unsupported pod version: {}", version.text())));
        return;
    }
    let text = path.text();
    if let Some((map, key)) = text.strip_suffix("']").and_then(|text| text.split_once("['")) {
        let key = match map {
            "metadata.annotations" => key.to_lowercase(),
            "metadata.labels" => key.to_owned(),
            _ => {
                errors.push(refused(format!("field label does not support subscript: {text}")));
                return;
            }
        };
        // Upstream reports the error at the reference, not at `fieldPath`.
        errors.extend(
            names::is_qualified_name(&key)
                .into_iter()
                .map(|why| FieldError::invalid(&reference.path(), key.as_str(), why)),
        );
    } else if !KNOWN_FIELDS.contains(&text) {
        errors.push(refused(format!("field label not supported: {text}")));
    } else {
        let field = if text == "spec.host" { "spec.nodeName" } else { text };
        if !fields.contains(&field) {
            errors.push(FieldError::not_supported(&path.path(), field, fields));
        }
    }
}

/// Checks a reference to a resource of a container, in a variable or a volume file.
pub(super) fn resource_reference(reference: At, in_volume: bool, errors: &mut Errors) {
    let (container, resource) = (reference.field("containerName"), reference.field("resource"));
    let name = resource.text();
    let is_huge_pages = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if in_volume && container.text().is_empty() {
        errors.push(container.required(""));
    } else if required_text(resource, errors) && !RESOURCES.contains(&name) && !is_huge_pages {
        errors.push(resource.not_supported(&RESOURCES));
    }
    let divisor = reference.field("divisor");
    let Some(amount) = quantity(divisor).filter(|amount| !amount.is_zero()) else { return };
    let divisors: &[&str] = match name {
        "limits.cpu" | "requests.cpu" => &CPU_DIVISORS,
        _ if RESOURCES.contains(&name) || is_huge_pages => &BYTE_DIVISORS,
        _ => return,
    };
    if !divisors.contains(&amount.to_string().as_str()) {
        let why = format!("only divisor's values {} are supported with this resource", divisors.join(", "));
        errors.push(FieldError::invalid(&divisor.path(), name, why));
    }
}

/// Checks the `envFrom` sources.
pub(super) fn sources(list: At, errors: &mut Errors) {
    for source in list.items() {
        let prefix = source.field("prefix");
        if !prefix.text().is_empty() {
            checked(prefix, variable_name, errors);
        }
        let mut given = 0;
        for kind in ["configMapRef", "secretRef"] {
            let reference = source.field(kind);
            if reference.is_set() {
                given += 1;
                required_checked(reference.field("name"), names::is_dns1123_subdomain, errors);
            }
        }
        let why = match given {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        // Upstream reports the list.
        errors.push(FieldError::invalid(&list.path(), "", why));
    }
}

/// Checks the name of a variable.
fn variable_name(name: &str) -> Vec<String> {
    if !name.is_empty() && name.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;

    fn fields(from: Value) -> Vec<String> {
        let value = json!({"name": "A", "valueFrom": from});
        let mut errors = Errors::new();
        variable(At::named("env", Some(&value)), &mut errors);
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn variable_has_one_valid_source() {
        let field =
            |version: &str, path: &str| json!({"fieldRef": {"apiVersion": version, "fieldPath": path}});
        for (from, expected) in [
            (field("v1", "metadata.name"), &[][..]),
            (field("v1", "metadata.labels['a']"), &[]),
            (field("v1", "spec.host"), &[]),
            (field("v2", "metadata.name"), &["env.valueFrom.fieldRef.fieldPath"]),
            (field("v1", "metadata.labels"), &["env.valueFrom.fieldRef.fieldPath"]),
            (field("v1", "metadata.name['a']"), &["env.valueFrom.fieldRef.fieldPath"]),
            (field("v1", "metadata.labels['a b']"), &["env.valueFrom.fieldRef"]),
            (json!({}), &["env.valueFrom"]),
            (
                json!({"secretKeyRef": {"name": "S_", "key": "a/b"}}),
                &["env.valueFrom.secretKeyRef.name", "env.valueFrom.secretKeyRef.key"],
            ),
            (json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}), &[]),
            (
                json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1Mi"}}),
                &["env.valueFrom.resourceFieldRef.divisor"],
            ),
            (json!({"resourceFieldRef": {"resource": "pods"}}), &["env.valueFrom.resourceFieldRef.resource"]),
            (
                json!({"fileKeyRef": {"key": "A=", "volumeName": "v", "path": "../a"}}),
                &["env.valueFrom.fileKeyRef.key", "env.valueFrom.fileKeyRef.path"],
            ),
        ] {
            assert_eq!(fields(from.clone()), expected, "{from}");
        }
    }

    #[test]
    fn env_from_source_is_config_map_or_secret() {
        let list = json!([{"configMapRef": {"name": "a"}}, {}, {"prefix": "=", "secretRef": {"name": ""}}]);
        let mut errors = Errors::new();
        sources(At::named("envFrom", Some(&list)), &mut errors);
        let fields: Vec<_> = errors.iter().map(|error| error.field.to_string()).collect();
        assert_eq!(fields, ["envFrom", "envFrom[2].prefix", "envFrom[2].secretRef.name"]);
    }

    #[test]
    fn files_are_in_empty_dir_volumes() {
        let spec = |volume: Value| {
            let variable = json!({"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v"}}});
            json!({"volumes": [volume], "containers": [{"env": [variable]}]})
        };
        for (volume, expected) in [
            (json!({"name": "v", "emptyDir": {}}), 0),
            (json!({"name": "v", "hostPath": {}}), 1),
            (json!({"name": "w", "emptyDir": {}}), 1),
        ] {
            let mut errors = Errors::new();
            file_volumes(At::named("spec", Some(&spec(volume))), &mut errors);
            assert_eq!(errors.len(), expected);
        }
    }
}
