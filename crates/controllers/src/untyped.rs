//! Writes of objects as JSON, so that no field is lost that this program has no name for.

use kube::api::{Api, DynamicObject, PostParams};
use nave_client::Object;
use serde_json::Value;

use crate::frame::SyncError;

/// The part of an object that a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status.
    Object,
    /// The status.
    Status,
}

/// Updates an object as it was seen, unless the change changes nothing, and returns it as it is then. An object that has
/// changed since is a conflict, which the next sync sees.
///
/// # Errors
/// The API's refusal.
pub(crate) async fn update<K>(
    api: &Api<DynamicObject>,
    seen: Object<K>,
    part: Part,
    change: impl FnOnce(&mut Value),
) -> Result<Object<K>, SyncError> {
    let Some(changed) = changed(&seen, change)? else { return Ok(seen) };
    let object: DynamicObject = serde_json::from_value(changed)?;
    let parameters = PostParams::default();
    let written = match part {
        Part::Object => api.replace(seen.name(), &parameters, &object).await?,
        Part::Status => api.replace_status(seen.name(), &parameters, &object).await?,
    };
    Object::from_value(&written).map_err(|error| SyncError::Invalid(error.to_string()))
}

/// The object after a change, if that is another.
pub(crate) fn changed<K>(
    seen: &Object<K>,
    change: impl FnOnce(&mut Value),
) -> Result<Option<Value>, serde_json::Error> {
    let before: Value = serde_json::from_slice(seen.json())?;
    let mut after = before.clone();
    change(&mut after);
    Ok((after != before).then_some(after))
}

/// Sets an annotation.
pub(crate) fn annotate(object: &mut Value, key: &str, value: &str) {
    object["metadata"]["annotations"][key] = value.into();
}
