//! Protects volume attributes classes that are used by volumes or claims (upstream: `volume/vacprotection`).

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::api::{Api, ApiResource};
use nave_client::{Action, Lister, Object, ObjectName};

use crate::finalizers::{FinalizerAction, add_finalizer, finalizer_action, remove_finalizer};
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};

const FINALIZER: &str = "kubernetes.io/vac-protection";
/// Index of volumes and claims by the classes they use or request.
const BY_CLASS: &str = "volume-attributes-class";

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
    volumes.add_index(BY_CLASS, classes_of_volume);
    claims.add_index(BY_CLASS, classes_of_claim);
    builder.enqueue_objects(&classes);
    let users = Users { volumes: volumes.lister(), claims: claims.lister() };
    let (lister, other) = (classes.lister(), classes.lister());
    builder.enqueue_mapped(&volumes, move |_| terminating(&lister));
    builder.enqueue_mapped(&claims, move |_| terminating(&other));
    builder.run(Protection { client: context.client.clone(), classes: classes.lister(), users })
}

/// Returns the classes that are being deleted. Other classes do not depend on volumes and claims.
fn terminating(classes: &Lister<VolumeAttributesClass>) -> Vec<ObjectName> {
    classes.list().iter().filter(|class| class.is_being_deleted()).map(nave_client::Object::key).collect()
}

struct Users {
    volumes: Lister<PersistentVolume>,
    claims: Lister<PersistentVolumeClaim>,
}

impl Users {
    fn has_users(&self, class: &str) -> bool {
        let has_volumes = self.volumes.by_index(BY_CLASS, class).map_or(true, |found| !found.is_empty());
        has_volumes || self.claims.by_index(BY_CLASS, class).map_or(true, |found| !found.is_empty())
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
        match finalizer_action(&class, FINALIZER) {
            FinalizerAction::Add => add_finalizer(&api, &class, FINALIZER).await?,
            FinalizerAction::Remove if !self.users.has_users(key.name()) => {
                remove_finalizer(&api, &class, FINALIZER).await?;
            }
            FinalizerAction::Nothing | FinalizerAction::Remove => {}
        }
        Ok(Action::Done)
    }
}

fn classes_of_volume(volume: &Object<PersistentVolume>) -> Vec<String> {
    strings_at(volume, &[&["spec", "volumeAttributesClassName"]])
}

fn classes_of_claim(claim: &Object<PersistentVolumeClaim>) -> Vec<String> {
    strings_at(
        claim,
        &[
            &["spec", "volumeAttributesClassName"],
            &["status", "currentVolumeAttributesClassName"],
            &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
        ],
    )
}

/// Returns the non-empty strings at these paths.
fn strings_at<K>(object: &Object<K>, paths: &[&[&str]]) -> Vec<String> {
    paths
        .iter()
        .filter_map(|path: &&[&str]| serde_json::from_slice::<String>(object.json_at(path)?).ok())
        .filter(|text| !text.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claim_uses_current_and_target_classes() {
        let claim = json!({"metadata": {"name": "c"}, "spec": {"volumeAttributesClassName": "a"},
            "status": {"currentVolumeAttributesClassName": "b",
                "modifyVolumeStatus": {"targetVolumeAttributesClassName": "c", "status": "InProgress"}}});
        assert_eq!(classes_of_claim(&Object::from_value(&claim).unwrap()), ["a", "b", "c"]);
        let none = json!({"metadata": {"name": "c"}, "spec": {"volumeAttributesClassName": ""}});
        assert!(classes_of_claim(&Object::from_value(&none).unwrap()).is_empty());
        assert!(classes_of_volume(&Object::from_value(&none).unwrap()).is_empty());
    }
}
