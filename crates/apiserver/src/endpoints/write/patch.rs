//! Patches, which are parsed once and applied to each observed state.

use nave_codec::json::{self, JsonError};
use nave_codec::negotiate::{ContentType, PatchType};
use nave_machinery::{FieldError, FieldPath, GroupKind, Status, Value};
use nave_patch::{PatchError, json_patch, merge, strategic};

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
    pub(super) fn parse(target: &Target<'_>, payload: &Payload) -> Result<Self, Status> {
        let unsupported = || Status::unsupported_media_type(patch_types(target));
        let Some(ContentType::Patch(kind)) = payload.content_type else { return Err(unsupported()) };
        // A kind without a built-in type has no merge keys.
        if kind == PatchType::Strategic
            && (target.endpoint.def.is_custom() || target.view.type_id(target.endpoint).is_none())
        {
            return Err(unsupported());
        }
        Ok(Self::decode(kind, &payload.bytes))
    }

    fn decode(kind: PatchType, bytes: &[u8]) -> Self {
        // Upstream's decoders word the errors of the patch types differently.
        let prefix = if kind == PatchType::Strategic { "" } else { "error decoding patch: " };
        let refused = |why: &str| Status::bad_request(format!("{prefix}{why}"));
        let decoded = json::decode(bytes).map_err(|error| match error {
            JsonError::Limit(limit) => limit.into_status(),
            other => refused(&other.to_string()),
        });
        let (value, duplicates) = match decoded {
            Ok(decoded) => (decoded.value, decoded.duplicates),
            Err(status) => return Self { kind, body: Err(status), strict_errors: Vec::new() },
        };
        if kind == PatchType::Json {
            let mut strict_errors = duplicates;
            strict_errors.extend(json_patch::unknown_fields(&value));
            let strict_errors = strict_errors.into_iter().map(|what| format!("json patch {what}")).collect();
            return Self { kind, body: Ok(value), strict_errors };
        }
        let found = match &value {
            Value::Null if kind == PatchType::Merge => Some("Invalid JSON Patch".to_owned()),
            // Go's decoder accepts null as an empty map.
            Value::Object(_) | Value::Null => None,
            other => {
                let found = decode::json_type(other);
                let why =
                    format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
                Some(format!("{prefix}{why}"))
            }
        };
        Self {
            kind,
            body: found.map_or(Ok(value), |why| Err(Status::bad_request(why))),
            strict_errors: duplicates,
        }
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
    /// kind.
    pub(super) fn refuse(&self, why: &str) -> Status {
        let patch = self.body.as_ref().map(json::encode).unwrap_or_default();
        let shown = String::from_utf8_lossy(&patch).into_owned();
        let error = FieldError::invalid(&FieldPath::new("patch"), shown, why);
        Status::invalid(&GroupKind::default(), "", &[error])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_bodies_that_are_not_patches() {
        let map = "into Go value of type map[string]interface {}";
        let cases = [
            (PatchType::Merge, "[]", format!("error decoding patch: json: cannot unmarshal array {map}")),
            (PatchType::Merge, "null", "Invalid JSON Patch".to_owned()),
            (PatchType::Merge, "", "error decoding patch: unexpected end of JSON input".to_owned()),
            (PatchType::Json, "", "error decoding patch: unexpected end of JSON input".to_owned()),
            (PatchType::Strategic, "", "unexpected end of JSON input".to_owned()),
            (PatchType::Strategic, "\"x\"", format!("json: cannot unmarshal string {map}")),
        ];
        for (kind, body, message) in cases {
            let status = Patch::decode(kind, body.as_bytes()).body.unwrap_err();
            assert_eq!((status.code, status.message), (400, message), "{body}");
        }
        for (kind, body) in [
            (PatchType::Merge, "{}"),
            (PatchType::Strategic, "{}"),
            (PatchType::Strategic, "null"),
            (PatchType::Json, "null"),
            (PatchType::Json, "[]"),
        ] {
            assert!(Patch::decode(kind, body.as_bytes()).body.is_ok(), "{body}");
        }
    }

    #[test]
    fn json_patch_reports_its_own_unknown_and_duplicate_fields() {
        let body = br#"[{"op": "test", "op": "add", "path": "/a", "value": {"b": 1}, "x": 1}]"#;
        let strict_errors = Patch::decode(PatchType::Json, body).strict_errors;
        assert_eq!(
            strict_errors,
            [r#"json patch duplicate field "[0].op""#, r#"json patch unknown field "[0].x""#]
        );
    }
}
