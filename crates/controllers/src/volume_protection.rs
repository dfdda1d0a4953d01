//! Volumes and claims on them stay until nothing uses them (upstream: `pvcprotection`, `pvprotection`): each has a
//! finalizer from its creation, which these controllers take once the object is being deleted and no longer in use.

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, ApiResource, ListParams};
use nave_client::{Action, Lister, Object, ObjectName, on_delete};

use crate::finalizers::{Due, due, put, take};
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};
use crate::pods::{claims, claims_of};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// So many pods are read at once to see whether one uses a claim.
const PAGE: u32 = 500;

/// Claims stay while a pod uses them.
pub(crate) const CLAIM_PROTECTION: Descriptor = Descriptor {
    name: "persistentvolumeclaim-protection-controller",
    alias: "pvc-protection",
    service_account: "pvc-protection-controller",
    on_by_default: true,
    workers: Workers::fixed(1),
    start: start_claims,
};

/// Volumes stay while a claim is bound to them.
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
    let mut builder = context.controller("pvcprotection");
    let (claims, pods) = (builder.informer::<PersistentVolumeClaim>(), builder.informer::<Pod>());
    builder.work_on(&claims);
    let queue = builder.queue();
    builder.watch(
        &pods,
        on_delete(move |pod| {
            for claim in claims_of(pod) {
                queue.add(ObjectName::new(pod.namespace(), &claim));
            }
        }),
    );
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
        match due(&claim, CLAIM_FINALIZER) {
            Due::Nothing => {}
            Due::Put => put(&api, &claim, CLAIM_FINALIZER).await?,
            // The cache answers for nothing, where the API might know better, only if a pod is in it.
            Due::Take if self.is_used(&claim) || self.is_used_for_sure(&claim).await? => {}
            Due::Take => take(&api, &claim, CLAIM_FINALIZER).await?,
        }
        Ok(Action::Done)
    }
}

impl ClaimProtection {
    fn is_used(&self, claim: &Object<PersistentVolumeClaim>) -> bool {
        self.pods.list_namespace(claim.namespace()).iter().any(|pod| uses(pod, claim.name()))
    }

    async fn is_used_for_sure(&self, claim: &Object<PersistentVolumeClaim>) -> Result<bool, SyncError> {
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

/// Returns whether a pod that a kubelet may have seen uses the claim. One that has no node yet will not start with a claim that
/// is being deleted.
fn uses(pod: &Object<Pod>, claim: &str) -> bool {
    let is_placed = pod.json_at(&["spec", "nodeName"]).is_some_and(|node| node != b"\"\"");
    is_placed && claims_of(pod).iter().any(|used| used == claim)
}

struct VolumeProtection {
    client: kube::Client,
    volumes: Lister<PersistentVolume>,
}

fn start_volumes(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("pvprotection");
    let volumes = builder.informer::<PersistentVolume>();
    builder.work_on(&volumes);
    builder.run(VolumeProtection { client: context.client.clone(), volumes: volumes.lister() })
}

impl Reconciler for VolumeProtection {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(volume) = self.volumes.get_by_key(&key) else { return Ok(Action::Done) };
        let api = Api::all_with(self.client.clone(), &ApiResource::erase::<PersistentVolume>(&()));
        match due(&volume, VOLUME_FINALIZER) {
            Due::Put => put(&api, &volume, VOLUME_FINALIZER).await?,
            Due::Take if !is_bound(&volume) => take(&api, &volume, VOLUME_FINALIZER).await?,
            Due::Nothing | Due::Take => {}
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
    fn a_placed_pod_uses_its_claims() {
        assert_eq!(claims_of(&pod("")), ["data", "p-b"]);
        assert!(uses(&pod("node-1"), "data") && uses(&pod("node-1"), "p-b"));
        assert!(!uses(&pod("node-1"), "other") && !uses(&pod(""), "data"));
    }

    #[test]
    fn a_volume_is_bound_by_its_phase() {
        let volume = json!({"metadata": {"name": "v"}, "status": {"phase": "Bound"}});
        assert!(is_bound(&Object::from_value(&volume).unwrap()));
        assert!(!is_bound(&Object::from_value(&json!({"metadata": {"name": "v"}})).unwrap()));
    }
}
