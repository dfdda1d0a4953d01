//! Table columns of storage kinds.

use nave_machinery::Value;

use crate::read;
use crate::table::{Column, age, field, flag, joined, joined_strings, length, name, name_with, text};

pub(super) fn driver() -> Vec<Column> {
    let spec = "storage.v1.CSIDriverSpec";
    vec![
        name(),
        flag("AttachRequired", "spec.attachRequired", true).described_by(spec, "attachRequired"),
        flag("PodInfoOnMount", "spec.podInfoOnMount", false).described_by(spec, "podInfoOnMount"),
        flag("StorageCapacity", "spec.storageCapacity", false).described_by(spec, "storageCapacity"),
        text("TokenRequests", |driver| match read::list(driver, "spec.tokenRequests") {
            [] => "<unset>".to_owned(),
            _ => joined(driver, "spec.tokenRequests", "audience"),
        })
        .described_by(spec, "tokenRequests"),
        flag("RequiresRepublish", "spec.requiresRepublish", false).described_by(spec, "requiresRepublish"),
        text("Modes", |driver| match joined_strings(driver, "spec.volumeLifecycleModes") {
            none if none.is_empty() => "<none>".to_owned(),
            modes => modes,
        })
        .described_by(spec, "volumeLifecycleModes"),
        age(),
    ]
}

pub(super) fn node() -> Vec<Column> {
    vec![name(), length("Drivers", "spec.drivers").about("The number of drivers on the node"), age()]
}

pub(super) fn storage_class() -> Vec<Column> {
    let class = "storage.v1.StorageClass";
    vec![
        name_with(|class| {
            is_default(class, "storageclass.kubernetes.io/is-default-class")
                || is_default(class, "storageclass.beta.kubernetes.io/is-default-class")
        }),
        field("Provisioner", "provisioner", "").described_by(class, "provisioner"),
        field("ReclaimPolicy", "reclaimPolicy", "Delete").described_by(class, "reclaimPolicy"),
        field("VolumeBindingMode", "volumeBindingMode", "Immediate").described_by(class, "volumeBindingMode"),
        flag("AllowVolumeExpansion", "allowVolumeExpansion", false)
            .of_kind("string")
            .described_by(class, "allowVolumeExpansion"),
        age(),
    ]
}

pub(super) fn attachment() -> Vec<Column> {
    let spec = "storage.v1.VolumeAttachmentSpec";
    vec![
        name(),
        field("Attacher", "spec.attacher", "").with_format("name").described_by(spec, "attacher"),
        field("PV", "spec.source.persistentVolumeName", "")
            .described_by("storage.v1.VolumeAttachmentSource", "persistentVolumeName"),
        field("Node", "spec.nodeName", "").described_by(spec, "nodeName"),
        flag("Attached", "status.attached", false)
            .described_by("storage.v1.VolumeAttachmentStatus", "attached"),
        age(),
    ]
}

pub(super) fn attributes_class() -> Vec<Column> {
    vec![
        name_with(|class| is_default(class, "volumeattributesclass.kubernetes.io/is-default-class")),
        field("DriverName", "driverName", "").described_by("storage.v1.VolumeAttributesClass", "driverName"),
        age(),
    ]
}

fn is_default(class: &Value, annotation: &str) -> bool {
    let annotations = read::map(class, "metadata.annotations");
    annotations.and_then(|all| all.get(annotation)).and_then(Value::as_str) == Some("true")
}
