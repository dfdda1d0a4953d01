//! Edits of claims and volumes as JSON.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use nave_client::Object;
use serde_json::{Value, json};

use crate::untyped::annotate;

/// Annotation: the claim was bound before. The claim is lost if its volume disappears.
pub(super) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Annotation: the controller made the binding and may undo it. The controller keeps bindings made by users.
pub(super) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Annotation: the provisioner that must create the volume of a claim.
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// Annotation: the size of a volume before its file system is expanded.
pub(super) const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

/// Returns the string at a path of an object, unless it is empty.
pub(super) fn text_at<K>(object: &Object<K>, path: &[&str]) -> Option<String> {
    let text: String = serde_json::from_slice(object.json_at(path)?).ok()?;
    Some(text).filter(|text| !text.is_empty())
}

/// Binds a volume to a claim. If the volume did not refer to the claim, sets the annotation that allows the
/// controller to undo the binding.
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

/// Undoes the binding of a volume, but keeps the fields that a user has set.
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

/// Sets the phase of a volume, with a message.
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

/// Binds a claim to a volume.
pub(super) fn bind_claim(claim: &mut Value, volume: &str) {
    if claim["spec"]["volumeName"] != volume {
        claim["spec"]["volumeName"] = volume.into();
        annotate_once(claim, BOUND_BY_CONTROLLER);
    }
    annotate_once(claim, BIND_COMPLETED);
}

/// Sets a claim's phase to `Bound`, with the capacity and access modes of its volume.
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

/// Sets a claim's phase and removes the status fields that describe its volume.
pub(super) fn claim_without_volume(claim: &mut Value, phase: &str) {
    claim["status"]["phase"] = phase.into();
    if let Some(status) = claim["status"].as_object_mut() {
        for field in ["accessModes", "capacity", "currentVolumeAttributesClassName"] {
            status.remove(field);
        }
    }
}

/// Requests a volume for a claim from a provisioner.
pub(super) fn request_volume(claim: &mut Value, provisioner: &str) {
    if claim["metadata"]["annotations"][PROVISIONER] != provisioner {
        annotate(claim, BETA_PROVISIONER, provisioner);
        annotate(claim, PROVISIONER, provisioner);
    }
}

pub(super) fn assign_class(claim: &mut Value, class: &str) {
    claim["spec"]["storageClassName"] = class.into();
}

fn annotate_once(object: &mut Value, key: &str) {
    if object["metadata"]["annotations"].get(key).is_none() {
        annotate(object, key, "yes");
    }
}
