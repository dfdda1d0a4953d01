//! Validation of volume sources in pods and persistent volumes, which share most types (upstream:
//! `validateVolumeSource`, `ValidatePersistentVolumeSpec`).

use nave_machinery::{FieldError, names};

use super::pod_spec::volumes::{absolute_or_relative, descending};
use crate::validate::{
    At, Errors, absent_or_one_of, checked, driver_name, not_supported_unless, required_checked, required_text,
};

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const AZURE_KINDS: [&str; 3] = ["Dedicated", "Managed", "Shared"];
const AZURE_CACHING: [&str; 3] = ["None", "ReadOnly", "ReadWrite"];
const MORE_THAN_ONE: &str = "may not specify more than 1 volume type";
const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
/// The maximum combined length of target portal and volume name, if the initiator has a name.
const PORTAL_MAX: usize = 64;
const TENANT_MAX: usize = 64;

/// A type of volume source.
pub(crate) struct Source {
    field: &'static str,
    /// The name in errors.
    shown: &'static str,
    check: fn(At, &mut Errors),
}

impl Source {
    pub(crate) const fn new(field: &'static str, check: fn(At, &mut Errors)) -> Self {
        Self { field, shown: field, check }
    }

    /// The name of the field.
    pub(crate) const fn field(&self) -> &'static str {
        self.field
    }

    const fn shown_as(self, shown: &'static str) -> Self {
        Self { shown, ..self }
    }
}

/// The types that are identical in pods and persistent volumes.
pub(crate) const COMMON: [Source; 14] = [
    Source::new("hostPath", host_path),
    Source::new("gcePersistentDisk", |at, errors| disk(at, "pdName", errors)).shown_as("persistentDisk"),
    Source::new("awsElasticBlockStore", |at, errors| disk(at, "volumeID", errors)),
    Source::new("flocker", flocker),
    Source::new("nfs", nfs),
    Source::new("rbd", |at, errors| {
        required_list(at.field("monitors"), errors);
        required_text(at.field("image"), errors);
    }),
    Source::new("quobyte", quobyte),
    Source::new("cephfs", |at, errors| required_list(at.field("monitors"), errors)),
    Source::new("fc", fibre_channel),
    Source::new("flexVolume", flex),
    Source::new("vsphereVolume", |at, errors| all_required(at, &["volumePath"], errors)),
    Source::new("portworxVolume", |at, errors| all_required(at, &["volumeID"], errors)),
    Source::new("azureDisk", azure_disk),
    Source::new("scaleIO", |at, errors| all_required(at, &["gateway", "system", "volumeName"], errors)),
];

/// The types that only persistent volumes have, or that have different fields in persistent volumes.
pub(crate) const PERSISTENT: [Source; 8] = [
    Source::new("glusterfs", |at, errors| {
        all_required(at, &["endpoints", "path"], errors);
        let namespace = at.field("endpointsNamespace");
        if namespace.is_set() {
            checked(namespace, names::is_dns1123_label, errors);
        }
    }),
    Source::new("iscsi", |at, errors| {
        iscsi(at, errors);
        reference(at.field("secretRef"), &["name"], errors);
    }),
    Source::new("cinder", |at, errors| {
        required_text(at.field("volumeID"), errors);
        reference(at.field("secretRef"), &["name", "namespace"], errors);
    }),
    Source::new("azureFile", |at, errors| {
        all_required(at, &["secretName", "shareName"], errors);
        let namespace = at.field("secretNamespace");
        if namespace.is_set() {
            required_text(namespace, errors);
        }
    }),
    Source::new("photonPersistentDisk", |at, errors| all_required(at, &["pdID"], errors)),
    Source::new("local", |at, errors| {
        if required_text(at.field("path"), errors) {
            absolute_or_relative(at.field("path"), errors);
        }
    }),
    Source::new("storageos", |at, errors| storage_os(at, &["name", "namespace"], errors)),
    Source::new("csi", persistent_csi),
];

/// The types with different fields in pods. `volumes.rs` has the types that only pods have.
pub(crate) const IN_POD: [Source; 7] = [
    Source::new("gitRepo", |at, errors| {
        required_text(at.field("repository"), errors);
        descending(at.field("directory"), errors);
    }),
    Source::new("glusterfs", |at, errors| all_required(at, &["endpoints", "path"], errors)),
    Source::new("iscsi", iscsi),
    Source::new("cinder", |at, errors| {
        required_text(at.field("volumeID"), errors);
        reference(at.field("secretRef"), &["name"], errors);
    }),
    Source::new("azureFile", |at, errors| all_required(at, &["secretName", "shareName"], errors)),
    Source::new("photonPersistentDisk", |at, errors| all_required(at, &["pdID"], errors)),
    Source::new("storageos", |at, errors| storage_os(at, &["name"], errors)),
];

/// Checks that a volume has exactly one source, and that the source is valid.
pub(crate) fn one_of_kinds<'s>(volume: At, kinds: impl Iterator<Item = &'s Source>, errors: &mut Errors) {
    let mut is_found = false;
    for kind in kinds {
        let at = volume.field(kind.field);
        if !at.is_set() {
            continue;
        }
        if is_found {
            errors.push(at.forbidden(MORE_THAN_ONE));
        } else {
            is_found = true;
            (kind.check)(volume.field(kind.shown).with(at.value()), errors);
        }
    }
    if !is_found {
        errors.push(volume.required("must specify a volume type"));
    }
}

/// Returns whether the target portals and the volume's name are too long for a named initiator.
pub(crate) fn is_portal_too_long(iscsi: At, volume: &str) -> bool {
    let portal = iscsi.field("targetPortal").text();
    iscsi.field("initiatorName").is_set() && volume.len() + 1 + portal.len() > PORTAL_MAX
}

pub(crate) fn all_required(at: At, fields: &[&'static str], errors: &mut Errors) {
    for field in fields {
        required_text(at.field(field), errors);
    }
}

/// Checks an optional reference to a secret with required fields.
fn reference(at: At, fields: &[&'static str], errors: &mut Errors) {
    if at.is_set() {
        all_required(at, fields, errors);
    }
}

fn required_list(at: At, errors: &mut Errors) {
    if at.len() == 0 {
        errors.push(at.required(""));
    }
}

fn host_path(source: At, errors: &mut Errors) {
    let path = source.field("path");
    if required_text(path, errors) {
        absolute_or_relative(path, errors);
        absent_or_one_of(source.field("type"), &HOST_PATH_TYPES, errors);
    }
}

fn disk(source: At, name: &'static str, errors: &mut Errors) {
    required_text(source.field(name), errors);
    let partition = source.field("partition");
    if partition.int().is_some_and(|number| !(0..=255).contains(&number)) {
        errors.push(partition.invalid("must be between 0 and 255, inclusive"));
    }
}

fn nfs(source: At, errors: &mut Errors) {
    required_text(source.field("server"), errors);
    let path = source.field("path");
    required_text(path, errors);
    if !path.text().starts_with('/') {
        errors.push(path.invalid_text("must be an absolute path"));
    }
}

fn flocker(source: At, errors: &mut Errors) {
    let (name, uuid) = (source.field("datasetName"), source.field("datasetUUID"));
    match (name.text().is_empty(), uuid.text().is_empty()) {
        (true, true) => errors.push(source.required("one of datasetName and datasetUUID is required")),
        (false, false) => errors.push(FieldError::invalid(
            &source.path(),
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        )),
        _ => {}
    }
    if name.text().contains('/') {
        errors.push(name.invalid("must not contain '/'"));
    }
}

fn quobyte(source: At, errors: &mut Errors) {
    let (registry, tenant) = (source.field("registry"), source.field("tenant"));
    if registry.text().is_empty() {
        errors.push(registry.required(PAIRS));
    } else if tenant.text().len() > TENANT_MAX {
        let why = format!("must be a UUID and may not exceed a length of {TENANT_MAX} characters");
        errors.push(tenant.required(why));
    } else if registry.text().split(',').any(|pair| !pair.contains(':')) {
        errors.push(registry.invalid(PAIRS));
    }
    required_text(source.field("volume"), errors);
}

fn fibre_channel(source: At, errors: &mut Errors) {
    let (targets, ids, lun) = (source.field("targetWWNs"), source.field("wwids"), source.field("lun"));
    if targets.len() == 0 && ids.len() == 0 {
        errors.push(targets.required("must specify either targetWWNs or wwids, but not both"));
    }
    if targets.len() > 0 && ids.len() > 0 {
        errors.push(targets.invalid("targetWWNs and wwids can not be specified simultaneously"));
    }
    if targets.len() > 0 {
        if lun.is_set() {
            unit_number(lun, errors);
        } else {
            errors.push(lun.required("lun is required if targetWWNs is specified"));
        }
    }
}

fn unit_number(lun: At, errors: &mut Errors) {
    if lun.int().is_some_and(|number| !(0..=255).contains(&number)) {
        errors.push(lun.invalid("must be between 0 and 255, inclusive"));
    }
}

fn flex(source: At, errors: &mut Errors) {
    required_text(source.field("driver"), errors);
    for (key, option) in source.field("options").entries() {
        let domain = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(&option.path(), key, why));
        }
    }
}

fn azure_disk(source: At, errors: &mut Errors) {
    let (uri, kind) = (source.field("diskURI"), source.field("kind"));
    all_required(source, &["diskName", "diskURI"], errors);
    absent_or_one_of(source.field("cachingMode"), &AZURE_CACHING, errors);
    absent_or_one_of(kind, &AZURE_KINDS, errors);
    if !kind.is_set() {
        return;
    }
    let (prefix, example) = if kind.text() == "Managed" {
        let example =
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
        ("/subscriptions/", example)
    } else {
        ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
    };
    not_supported_unless(uri.text().starts_with(prefix), uri, &[example], errors);
}

fn iscsi(source: At, errors: &mut Errors) {
    required_text(source.field("targetPortal"), errors);
    let (name, initiator) = (source.field("iqn"), source.field("initiatorName"));
    if required_text(name, errors) && !is_qualified_iscsi_name(name.text()) {
        errors.push(name.invalid(iscsi_format(name.text())));
    }
    unit_number(source.field("lun"), errors);
    let uses_chap = source.field("chapAuthDiscovery").flag() || source.field("chapAuthSession").flag();
    if uses_chap && !source.field("secretRef").is_set() {
        errors.push(source.field("secretRef").required(""));
    }
    if initiator.is_set() && !is_qualified_iscsi_name(initiator.text()) {
        // Upstream's path spells the field `initiatorname`.
        let path = source.path().child("initiatorname");
        errors.push(FieldError::invalid(&path, initiator.text(), iscsi_format(initiator.text())));
    }
}

/// Returns the reason why a name is invalid.
fn iscsi_format(name: &str) -> &'static str {
    if ["iqn", "eui", "naa"].iter().any(|format| name.starts_with(format)) {
        "must be valid format"
    } else {
        "must be valid format starting with iqn, eui, or naa"
    }
}

/// Returns whether a name has the form `iqn.2001-04.com.example:part`, `eui.` with 16 letters and digits, or `naa.`
/// with 32 letters and digits.
fn is_qualified_iscsi_name(name: &str) -> bool {
    let is_alphanumeric = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric());
    match name.split_once('.') {
        Some(("iqn", rest)) => {
            let (date, rest) = rest.split_once('.').unwrap_or_default();
            let (domain, part) = rest.split_once(':').unwrap_or_default();
            let is_date = |(index, b): (usize, u8)| if index == 4 { b == b'-' } else { b.is_ascii_digit() };
            date.len() == 7
                && date.bytes().enumerate().all(is_date)
                && !domain.is_empty()
                && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
                && !part.is_empty()
                && !part.contains(|c: char| ",;*&$|".contains(c) || c.is_ascii_whitespace())
        }
        Some(("eui", rest)) => rest.len() == 16 && is_alphanumeric(rest),
        Some(("naa", rest)) => rest.len() == 32 && is_alphanumeric(rest),
        _ => false,
    }
}

fn storage_os(source: At, secret: &[&'static str], errors: &mut Errors) {
    required_checked(source.field("volumeName"), names::is_dns1123_label, errors);
    let namespace = source.field("volumeNamespace");
    if !namespace.text().is_empty() {
        checked(namespace, names::is_dns1123_label, errors);
    }
    reference(source.field("secretRef"), secret, errors);
}

fn persistent_csi(source: At, errors: &mut Errors) {
    driver_name(source.field("driver"), errors);
    required_text(source.field("volumeHandle"), errors);
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = source.field(field);
        if secret.is_set() {
            required_checked(secret.field("name"), names::is_dns1123_subdomain, errors);
            required_checked(secret.field("namespace"), names::is_dns1123_label, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;

    fn fields(volume: Value, kinds: &[&[Source]]) -> Vec<String> {
        let mut errors = Errors::new();
        one_of_kinds(At::named("v", Some(&volume)), kinds.iter().flat_map(|list| list.iter()), &mut errors);
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn volume_has_one_source() {
        let kinds: [&[Source]; 2] = [&COMMON, &PERSISTENT];
        assert_eq!(fields(json!({}), &kinds), ["v"]);
        assert_eq!(fields(json!({"hostPath": {"path": "/a"}}), &kinds), [""; 0]);
        let two = json!({"hostPath": {"path": "/a"}, "nfs": {"server": "s", "path": "/p"}});
        assert_eq!(fields(two, &kinds), ["v.nfs"]);
    }

    #[test]
    fn rejects_incomplete_sources() {
        let kinds: [&[Source]; 2] = [&COMMON, &PERSISTENT];
        for (volume, expected) in [
            (
                json!({"hostPath": {"path": "/a/../b", "type": "x"}}),
                &["v.hostPath.path", "v.hostPath.type"][..],
            ),
            (json!({"gcePersistentDisk": {"pdName": ""}}), &["v.persistentDisk.pdName"]),
            (
                json!({"awsElasticBlockStore": {"volumeID": "", "partition": 256}}),
                &["v.awsElasticBlockStore.volumeID", "v.awsElasticBlockStore.partition"],
            ),
            (json!({"nfs": {"server": "s", "path": "p"}}), &["v.nfs.path"]),
            (
                json!({"flocker": {"datasetName": "a/b", "datasetUUID": "c"}}),
                &["v.flocker", "v.flocker.datasetName"],
            ),
            (json!({"fc": {"targetWWNs": ["a"], "wwids": ["b"]}}), &["v.fc.targetWWNs", "v.fc.lun"]),
            (
                json!({"flexVolume": {"driver": "d", "options": {"a.k8s.io/b": "c"}}}),
                &["v.flexVolume.options[a.k8s.io/b]"],
            ),
            (
                json!({"azureDisk": {"diskName": "d", "diskURI": "u", "kind": "Managed"}}),
                &["v.azureDisk.diskURI"],
            ),
            (
                json!({"iscsi": {"targetPortal": "p", "iqn": "iqn.2001-04.com.example:storage", "lun": 300, "chapAuthSession": true}}),
                &["v.iscsi.lun", "v.iscsi.secretRef"],
            ),
            (
                json!({"csi": {"driver": "A_b", "nodePublishSecretRef": {"name": "n"}}}),
                &["v.csi.driver", "v.csi.volumeHandle", "v.csi.nodePublishSecretRef.namespace"],
            ),
            (json!({"storageos": {"volumeName": "a"}}), &[]),
        ] {
            assert_eq!(fields(volume.clone(), &kinds), expected, "{volume}");
        }
    }

    #[test]
    fn accepts_three_forms_of_iscsi_names() {
        for (name, is_valid) in [
            ("iqn.2001-04.com.example", false),
            ("iqn.2001-04.com.example:storage.disk2", true),
            ("eui.0123456789abcdef", true),
            ("naa.0123456789abcdef0123456789abcdef", true),
            ("iqn.2001.com.example", false),
            ("eui.1", false),
            ("abc", false),
        ] {
            assert_eq!(is_qualified_iscsi_name(name), is_valid, "{name}");
        }
    }
}
