//! Writes untyped objects, which preserves fields that the Rust types do not have.

use kube::api::{Api, DynamicObject, PostParams};
use nave_client::Object;
use serde_json::Value;

use crate::frame::SyncError;

/// The part of an object that a write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpdateTarget {
    /// All fields except the status.
    Object,
    /// The status.
    Status,
}

/// Applies `change` to a cached object, writes the object if it changed, and returns the result. If the stored
/// object has changed since, the update fails with a conflict and the sync is retried.
///
/// # Errors
/// The API server's error.
pub(crate) async fn update<K>(
    api: &Api<DynamicObject>,
    cached: Object<K>,
    part: UpdateTarget,
    change: impl FnOnce(&mut Value),
) -> Result<Object<K>, SyncError> {
    let Some(changed) = changed(&cached, change)? else { return Ok(cached) };
    let object: DynamicObject = serde_json::from_value(changed)?;
    let parameters = PostParams::default();
    let written = match part {
        UpdateTarget::Object => api.replace(cached.name(), &parameters, &object).await?,
        UpdateTarget::Status => api.replace_status(cached.name(), &parameters, &object).await?,
    };
    Object::from_value(&written).map_err(|error| SyncError::Invalid(error.to_string()))
}

/// Returns the object after `change`; `None` if the object is unchanged.
pub(crate) fn changed<K>(
    cached: &Object<K>,
    change: impl FnOnce(&mut Value),
) -> Result<Option<Value>, serde_json::Error> {
    let before: Value = serde_json::from_slice(cached.json())?;
    let mut after = before.clone();
    change(&mut after);
    Ok((after != before).then_some(after))
}

/// Sets an annotation.
pub(crate) fn annotate(object: &mut Value, key: &str, value: &str) {
    object["metadata"]["annotations"][key] = value.into();
}
