//! Patches: parsed once, applied to each state that the write meets.

use nave_codec::negotiate::{ContentType, PatchType};
use nave_machinery::{Status, Value};
use nave_patch::{PatchError, json_patch, merge, strategic};

use super::{Payload, Target};

/// The encodings patches are taken in.
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// A parsed patch.
pub struct Patch {
    kind: PatchType,
    body: Value,
    /// Fields that the patch has twice.
    pub(super) duplicates: Vec<String>,
}

impl Patch {
    /// Parses the body of a patch.
    ///
    /// # Errors
    /// 400 for a body that is not a patch, 415 for a type that the resource does not take, 501 for server-side apply.
    pub(super) fn parse(target: &Target<'_>, payload: &Payload) -> Result<Self, Status> {
        let unsupported = || Status::unsupported_media_type(&PATCH_TYPES);
        let Some(ContentType::Patch(kind)) = payload.content_type else { return Err(unsupported()) };
        match kind {
            PatchType::Apply => return Err(Status::not_implemented("server-side apply")),
            // A kind without a built-in type has no merge keys.
            PatchType::Strategic if target.view.type_id(target.endpoint).is_none() => {
                return Err(unsupported());
            }
            _ => {}
        }
        let decoded =
            nave_codec::json::decode(&payload.bytes).map_err(nave_codec::json::JsonError::into_status)?;
        let fits = if kind == PatchType::Json { decoded.value.is_array() } else { decoded.value.is_object() };
        if !fits {
            return Err(Status::bad_request(format!(
                "the body is not a patch of type {}",
                kind.media_type()
            )));
        }
        Ok(Self { kind, body: decoded.value, duplicates: decoded.duplicates })
    }

    /// Applies the patch to what the view shows of an object.
    ///
    /// # Errors
    /// The patch is invalid.
    pub(super) fn apply(&self, target: &Target<'_>, view: &mut Value) -> Result<(), Status> {
        let outcome = match self.kind {
            PatchType::Json => json_patch::apply(view, &self.body),
            PatchType::Merge | PatchType::Apply => merge::apply(view, &self.body),
            PatchType::Strategic => match target.view.type_id(target.endpoint) {
                Some(type_id) => strategic::apply(nave_schema::builtin(), type_id, view, &self.body),
                None => return Err(Status::unsupported_media_type(&PATCH_TYPES)),
            },
        };
        outcome.map_err(PatchError::into_status)
    }
}
