//! The next step for a volume (upstream: `syncVolume`).

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use nave_client::record::reference_of;

use super::claim::Event;
use super::matching::{self, bound_to, volume_of};
use super::plugins::{self, MIGRATED_TO, PROVISIONED_BY};
use crate::selectors::label;

/// The next step for a volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Phase(&'static str),
    /// Records events and leaves the binding to the claim's sync.
    AwaitClaim(Vec<(ObjectReference, Event)>),
    /// Undoes the binding to a claim that is bound to another volume.
    Unbind,
    /// Releases the volume and applies its reclaim policy.
    Release(Reclaim),
}

/// The handling of a released volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reclaim {
    /// Keeps the volume, or leaves its deletion to an external deleter.
    Leave,
    /// Keeps the volume and sets its phase to `Failed`, as its policy cannot be applied.
    Fail(Event),
}

/// Decides the next step for a volume. `claim` is the claim it is bound to, if that claim exists.
pub(super) fn next_step(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Step {
    if bound_to(volume).is_none() {
        return Step::Phase("Available");
    }
    let Some(claim) = claim else { return Step::Release(reclaim(volume)) };
    match volume_of(claim) {
        None if matching::has_same_mode(volume, claim) => Step::AwaitClaim(Vec::new()),
        None => Step::AwaitClaim(mode_mismatch(volume, claim)),
        Some(name) if volume.metadata.name.as_deref() == Some(name) => Step::Phase("Bound"),
        Some(_) if is_provisioned(volume) && policy(volume) == "Delete" => Step::Release(reclaim(volume)),
        Some(_) => Step::Unbind,
    }
}

/// Returns whether a volume has already been released.
pub(super) fn is_released(volume: &PersistentVolume) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Released" | "Failed"))
}

fn reclaim(volume: &PersistentVolume) -> Reclaim {
    if label(volume.metadata.annotations.as_ref(), MIGRATED_TO).is_some_and(|driver| !driver.is_empty()) {
        return Reclaim::Leave;
    }
    match policy(volume) {
        "Retain" => Reclaim::Leave,
        "Delete" => match plugins::deletion_failure(volume) {
            None => Reclaim::Leave,
            Some(why) => Reclaim::Fail(Event::warning("VolumeFailedDelete", why)),
        },
        "Recycle" => {
            Reclaim::Fail(Event::warning("VolumeFailedRecycle", "No recycler plugin found for the volume!"))
        }
        _ => Reclaim::Fail(Event::warning(
            "VolumeUnknownReclaimPolicy",
            "Volume has unrecognized PersistentVolumeReclaimPolicy",
        )),
    }
}

fn mode_mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Vec<(ObjectReference, Event)> {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let of_volume = format!(
        "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
        name(&claim.metadata.name)
    );
    let of_claim = format!(
        "Cannot bind PersistentVolume {:?} to requested PersistentVolumeClaim due to incompatible volumeMode.",
        name(&volume.metadata.name)
    );
    vec![
        (reference_of(volume), Event::warning("VolumeMismatch", of_volume)),
        (reference_of(claim), Event::warning("VolumeMismatch", of_claim)),
    ]
}

fn is_provisioned(volume: &PersistentVolume) -> bool {
    label(volume.metadata.annotations.as_ref(), PROVISIONED_BY).is_some()
}

fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}
