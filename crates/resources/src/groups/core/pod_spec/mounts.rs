//! Volume mounts and volume devices of containers.

use std::collections::{BTreeSet, HashSet};

use nave_machinery::FieldError;

use super::volumes::{Volumes, descending};
use crate::validate::{At, Errors, not_supported_unless};

const PROPAGATIONS: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
const RECURSIVE: [&str; 3] = ["Disabled", "Enabled", "IfPossible"];

pub(super) fn all(container: At, volumes: &Volumes, errors: &mut Errors) {
    let (mounts, devices) = (container.field("volumeMounts"), container.field("volumeDevices"));
    mounted(container, mounts, &Places::from_list(devices, "devicePath"), volumes, errors);
    if devices.len() > 0 {
        as_devices(devices, &Places::from_list(mounts, "mountPath"), volumes, errors);
    }
}

/// The names and paths of the volumes in a list.
struct Places<'v> {
    names: HashSet<&'v str>,
    paths: HashSet<&'v str>,
}

impl<'v> Places<'v> {
    fn from_list(list: At<'_, 'v>, path: &'static str) -> Self {
        let texts = |field| list.items().map(|item| item.field(field).text()).collect();
        Self { names: texts("name"), paths: texts(path) }
    }
}

fn mounted(container: At, mounts: At, devices: &Places, volumes: &Volumes, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for mount in mounts.items() {
        let (name, path) = (mount.field("name"), mount.field("mountPath"));
        named(name, volumes, errors);
        if path.text().is_empty() {
            errors.push(path.required(""));
        }
        if !seen.insert(path.text()) {
            errors.push(path.invalid_text("must be unique"));
        }
        if devices.names.contains(name.text()) {
            errors.push(name.invalid_text("must not already exist in volumeDevices"));
        }
        if devices.paths.contains(path.text()) {
            errors.push(path.invalid_text("must not already exist as a path in volumeDevices"));
        }
        // Upstream reports the list in the errors of these fields.
        let shown = |field: &'static str| mounts.field(field).with(mount.field(field).value());
        descending(shown("subPath"), errors);
        let expression = mount.field("subPathExpr");
        if !expression.text().is_empty() && !mount.field("subPath").text().is_empty() {
            errors.push(expression.invalid("subPathExpr and subPath are mutually exclusive"));
        }
        descending(shown("subPathExpr"), errors);
        propagation(container, shown("mountPropagation"), errors);
        recursive_read_only(mount, shown("recursiveReadOnly"), errors);
    }
}

fn named(name: At, volumes: &Volumes, errors: &mut Errors) {
    if name.text().is_empty() {
        errors.push(name.required(""));
    }
    if !volumes.contains(name.text()) {
        errors.push(name.not_found());
    }
}

fn propagation(container: At, propagation: At, errors: &mut Errors) {
    if !propagation.is_set() {
        return;
    }
    not_supported_unless(PROPAGATIONS.contains(&propagation.text()), propagation, &PROPAGATIONS, errors);
    let context = container.field("securityContext");
    if propagation.text() == "Bidirectional" && !context.field("privileged").flag() {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(propagation.forbidden(why));
    }
}

fn recursive_read_only(mount: At, recursive: At, errors: &mut Errors) {
    match recursive.text() {
        _ if !recursive.is_set() => {}
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.field("readOnly").flag() {
                errors.push(recursive.forbidden("may only be specified when readOnly is true"));
            }
            if !matches!(mount.field("mountPropagation").text(), "" | "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                errors.push(recursive.forbidden(why));
            }
        }
        _ => errors.push(recursive.not_supported(&RECURSIVE)),
    }
}

fn as_devices(devices: At, mounts: &Places, volumes: &Volumes, errors: &mut Errors) {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in devices.items() {
        let (name, path) = (device.field("name"), device.field("devicePath"));
        named(name, volumes, errors);
        if !name.text().is_empty() && !names.insert(name.text()) {
            errors.push(name.invalid("must be unique"));
        }
        if volumes.contains(name.text()) && !volumes.is_claim(name.text()) {
            let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            errors.push(name.invalid(why));
        }
        if path.text().is_empty() {
            errors.push(path.required(""));
        }
        if path.text().split('/').any(|part| part == "..") {
            errors.push(path.invalid("can not contain backsteps ('..')"));
        } else if !paths.insert(path.text()) {
            errors.push(FieldError::invalid(&path.path(), path.text(), "must be unique"));
        }
        if mounts.names.contains(name.text()) {
            errors.push(name.invalid_text("must not already exist in volumeMounts"));
        }
        if mounts.paths.contains(path.text()) {
            errors.push(path.invalid_text("must not already exist as a path in volumeMounts"));
        }
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;

    fn fields(container: Value) -> Vec<String> {
        let spec = json!({"volumes": [
            {"name": "v", "emptyDir": {}}, {"name": "c", "persistentVolumeClaim": {"claimName": "c"}}
        ]});
        let mut errors = Errors::new();
        let volumes = super::super::volumes::all(At::named("spec", Some(&spec)), None, &mut errors);
        all(At::named("c", Some(&container)), &volumes, &mut errors);
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn mounts_refer_to_volumes_at_unique_paths() {
        for (mounts, expected) in [
            (json!([{"name": "v", "mountPath": "/a"}]), &[][..]),
            (
                json!([{}]),
                &["c.volumeMounts[0].name", "c.volumeMounts[0].name", "c.volumeMounts[0].mountPath"],
            ),
            (
                json!([{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]),
                &["c.volumeMounts[1].mountPath"],
            ),
            (json!([{"name": "v", "mountPath": "/a", "subPath": "/x"}]), &["c.volumeMounts.subPath"]),
            (
                json!([{"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}]),
                &["c.volumeMounts.mountPropagation"],
            ),
            (
                json!([{"name": "v", "mountPath": "/a", "recursiveReadOnly": "Enabled"}]),
                &["c.volumeMounts.recursiveReadOnly"],
            ),
        ] {
            assert_eq!(fields(json!({"volumeMounts": mounts})), expected, "{mounts}");
        }
    }

    #[test]
    fn devices_refer_to_claims() {
        for (devices, expected) in [
            (json!([{"name": "c", "devicePath": "/dev/a"}]), &[][..]),
            (json!([{"name": "v", "devicePath": "/dev/a"}]), &["c.volumeDevices[0].name"]),
            (json!([{"name": "c", "devicePath": "/dev/../a"}]), &["c.volumeDevices[0].devicePath"]),
            (
                json!([{"name": "c", "devicePath": "/a"}, {"name": "c", "devicePath": "/a"}]),
                &["c.volumeDevices[1].name", "c.volumeDevices[1].devicePath"],
            ),
        ] {
            assert_eq!(fields(json!({"volumeDevices": devices})), expected, "{devices}");
        }
        let both = json!({"volumeMounts": [{"name": "c", "mountPath": "/a"}], "volumeDevices": [{"name": "c", "devicePath": "/a"}]});
        assert_eq!(fields(both).len(), 4);
    }
}
