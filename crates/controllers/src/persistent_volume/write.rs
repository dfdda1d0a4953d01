//! Carries out the steps: one change of an object after the other, so that an interruption leaves a state from which
//! the next sync goes on.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, ApiResource, DynamicObject};
use nave_client::Object;

use super::claim::{self, Event};
use super::edit;
use super::volume::{Reclaim, is_released};
use crate::frame::{EventRecorder, SyncError, reference_of};
use crate::untyped::{Part, update};

/// Writes claims, volumes and their events.
pub(super) struct Writer {
    pub(super) client: kube::Client,
    pub(super) events: EventRecorder,
}

type Claim = Object<PersistentVolumeClaim>;
type Volume = Object<PersistentVolume>;

impl Writer {
    /// Binds a volume to a claim, or finishes that.
    pub(super) async fn bind(&self, volume: Volume, claim: Claim) -> Result<(), SyncError> {
        let volumes = self.volumes();
        let volume = update(&volumes, volume, Part::Object, |it| edit::bind_volume(it, &claim)).await?;
        let volume = self.phase(volume, "Bound", "").await?;
        let claims = self.claims(claim.namespace());
        let claim = update(&claims, claim, Part::Object, |it| edit::bind_claim(it, volume.name())).await?;
        let seen = serde_json::from_slice(volume.json())?;
        update(&claims, claim, Part::Status, |it| edit::claim_bound(it, &seen)).await?;
        Ok(())
    }

    /// Sets the phase of a volume.
    pub(super) async fn phase(
        &self,
        volume: Volume,
        phase: &str,
        message: &str,
    ) -> Result<Volume, SyncError> {
        update(&self.volumes(), volume, Part::Status, |it| edit::volume_phase(it, phase, message)).await
    }

    /// Undoes the binding of a volume.
    pub(super) async fn unbind(&self, volume: Volume) -> Result<(), SyncError> {
        let volume = update(&self.volumes(), volume, Part::Object, edit::unbind_volume).await?;
        self.phase(volume, "Available", "").await?;
        Ok(())
    }

    /// Releases a volume, and says so where nothing here can do as its policy says.
    pub(super) async fn release(
        &self,
        seen: Volume,
        volume: &PersistentVolume,
        reclaim: Reclaim,
    ) -> Result<(), SyncError> {
        let seen = if is_released(volume) { seen } else { self.phase(seen, "Released", "").await? };
        let Reclaim::Fail(event) = reclaim else { return Ok(()) };
        let is_told = edit::text_at(&seen, &["status", "phase"]).as_deref() == Some("Failed");
        if !is_told {
            self.phase(seen, "Failed", &event.message).await?;
            self.tell_of(&reference_of(volume), &event);
        }
        Ok(())
    }

    /// Says that a claim has lost its volume, once.
    pub(super) async fn lose(&self, seen: Claim, event: &Event) -> Result<(), SyncError> {
        if edit::text_at(&seen, &["status", "phase"]).as_deref() == Some("Lost") {
            return Ok(());
        }
        let reference = reference_of(&seen.decode()?);
        let claims = self.claims(seen.namespace());
        update(&claims, seen, Part::Status, |it| edit::claim_without_volume(it, "Lost")).await?;
        self.tell_of(&reference, event);
        Ok(())
    }

    /// Has a claim pending.
    pub(super) async fn wait(&self, seen: Claim, event: Option<Event>) -> Result<(), SyncError> {
        if let Some(event) = event {
            self.tell(&seen.decode()?, &event);
        }
        let claims = self.claims(seen.namespace());
        update(&claims, seen, Part::Status, |it| edit::claim_without_volume(it, "Pending")).await?;
        Ok(())
    }

    /// Gives a claim a class.
    pub(super) async fn assign_class(&self, seen: Claim, class: &str) -> Result<(), SyncError> {
        let claims = self.claims(seen.namespace());
        update(&claims, seen, Part::Object, |it| edit::assign_class(it, class)).await?;
        Ok(())
    }

    /// Asks a provisioner for the volume of a claim.
    pub(super) async fn provision(&self, seen: Claim, provisioner: &str) -> Result<(), SyncError> {
        let claim = seen.decode()?;
        let claims = self.claims(seen.namespace());
        let asked = update(&claims, seen, Part::Object, |it| edit::ask_provisioner(it, provisioner)).await;
        if let Err(error) = asked {
            self.tell(&claim, &Event::warning("ProvisioningFailed", format!("Error saving claim: {error}")));
            return Err(error);
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by \
             the system administrator. If volume creation is delayed, please verify that the provisioner is running \
             and correctly registered."
        );
        self.tell(&claim, &Event::normal("ExternalProvisioning", message));
        tracing::debug!(claim = claim::key(&claim), provisioner, "waiting for a volume");
        Ok(())
    }

    /// Records an event of a claim.
    pub(super) fn tell(&self, claim: &PersistentVolumeClaim, event: &Event) {
        self.tell_of(&reference_of(claim), event);
    }

    /// Records an event.
    pub(super) fn tell_of(&self, object: &ObjectReference, event: &Event) {
        self.events.record(object, event.kind, event.reason, &event.message);
    }

    /// The claim, from the API.
    pub(super) async fn live_claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<PersistentVolumeClaim>, SyncError> {
        Ok(Api::namespaced(self.client.clone(), namespace).get_opt(name).await?)
    }

    /// The volume, from the API.
    pub(super) async fn live_volume(&self, name: &str) -> Result<Option<PersistentVolume>, SyncError> {
        Ok(Api::all(self.client.clone()).get_opt(name).await?)
    }

    fn volumes(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &ApiResource::erase::<PersistentVolume>(&()))
    }

    fn claims(&self, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<PersistentVolumeClaim>(&());
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }
}
