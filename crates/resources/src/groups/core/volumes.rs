//! Persistent volumes and claims.

use nave_machinery::{Map, Value, time};
use serde_json::json;

use super::claims::CLASS_ANNOTATION;
use super::{claims, persistent_volumes, pod_spec::defaults::host_path};
use crate::defaults::{object, object_at, set, set_absent};
use crate::read;
use crate::strategy::Strategy;
use crate::table::{Column, age, field, name, text};
use crate::validate::Errors;

/// The strategy of persistent volumes.
pub(super) struct VolumeStrategy;

impl Strategy for VolumeStrategy {
    fn default(&self, volume: &mut Value, _version: &str) {
        let Some(fields) = volume.as_object_mut() else { return };
        if let Some(spec) = object(fields, "spec") {
            set(spec, "persistentVolumeReclaimPolicy", "Retain");
            set_absent(spec, "volumeMode", "Filesystem");
            if let Some(source) = object_at(spec, &["hostPath"]) {
                host_path(source);
            }
        }
        if let Some(status) = object(fields, "status") {
            set(status, "phase", "Pending");
        }
    }

    fn prepare_for_create(&self, volume: &mut Value) {
        let status = json!({"phase": "Pending", "lastPhaseTransitionTime": time::now().rfc3339()});
        if let Some(fields) = volume.as_object_mut() {
            fields.insert("status".to_owned(), status);
        }
    }

    fn validate(&self, volume: &Value) -> Errors {
        persistent_volumes::volume(volume)
    }

    fn validate_update(&self, volume: &Value, old: &Value) -> Errors {
        persistent_volumes::volume_update(volume, old)
    }

    fn prepare_for_status_update(&self, volume: &mut Value, old: &Value) {
        let changed = read::text(volume, "status.phase") != read::text(old, "status.phase");
        let dated = read::value_at(volume, "status.lastPhaseTransitionTime")
            != read::value_at(old, "status.lastPhaseTransitionTime");
        if changed
            && !dated
            && let Some(status) = volume.as_object_mut().and_then(|volume| object(volume, "status"))
        {
            status.insert("lastPhaseTransitionTime".to_owned(), json!(time::now().rfc3339()));
        }
    }

    fn warnings(&self, volume: &Value, _old: Option<&Value>) -> Vec<String> {
        persistent_volumes::warnings(volume)
    }
}

/// The strategy of claims.
pub(super) struct ClaimStrategy;

impl Strategy for ClaimStrategy {
    fn default(&self, claim: &mut Value, _version: &str) {
        if let Some(fields) = claim.as_object_mut() {
            claim_defaults(fields);
        }
    }

    /// kube-apiserver stores new claims without their phase.
    fn is_defaulted_on_read(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, claim: &mut Value) {
        if let Some(fields) = claim.as_object_mut() {
            fields.insert("status".to_owned(), json!({"phase": "Pending"}));
        }
        claims::normalize_data_source(claim, None);
    }

    fn prepare_for_update(&self, claim: &mut Value, old: &Value) {
        claims::normalize_data_source(claim, Some(old));
    }

    fn validate(&self, claim: &Value) -> Errors {
        claims::claim(claim)
    }

    fn validate_update(&self, claim: &Value, old: &Value) -> Errors {
        claims::claim_update(claim, old)
    }

    fn validate_status_update(&self, claim: &Value, _old: &Value) -> Errors {
        claims::claim_status_update(claim)
    }

    fn warnings(&self, claim: &Value, _old: Option<&Value>) -> Vec<String> {
        claims::warnings(claim)
    }
}

/// Sets the defaults of a claim or of a stateful set's claim template.
pub(crate) fn claim_defaults(claim: &mut Map) {
    if let Some(spec) = object(claim, "spec") {
        set_absent(spec, "volumeMode", "Filesystem");
    }
    if let Some(status) = object(claim, "status") {
        set(status, "phase", "Pending");
    }
}

pub(super) fn volume_columns() -> Vec<Column> {
    let spec = "core.v1.PersistentVolumeSpec";
    vec![
        name(),
        field("Capacity", "spec.capacity.storage", "0").described_by(spec, "capacity"),
        text("Access Modes", |volume| access_modes(volume, "spec.accessModes"))
            .described_by(spec, "accessModes"),
        field("Reclaim Policy", "spec.persistentVolumeReclaimPolicy", "")
            .described_by(spec, "persistentVolumeReclaimPolicy"),
        text("Status", phase).described_by("core.v1.PersistentVolumeStatus", "phase"),
        text("Claim", claim).described_by(spec, "claimRef"),
        text("StorageClass", class).about("The storage class of the volume"),
        field("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>")
            .about("The volume attributes class of the volume"),
        field("Reason", "status.reason", "").described_by("core.v1.PersistentVolumeStatus", "reason"),
        age(),
        field("VolumeMode", "spec.volumeMode", "<unset>").wide().described_by(spec, "volumeMode"),
    ]
}

pub(super) fn claim_columns() -> Vec<Column> {
    let (spec, status) = ("core.v1.PersistentVolumeClaimSpec", "core.v1.PersistentVolumeClaimStatus");
    vec![
        name(),
        text("Status", phase).described_by(status, "phase"),
        field("Volume", "spec.volumeName", "").described_by(spec, "volumeName"),
        text("Capacity", |claim| {
            let capacity = read::text_or(claim, "status.capacity.storage", "0");
            if is_bound(claim) { capacity.to_owned() } else { String::new() }
        })
        .described_by(status, "capacity"),
        text("Access Modes", |claim| {
            if is_bound(claim) { access_modes(claim, "status.accessModes") } else { String::new() }
        })
        .described_by(status, "accessModes"),
        text("StorageClass", class).about("The storage class of the claim"),
        field("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>")
            .about("The volume attributes class of the claim"),
        age(),
        field("VolumeMode", "spec.volumeMode", "<unset>").wide().described_by(spec, "volumeMode"),
    ]
}

fn is_bound(claim: &Value) -> bool {
    !read::text(claim, "spec.volumeName").is_empty()
}

fn phase(object: &Value) -> String {
    if read::is_being_deleted(object) { "Terminating" } else { read::text(object, "status.phase") }.to_owned()
}

fn claim(volume: &Value) -> String {
    let reference = read::value_at(volume, "spec.claimRef");
    let shown =
        reference.map(|claim| format!("{}/{}", read::text(claim, "namespace"), read::text(claim, "name")));
    shown.unwrap_or_default()
}

fn class(object: &Value) -> String {
    let annotated = read::map(object, "metadata.annotations").and_then(|all| all.get(CLASS_ANNOTATION));
    let class = annotated.and_then(Value::as_str);
    class.unwrap_or_else(|| read::text(object, "spec.storageClassName")).to_owned()
}

/// Returns the abbreviated access modes in a fixed order.
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
