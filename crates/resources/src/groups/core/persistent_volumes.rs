//! Validation of persistent volumes (upstream: `ValidatePersistentVolume`).

use nave_machinery::{FieldError, FieldPath, Value, meta};

use super::claims::{VOLUME_MODES, access_modes, basic_amount, class_name, positive};
use super::pod_spec::{affinity, warnings};
use super::volume_sources::{self, Source};
use crate::read;
use crate::validate::{At, Errors, IMMUTABLE, absent_or_one_of, quantity};

const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
/// The fields of a volume's spec that are not sources.
const NOT_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];
/// The sources in the order in which upstream checks them. The first one is validated, the others are forbidden.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];
const DEPRECATED_ANNOTATIONS: [(&str, &str); 2] = [
    (
        "volume.beta.kubernetes.io/storage-class",
        "deprecated since v1.8; use \"storageClassName\" attribute instead",
    ),
    (
        "volume.beta.kubernetes.io/mount-options",
        "deprecated since v1.31; use \"mountOptions\" attribute instead",
    ),
];
/// Deprecated volume types: the field, the name in warnings, and the versions of deprecation and removal.
const DEPRECATED_SOURCES: [(&str, &str, &str); 6] = [
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

pub(super) fn volume(volume: &Value) -> Errors {
    let mut errors = Errors::new();
    volume_spec(At::root(volume).field("spec"), meta::name(volume), &mut errors);
    errors
}

fn volume_spec(spec: At, name: &str, errors: &mut Errors) {
    let modes = spec.field("accessModes");
    if modes.len() == 0 {
        errors.push(modes.required(""));
    }
    access_modes(modes, errors);
    capacity(spec.field("capacity"), errors);
    let policy = spec.field("persistentVolumeReclaimPolicy");
    if !policy.text().is_empty() {
        absent_or_one_of(policy, &RECLAIM_POLICIES, errors);
    }
    let affinity = spec.field("nodeAffinity");
    node_affinity(affinity, errors);
    volume_sources::one_of_kinds(spec, sources(), errors);
    if volume_sources::is_portal_too_long(spec.field("iscsi"), name) {
        let iscsi = spec.field("iscsi");
        let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        errors.push(FieldError::invalid(
            &iscsi.path().child("targetportal"),
            iscsi.field("targetPortal").text(),
            why,
        ));
    }
    if spec.field("local").is_set() && !affinity.is_set() {
        errors.push(affinity.required("Local volume requires node affinity"));
    }
    let host_path = spec.field("hostPath");
    if is_root(host_path.field("path").text()) && policy.text() == "Recycle" {
        errors.push(policy.forbidden("may not be 'recycle' for a hostPath mount of '/'"));
    }
    class_name(spec.field("storageClassName"), errors);
    absent_or_one_of(spec.field("volumeMode"), &VOLUME_MODES, errors);
    let attributes = spec.field("volumeAttributesClassName");
    if attributes.is_set() {
        if attributes.text().is_empty() {
            errors.push(attributes.required("an empty string is disallowed"));
        }
        class_name(attributes, errors);
        if !spec.field("csi").is_set() {
            let why = "has to be specified when using volumeAttributesClassName";
            errors.push(spec.field("csi").required(why));
        }
    }
}

/// Checks the inline volume spec of an attachment. The volume is a migrated volume and must be of type CSI.
pub(crate) fn inline_volume(spec: At, errors: &mut Errors) {
    let inline = "in the context of inline volumes";
    for field in ["claimRef", "capacity", "nodeAffinity", "storageClassName"] {
        let at = spec.field(field);
        if at.len() > 0 || !at.text().is_empty() {
            errors.push(at.forbidden(format!("may not be specified {inline}")));
        }
    }
    if !spec.field("csi").is_set() {
        errors.push(spec.field("csi").required(format!("has to be specified {inline}")));
    }
    let modes = spec.field("accessModes");
    if modes.len() == 0 {
        errors.push(modes.required(""));
    }
    access_modes(modes, errors);
    let (policy, mode) = (spec.field("persistentVolumeReclaimPolicy"), spec.field("volumeMode"));
    if !matches!(policy.text(), "" | "Retain") {
        errors.push(policy.forbidden(format!("may only be Retain {inline}")));
    }
    volume_sources::one_of_kinds(spec, sources(), errors);
    if !matches!(mode.text(), "" | "Filesystem") {
        errors.push(mode.forbidden(format!("may not specify volumeMode other than Filesystem {inline}")));
    }
}

fn sources() -> impl Iterator<Item = &'static Source> {
    let all = || volume_sources::COMMON.iter().chain(&volume_sources::PERSISTENT);
    SOURCES.iter().filter_map(move |name| all().find(|source| source.field() == *name))
}

fn capacity(capacity: At, errors: &mut Errors) {
    if capacity.len() == 0 {
        errors.push(capacity.required(""));
    }
    if capacity.len() > 1 || !capacity.key("storage").is_set() {
        let shown = capacity.value().cloned().unwrap_or_default();
        errors.push(FieldError::not_supported(&capacity.path(), shown, &["storage"]));
    }
    for (_, size) in capacity.entries() {
        basic_amount(size, errors);
        if let Some(amount) = quantity(size) {
            positive(size, amount, errors);
        }
    }
}

fn node_affinity(affinity: At, errors: &mut Errors) {
    if !affinity.is_set() {
        return;
    }
    let required = affinity.field("required");
    if required.is_set() {
        affinity::node_selector(required, errors);
    } else {
        errors.push(required.required("must specify required node constraints"));
    }
}

/// Returns whether a path is the root of the file system.
fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "." | ".."))
}

pub(super) fn volume_update(new: &Value, old: &Value) -> Errors {
    let mut errors = volume(new);
    let (root, old_root) = (At::root(new), At::root(old));
    let (spec, old_spec) = (root.field("spec"), old_root.field("spec"));
    if !same_sources(spec, old_spec) {
        let why = "spec.persistentvolumesource is immutable after creation";
        errors.push(spec.field("persistentvolumesource").forbidden(why));
    }
    if spec.field("volumeMode").value() != old_spec.field("volumeMode").value() {
        let shown = spec.field("volumeMode").text();
        errors.push(FieldError::invalid(&FieldPath::new("volumeMode"), shown, IMMUTABLE));
    }
    let (affinity, before) = (spec.field("nodeAffinity"), old_spec.field("nodeAffinity"));
    if before.is_set() && with_stable_labels(affinity.value()) != with_stable_labels(before.value()) {
        let shown = affinity.value().cloned().unwrap_or_default();
        let why = format!("{IMMUTABLE}, except for updating from beta label to GA");
        errors.push(FieldError::invalid(&FieldPath::new("nodeAffinity"), shown, why));
    }
    let attributes = spec.field("volumeAttributesClassName");
    if old_spec.field("volumeAttributesClassName").is_set() && !attributes.is_set() {
        errors.push(attributes.forbidden("update from non-nil value to nil is forbidden"));
    }
    errors
}

/// Returns whether two specs have the same source. An update may add a secret for volume expansion.
fn same_sources(new: At, old: At) -> bool {
    let names = new.map().into_iter().chain(old.map()).flat_map(|map| map.keys());
    let value = |spec: At<'_, '_>, name: &str| spec.value().and_then(|it| it.get(name)).cloned();
    names.into_iter().filter(|name| !NOT_SOURCES.contains(&name.as_str())).all(|name| {
        let (mut new, old) = (value(new, name), value(old, name));
        if let (Some(new), Some(old)) = (&mut new, &old)
            && name == "csi"
            && read::value_at(old, "controllerExpandSecretRef").is_none()
        {
            new.as_object_mut().and_then(|csi| csi.remove("controllerExpandSecretRef"));
        }
        new == old
    })
}

/// Returns a node affinity with stable node labels in place of beta labels.
fn with_stable_labels(affinity: Option<&Value>) -> Option<Value> {
    let mut affinity = affinity.cloned()?;
    let terms = affinity.pointer_mut("/required/nodeSelectorTerms").and_then(Value::as_array_mut);
    for term in terms.into_iter().flatten() {
        let expressions = term.get_mut("matchExpressions").and_then(Value::as_array_mut);
        for key in expressions.into_iter().flatten().filter_map(|expression| expression.get_mut("key")) {
            let stable = match key.as_str() {
                Some("failure-domain.beta.kubernetes.io/zone") => "topology.kubernetes.io/zone",
                Some("failure-domain.beta.kubernetes.io/region") => "topology.kubernetes.io/region",
                Some("beta.kubernetes.io/arch") => "kubernetes.io/arch",
                Some("beta.kubernetes.io/os") => "kubernetes.io/os",
                Some("beta.kubernetes.io/instance-type") => "node.kubernetes.io/instance-type",
                _ => continue,
            };
            *key = Value::from(stable);
        }
    }
    Some(affinity)
}

pub(super) fn warnings(volume: &Value) -> Vec<String> {
    let annotations =
        DEPRECATED_ANNOTATIONS.iter().filter(|(key, _)| meta::annotation(volume, key).is_some());
    let mut warnings: Vec<_> =
        annotations.map(|(key, message)| format!("metadata.annotations[{key}]: {message}")).collect();
    let root = At::root(volume);
    let spec = root.field("spec");
    let policy = spec.field("persistentVolumeReclaimPolicy");
    if policy.text() == "Recycle" {
        let message = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
        warnings.push(format!("{}: {message}", policy.path()));
    }
    let affinity = spec.field("nodeAffinity");
    warnings.extend(warnings::of_node_selector(affinity.field("required")));
    for (field, shown, message) in DEPRECATED_SOURCES {
        if spec.field(field).is_set() {
            warnings.push(format!("spec.{shown}: {message}"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pv(spec: Value) -> Value {
        let mut all = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
        let given = spec.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(given);
        json!({"metadata": {"name": "pv"}, "spec": all})
    }

    fn fields(errors: &Errors) -> Vec<String> {
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn rejects_invalid_volumes() {
        let path = json!({"path": "/a"});
        let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}});
        for (spec, expected) in [
            (json!({"hostPath": path}), &[][..]),
            (json!({}), &["spec"]),
            (json!({"hostPath": path, "capacity": {"cpu": "1"}}), &["spec.capacity"]),
            (json!({"hostPath": path, "capacity": null}), &["spec.capacity", "spec.capacity"]),
            (json!({"hostPath": path, "storageClassName": "A b"}), &["spec.storageClassName"]),
            (json!({"local": path}), &["spec.nodeAffinity"]),
            (json!({"local": path, "nodeAffinity": affinity}), &[]),
            (json!({"local": path, "nodeAffinity": {}}), &["spec.nodeAffinity.required"]),
            (
                json!({"hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"}),
                &["spec.persistentVolumeReclaimPolicy"],
            ),
            (json!({"hostPath": path, "volumeAttributesClassName": "a"}), &["spec.csi"]),
        ] {
            assert_eq!(fields(&volume(&pv(spec.clone()))), expected, "{spec}");
        }
    }

    #[test]
    fn the_first_source_in_upstreams_order_is_checked() {
        for (sources, expected) in [
            (json!({"csi": {"driver": "d"}, "hostPath": {"path": "/a"}}), &["spec.csi"][..]),
            (
                json!({"csi": {}, "iscsi": {}, "nfs": {"server": "s", "path": "/p"}}),
                &["spec.iscsi", "spec.csi"],
            ),
            (json!({"azureDisk": {}, "cinder": {"volumeID": "v"}}), &["spec.azureDisk"]),
        ] {
            assert_eq!(fields(&volume(&pv(sources.clone()))), expected, "{sources}");
        }
    }

    #[test]
    fn source_is_immutable() {
        let csi = |secret: Value| {
            let mut csi = json!({"driver": "d.example.com", "volumeHandle": "h"});
            csi.as_object_mut().unwrap().extend(secret.as_object().unwrap().clone());
            pv(json!({"csi": csi}))
        };
        let secret = json!({"controllerExpandSecretRef": {"name": "s", "namespace": "n"}});
        let on = |key: &str| {
            let term = json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
            pv(
                json!({"hostPath": {"path": "/a"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}),
            )
        };
        let path = |path: &str| pv(json!({"hostPath": {"path": path}}));
        for (new, old, expected) in [
            (path("/b"), path("/a"), &["spec.persistentvolumesource"][..]),
            (csi(secret.clone()), csi(json!({})), &[]),
            (csi(json!({})), csi(secret), &["spec.persistentvolumesource"]),
            (on("a"), path("/a"), &[]),
            (on("b"), on("a"), &["nodeAffinity"]),
            (on("kubernetes.io/os"), on("beta.kubernetes.io/os"), &[]),
        ] {
            assert_eq!(fields(&volume_update(&new, &old)), expected, "{new} {old}");
        }
    }

    #[test]
    fn inline_volume_has_only_fields_for_attaching() {
        let spec = json!({
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1"}, "hostPath": {"path": "/a"},
            "persistentVolumeReclaimPolicy": "Delete",
        });
        let mut errors = Errors::new();
        inline_volume(At::named("v", Some(&spec)), &mut errors);
        assert_eq!(fields(&errors), ["v.capacity", "v.csi", "v.persistentVolumeReclaimPolicy"]);
    }

    #[test]
    fn warns_about_deprecated_fields() {
        let volume = pv(json!({"rbd": {}, "persistentVolumeReclaimPolicy": "Recycle"}));
        let warnings = warnings(&volume);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert_eq!(warnings[1], "spec.rbd: deprecated in v1.28, non-functional in v1.31+");
    }
}
