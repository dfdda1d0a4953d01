//! Patches, which are parsed once and applied to each observed state.

use nave_codec::json::{self, JsonError};
use nave_codec::negotiate::{ContentType, PatchType};
use nave_machinery::go_value::GoValue;
use nave_machinery::limits;
use nave_machinery::options::FieldValidation;
use nave_machinery::{FieldError, FieldPath, GroupKind, Status, Value};
use nave_patch::{PatchError, json_patch, merge, strategic};
use nave_schema::unstructured;

use super::super::decode;
use super::{Payload, Target};

/// The media types of patches.
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Media types of patches of custom resources. Strategic merge patches are excluded, because custom resources have no
/// merge keys.
const CUSTOM_PATCH_TYPES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

fn patch_types(target: &Target<'_>) -> &'static [&'static str] {
    if target.endpoint.def.is_custom() { &CUSTOM_PATCH_TYPES } else { &PATCH_TYPES }
}

/// A parsed patch.
pub struct Patch {
    kind: PatchType,
    /// The patch, or the decoding error of the body. The error is reported only if the object exists.
    body: Result<Value, Status>,
    /// Duplicate fields, and fields that the patch type does not define.
    strict_errors: Vec<String>,
}

impl Patch {
    /// Parses the body of a patch.
    ///
    /// # Errors
    /// 415 for a patch type that the resource does not support.
    pub(super) fn parse(
        target: &Target<'_>,
        payload: &Payload,
        validation: FieldValidation,
    ) -> Result<Self, Status> {
        let unsupported = || Status::unsupported_media_type(patch_types(target));
        let Some(ContentType::Patch(kind)) = payload.content_type else {
            // Upstream's router, which does not serve custom resources, has a text of its own.
            let is_routed = !target.endpoint.def.is_custom();
            return Err(if is_routed { Status::unsupported_patch_type() } else { unsupported() });
        };
        // A kind without a built-in type has no merge keys.
        if kind == PatchType::Strategic
            && (target.endpoint.def.is_custom() || target.view.type_id(target.endpoint).is_none())
        {
            return Err(unsupported());
        }
        Ok(Self::decode(kind, &payload.bytes, validation))
    }

    fn decode(kind: PatchType, bytes: &[u8], validation: FieldValidation) -> Self {
        let form = Form { kind, is_strict: validation != FieldValidation::Ignore };
        let decoded = match json::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => {
                return Self { kind, body: Err(form.refuse_text(error)), strict_errors: Vec::new() };
            }
        };
        let body = form.check(&decoded.value).map(|()| decoded.value);
        let mut strict_errors = decoded.duplicates;
        if let (PatchType::Json, Ok(operations)) = (kind, &body) {
            strict_errors.extend(json_patch::unknown_fields(operations));
            strict_errors.sort_by_key(|error| operation_of(error));
            for error in &mut strict_errors {
                *error = format!("json patch {error}");
            }
        }
        Self { kind, body, strict_errors }
    }

    /// Returns the errors of strict decoding.
    pub(super) fn strict_errors(&self) -> Vec<String> {
        self.strict_errors.clone()
    }

    /// Applies the patch to the view of an object.
    ///
    /// # Errors
    /// The patch is malformed, or does not apply to the object.
    pub(super) fn apply(&self, target: &Target<'_>, view: &mut Value) -> Result<(), Status> {
        let body = self.body.as_ref().map_err(Status::clone)?;
        let outcome = match self.kind {
            PatchType::Json => json_patch::apply(view, body),
            PatchType::Merge | PatchType::Apply => merge::apply(view, body),
            PatchType::Strategic => match target.view.type_id(target.endpoint) {
                Some(type_id) => strategic::apply(nave_schema::builtin(), type_id, view, body),
                None => return Err(Status::unsupported_media_type(patch_types(target))),
            },
        };
        outcome.map_err(PatchError::into_status)
    }

    /// Returns the error for a patch whose result is not an object of the expected kind. As upstream, the error has no
    /// kind, and shows the result, or the patch if it is a strategic merge patch.
    pub(super) fn refuse(&self, target: &Target<'_>, patched: &Value, why: &str) -> Status {
        let (shown, converted) = if let (PatchType::Strategic, Ok(patch)) = (self.kind, &self.body) {
            let set = nave_schema::builtin();
            let type_id = target.view.type_id(target.endpoint);
            let why = type_id.and_then(|type_id| unstructured::mismatch(set, type_id, patched));
            (limits::clipped(GoValue(patch), MAX_SHOWN), why)
        } else {
            let shown = String::from_utf8_lossy(&json::encode(patched)).into_owned();
            (limits::clip(shown, MAX_SHOWN), None)
        };
        let why = converted.unwrap_or_else(|| why.to_owned());
        let error = FieldError::invalid(&FieldPath::new("patch"), shown, why);
        Status::invalid(&GroupKind::default(), "", &[error])
    }
}

/// Checks the form of a patch. Upstream's decoders of the patch types differ, and for JSON patches and merge patches the
/// field validation selects the decoder.
struct Form {
    kind: PatchType,
    /// True unless the field validation is `Ignore`.
    is_strict: bool,
}

impl Form {
    /// Returns the response to a body that is not JSON.
    fn refuse_text(&self, error: JsonError) -> Status {
        match (error, self.kind) {
            (JsonError::Limit(limit), _) => limit.into_status(),
            (_, PatchType::Merge) if !self.is_strict => Status::bad_request(INVALID_MERGE_PATCH),
            (error, PatchType::Json | PatchType::Merge) if self.is_strict => {
                Status::bad_request(format!("error decoding patch: {error}"))
            }
            (error, _) => Status::bad_request(error.to_string()),
        }
    }

    fn check(&self, patch: &Value) -> Result<(), Status> {
        let not_a_map = || {
            let found = decode::json_type(patch);
            format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")
        };
        match (self.kind, patch) {
            (PatchType::Json, _) if self.is_strict => {
                json_patch::check_strict(patch).map_err(PatchError::into_status)
            }
            (PatchType::Merge, Value::Null) => Err(Status::bad_request(INVALID_MERGE_PATCH)),
            // Go's decoder accepts null as an empty map. A list replaces the object, which then has no kind.
            (PatchType::Json, _) | (_, Value::Object(_) | Value::Null) => Ok(()),
            (PatchType::Merge, Value::Array(_)) if !self.is_strict => Ok(()),
            (PatchType::Merge, _) if !self.is_strict => Err(Status::bad_request(INVALID_MERGE_PATCH)),
            (PatchType::Merge, _) => {
                Err(Status::bad_request(format!("error decoding patch: {}", not_a_map())))
            }
            (PatchType::Strategic | PatchType::Apply, _) => Err(Status::bad_request(not_a_map())),
        }
    }
}

/// Returns the index of the operation that an error such as `unknown field "[1].x"` names.
fn operation_of(error: &str) -> Option<usize> {
    let (_, rest) = error.split_once("\"[")?;
    rest.split_once(']')?.0.parse().ok()
}

/// Maximum length of the patch or the patched object in an error, in bytes.
const MAX_SHOWN: usize = 16 * 1024;

/// The error of upstream's library for a merge patch that is neither an object nor a list.
const INVALID_MERGE_PATCH: &str = "Invalid JSON Patch";

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(kind: PatchType, body: &str, validation: FieldValidation) -> Patch {
        Patch::decode(kind, body.as_bytes(), validation)
    }

    #[test]
    fn rejects_bodies_that_are_not_patches() {
        const INVALID: &str = "Invalid JSON Patch";
        const END: &str = "unexpected end of JSON input";
        const ARRAY: &str = "json: cannot unmarshal array into Go value of type map[string]interface {}";
        const STRING: &str = "json: cannot unmarshal string into Go value of type map[string]interface {}";
        const OPERATIONS: &str = "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp";
        let prefixed = |why: &str| format!("error decoding patch: {why}");
        // `None`: the body is accepted, or refused when it is applied.
        let cases = [
            (PatchType::Merge, "[]", Some(prefixed(ARRAY)), None),
            (PatchType::Merge, "\"x\"", Some(prefixed(STRING)), Some(INVALID)),
            (PatchType::Merge, "null", Some(INVALID.to_owned()), Some(INVALID)),
            (PatchType::Merge, "", Some(prefixed(END)), Some(INVALID)),
            (PatchType::Merge, "{}", None, None),
            (PatchType::Json, "", Some(prefixed(END)), Some(END)),
            (PatchType::Json, "{}", Some(prefixed(OPERATIONS)), None),
            (PatchType::Json, "null", None, None),
            (PatchType::Json, "[]", None, None),
            (PatchType::Strategic, "", Some(END.to_owned()), Some(END)),
            (PatchType::Strategic, "\"x\"", Some(STRING.to_owned()), Some(STRING)),
            (PatchType::Strategic, "{}", None, None),
            (PatchType::Strategic, "null", None, None),
        ];
        for (kind, body, strict, ignored) in cases {
            for validation in [FieldValidation::Strict, FieldValidation::Warn] {
                let status = decoded(kind, body, validation).body.err();
                assert_eq!(
                    status.map(|status| (status.code, status.message)),
                    strict.clone().map(|why| (400, why))
                );
            }
            let status = decoded(kind, body, FieldValidation::Ignore).body.err();
            let ignored = ignored.map(|why| (400, why.to_owned()));
            assert_eq!(status.map(|status| (status.code, status.message)), ignored, "{body}");
        }
    }

    #[test]
    fn json_patch_reports_its_own_unknown_and_duplicate_fields() {
        let body = r#"[{"op": "test", "op": "add", "path": "/a", "value": {"b": 1}, "x": 1}]"#;
        let strict_errors = decoded(PatchType::Json, body, FieldValidation::Warn).strict_errors;
        assert_eq!(
            strict_errors,
            [r#"json patch duplicate field "[0].op""#, r#"json patch unknown field "[0].x""#]
        );
    }
}
