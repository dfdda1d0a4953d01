//! Volume attributes classes stay until no volume and no claim has them (upstream: `volume/vacprotection`).

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::api::{Api, ApiResource};
use nave_client::{Action, EventHandler, Lister, Object, ObjectName, Workqueue, on_each};

use crate::finalizers::{Due, due, put, take};
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};

const FINALIZER: &str = "kubernetes.io/vac-protection";
/// Volumes and claims by the classes that they have or ask for.
const BY_CLASS: &str = "volume-attributes-class";

/// The controller.
pub(crate) const VOLUME_ATTRIBUTES_CLASS_PROTECTION: Descriptor = Descriptor {
    name: "volumeattributesclass-protection-controller",
    alias: "volumeattributesclass-protection-controller",
    service_account: "volumeattributesclass-protection-controller",
    on_by_default: true,
    workers: Workers::fixed(1),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("vacprotection");
    let classes = builder.informer::<VolumeAttributesClass>();
    let (volumes, claims) =
        (builder.informer::<PersistentVolume>(), builder.informer::<PersistentVolumeClaim>());
    volumes.add_index(BY_CLASS, of_volume);
    claims.add_index(BY_CLASS, of_claim);
    builder.work_on(&classes);
    let users = Users { volumes: volumes.lister(), claims: claims.lister() };
    let (of_volumes, of_claims) =
        (ending(&classes.lister(), builder.queue()), ending(&classes.lister(), builder.queue()));
    builder.watch(&volumes, of_volumes);
    builder.watch(&claims, of_claims);
    builder.run(Protection { client: context.client.clone(), classes: classes.lister(), users })
}

/// Has the classes looked at that are being deleted: only these depend on volumes and claims, and there are few.
fn ending<K: 'static>(
    classes: &Lister<VolumeAttributesClass>,
    queue: Workqueue,
) -> impl EventHandler<K> + use<K> {
    let classes = classes.clone();
    on_each(move |_: &Object<K>| {
        classes
            .list()
            .iter()
            .filter(|class| class.is_being_deleted())
            .for_each(|class| queue.add(class.key()));
    })
}

struct Users {
    volumes: Lister<PersistentVolume>,
    claims: Lister<PersistentVolumeClaim>,
}

impl Users {
    fn has(&self, class: &str) -> bool {
        let is_used = |count: Result<usize, _>| count.map_or(true, |count: usize| count > 0);
        is_used(self.volumes.by_index(BY_CLASS, class).map(|found| found.len()))
            || is_used(self.claims.by_index(BY_CLASS, class).map(|found| found.len()))
    }
}

struct Protection {
    client: kube::Client,
    classes: Lister<VolumeAttributesClass>,
    users: Users,
}

impl Reconciler for Protection {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(class) = self.classes.get_by_key(&key) else { return Ok(Action::Done) };
        let api = Api::all_with(self.client.clone(), &ApiResource::erase::<VolumeAttributesClass>(&()));
        match due(&class, FINALIZER) {
            Due::Put => put(&api, &class, FINALIZER).await?,
            Due::Take if !self.users.has(key.name()) => take(&api, &class, FINALIZER).await?,
            Due::Nothing | Due::Take => {}
        }
        Ok(Action::Done)
    }
}

fn of_volume(volume: &Object<PersistentVolume>) -> Vec<String> {
    texts(volume, &[&["spec", "volumeAttributesClassName"]])
}

fn of_claim(claim: &Object<PersistentVolumeClaim>) -> Vec<String> {
    texts(
        claim,
        &[
            &["spec", "volumeAttributesClassName"],
            &["status", "currentVolumeAttributesClassName"],
            &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
        ],
    )
}

/// The texts at paths that are not empty.
fn texts<K>(object: &Object<K>, paths: &[&[&str]]) -> Vec<String> {
    let at = |path: &&[&str]| serde_json::from_slice::<String>(object.json_at(path)?).ok();
    paths.iter().filter_map(at).filter(|text| !text.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_uses_the_class_it_has_and_those_it_is_on_its_way_to() {
        let claim = json!({"metadata": {"name": "c"}, "spec": {"volumeAttributesClassName": "a"},
            "status": {"currentVolumeAttributesClassName": "b",
                "modifyVolumeStatus": {"targetVolumeAttributesClassName": "c", "status": "InProgress"}}});
        assert_eq!(of_claim(&Object::from_value(&claim).unwrap()), ["a", "b", "c"]);
        let none = json!({"metadata": {"name": "c"}, "spec": {"volumeAttributesClassName": ""}});
        assert!(of_claim(&Object::from_value(&none).unwrap()).is_empty());
        assert!(of_volume(&Object::from_value(&none).unwrap()).is_empty());
    }
}
