//! Controller references: which objects a controller may count as its own, adopts or lets go.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::frame::SyncError;

/// What a controller does with an object that could be its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the controller's.
    Own,
    /// It has no controller and matches the selector.
    Adopt,
    /// It names the controller, and matches the selector no longer.
    Release,
    /// It is none of the controller's business.
    Leave,
}

/// Decides about one object. An owner under deletion neither adopts nor lets go: what happens to its objects is the
/// garbage collector's to say.
pub fn claim(owner: &ObjectMeta, object: &ObjectMeta, matches: bool) -> Claim {
    let owner_lives = owner.deletion_timestamp.is_none();
    match controller_of(object) {
        Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => Claim::Leave,
        Some(_) if matches => Claim::Own,
        Some(_) if owner_lives => Claim::Release,
        None if matches && owner_lives && object.deletion_timestamp.is_none() => Claim::Adopt,
        Some(_) | None => Claim::Leave,
    }
}

/// The reference of an object to its controller.
pub fn controller_of(object: &ObjectMeta) -> Option<&OwnerReference> {
    object.owner_references.iter().flatten().find(|reference| reference.controller == Some(true))
}

/// Returns whether an object's controller is this one.
pub fn is_controlled_by(object: &ObjectMeta, owner: &ObjectMeta) -> bool {
    controller_of(object).is_some_and(|reference| Some(&reference.uid) == owner.uid.as_ref())
}

/// A reference by which an object is controlled.
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

/// Sorts objects into those that `owner` has, adopting and releasing by patches on the way; the first adoption is
/// preceded by a live read of the owner, for a cache may not have heard of its deletion.
pub struct Claims<'a, O, K> {
    /// The owner's metadata.
    pub owner: &'a ObjectMeta,
    /// The reference that adopted objects get.
    pub reference: OwnerReference,
    /// A finalizer that adopted objects get and released ones lose.
    pub finalizer: Option<&'a str>,
    /// Reads the owner.
    pub owners: Api<O>,
    /// Patches the objects.
    pub objects: Api<K>,
}

impl<O, K> Claims<'_, O, K>
where
    O: kube::Resource + Clone + DeserializeOwned + Debug,
    K: kube::Resource + Clone + DeserializeOwned + Debug,
{
    /// The objects among `candidates` that are the owner's when this returns. An object that cannot be adopted or
    /// released fails the sync after all others have been dealt with, as upstream does it.
    ///
    /// # Errors
    /// The first failure of the API.
    pub async fn claim(
        &self,
        candidates: impl IntoIterator<Item = K>,
        matches: impl Fn(&ObjectMeta) -> bool,
    ) -> Result<Vec<K>, SyncError> {
        let (mut owned, mut failed, mut owner_checked) = (Vec::new(), None, None);
        for candidate in candidates {
            let meta = candidate.meta();
            match claim(self.owner, meta, matches(meta)) {
                Claim::Own => owned.push(candidate),
                Claim::Leave => {}
                Claim::Release => {
                    if let Err(error) = self.release(meta).await {
                        failed.get_or_insert(error);
                    }
                }
                Claim::Adopt => {
                    if owner_checked.is_none() {
                        owner_checked = Some(self.owner_lives().await?);
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

    /// Returns whether the owner, read live, is the one the cache has and is not being deleted.
    async fn owner_lives(&self) -> Result<bool, SyncError> {
        let name = self.owner.name.as_deref().unwrap_or_default();
        let live = self.owners.get_metadata_opt(name).await?;
        Ok(live.is_some_and(|live| {
            live.metadata.uid == self.owner.uid && live.metadata.deletion_timestamp.is_none()
        }))
    }

    async fn adopt(&self, object: &ObjectMeta, owner_lives: bool) -> Result<Option<K>, SyncError> {
        if !owner_lives {
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

    /// Patches an object; nothing if it is gone, or another by now stands under its name (the uid in the patch makes
    /// the API refuse that).
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
    fn what_is_claimed_follows_from_reference_selector_and_deletion() {
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
    fn owners_that_do_not_control_do_not_count() {
        let mut object = owned_by("me");
        object.owner_references.as_mut().unwrap()[0].controller = None;
        assert!(controller_of(&object).is_none());
        assert_eq!(claim(&owner("me"), &object, true), Claim::Adopt);
    }
}
