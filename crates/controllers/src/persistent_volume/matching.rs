//! Matches volumes with claims (upstream: `component-helpers/storage/volume`).

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WrittenQuantity;
use nave_client::Object;
use nave_machinery::quantity::Quantity;

use super::edit::text_at;
use crate::frame::SyncError;
use crate::selectors::{self, label};

/// The legacy annotation for the storage class.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The claim that a volume is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BoundTo<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
}

/// Returns the claim that a volume is bound to. A reference without a UID only reserves the volume.
pub(super) fn bound_to(volume: &PersistentVolume) -> Option<BoundTo<'_>> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(BoundTo {
        namespace: text(reference.namespace.as_ref()),
        name: text(reference.name.as_ref()),
        uid: reference.uid.as_deref().filter(|uid| !uid.is_empty())?,
    })
}

/// Returns whether a volume refers to a claim. Compares the UID if the reference has one.
pub(super) fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    let is_named =
        (text(reference.namespace.as_ref()), text(reference.name.as_ref())) == namespace_and_name(claim);
    let uid = text(reference.uid.as_ref());
    is_named && (uid.is_empty() || uid == text(claim.metadata.uid.as_ref()))
}

/// Returns the namespace and name of a claim.
pub(super) fn namespace_and_name(claim: &PersistentVolumeClaim) -> (&str, &str) {
    (text(claim.metadata.namespace.as_ref()), text(claim.metadata.name.as_ref()))
}

/// Returns the name of the volume in a claim's spec.
pub(super) fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// Returns the class of a claim; empty if it has no class.
pub(super) fn claim_class(claim: &PersistentVolumeClaim) -> &str {
    let field = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    beta_class(claim.metadata.annotations.as_ref()).unwrap_or(text(field))
}

/// Returns whether a claim specifies a class, including the empty class.
pub(super) fn has_class(claim: &PersistentVolumeClaim) -> bool {
    beta_class(claim.metadata.annotations.as_ref()).is_some()
        || claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_some())
}

/// Returns the class of a volume; empty if it has no class.
fn volume_class(volume: &PersistentVolume) -> &str {
    let field = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    beta_class(volume.metadata.annotations.as_ref()).unwrap_or(text(field))
}

/// Returns the class of a volume or claim without decoding the object.
pub(super) fn class_in<K>(object: &Object<K>) -> String {
    let beta = object.annotation(BETA_CLASS);
    beta.or_else(|| text_at(object, &["spec", "storageClassName"])).unwrap_or_default()
}

fn beta_class(annotations: Option<&BTreeMap<String, String>>) -> Option<&str> {
    label(annotations, BETA_CLASS)
}

/// Returns the best volume for a claim. Prefers a volume that refers to the claim, regardless of class and labels;
/// otherwise prefers the matching volume with the fewest access modes, then the smallest one. A claim that waits
/// for its first consumer only gets a volume that refers to it.
///
/// # Errors
/// The selector is invalid.
pub(super) fn best(
    claim: &PersistentVolumeClaim,
    volumes: Vec<PersistentVolume>,
    waits_for_consumer: bool,
) -> Result<Option<PersistentVolume>, SyncError> {
    let written = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = written.map(selectors::parse).transpose()?;
    let fits = |volume: &PersistentVolume| {
        if !is_large_enough(volume, claim)
            || !has_same_attributes(volume, claim)
            || !has_access_modes(volume, claim)
        {
            return false;
        }
        if is_for(volume, claim) {
            return true;
        }
        let is_selected = selector
            .as_ref()
            .is_none_or(|selector| selector.matches(|key| label(volume.metadata.labels.as_ref(), key)));
        !waits_for_consumer && is_free(volume) && is_selected && volume_class(volume) == claim_class(claim)
    };
    let order = |a: &PersistentVolume, b: &PersistentVolume| -> Ordering {
        let modes = |volume| access_modes(volume).collect::<HashSet<_>>().len();
        (modes(a).cmp(&modes(b)))
            .then_with(|| is_for(b, claim).cmp(&is_for(a, claim)))
            .then_with(|| capacity(a).partial_cmp(&capacity(b)).unwrap_or(Ordering::Equal))
            .then_with(|| a.metadata.name.cmp(&b.metadata.name))
    };
    Ok(volumes.into_iter().filter(fits).min_by(order))
}

/// Returns a message that explains why a claim cannot be bound to the volume it names.
pub(super) fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    if volume.metadata.deletion_timestamp.is_some() {
        let name = text(volume.metadata.name.as_ref());
        return Some(format!("the volume is marked for deletion {name:?}"));
    }
    let whys = [
        (capacity(volume).value() < requested(claim).value(), "requested PV is too small"),
        (volume_class(volume) != claim_class(claim), "storageClassName does not match"),
        (
            attributes_class(volume) != requested_attributes_class(claim),
            "volumeAttributesClassName does not match",
        ),
        (!has_same_mode(volume, claim), "incompatible volumeMode"),
        (!has_access_modes(volume, claim), "incompatible accessMode"),
    ];
    whys.into_iter().find(|(holds, _)| *holds).map(|(_, why)| why.to_owned())
}

/// Returns whether a volume and a claim have the same volume mode.
pub(super) fn has_same_mode(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let mode = |written: Option<&String>| written.map_or("Filesystem", String::as_str).to_owned();
    mode(spec(volume).and_then(|spec| spec.volume_mode.as_ref()))
        == mode(claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref()))
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    storage(spec(volume).and_then(|spec| spec.capacity.as_ref()))
}

/// Returns the storage that a claim requests.
pub(super) fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref()))
}

/// Returns the amount of storage in a resource list; zero if the list has no storage.
pub(super) fn storage(list: Option<&BTreeMap<String, WrittenQuantity>>) -> Quantity {
    let written = list.and_then(|list| list.get("storage"));
    written.and_then(|written| Quantity::parse(&written.0).ok()).unwrap_or(Quantity::ZERO)
}

fn is_large_enough(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    capacity(volume) >= requested(claim)
}

fn has_same_attributes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    has_same_mode(volume, claim)
        && attributes_class(volume) == requested_attributes_class(claim)
        && volume.metadata.deletion_timestamp.is_none()
}

fn is_free(volume: &PersistentVolume) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Available") && spec(volume).is_some_and(|spec| spec.claim_ref.is_none())
}

fn has_access_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    wanted.into_iter().flatten().all(|mode| access_modes(volume).any(|has| has == mode))
}

fn access_modes(volume: &PersistentVolume) -> impl Iterator<Item = &String> {
    spec(volume).and_then(|spec| spec.access_modes.as_ref()).into_iter().flatten()
}

fn attributes_class(volume: &PersistentVolume) -> &str {
    text(spec(volume).and_then(|spec| spec.volume_attributes_class_name.as_ref()))
}

fn requested_attributes_class(claim: &PersistentVolumeClaim) -> &str {
    text(claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_ref()))
}

fn spec(volume: &PersistentVolume) -> Option<&PersistentVolumeSpec> {
    volume.spec.as_ref()
}

fn text(field: Option<&String>) -> &str {
    field.map(String::as_str).unwrap_or_default()
}
