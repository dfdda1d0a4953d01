//! Finalizers that protect objects in use.

use kube::api::{Api, DynamicObject, PostParams};
use nave_client::Object;

use crate::api::ignore_not_found;
use crate::frame::SyncError;

/// Changes that a protection finalizer requires.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FinalizerAction {
    Nothing,
    /// The object is not being deleted and lacks the finalizer.
    Add,
    /// The object is being deleted and has the finalizer. Remove the finalizer once the object is not in use.
    Remove,
}

/// Returns the change that a protection finalizer requires.
pub(crate) fn finalizer_action<K>(object: &Object<K>, finalizer: &str) -> FinalizerAction {
    match (object.is_being_deleted(), object.finalizers().any(|found| found == finalizer)) {
        (true, true) => FinalizerAction::Remove,
        (false, false) => FinalizerAction::Add,
        _ => FinalizerAction::Nothing,
    }
}

/// Adds a finalizer to the cached object.
pub(crate) async fn add_finalizer<K>(
    api: &Api<DynamicObject>,
    cached: &Object<K>,
    finalizer: &str,
) -> Result<(), SyncError> {
    change_finalizers(api, cached, |finalizers: &mut Vec<String>| finalizers.push(finalizer.to_owned())).await
}

/// Removes a finalizer from the cached object.
pub(crate) async fn remove_finalizer<K>(
    api: &Api<DynamicObject>,
    cached: &Object<K>,
    finalizer: &str,
) -> Result<(), SyncError> {
    change_finalizers(api, cached, |finalizers| finalizers.retain(|found| found != finalizer)).await
}

/// Writes the cached object with changed finalizers. If the cached object is stale, the conflict causes a retry of the
/// sync. The object is untyped to keep fields that the Rust types do not have.
async fn change_finalizers<K>(
    api: &Api<DynamicObject>,
    cached: &Object<K>,
    change: impl FnOnce(&mut Vec<String>),
) -> Result<(), SyncError> {
    let mut object: DynamicObject = serde_json::from_slice(cached.json())?;
    change(object.metadata.finalizers.get_or_insert_default());
    ignore_not_found(api.replace(cached.name(), &PostParams::default(), &object).await)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PersistentVolume;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn adds_before_deletion_and_removes_during_it() {
        let action = |metadata: Value| {
            let object: Object<PersistentVolume> =
                Object::from_value(&json!({"metadata": metadata})).unwrap();
            finalizer_action(&object, "a/hold")
        };
        let deleted = "2026-01-01T00:00:00Z";
        assert_eq!(action(json!({"name": "v"})), FinalizerAction::Add);
        assert_eq!(action(json!({"name": "v", "finalizers": ["a/hold"]})), FinalizerAction::Nothing);
        assert_eq!(
            action(json!({"name": "v", "finalizers": ["a/hold"], "deletionTimestamp": deleted})),
            FinalizerAction::Remove
        );
        assert_eq!(
            action(json!({"name": "v", "finalizers": ["a/b"], "deletionTimestamp": deleted})),
            FinalizerAction::Nothing
        );
    }
}
