//! Decodes request bodies into normalized objects: format, kind and field validation.

use std::fmt::Write as _;

use nave_codec::json::JsonError;
use nave_codec::negotiate::Format;
use nave_codec::protobuf::ProtobufError;
use nave_codec::yaml::YamlError;
use nave_codec::{json, protobuf, yaml};
use nave_machinery::limits::LimitError;
use nave_machinery::options::FieldValidation;
use nave_machinery::{GroupVersion, GroupVersionKind, Map, Status, Value, meta};
use nave_resources::Schema;
use nave_resources::custom::CustomSchema;
use nave_schema::defaulting;
use nave_schema::normalize::{Mode, NormalizeError, normalize};

use crate::kinds;

/// The accepted media types of objects.
pub const BODY_TYPES: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// A decoded object, with the errors of strict decoding.
#[derive(Debug, Default)]
pub struct Body<'a> {
    /// The object.
    pub object: Value,
    /// Unknown and duplicate fields, such as `unknown field "spec.x"`.
    pub strict_errors: Vec<String>,
    /// The JSON text of the object, for the order of strict errors; `None` if the object has another source.
    pub json: Option<&'a [u8]>,
}

/// The error for a body or patched object that is not a valid object of its kind.
#[derive(Debug)]
pub struct Refusal {
    /// The response if the object is a request body.
    pub status: Status,
    /// The decoder's message, for the response to a patch; `None` if a patch gets the same response as a body.
    pub why: Option<String>,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { status, why: None }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.status
    }
}

/// Decodes a body, which must be an object; `expected` is its kind in errors.
///
/// # Errors
/// 400 if the body is malformed, not an object or nested too deeply; 413 if it has too many values.
pub fn parse<'a>(bytes: &'a [u8], format: Format, expected: &str) -> Result<Body<'a>, Status> {
    let decoded = match format {
        Format::Json => json::decode(bytes).map_err(|error| match error {
            JsonError::Limit(limit) => limit.into_status(),
            other => {
                let why = format!("couldn't get version/kind; json parse error: {other}");
                unrecognized(bytes, expected, &why)
            }
        })?,
        Format::Yaml => yaml::decode(bytes).map_err(|error| match error {
            YamlError::Limit(limit) => limit.into_status(),
            other => unrecognized(bytes, expected, &format!("error converting YAML to JSON: {other}")),
        })?,
        Format::Protobuf => return parse_protobuf(bytes, expected),
    };
    let object = match decoded.value {
        // Go's typed decoder treats null as an object without fields.
        Value::Null => Value::Object(Map::new()),
        value => value,
    };
    if let Some(why) = not_an_object(&object) {
        let why = format!("couldn't get version/kind; json parse error: json: cannot unmarshal {why}");
        return Err(unrecognized(bytes, expected, &why));
    }
    let json = (format == Format::Json).then_some(bytes);
    Ok(Body { object, strict_errors: decoded.duplicates, json })
}

/// Decodes the options of a deletion. As upstream, errors do not name the expected kind.
///
/// # Errors
/// See [`parse`].
pub fn parse_options(bytes: &[u8], format: Format) -> Result<Value, Status> {
    const KIND: &str = "DeleteOptions";
    parse(bytes, format, KIND).map(|body| body.object).map_err(|status| {
        let start = format!("the object provided is unrecognized (must be of type {KIND}): ");
        let end = format!(" ({})", summary(bytes));
        let why = status.message.strip_prefix(&start).and_then(|why| why.strip_suffix(&end));
        match why.map(str::to_owned) {
            Some(message) => Status { message, ..status },
            None => status,
        }
    })
}

fn parse_protobuf<'a>(bytes: &[u8], expected: &str) -> Result<Body<'a>, Status> {
    let unknown = protobuf::envelope::unwrap(bytes).map_err(|error| match error {
        ProtobufError::Limit(limit) => limit.into_status(),
        other => unrecognized(bytes, expected, &other.to_string()),
    })?;
    let gv = GroupVersion::parse(unknown.api_version).unwrap_or_default();
    let kind = gv.with_kind(unknown.kind);
    let refuse = |why: &str| mismatch(&kind.kind, &gv, expected, why);
    let set = nave_schema::builtin();
    let type_id =
        kinds::type_of(&kind).ok_or_else(|| refuse(&not_registered(&kind.kind, &gv.to_string())))?;
    let mut object = protobuf::decode(set, type_id, unknown.raw).map_err(|error| match error {
        ProtobufError::Limit(limit) => limit.into_status(),
        other => refuse(&other.to_string()),
    })?;
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), Value::String(gv.to_string()));
        fields.insert("kind".to_owned(), Value::String(kind.kind));
    }
    Ok(Body { object, ..Body::default() })
}

/// Returns the error of Go's decoder if the version and kind of a value cannot be read.
fn not_an_object(value: &Value) -> Option<String> {
    let Some(fields) = value.as_object() else {
        let fields =
            r#"APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"""#;
        return Some(format!("{} into Go value of type struct {{ {fields} }}", json_type(value)));
    };
    ["apiVersion", "kind"].into_iter().find_map(|name| {
        let value = fields.get(name).filter(|value| !value.is_string() && !value.is_null())?;
        Some(format!("{} into Go struct field .{name} of type string", json_type(value)))
    })
}

/// Returns the JSON type of a value, as named by Go's decoder.
pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "null",
    }
}

fn not_registered(kind: &str, version: &str) -> String {
    format!("no kind {kind:?} is registered for version {version:?} in scheme \"{SCHEME}\"")
}

/// Returns the error for a body whose kind cannot be read.
fn unrecognized(bytes: &[u8], expected: &str, why: &str) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {expected}): {why} ({})",
        summary(bytes)
    ))
}

/// Summarizes the start of a body, as text if it may be JSON, otherwise in hexadecimal.
fn summary(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(MAX_SUMMARY)];
    let mut text = match bytes.first() {
        None => return "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
        Some(_) => shown.iter().fold(String::with_capacity(2 * MAX_SUMMARY), |mut digits, byte| {
            // Writing to a string cannot fail.
            let _ = write!(digits, "{byte:02x}");
            digits
        }),
    };
    if shown.len() < bytes.len() {
        text.push_str(" ...");
    }
    text
}

/// Converts a decoded body to a normalized object of `gvk`. Checks the kind, and rejects or returns errors of strict
/// decoding, depending on the field validation. The returned list contains the warnings for the client.
///
/// # Errors
/// 400 if the body has another kind, fields of wrong types or, with strict validation, unknown or duplicate fields; 413
/// if normalization makes it too large.
pub fn typed(
    body: Body<'_>,
    gvk: &GroupVersionKind,
    schema: &Schema,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Refusal> {
    let Body { mut object, mut strict_errors, json } = body;
    let mode = if validation == FieldValidation::Ignore { Mode::Ignore } else { Mode::Report };
    match schema {
        Schema::Builtin(_) => check_kind(&mut object, gvk)?,
        Schema::Custom(schema) => {
            check_custom_version(&object, gvk)?;
            strict_errors.extend(decode_custom(&mut object, gvk, schema, mode)?);
        }
    }
    if let Schema::Builtin(Some(type_id)) = *schema {
        let normalized =
            normalize(nave_schema::builtin(), type_id, &mut object, mode).map_err(|error| match error {
                NormalizeError::Limit(limit) => limit.into_status().into(),
                NormalizeError::Type(why) => cannot_be_handled(&object, gvk, &why),
            })?;
        strict_errors.extend(normalized.unknown.iter().map(|path| format!("unknown field {path:?}")));
        // Scan the text only if it has errors, because a second pass costs as much as the first one.
        if let Some(json) = json.filter(|_| mode == Mode::Report && !strict_errors.is_empty()) {
            strict_errors = json::strict_errors(json, nave_schema::builtin(), type_id);
        }
    }
    match validation {
        FieldValidation::Strict if !strict_errors.is_empty() => {
            let text = format!("strict decoding error: {}", strict_errors.join(", "));
            Err(cannot_be_handled(&object, gvk, &text))
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok((object, Vec::new())),
        FieldValidation::Warn => Ok((object, strict_warnings(strict_errors))),
    }
}

/// Returns the warnings of strict decoding. The YAML decoder has one error for all duplicate keys, with a heading and a
/// line per key, which becomes a warning per key.
pub(super) fn strict_warnings(errors: Vec<String>) -> Vec<String> {
    let warnings = |error: String| match error.strip_prefix(YAML_ERRORS) {
        None => vec![error],
        Some(lines) => lines.lines().map(|line| line.trim().to_owned()).collect(),
    };
    errors.into_iter().flat_map(warnings).collect()
}

/// Checks a decoded body that is not an object of a resource, such as options, against a type.
///
/// # Errors
/// 400 if a field has the wrong type, 413 if the body becomes too large.
pub(super) fn check_types(body: &mut Value, type_name: &str) -> Result<(), Status> {
    let set = nave_schema::builtin();
    let Some(type_id) = set.find(type_name) else { return Ok(()) };
    match normalize(set, type_id, body, Mode::Ignore) {
        Ok(_) => Ok(()),
        Err(NormalizeError::Limit(limit)) => Err(limit.into_status()),
        Err(NormalizeError::Type(why)) => Err(Status::bad_request(why)),
    }
}

/// Sets the static defaults of the type.
///
/// # Errors
/// 413 if the object becomes too large.
pub fn set_defaults(object: &mut Value, schema: &Schema) -> Result<(), Status> {
    let defaulted = match schema {
        Schema::Builtin(None) => Ok(()),
        Schema::Builtin(Some(type_id)) => defaulting::apply(nave_schema::builtin(), *type_id, object),
        Schema::Custom(schema) => schema.default(object),
    };
    defaulted.map_err(LimitError::into_status)
}

/// Checks the version of a custom object, which must have a version and a kind. Validation rejects a different kind.
fn check_custom_version(object: &Value, gvk: &GroupVersionKind) -> Result<(), Refusal> {
    let is_text = |name: &str| object.get(name).is_none_or(|value| value.is_null() || value.is_string());
    if !is_text("apiVersion") || !is_text("kind") {
        return Err(no_kind(&not_an_object(object).unwrap_or_default()));
    }
    if meta::kind(object).is_empty() {
        let text = format!(
            "the object provided is unrecognized (must be of type {}): Object 'Kind' is missing",
            gvk.kind
        );
        return Err(Status::bad_request(text).into());
    }
    let (version, expected) = (meta::api_version(object), gvk.group_version());
    if version == expected.to_string() {
        return Ok(());
    }
    let text = format!(
        "the API version in the data ({version}) does not match the expected API version ({expected})"
    );
    Err(Status::bad_request(text).into())
}

/// Decodes a custom object and its metadata by the schema. Returns an error for each unknown field.
fn decode_custom(
    object: &mut Value,
    gvk: &GroupVersionKind,
    schema: &CustomSchema,
    mode: Mode,
) -> Result<Vec<String>, Refusal> {
    let mut unknown = Vec::new();
    let set = nave_schema::builtin();
    if let (Some(metadata), Some(type_id)) = (object.get_mut("metadata"), set.find(OBJECT_META)) {
        if metadata.is_null() {
            *metadata = Value::Object(Map::new());
        }
        match normalize(set, type_id, metadata, mode) {
            Ok(normalized) => {
                unknown.extend(normalized.unknown.iter().map(|path| format!("metadata.{path}")));
            }
            Err(NormalizeError::Limit(limit)) => return Err(limit.into_status().into()),
            Err(NormalizeError::Type(why)) => return Err(cannot_be_handled(object, gvk, &why)),
        }
    }
    let found = schema.decode(object).map_err(|error| cannot_be_handled(object, gvk, &error.to_string()))?;
    unknown.extend(found);
    Ok(unknown.iter().map(|path| format!("unknown field {path:?}")).collect())
}

/// The type of object metadata.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Adds a missing version or kind.
fn fill_type_meta(object: &mut Value, gvk: &GroupVersionKind) -> Result<(), Refusal> {
    let expected = gvk.group_version();
    // A parsed body is always an object, but a patch may have replaced it with another value.
    let Some(fields) = object.as_object_mut() else {
        let why = not_an_object(object).unwrap_or_default();
        return Err(no_kind(&why));
    };
    for (name, wanted) in [("apiVersion", expected.to_string()), ("kind", gvk.kind.clone())] {
        let given = fields.get(name);
        if given.is_none_or(|value| value.is_null() || value.as_str() == Some("")) {
            fields.insert(name.to_owned(), Value::String(wanted));
        } else if !given.is_some_and(Value::is_string) {
            let why = not_an_object(object).unwrap_or_default();
            return Err(no_kind(&why));
        }
    }
    Ok(())
}

fn check_kind(object: &mut Value, gvk: &GroupVersionKind) -> Result<(), Refusal> {
    fill_type_meta(object, gvk)?;
    let expected = gvk.group_version();
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
        return Err(Status::bad_request(text).into());
    }
    let why = if kinds::type_of(&given).is_some() {
        format!(
            "converting ({}.{kind}) to ({}.{}): unknown conversion",
            given.version,
            short_group(gvk),
            gvk.kind
        )
    } else {
        not_registered(kind, version)
    };
    Err(cannot_be_handled(object, gvk, &why))
}

/// Returns the group's package name, as used in conversion errors.
fn short_group(gvk: &GroupVersionKind) -> &str {
    if gvk.group.is_empty() { "core" } else { gvk.group.split('.').next().unwrap_or_default() }
}

fn no_kind(why: &str) -> Refusal {
    let why = format!("couldn't get version/kind; json parse error: json: cannot unmarshal {why}");
    Refusal { status: Status::bad_request(why.as_str()), why: Some(why) }
}

fn cannot_be_handled(object: &Value, gvk: &GroupVersionKind, why: &str) -> Refusal {
    let version = GroupVersion::parse(meta::api_version(object)).unwrap_or_default();
    Refusal { status: mismatch(meta::kind(object), &version, &gvk.kind, why), why: Some(why.to_owned()) }
}

/// Returns the error for a body of a known kind with the wrong form.
fn mismatch(kind: &str, version: &GroupVersion, expected: &str, why: &str) -> Status {
    let version = &version.version;
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {expected}: {why}"))
}

/// The heading of the YAML decoder's error.
const YAML_ERRORS: &str = "yaml: unmarshal errors:\n";
/// Maximum number of bytes of a body shown in an error.
const MAX_SUMMARY: usize = 30;
/// Location of kube-apiserver's scheme, as shown in errors.
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_bodies_name_the_expected_kind() {
        const JSON: &str = "couldn't get version/kind; json parse error: ";
        let fields =
            r#"APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"""#;
        for (format, body, why) in [
            (Format::Json, "", format!("{JSON}unexpected end of JSON input (<empty>)")),
            (
                Format::Json,
                "nope",
                format!("{JSON}invalid character 'o' in literal null (expecting 'u') (6e6f7065)"),
            ),
            (
                Format::Json,
                r#"{"kind":"Pod",,"apiVersion":"v1"}"#,
                format!(
                    r#"{JSON}invalid character ',' looking for beginning of object key string ({{"kind":"Pod",,"apiVersion":"v ...)"#
                ),
            ),
            (
                Format::Json,
                "[]",
                format!("{JSON}json: cannot unmarshal array into Go value of type struct {{ {fields} }} (5b5d)"),
            ),
            (
                Format::Json,
                r#"{"kind":5}"#,
                format!(
                    r#"{JSON}json: cannot unmarshal number into Go struct field .kind of type string ({{"kind":5}})"#
                ),
            ),
            (
                Format::Yaml,
                "- a",
                format!("{JSON}json: cannot unmarshal array into Go value of type struct {{ {fields} }} (2d2061)"),
            ),
            (
                Format::Protobuf,
                "k8s",
                "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (6b3873)"
                    .to_owned(),
            ),
        ] {
            let expected = format!("the object provided is unrecognized (must be of type Pod): {why}");
            let status = parse(body.as_bytes(), format, "Pod").unwrap_err();
            assert_eq!((status.code, status.message), (400, expected), "{body}");
        }
        let status = parse(b"a: [", Format::Yaml, "Pod").unwrap_err();
        let start = "the object provided is unrecognized (must be of type Pod): error converting YAML to JSON: yaml: ";
        assert!(
            status.message.starts_with(start) && status.message.ends_with(" (613a205b)"),
            "{}",
            status.message
        );
    }

    #[test]
    fn errors_about_options_name_the_field() {
        let type_name = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
        for (body, why) in [
            (
                r#"{"gracePeriodSeconds": "5"}"#,
                "string into Go struct field DeleteOptions.gracePeriodSeconds of type int64",
            ),
            (r#"{"dryRun": "All"}"#, "string into Go struct field DeleteOptions.dryRun of type []string"),
            (
                r#"{"preconditions": {"resourceVersion": 5}}"#,
                "number into Go struct field Preconditions.preconditions.resourceVersion of type string",
            ),
        ] {
            let mut body = parse(body.as_bytes(), Format::Json, "DeleteOptions").unwrap().object;
            let status = check_types(&mut body, type_name).unwrap_err();
            assert_eq!((status.code, status.message), (400, format!("json: cannot unmarshal {why}")));
        }
    }

    #[test]
    fn errors_of_options_do_not_name_the_kind() {
        let status = parse_options(b"x", Format::Json).unwrap_err();
        let why = "couldn't get version/kind; json parse error: invalid character 'x' looking for beginning of value";
        assert_eq!((status.code, status.message.as_str()), (400, why));
    }

    #[test]
    fn null_is_an_object_without_fields() {
        for (text, format) in [("null", Format::Json), ("", Format::Yaml)] {
            assert_eq!(parse(text.as_bytes(), format, "Pod").unwrap().object, Value::Object(Map::new()));
        }
    }

    #[test]
    fn errors_show_the_version_without_its_group() {
        let gvk = GroupVersionKind::new("apps", "v1", "Deployment");
        let body =
            Body { object: serde_json::json!({"kind": "Nope", "apiVersion": "apps/v1"}), ..Body::default() };
        let status = typed(body, &gvk, &Schema::Builtin(None), FieldValidation::Strict).unwrap_err().status;
        let why = r#"no kind "Nope" is registered for version "apps/v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#;
        let expected = format!("Nope in version \"v1\" cannot be handled as a Deployment: {why}");
        assert_eq!(status.message, expected);
    }
}
