//! Controller references: claiming, adopting and releasing objects (upstream: `ControllerRefManager`).

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams};
use nave_machinery::selector::LabelSelector;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::frame::SyncError;
use crate::selectors;

/// The relation of an owner to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The owner controls the object.
    Own,
    /// The object has no controller and matches the selector.
    Adopt,
    /// The owner controls the object, but the object no longer matches the selector.
    Release,
    /// The object is not related to the owner.
    Leave,
}

/// Decides what to do with an object. An owner that is being deleted does not adopt or release objects; the garbage
/// collector handles them.
pub fn claim(owner: &ObjectMeta, object: &ObjectMeta, matches: bool) -> Claim {
    let is_owner_live = owner.deletion_timestamp.is_none();
    match controller_of(object) {
        Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => Claim::Leave,
        Some(_) if matches => Claim::Own,
        Some(_) if is_owner_live => Claim::Release,
        None if matches && is_owner_live && object.deletion_timestamp.is_none() => Claim::Adopt,
        Some(_) | None => Claim::Leave,
    }
}

/// Returns the controller reference of an object.
pub fn controller_of(object: &ObjectMeta) -> Option<&OwnerReference> {
    object.owner_references.iter().flatten().find(|reference| reference.controller == Some(true))
}

/// Returns whether `owner` is the object's controller.
pub fn is_controlled_by(object: &ObjectMeta, owner: &ObjectMeta) -> bool {
    controller_of(object).is_some_and(|reference| Some(&reference.uid) == owner.uid.as_ref())
}

/// Creates a controller reference to `owner`.
pub fn controller_reference(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Claims objects for `owner`, and adopts and releases them with patches. Reads the owner live before the first
/// adoption, as the cache may not show its deletion yet.
pub struct Claims<'a, O, K> {
    owner: &'a ObjectMeta,
    /// The owner reference to set on adopted objects.
    reference: OwnerReference,
    /// The finalizer to add to adopted objects and to remove from released objects.
    finalizer: Option<&'a str>,
    owners: Api<O>,
    objects: Api<K>,
}

impl<'a, O, K> Claims<'a, O, K>
where
    O: k8s_openapi::Resource
        + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    /// Creates claims for `owner`, which is of type `O`, through `client`.
    pub fn new(client: &kube::Client, owner: &'a ObjectMeta) -> Self {
        let namespace = owner.namespace.as_deref().unwrap_or_default();
        Self {
            owner,
            reference: controller_reference(O::API_VERSION, O::KIND, owner),
            finalizer: None,
            owners: Api::namespaced(client.clone(), namespace),
            objects: Api::namespaced(client.clone(), namespace),
        }
    }

    /// Sets a finalizer to add to adopted objects and to remove from released objects.
    #[must_use]
    pub fn with_finalizer(self, finalizer: &'a str) -> Self {
        Self { finalizer: Some(finalizer), ..self }
    }

    /// Adopts and releases objects, and returns the `candidates` that the owner controls afterwards. Continues
    /// after a failure, as upstream does, and then returns the first error.
    ///
    /// # Errors
    /// The first error from the API server.
    pub async fn claim(
        &self,
        candidates: impl IntoIterator<Item = K>,
        selector: &LabelSelector,
    ) -> Result<Vec<K>, SyncError> {
        let (mut owned, mut failed, mut owner_checked) = (Vec::new(), None, None);
        for candidate in candidates {
            let meta = candidate.meta();
            match claim(self.owner, meta, selectors::selects(selector, meta)) {
                Claim::Own => owned.push(candidate),
                Claim::Leave => {}
                Claim::Release => {
                    if let Err(error) = self.release(meta).await {
                        failed.get_or_insert(error);
                    }
                }
                Claim::Adopt => {
                    if owner_checked.is_none() {
                        owner_checked = Some(self.is_owner_live().await?);
                    }
                    match self.adopt(meta, owner_checked == Some(true)).await {
                        Ok(Some(adopted)) => owned.push(adopted),
                        Ok(None) => {}
                        Err(error) => {
                            failed.get_or_insert(error);
                        }
                    }
                }
            }
        }
        failed.map_or(Ok(owned), Err)
    }

    /// Returns whether the live owner has the same UID as the cached owner and is not being deleted.
    async fn is_owner_live(&self) -> Result<bool, SyncError> {
        let name = self.owner.name.as_deref().unwrap_or_default();
        let live = self.owners.get_metadata_opt(name).await?;
        Ok(live.is_some_and(|live| {
            live.metadata.uid == self.owner.uid && live.metadata.deletion_timestamp.is_none()
        }))
    }

    async fn adopt(&self, object: &ObjectMeta, is_owner_live: bool) -> Result<Option<K>, SyncError> {
        if !is_owner_live {
            return Ok(None);
        }
        let mut patch = json!({"metadata": {"uid": object.uid, "ownerReferences": [self.reference]}});
        if let Some(finalizer) = self.finalizer {
            patch["metadata"]["finalizers"] = json!([finalizer]);
        }
        self.patch(object, &patch).await
    }

    async fn release(&self, object: &ObjectMeta) -> Result<(), SyncError> {
        let reference = json!({"$patch": "delete", "uid": self.owner.uid});
        let mut patch = json!({"metadata": {"uid": object.uid, "ownerReferences": [reference]}});
        if let Some(finalizer) = self.finalizer {
            patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
        }
        self.patch(object, &patch).await.map(drop)
    }

    /// Patches an object. Returns `None` if the object no longer exists or has another UID, which the patch checks.
    async fn patch(&self, object: &ObjectMeta, patch: &serde_json::Value) -> Result<Option<K>, SyncError> {
        let name = object.name.as_deref().unwrap_or_default();
        match self.objects.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(patched) => Ok(Some(patched)),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn owner(uid: &str) -> ObjectMeta {
        ObjectMeta { name: Some("web".into()), uid: Some(uid.into()), ..ObjectMeta::default() }
    }

    fn deleted(mut meta: ObjectMeta) -> ObjectMeta {
        meta.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        meta
    }

    fn owned_by(uid: &str) -> ObjectMeta {
        let reference = controller_reference("apps/v1", "ReplicaSet", &owner(uid));
        ObjectMeta { owner_references: Some(vec![reference]), ..ObjectMeta::default() }
    }

    #[test]
    fn claims_by_reference_selector_and_deletion() {
        let me = owner("me");
        let cases = [
            (me.clone(), owned_by("me"), true, Claim::Own),
            (me.clone(), owned_by("me"), false, Claim::Release),
            (me.clone(), owned_by("other"), true, Claim::Leave),
            (me.clone(), ObjectMeta::default(), true, Claim::Adopt),
            (me.clone(), ObjectMeta::default(), false, Claim::Leave),
            (me.clone(), deleted(ObjectMeta::default()), true, Claim::Leave),
            (me.clone(), deleted(owned_by("me")), true, Claim::Own),
            (deleted(me.clone()), ObjectMeta::default(), true, Claim::Leave),
            (deleted(me.clone()), owned_by("me"), true, Claim::Own),
            (deleted(me), owned_by("me"), false, Claim::Leave),
        ];
        for (owner, object, matches, expected) in cases {
            assert_eq!(claim(&owner, &object, matches), expected, "{owner:?} {object:?} {matches}");
        }
    }

    #[test]
    fn owner_reference_without_controller_flag_is_not_a_controller() {
        let mut object = owned_by("me");
        object.owner_references.as_mut().unwrap()[0].controller = None;
        assert!(controller_of(&object).is_none());
        assert_eq!(claim(&owner("me"), &object, true), Claim::Adopt);
    }
}
