//! The patch in the answer of a mutating webhook.

use nave_codec::json::{self, JsonError};
use nave_machinery::{Status, Value};
use nave_patch::{PatchError, json_patch};

use super::answer::Answer;
use super::caller::CallError;
use super::hook::Hook;

/// Decodes the patch; `None` if it has no operations.
pub(super) fn decode(answer: &Answer) -> Result<Option<Value>, CallError> {
    if answer.patch.is_empty() {
        return Ok(None);
    }
    let undecodable =
        |why: String| CallError::calling(format!("received undecodable patch in webhook response: {why}"));
    let patch = json::decode(&answer.patch).map_err(|error: JsonError| undecodable(error.to_string()))?.value;
    match &patch {
        Value::Null => Ok(None),
        Value::Array(operations) if operations.is_empty() => Ok(None),
        Value::Array(_) => Ok(Some(patch)),
        _ => Err(undecodable("json: cannot unmarshal into Go value of type jsonpatch.Patch".to_owned())),
    }
}

/// Returns the object with the patch applied.
pub(super) fn apply(hook: &Hook, answer: &Answer, patch: &Value, object: &Value) -> Result<Value, CallError> {
    if object.is_null() {
        let why = format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        );
        return Err(CallError::Refused(Status::internal(why)));
    }
    if answer.patch_type != "JSONPatch" {
        return Err(CallError::calling(format!("unsupported patch type {:?}", answer.patch_type)));
    }
    let mut patched = object.clone();
    json_patch::apply(&mut patched, patch).map_err(|error| {
        CallError::Refused(match error {
            PatchError::Unfit(why) | PatchError::TestFailed(why) => Status::internal(why),
            other => Status::internal(other.into_status().message),
        })
    })?;
    Ok(patched)
}
