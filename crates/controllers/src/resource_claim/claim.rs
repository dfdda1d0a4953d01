//! The reservations of a claim.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};
use kube::api::{Api, DeleteParams, Preconditions};
use nave_client::{Action, Lister, Object, ObjectName};
use serde_json::Value;

use super::{api, is_done};
use crate::api::gone_is_fine;
use crate::frame::{Reconciler, SyncError};
use crate::untyped::{Part, update};

/// The finalizer of claims that this controller frees, as the allocator of claims in the control plane sets it.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// Ends reservations, and frees and deletes claims that nothing needs.
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
        self.free(&key, seen, &ended, is_free).await?;
        if is_free {
            self.delete_unused(&key, &claim).await?;
        }
        Ok(Action::Done)
    }
}

impl Reservations {
    /// True if a reservation still stands. What is not a pod's is left to who made it.
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
        // The cache may know the claim and not yet the pod.
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), key.namespace());
        let live = pods.get_opt(&consumer.name).await?;
        Ok(live.is_some_and(|pod| pod.metadata.uid.as_ref() == Some(&consumer.uid)))
    }

    /// Takes the reservations that have ended; the allocation and the finalizer with the last of them.
    async fn free(
        &self,
        key: &ObjectName,
        seen: Object<ResourceClaim>,
        ended: &[String],
        is_free: bool,
    ) -> Result<(), SyncError> {
        let is_ours = seen.finalizers().any(|finalizer| finalizer == FINALIZER);
        let is_ending = is_free && is_ours && (seen.is_being_deleted() || !ended.is_empty());
        let api = api(&self.client, key.namespace());
        let claim = update(&api, seen, Part::Status, |claim| unreserve(claim, ended, is_ending)).await?;
        if is_ending {
            update(&api, claim, Part::Object, take_finalizer).await?;
        }
        Ok(())
    }

    /// Deletes a claim that was made for a pod which is done.
    async fn delete_unused(&self, key: &ObjectName, claim: &ResourceClaim) -> Result<(), SyncError> {
        let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
        let is_pod = |kind: &str, api_version: &str| kind == "Pod" && api_version == "v1";
        let mut owners = owners.iter().filter(|owner| owner.controller == Some(true));
        let Some(owner) = owners.find(|owner| is_pod(&owner.kind, &owner.api_version)) else { return Ok(()) };
        // The claim of a pod that is gone is the garbage collector's.
        let Some(pod) = self.pods.get(key.namespace(), &owner.name) else { return Ok(()) };
        if pod.uid() == owner.uid && !is_done(&pod.decode()?) {
            return Ok(());
        }
        let preconditions = Some(Preconditions { uid: claim.metadata.uid.clone(), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        let claims: Api<ResourceClaim> = Api::namespaced(self.client.clone(), key.namespace());
        gone_is_fine(claims.delete(key.name(), &parameters).await)
    }
}

fn unreserve(claim: &mut Value, ended: &[String], is_ending: bool) {
    let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) else { return };
    if is_ending {
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

fn take_finalizer(claim: &mut Value) {
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
    fn reservations_end_one_by_one_and_the_allocation_with_the_last() {
        let mut claim = json!({"metadata": {"finalizers": ["a/b", FINALIZER]}, "status": {"allocation": {},
            "reservedFor": [{"resource": "pods", "uid": "u"}, {"resource": "pods", "uid": "v"}]}});
        unreserve(&mut claim, &["u".to_owned()], false);
        assert_eq!(
            claim["status"],
            json!({"allocation": {}, "reservedFor": [{"resource": "pods", "uid": "v"}]})
        );
        unreserve(&mut claim, &["v".to_owned()], true);
        assert_eq!(claim["status"], json!({}));
        take_finalizer(&mut claim);
        assert_eq!(claim["metadata"]["finalizers"], json!(["a/b"]));
        let before = json!({"metadata": {}});
        let mut claim = before.clone();
        unreserve(&mut claim, &[], true);
        take_finalizer(&mut claim);
        assert_eq!(claim, before);
    }
}
