//! Persistent volumes and the claims on them.

use nave_machinery::Value;

use crate::read;
use crate::table::{Column, age, field, name, text};

/// The annotation that named a storage class before the field did.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn volume_columns() -> Vec<Column> {
    let spec = "core.v1.PersistentVolumeSpec";
    vec![
        name(),
        field("Capacity", "spec.capacity.storage", "0").of(spec, "capacity"),
        text("Access Modes", |volume| access_modes(volume, "spec.accessModes")).of(spec, "accessModes"),
        field("Reclaim Policy", "spec.persistentVolumeReclaimPolicy", "")
            .of(spec, "persistentVolumeReclaimPolicy"),
        text("Status", phase).of("core.v1.PersistentVolumeStatus", "phase"),
        text("Claim", claim).of(spec, "claimRef"),
        text("StorageClass", class).about("The storage class of the volume"),
        field("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>")
            .about("The class of the volume's attributes"),
        field("Reason", "status.reason", "").of("core.v1.PersistentVolumeStatus", "reason"),
        age(),
        field("VolumeMode", "spec.volumeMode", "<unset>").wide().of(spec, "volumeMode"),
    ]
}

pub(super) fn claim_columns() -> Vec<Column> {
    let (spec, status) = ("core.v1.PersistentVolumeClaimSpec", "core.v1.PersistentVolumeClaimStatus");
    vec![
        name(),
        text("Status", phase).of(status, "phase"),
        field("Volume", "spec.volumeName", "").of(spec, "volumeName"),
        text("Capacity", |claim| {
            let capacity = read::text_or(claim, "status.capacity.storage", "0");
            if is_bound(claim) { capacity.to_owned() } else { String::new() }
        })
        .of(status, "capacity"),
        text("Access Modes", |claim| {
            if is_bound(claim) { access_modes(claim, "status.accessModes") } else { String::new() }
        })
        .of(status, "accessModes"),
        text("StorageClass", class).about("The storage class of the claim"),
        field("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>")
            .about("The class of the claim's volume attributes"),
        age(),
        field("VolumeMode", "spec.volumeMode", "<unset>").wide().of(spec, "volumeMode"),
    ]
}

fn is_bound(claim: &Value) -> bool {
    !read::text(claim, "spec.volumeName").is_empty()
}

fn phase(object: &Value) -> String {
    if read::is_being_deleted(object) { "Terminating" } else { read::text(object, "status.phase") }.to_owned()
}

fn claim(volume: &Value) -> String {
    let reference = read::at(volume, "spec.claimRef");
    let shown =
        reference.map(|claim| format!("{}/{}", read::text(claim, "namespace"), read::text(claim, "name")));
    shown.unwrap_or_default()
}

fn class(object: &Value) -> String {
    let annotated = read::map(object, "metadata.annotations").and_then(|all| all.get(CLASS_ANNOTATION));
    let class = annotated.and_then(Value::as_str);
    class.unwrap_or_else(|| read::text(object, "spec.storageClassName")).to_owned()
}

/// The short names of access modes, in a fixed order.
fn access_modes(object: &Value, path: &str) -> String {
    let modes = read::list(object, path);
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let shown: Vec<&str> =
        known.iter().filter(|(mode, _)| modes.iter().any(|it| it == mode)).map(|(_, short)| *short).collect();
    shown.join(",")
}
