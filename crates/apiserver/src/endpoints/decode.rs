//! A request's body as an object: the encoding, the kind, strictness, and the form a typed decoder would give it.

use nave_codec::negotiate::Format;
use nave_codec::{json, protobuf, yaml};
use nave_machinery::limits::LimitError;
use nave_machinery::options::FieldValidation;
use nave_machinery::{GroupVersion, GroupVersionKind, Status, Value, meta};
use nave_schema::normalize::{Mode, NormalizeError, normalize};
use nave_schema::{TypeId, defaulting};

use crate::kinds;

/// The encodings objects are taken in.
pub const BODY_TYPES: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// A decoded object and what its strict decoding would have refused.
#[derive(Debug)]
pub struct Body {
    /// The object.
    pub object: Value,
    /// Unknown and duplicate fields, as `unknown field "spec.x"`.
    pub lax: Vec<String>,
}

/// Decodes a body.
///
/// # Errors
/// 400 where the body is not well-formed or too deep, 413 where it has too many values.
pub fn parse(bytes: &[u8], format: Format) -> Result<Body, Status> {
    let decoded = match format {
        Format::Json => json::decode(bytes).map_err(json::JsonError::into_status)?,
        Format::Yaml => yaml::decode(bytes).map_err(yaml::YamlError::into_status)?,
        Format::Protobuf => return parse_protobuf(bytes),
    };
    Ok(Body { object: decoded.value, lax: decoded.duplicates })
}

fn parse_protobuf(bytes: &[u8]) -> Result<Body, Status> {
    let unknown = protobuf::envelope::unwrap(bytes).map_err(protobuf::ProtobufError::into_status)?;
    let gv = GroupVersion::parse(unknown.api_version).unwrap_or_default();
    let kind = gv.with_kind(unknown.kind);
    let set = nave_schema::builtin();
    let type_id = kinds::type_of(&kind).ok_or_else(|| {
        Status::bad_request(format!("no kind {:?} is registered for version \"{gv}\"", kind.kind))
    })?;
    let mut object =
        protobuf::decode(set, type_id, unknown.raw).map_err(protobuf::ProtobufError::into_status)?;
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), Value::String(gv.to_string()));
        fields.insert("kind".to_owned(), Value::String(kind.kind));
    }
    Ok(Body { object, lax: Vec::new() })
}

/// Makes a decoded body an object of `gvk`: checks the kind, refuses or reports what a strict decoder would, and
/// gives it the form a typed decoder would. Returns warnings for the client.
///
/// # Errors
/// 400 where the body is of another kind, has fields of the wrong type or, if strict, unknown fields; 413 where it gets
/// too large by what is filled in.
pub fn typed(
    body: Body,
    gvk: &GroupVersionKind,
    type_id: Option<TypeId>,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let Body { mut object, mut lax } = body;
    check_kind(&mut object, gvk)?;
    if let Some(type_id) = type_id {
        let mode = if validation == FieldValidation::Ignore { Mode::Ignore } else { Mode::Report };
        let normalized =
            normalize(nave_schema::builtin(), type_id, &mut object, mode).map_err(|error| match error {
                NormalizeError::Limit(limit) => limit.into_status(),
                NormalizeError::Type(why) => cannot_be_handled(&object, gvk, &why),
            })?;
        lax.extend(normalized.unknown.iter().map(|path| format!("unknown field {path:?}")));
    }
    match validation {
        FieldValidation::Strict if !lax.is_empty() => {
            let text = format!("strict decoding error: {}", lax.join(", "));
            Err(cannot_be_handled(&object, gvk, &text))
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok((object, Vec::new())),
        FieldValidation::Warn => Ok((object, lax)),
    }
}

/// Sets the static defaults of the type.
///
/// # Errors
/// 413 where the object gets too large.
pub fn set_defaults(object: &mut Value, type_id: Option<TypeId>) -> Result<(), Status> {
    let Some(type_id) = type_id else { return Ok(()) };
    defaulting::apply(nave_schema::builtin(), type_id, object).map_err(LimitError::into_status)
}

/// An object without a kind is taken for the kind that is expected.
fn check_kind(object: &mut Value, gvk: &GroupVersionKind) -> Result<(), Status> {
    let expected = gvk.group_version();
    let Some(fields) = object.as_object_mut() else {
        let found = match object {
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
            _ => "null",
        };
        let text = format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go value of type struct"
        );
        return Err(Status::bad_request(text));
    };
    for (name, wanted) in [("apiVersion", expected.to_string()), ("kind", gvk.kind.clone())] {
        let given = fields.get(name);
        if given.is_none_or(|value| value.is_null() || value.as_str() == Some("")) {
            fields.insert(name.to_owned(), Value::String(wanted));
        } else if !given.is_some_and(Value::is_string) {
            let text = format!("couldn't get version/kind; json parse error: {name} is not a string");
            return Err(Status::bad_request(text));
        }
    }
    let version = meta::api_version(object);
    let kind = meta::kind(object);
    if version == expected.to_string() && kind == gvk.kind {
        return Ok(());
    }
    let given = GroupVersion::parse(version).unwrap_or_default().with_kind(kind);
    if kind == gvk.kind && given.group == gvk.group && kinds::type_of(&given).is_some() {
        let text = format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        );
        return Err(Status::bad_request(text));
    }
    let why = if kinds::type_of(&given).is_some() {
        format!(
            "converting ({}.{kind}) to ({}.{}): unknown conversion",
            given.version,
            short_group(gvk),
            gvk.kind
        )
    } else {
        format!("no kind {kind:?} is registered for version {version:?}")
    };
    Err(cannot_be_handled(object, gvk, &why))
}

/// The API group's package name, as conversion errors show it.
fn short_group(gvk: &GroupVersionKind) -> &str {
    if gvk.group.is_empty() { "core" } else { gvk.group.split('.').next().unwrap_or_default() }
}

fn cannot_be_handled(object: &Value, gvk: &GroupVersionKind, why: &str) -> Status {
    let version = meta::api_version(object);
    let kind = meta::kind(object);
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {}: {why}", gvk.kind))
}
