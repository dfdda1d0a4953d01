//! Writes the changes of a step, one object at a time. The order lets the next sync continue after an interruption.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, ApiResource, DynamicObject};
use nave_client::Object;

use super::claim::{self, Event};
use super::edit;
use super::volume::{Reclaim, is_released};
use crate::frame::{EventRecorder, SyncError, reference_of};
use crate::untyped::{UpdateTarget, update};

pub(super) struct Writer {
    pub(super) client: kube::Client,
    pub(super) events: EventRecorder,
}

type Claim = Object<PersistentVolumeClaim>;
type Volume = Object<PersistentVolume>;

impl Writer {
    /// Binds a volume to a claim, or completes the binding.
    pub(super) async fn bind(&self, volume: Volume, claim: Claim) -> Result<(), SyncError> {
        let volumes = self.volumes();
        let volume =
            update(&volumes, volume, UpdateTarget::Object, |it| edit::bind_volume(it, &claim)).await?;
        let volume = self.phase(volume, "Bound", "").await?;
        let claims = self.claims(claim.namespace());
        let claim =
            update(&claims, claim, UpdateTarget::Object, |it| edit::bind_claim(it, volume.name())).await?;
        let cached = serde_json::from_slice(volume.json())?;
        update(&claims, claim, UpdateTarget::Status, |it| edit::claim_bound(it, &cached)).await?;
        Ok(())
    }

    pub(super) async fn phase(
        &self,
        volume: Volume,
        phase: &str,
        message: &str,
    ) -> Result<Volume, SyncError> {
        update(&self.volumes(), volume, UpdateTarget::Status, |it| edit::volume_phase(it, phase, message))
            .await
    }

    pub(super) async fn unbind(&self, volume: Volume) -> Result<(), SyncError> {
        let volume = update(&self.volumes(), volume, UpdateTarget::Object, edit::unbind_volume).await?;
        self.phase(volume, "Available", "").await?;
        Ok(())
    }

    /// Releases a volume. Records an event if its reclaim policy cannot be applied.
    pub(super) async fn release(
        &self,
        cached: Volume,
        volume: &PersistentVolume,
        reclaim: Reclaim,
    ) -> Result<(), SyncError> {
        let cached = if is_released(volume) { cached } else { self.phase(cached, "Released", "").await? };
        let Reclaim::Fail(event) = reclaim else { return Ok(()) };
        let is_told = edit::text_at(&cached, &["status", "phase"]).as_deref() == Some("Failed");
        if !is_told {
            self.phase(cached, "Failed", &event.message).await?;
            self.record_on(&reference_of(volume), &event);
        }
        Ok(())
    }

    /// Marks a claim as lost and records an event, unless the claim is already lost.
    pub(super) async fn lose(&self, cached: Claim, event: &Event) -> Result<(), SyncError> {
        if edit::text_at(&cached, &["status", "phase"]).as_deref() == Some("Lost") {
            return Ok(());
        }
        let reference = reference_of(&cached.decode()?);
        let claims = self.claims(cached.namespace());
        update(&claims, cached, UpdateTarget::Status, |it| edit::claim_without_volume(it, "Lost")).await?;
        self.record_on(&reference, event);
        Ok(())
    }

    /// Sets the phase of a claim to `Pending`.
    pub(super) async fn wait(&self, cached: Claim, event: Option<Event>) -> Result<(), SyncError> {
        if let Some(event) = event {
            self.record(&cached.decode()?, &event);
        }
        let claims = self.claims(cached.namespace());
        update(&claims, cached, UpdateTarget::Status, |it| edit::claim_without_volume(it, "Pending")).await?;
        Ok(())
    }

    /// Sets the class of a claim.
    pub(super) async fn assign_class(&self, cached: Claim, class: &str) -> Result<(), SyncError> {
        let claims = self.claims(cached.namespace());
        update(&claims, cached, UpdateTarget::Object, |it| edit::assign_class(it, class)).await?;
        Ok(())
    }

    /// Requests a volume for a claim from a provisioner.
    pub(super) async fn provision(&self, cached: Claim, provisioner: &str) -> Result<(), SyncError> {
        let claim = cached.decode()?;
        let claims = self.claims(cached.namespace());
        let updated =
            update(&claims, cached, UpdateTarget::Object, |it| edit::request_volume(it, provisioner)).await;
        if let Err(error) = updated {
            self.record(
                &claim,
                &Event::warning("ProvisioningFailed", format!("Error saving claim: {error}")),
            );
            return Err(error);
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by \
             the system administrator. If volume creation is delayed, please verify that the provisioner is running \
             and correctly registered."
        );
        self.record(&claim, &Event::normal("ExternalProvisioning", message));
        tracing::debug!(claim = claim::key(&claim), provisioner, "waiting for a volume");
        Ok(())
    }

    /// Records an event on a claim.
    pub(super) fn record(&self, claim: &PersistentVolumeClaim, event: &Event) {
        self.record_on(&reference_of(claim), event);
    }

    /// Records an event on any object.
    pub(super) fn record_on(&self, object: &ObjectReference, event: &Event) {
        self.events.record(object, event.kind, event.reason, &event.message);
    }

    /// Reads a claim live.
    pub(super) async fn live_claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<PersistentVolumeClaim>, SyncError> {
        Ok(Api::namespaced(self.client.clone(), namespace).get_opt(name).await?)
    }

    /// Reads a volume live.
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
