//! Conversion between values and JSON.

use serde_json::Value as Json;

use super::collections::{Key, List, Map};
use super::{Text, Value};

/// Converts a JSON value without a schema. As in Go, integers are signed, and larger integers become doubles.
pub(crate) fn from_json(json: &Json) -> Value<'_> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(it) => Value::Bool(*it),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Int(whole),
            None => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Text::Borrowed(text)),
        Json::Array(items) => Value::List(List::json(items, None)),
        Json::Object(fields) => Value::Map(Map::Json(fields)),
    }
}

/// Converts a value to JSON; `None` if it has no JSON form.
pub(crate) fn to_json(value: &Value<'_>) -> Option<Json> {
    Some(match value {
        Value::Null | Value::Optional(None) => Json::Null,
        Value::Optional(Some(value)) => to_json(value)?,
        Value::Bool(it) => Json::Bool(*it),
        Value::Int(it) => Json::from(*it),
        Value::Uint(it) => Json::from(*it),
        Value::Double(it) => Json::Number(serde_json::Number::from_f64(*it)?),
        Value::String(text) => Json::String((**text).to_owned()),
        Value::Bytes(bytes) => Json::String(base64_text(bytes)),
        Value::Duration(_)
        | Value::Timestamp(_)
        | Value::Quantity(_)
        | Value::Ip(_)
        | Value::Cidr(_)
        | Value::Url(_)
        | Value::Semver(_) => Json::String(super::show::plain(value)),
        Value::List(list) => {
            let items = list.iter().map(|item| to_json(&item.ok()?));
            Json::Array(items.collect::<Option<_>>()?)
        }
        Value::Map(Map::Json(fields) | Map::Typed(fields, _)) => Json::Object((*fields).clone()),
        Value::Map(Map::Owned(entries)) => {
            let fields = entries.iter().map(|(key, value)| {
                let name = match key {
                    Key::String(text) => (**text).to_owned(),
                    other => super::show::plain(&other.value()),
                };
                Some((name, to_json(value)?))
            });
            Json::Object(fields.collect::<Option<_>>()?)
        }
        Value::Object(object) => {
            let fields = object.fields.iter().map(|(name, value)| Some((name.to_string(), to_json(value)?)));
            Json::Object(fields.collect::<Option<_>>()?)
        }
        Value::Preserved(json) => (*json).clone(),
        _ => return None,
    })
}

/// Decodes padded base64. As in Go, the unused bits of the last letter can have any value.
///
/// # Errors
/// The text is invalid. The error is the position of the first invalid byte.
pub(crate) fn decode_base64(text: &str, alphabet: &base64::alphabet::Alphabet) -> Result<Vec<u8>, usize> {
    use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
    use base64::{DecodeError, Engine as _};
    let lenient = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(alphabet, lenient).decode(text).map_err(|error| match error {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len() - text.len() % 4,
    })
}

pub(crate) fn base64_text(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
