//! How claims and volumes change, as JSON.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use nave_client::Object;
use serde_json::{Value, json};

use crate::untyped::annotate;

/// The claim is bound, and loses its volume if that goes.
pub(super) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The binding was made here, and can be undone; a user's own is left alone.
pub(super) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The provisioner that is to make the volume of a claim.
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The size of a volume before its file system has grown.
pub(super) const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

/// The text at a path of an object, if it is not empty.
pub(super) fn text_at<K>(object: &Object<K>, path: &[&str]) -> Option<String> {
    let text: String = serde_json::from_slice(object.json_at(path)?).ok()?;
    Some(text).filter(|text| !text.is_empty())
}

/// Makes a volume a claim's. One that did not name the claim before is marked: this can be undone.
pub(super) fn bind_volume(volume: &mut Value, claim: &Object<PersistentVolumeClaim>) {
    let reference = &volume["spec"]["claimRef"];
    let is_named = reference["name"] == claim.name() && reference["namespace"] == claim.namespace();
    let has_uid = reference["uid"] == claim.uid();
    let names_none = reference["uid"].as_str().unwrap_or_default().is_empty();
    if !(is_named && (has_uid || names_none)) {
        annotate_once(volume, BOUND_BY_CONTROLLER);
    }
    if !(is_named && has_uid) {
        volume["spec"]["claimRef"] = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(),
            "name": claim.name(), "uid": claim.uid(), "resourceVersion": claim.resource_version(),
        });
    }
}

/// Undoes the binding of a volume: as far as it was made here, the rest is the user's.
pub(super) fn unbind_volume(volume: &mut Value) {
    let annotations = volume.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    let was_ours = annotations.is_some_and(|annotations| annotations.remove(BOUND_BY_CONTROLLER).is_some());
    let Some(spec) = volume["spec"].as_object_mut() else { return };
    if was_ours {
        spec.remove("claimRef");
    } else if let Some(reference) = spec.get_mut("claimRef").and_then(Value::as_object_mut) {
        reference.remove("uid");
    }
}

/// Sets the phase of a volume, and why it is in it.
pub(super) fn volume_phase(volume: &mut Value, phase: &str, message: &str) {
    if volume["status"]["phase"] == phase {
        return;
    }
    volume["status"]["phase"] = phase.into();
    match volume["status"].as_object_mut() {
        Some(status) if message.is_empty() => drop(status.remove("message")),
        _ => volume["status"]["message"] = message.into(),
    }
}

/// Makes a claim the owner of a volume.
pub(super) fn bind_claim(claim: &mut Value, volume: &str) {
    if claim["spec"]["volumeName"] != volume {
        claim["spec"]["volumeName"] = volume.into();
        annotate_once(claim, BOUND_BY_CONTROLLER);
    }
    annotate_once(claim, BIND_COMPLETED);
}

/// Puts a claim's status in the phase `Bound`, with what its volume offers.
pub(super) fn claim_bound(claim: &mut Value, volume: &Value) {
    let was = claim["status"]["phase"].clone();
    claim["status"]["accessModes"] = volume["spec"]["accessModes"].clone();
    if was == "Bound" {
        return;
    }
    claim["status"]["phase"] = "Bound".into();
    match volume["metadata"]["annotations"].get(PRE_RESIZE_CAPACITY) {
        Some(before) => claim["status"]["capacity"]["storage"] = before.clone(),
        None => claim["status"]["capacity"] = volume["spec"]["capacity"].clone(),
    }
    let class = &volume["spec"]["volumeAttributesClassName"];
    if was == "Pending" && !class.is_null() {
        claim["status"]["currentVolumeAttributesClassName"] = class.clone();
    }
}

/// Puts a claim's status in a phase in which it has no volume.
pub(super) fn claim_without_volume(claim: &mut Value, phase: &str) {
    claim["status"]["phase"] = phase.into();
    if let Some(status) = claim["status"].as_object_mut() {
        for field in ["accessModes", "capacity", "currentVolumeAttributesClassName"] {
            status.remove(field);
        }
    }
}

/// Asks a provisioner for the volume of a claim.
pub(super) fn ask_provisioner(claim: &mut Value, provisioner: &str) {
    if claim["metadata"]["annotations"][PROVISIONER] != provisioner {
        annotate(claim, BETA_PROVISIONER, provisioner);
        annotate(claim, PROVISIONER, provisioner);
    }
}

/// Gives a claim a class.
pub(super) fn assign_class(claim: &mut Value, class: &str) {
    claim["spec"]["storageClassName"] = class.into();
}

fn annotate_once(object: &mut Value, key: &str) {
    if object["metadata"]["annotations"].get(key).is_none() {
        annotate(object, key, "yes");
    }
}
