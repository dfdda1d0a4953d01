//! The reservations of a claim.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};
use kube::api::{Api, DeleteParams, Preconditions};
use nave_client::{Action, Lister, Object, ObjectName};
use serde_json::Value;

use super::{api, is_done};
use crate::api::ignore_not_found;
use crate::frame::{Reconciler, SyncError};
use crate::untyped::{UpdateTarget, update};

/// The finalizer of allocated claims. The allocator in the control plane sets it.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// Removes outdated reservations, and deallocates and deletes unused claims.
pub(super) struct Reservations {
    pub(super) client: kube::Client,
    pub(super) pods: Lister<Pod>,
    pub(super) claims: Lister<ResourceClaim>,
}

impl Reconciler for Reservations {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(seen) = self.claims.get_by_key(&key) else { return Ok(Action::Done) };
        let claim = seen.decode()?;
        let reserved = claim.status.as_ref().and_then(|status| status.reserved_for.as_deref());
        let mut ended = Vec::new();
        for consumer in reserved.unwrap_or_default() {
            if !self.is_needed(&key, consumer).await? {
                ended.push(consumer.uid.clone());
            }
        }
        let is_free = reserved.unwrap_or_default().len() == ended.len();
        self.remove_reservations(&key, seen, &ended, is_free).await?;
        if is_free {
            self.delete_unused(&key, &claim).await?;
        }
        Ok(Action::Done)
    }
}

impl Reservations {
    /// Returns whether a reservation is still needed. Reservations for consumers other than pods are always kept.
    async fn is_needed(
        &self,
        key: &ObjectName,
        consumer: &ResourceClaimConsumerReference,
    ) -> Result<bool, SyncError> {
        let group = consumer.api_group.as_deref().unwrap_or_default();
        if !group.is_empty() || consumer.resource != "pods" {
            return Ok(true);
        }
        if let Some(pod) = self.pods.get(key.namespace(), &consumer.name) {
            return Ok(pod.uid() == consumer.uid && !is_done(&pod.decode()?));
        }
        // The pod cache may be older than the claim cache.
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), key.namespace());
        let live = pods.get_opt(&consumer.name).await?;
        Ok(live.is_some_and(|pod| pod.metadata.uid.as_ref() == Some(&consumer.uid)))
    }

    /// Removes outdated reservations. Removes the allocation and the finalizer with the last reservation.
    async fn remove_reservations(
        &self,
        key: &ObjectName,
        seen: Object<ResourceClaim>,
        ended: &[String],
        is_free: bool,
    ) -> Result<(), SyncError> {
        let is_ours = seen.finalizers().any(|finalizer| finalizer == FINALIZER);
        let is_deallocated = is_free && is_ours && (seen.is_being_deleted() || !ended.is_empty());
        let api = api(&self.client, key.namespace());
        let claim =
            update(&api, seen, UpdateTarget::Status, |claim| unreserve(claim, ended, is_deallocated)).await?;
        if is_deallocated {
            update(&api, claim, UpdateTarget::Object, remove_finalizer).await?;
        }
        Ok(())
    }

    /// Deletes a generated claim after its pod is done.
    async fn delete_unused(&self, key: &ObjectName, claim: &ResourceClaim) -> Result<(), SyncError> {
        let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
        let Some(owner) = owners
            .iter()
            .find(|owner| owner.controller == Some(true) && owner.kind == "Pod" && owner.api_version == "v1")
        else {
            return Ok(());
        };
        // The garbage collector deletes the claim of a deleted pod.
        let Some(pod) = self.pods.get(key.namespace(), &owner.name) else { return Ok(()) };
        if pod.uid() == owner.uid && !is_done(&pod.decode()?) {
            return Ok(());
        }
        let preconditions = Some(Preconditions { uid: claim.metadata.uid.clone(), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        let claims: Api<ResourceClaim> = Api::namespaced(self.client.clone(), key.namespace());
        ignore_not_found(claims.delete(key.name(), &parameters).await)
    }
}

fn unreserve(claim: &mut Value, ended: &[String], is_deallocated: bool) {
    let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) else { return };
    if is_deallocated {
        status.remove("allocation");
    }
    let Some(reserved) = status.get_mut("reservedFor").and_then(Value::as_array_mut) else { return };
    reserved.retain(|consumer| {
        !consumer["uid"].as_str().is_some_and(|uid| ended.iter().any(|ended| ended == uid))
    });
    if reserved.is_empty() {
        status.remove("reservedFor");
    }
}

fn remove_finalizer(claim: &mut Value) {
    let finalizers = claim.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut);
    if let Some(finalizers) = finalizers {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn last_reservation_ends_the_allocation() {
        let mut claim = json!({"metadata": {"finalizers": ["a/b", FINALIZER]}, "status": {"allocation": {},
            "reservedFor": [{"resource": "pods", "uid": "u"}, {"resource": "pods", "uid": "v"}]}});
        unreserve(&mut claim, &["u".to_owned()], false);
        assert_eq!(
            claim["status"],
            json!({"allocation": {}, "reservedFor": [{"resource": "pods", "uid": "v"}]})
        );
        unreserve(&mut claim, &["v".to_owned()], true);
        assert_eq!(claim["status"], json!({}));
        remove_finalizer(&mut claim);
        assert_eq!(claim["metadata"]["finalizers"], json!(["a/b"]));
        let before = json!({"metadata": {}});
        let mut claim = before.clone();
        unreserve(&mut claim, &[], true);
        remove_finalizer(&mut claim);
        assert_eq!(claim, before);
    }
}
