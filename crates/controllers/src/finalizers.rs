//! Finalizers that keep an object while it is in use.

use kube::api::{Api, DynamicObject, PostParams};
use nave_client::Object;

use crate::api::gone_is_fine;
use crate::frame::SyncError;

/// The action on an object's finalizer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// It is not being deleted and has none.
    Put,
    /// It is being deleted, and is to lose it once it is not in use.
    Take,
}

/// Decides the action on a finalizer that protects an object.
pub(crate) fn due<K>(object: &Object<K>, finalizer: &str) -> Due {
    match (object.is_being_deleted(), object.finalizers().any(|found| found == finalizer)) {
        (true, true) => Due::Take,
        (false, false) => Due::Put,
        _ => Due::Nothing,
    }
}

/// Adds a finalizer to the object as it was seen.
pub(crate) async fn put<K>(
    api: &Api<DynamicObject>,
    seen: &Object<K>,
    finalizer: &str,
) -> Result<(), SyncError> {
    let change = |finalizers: &mut Vec<String>| finalizers.push(finalizer.to_owned());
    change_finalizers(api, seen, change).await
}

/// Removes a finalizer from the object as it was seen.
pub(crate) async fn take<K>(
    api: &Api<DynamicObject>,
    seen: &Object<K>,
    finalizer: &str,
) -> Result<(), SyncError> {
    change_finalizers(api, seen, |finalizers| finalizers.retain(|found| found != finalizer)).await
}

/// Updates the object as it was seen: one that has changed since is a conflict, and looked at again. Untyped, so that
/// no field is lost that this program has no name for.
async fn change_finalizers<K>(
    api: &Api<DynamicObject>,
    seen: &Object<K>,
    change: impl FnOnce(&mut Vec<String>),
) -> Result<(), SyncError> {
    let mut object: DynamicObject = serde_json::from_slice(seen.json())?;
    change(object.metadata.finalizers.get_or_insert_default());
    gone_is_fine(api.replace(seen.name(), &PostParams::default(), &object).await)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PersistentVolume;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_finalizer_goes_with_a_deletion_and_comes_without_one() {
        let due = |metadata: Value| {
            let object: Object<PersistentVolume> =
                Object::from_value(&json!({"metadata": metadata})).unwrap();
            due(&object, "a/hold")
        };
        let deleted = "2026-01-01T00:00:00Z";
        assert_eq!(due(json!({"name": "v"})), Due::Put);
        assert_eq!(due(json!({"name": "v", "finalizers": ["a/hold"]})), Due::Nothing);
        assert_eq!(
            due(json!({"name": "v", "finalizers": ["a/hold"], "deletionTimestamp": deleted})),
            Due::Take
        );
        assert_eq!(
            due(json!({"name": "v", "finalizers": ["a/b"], "deletionTimestamp": deleted})),
            Due::Nothing
        );
    }
}
