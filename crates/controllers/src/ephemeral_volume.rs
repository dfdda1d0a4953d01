//! Ephemeral volume controller: creates the claims for the ephemeral volumes of pods (upstream:
//! `volume/ephemeral`).

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{EphemeralVolumeSource, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, PostParams};
use nave_client::{Action, Lister, Object, ObjectName, on_change};

use crate::frame::{
    Context, Descriptor, EventKind, EventRecorder, Reconciler, SyncError, Workers, reference_of,
};
use crate::owners::controller_of;
use crate::pods;

pub(crate) const EPHEMERAL_VOLUME: Descriptor = Descriptor {
    name: "ephemeral-volume-controller",
    alias: "ephemeral-volume",
    service_account: "ephemeral-volume-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-ephemeralvolume-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("ephemeral_volume");
    let (pods, claims) = (builder.informer::<Pod>(), builder.informer::<PersistentVolumeClaim>());
    pods::index_by_volume_claim(&pods);
    let queue = builder.queue();
    // A pod's volumes are immutable, so its updates are ignored.
    builder.add_handler(
        &pods,
        on_change(
            |_, _| false,
            move |pod| {
                if has_ephemeral_volumes(pod) {
                    queue.add(pod.key());
                }
            },
        ),
    );
    let lister = pods.lister();
    builder.enqueue_mapped_on_delete(&claims, move |claim| {
        let users = pods::mounting(&lister, &claim.key()).into_iter();
        users.filter(has_ephemeral_volumes).map(|pod| pod.key()).collect::<Vec<_>>()
    });
    builder.run(Controller {
        client: context.client.clone(),
        events: context.events.with_component("ephemeral_volume"),
        pods: pods.lister(),
        claims: claims.lister(),
    })
}

fn has_ephemeral_volumes(pod: &Object<Pod>) -> bool {
    let volumes = pod.json_at(&["spec", "volumes"]).unwrap_or_default();
    !pod.is_being_deleted() && memchr::memmem::find(volumes, b"\"ephemeral\"").is_some()
}

struct Controller {
    client: kube::Client,
    events: EventRecorder,
    pods: Lister<Pod>,
    claims: Lister<PersistentVolumeClaim>,
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(pod) = self.pods.get_by_key(&key).filter(has_ephemeral_volumes) else {
            return Ok(Action::Done);
        };
        let pod = pod.decode()?;
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        for volume in volumes {
            let Some(source) = &volume.ephemeral else { continue };
            if let Err(error) = self.ensure(&key, &pod, &volume.name, source).await {
                let message = format!("ephemeral volume {}: {error}", volume.name);
                self.events.record(&reference_of(&pod), EventKind::Warning, "FailedBinding", &message);
                return Err(error);
            }
        }
        Ok(Action::Done)
    }
}

impl Controller {
    /// Creates the claim of a volume unless it exists.
    async fn ensure(
        &self,
        key: &ObjectName,
        pod: &Pod,
        volume: &str,
        source: &EphemeralVolumeSource,
    ) -> Result<(), SyncError> {
        let name = format!("{}-{volume}", key.name());
        if let Some(found) = self.claims.get(key.namespace(), &name) {
            return check_owner(&found.metadata()?, pod, &name);
        }
        let Some(claim) = claim_for(pod, &name, source) else { return Ok(()) };
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), key.namespace());
        match claims.create(&PostParams::default(), &claim).await.map_err(SyncError::from) {
            Ok(_) => Ok(()),
            // The cache does not have the existing claim yet; the next sync checks its owner.
            Err(error) if error.is_already_exists() => Err(SyncError::Stale("a claim of a pod")),
            Err(error) => Err(SyncError::Invalid(format!("create PVC {name}: {error}"))),
        }
    }
}

/// Checks that an existing claim was created for this pod.
fn check_owner(claim: &ObjectMeta, pod: &Pod, name: &str) -> Result<(), SyncError> {
    let owner = controller_of(claim);
    if owner.is_some_and(|owner| owner.kind == "Pod" && Some(&owner.uid) == pod.metadata.uid.as_ref()) {
        return Ok(());
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    Err(SyncError::Invalid(format!(
        "PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"
    )))
}

/// The claim for an ephemeral volume, owned by the pod.
fn claim_for(pod: &Pod, name: &str, source: &EphemeralVolumeSource) -> Option<PersistentVolumeClaim> {
    let template = source.volume_claim_template.as_ref()?;
    let metadata = template.metadata.clone().unwrap_or_default();
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: Some(vec![owner]),
            annotations: metadata.annotations,
            labels: metadata.labels,
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn creates_claims_from_templates_and_rejects_claims_of_others() {
        let template = json!({"metadata": {"labels": {"a": "b"}, "name": "ignored"},
            "spec": {"accessModes": ["ReadWriteOnce"]}});
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [], "volumes": [
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]}});
        let object: Object<Pod> = Object::from_value(&pod).unwrap();
        assert!(has_ephemeral_volumes(&object));
        let pod = object.decode().unwrap();
        let volume = pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0].clone();
        let claim = claim_for(&pod, "p-scratch", volume.ephemeral.as_ref().unwrap()).unwrap();
        assert_eq!(claim.metadata.name.as_deref(), Some("p-scratch"));
        assert_eq!(claim.metadata.labels.as_ref().unwrap()["a"], "b");
        assert_eq!(claim.spec.as_ref().unwrap().access_modes, Some(vec!["ReadWriteOnce".to_owned()]));
        assert!(check_owner(&claim.metadata, &pod, "p-scratch").is_ok());
        let mut other = pod.clone();
        other.metadata.uid = Some("v".to_owned());
        assert_eq!(
            check_owner(&claim.metadata, &other, "p-scratch").unwrap_err().to_string(),
            "PVC ns/p-scratch was not created for pod ns/p (pod is not owner)"
        );
    }
}
