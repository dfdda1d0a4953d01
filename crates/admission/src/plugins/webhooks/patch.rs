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

/// Checks that the patch of an answer can be applied.
pub(super) fn check(hook: &Hook, answer: &Answer, has_object: bool) -> Result<(), CallError> {
    if !has_object {
        let why = format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        );
        return Err(CallError::Refused(Status::internal(why)));
    }
    if answer.patch_type != "JSONPatch" {
        return Err(CallError::calling(format!("unsupported patch type {:?}", answer.patch_type)));
    }
    Ok(())
}

/// Applies a patch to an object that is then decoded, which checks its limits.
pub(super) fn apply(object: &mut Value, patch: &Value) -> Result<(), CallError> {
    json_patch::apply_unchecked(object, patch).map_err(|error| {
        CallError::Refused(match error {
            PatchError::Unfit(why) | PatchError::TestFailed(why) => Status::internal(why),
            other => Status::internal(other.into_status().message),
        })
    })
}

/// Returns whether a patch can read or write managed fields.
pub(super) fn concerns_managed_fields(patch: &Value) -> bool {
    paths(patch).any(|path| match path {
        Some(path) => path == "metadata" || path.starts_with("metadata/managedFields"),
        None => true,
    })
}

/// Returns whether a patch reads and writes only metadata.
pub(super) fn concerns_only_metadata(patch: &Value) -> bool {
    paths(patch).all(|path| path.is_some_and(|path| path.split('/').next() == Some("metadata")))
}

/// Returns the paths of a patch without the first slash; `None` for the whole object. Text before the first slash does
/// not count in paths.
fn paths(patch: &Value) -> impl Iterator<Item = Option<&str>> {
    let operations = patch.as_array().into_iter().flatten();
    let paths = operations.flat_map(|it| [it.get("path"), it.get("from")]).flatten();
    paths.filter_map(Value::as_str).map(|path| path.split_once('/').map(|(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_of_metadata_are_found() {
        for (path, wanted) in [
            ("/metadata/labels/a", true),
            ("x/metadata", true),
            ("/metadata", true),
            ("/metadatas", false),
            ("/spec/metadata", false),
            ("/meta~0data", false),
            ("", false),
        ] {
            let label = json!({"op": "add", "path": "/metadata/labels/b", "value": "/spec"});
            assert_eq!(
                concerns_only_metadata(&json!([label, {"op": "remove", "path": path}])),
                wanted,
                "{path}"
            );
            let copy = json!({"op": "copy", "from": path, "path": "/metadata/labels/b"});
            assert_eq!(concerns_only_metadata(&json!([copy])), wanted, "{path}");
        }
    }

    #[test]
    fn patches_of_managed_fields_are_found() {
        for (operation, wanted) in [
            (json!({"op": "add", "path": "/metadata/labels/a", "value": "/metadata"}), false),
            (json!({"op": "remove", "path": "/spec"}), false),
            (json!({"op": "test", "path": ""}), true),
            (json!({"op": "remove", "path": "x/metadata/managedFields"}), true),
            (json!({"op": "move", "from": "x/metadata", "path": "/spec"}), true),
            (json!({"op": "add", "path": "/spec/metadata/managedFields", "value": 1}), false),
            (json!({"op": "replace", "path": "/metadata", "value": {}}), true),
            (json!({"op": "remove", "path": "/metadata/managedFields/0"}), true),
            (json!({"op": "copy", "from": "/metadata/managedFields", "path": "/spec"}), true),
            (json!(null), false),
        ] {
            let patch = json!([{"op": "remove", "path": "/spec/x"}, operation]);
            assert_eq!(concerns_managed_fields(&patch), wanted, "{operation}");
        }
    }
}
