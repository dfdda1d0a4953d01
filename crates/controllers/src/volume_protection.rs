//! Protects volumes and claims in use (upstream: `pvcprotection`, `pvprotection`). Each object has a finalizer,
//! which these controllers remove when the object is being deleted and no longer in use.

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, ApiResource, ListParams};
use nave_client::{Action, Lister, Object, ObjectName};

use crate::finalizers::{FinalizerAction, add_finalizer, finalizer_action, remove_finalizer};
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};
use crate::pods::{claims, claims_of};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// The page size when listing pods live.
const PAGE: u32 = 500;

pub(crate) const CLAIM_PROTECTION: Descriptor = Descriptor {
    name: "persistentvolumeclaim-protection-controller",
    alias: "pvc-protection",
    service_account: "pvc-protection-controller",
    on_by_default: true,
    workers: Workers::fixed(1),
    start: start_claims,
};

pub(crate) const VOLUME_PROTECTION: Descriptor = Descriptor {
    name: "persistentvolume-protection-controller",
    alias: "pv-protection",
    service_account: "pv-protection-controller",
    on_by_default: true,
    workers: Workers::fixed(1),
    start: start_volumes,
};

struct ClaimProtection {
    client: kube::Client,
    claims: Lister<PersistentVolumeClaim>,
    pods: Lister<Pod>,
}

fn start_claims(context: &Context) -> BoxFuture<'static, ()> {
    let (mut builder, claims) = context.controller_for::<PersistentVolumeClaim>("pvcprotection");
    let pods = builder.informer::<Pod>();
    builder.enqueue_mapped_on_delete(&pods, |pod| {
        claims_of(pod).iter().map(|claim| ObjectName::new(pod.namespace(), claim)).collect::<Vec<_>>()
    });
    let client = context.client.clone();
    builder.run(ClaimProtection { client, claims: claims.lister(), pods: pods.lister() })
}

impl Reconciler for ClaimProtection {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(claim) = self.claims.get_by_key(&key) else { return Ok(Action::Done) };
        let api = Api::namespaced_with(
            self.client.clone(),
            key.namespace(),
            &ApiResource::erase::<PersistentVolumeClaim>(&()),
        );
        match finalizer_action(&claim, CLAIM_FINALIZER) {
            FinalizerAction::Nothing => {}
            FinalizerAction::Add => add_finalizer(&api, &claim, CLAIM_FINALIZER).await?,
            // A pod in the cache proves that the claim is in use. Its absence must be confirmed by a live list.
            FinalizerAction::Remove if self.is_used(&claim) || self.is_used_by_live_list(&claim).await? => {}
            FinalizerAction::Remove => remove_finalizer(&api, &claim, CLAIM_FINALIZER).await?,
        }
        Ok(Action::Done)
    }
}

impl ClaimProtection {
    fn is_used(&self, claim: &Object<PersistentVolumeClaim>) -> bool {
        self.pods.list_namespace(claim.namespace()).iter().any(|pod| uses(pod, claim.name()))
    }

    async fn is_used_by_live_list(&self, claim: &Object<PersistentVolumeClaim>) -> Result<bool, SyncError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), claim.namespace());
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = pods.list(&page).await?;
            for pod in list.items {
                let (name, spec) = (pod.metadata.name.unwrap_or_default(), pod.spec.unwrap_or_default());
                let is_placed = spec.node_name.is_some_and(|node| !node.is_empty());
                let used = claims(&name, spec.volumes.unwrap_or_default());
                if is_placed && used.iter().any(|used| used == claim.name()) {
                    return Ok(true);
                }
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(false),
            }
        }
    }
}

/// Returns whether a pod uses the claim and may be running. A pod without a node cannot start with a claim that is
/// being deleted.
fn uses(pod: &Object<Pod>, claim: &str) -> bool {
    let is_placed = pod.json_at(&["spec", "nodeName"]).is_some_and(|node| node != b"\"\"");
    is_placed && claims_of(pod).iter().any(|used| used == claim)
}

struct VolumeProtection {
    client: kube::Client,
    volumes: Lister<PersistentVolume>,
}

fn start_volumes(context: &Context) -> BoxFuture<'static, ()> {
    let (builder, volumes) = context.controller_for::<PersistentVolume>("pvprotection");
    builder.run(VolumeProtection { client: context.client.clone(), volumes: volumes.lister() })
}

impl Reconciler for VolumeProtection {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(volume) = self.volumes.get_by_key(&key) else { return Ok(Action::Done) };
        let api = Api::all_with(self.client.clone(), &ApiResource::erase::<PersistentVolume>(&()));
        match finalizer_action(&volume, VOLUME_FINALIZER) {
            FinalizerAction::Add => add_finalizer(&api, &volume, VOLUME_FINALIZER).await?,
            FinalizerAction::Remove if !is_bound(&volume) => {
                remove_finalizer(&api, &volume, VOLUME_FINALIZER).await?;
            }
            FinalizerAction::Nothing | FinalizerAction::Remove => {}
        }
        Ok(Action::Done)
    }
}

fn is_bound(volume: &Object<PersistentVolume>) -> bool {
    volume.json_at(&["status", "phase"]) == Some(b"\"Bound\"")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(node: &str) -> Object<Pod> {
        let volumes = json!([
            {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            {"name": "c", "emptyDir": {}},
        ]);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [], "nodeName": node, "volumes": volumes},
        });
        Object::from_value(&pod).unwrap()
    }

    #[test]
    fn scheduled_pod_uses_its_claims() {
        assert_eq!(claims_of(&pod("")), ["data", "p-b"]);
        assert!(uses(&pod("node-1"), "data") && uses(&pod("node-1"), "p-b"));
        assert!(!uses(&pod("node-1"), "other") && !uses(&pod(""), "data"));
    }

    #[test]
    fn volume_in_phase_bound_is_in_use() {
        let volume = json!({"metadata": {"name": "v"}, "status": {"phase": "Bound"}});
        assert!(is_bound(&Object::from_value(&volume).unwrap()));
        assert!(!is_bound(&Object::from_value(&json!({"metadata": {"name": "v"}})).unwrap()));
    }
}
