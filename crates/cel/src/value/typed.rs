//! JSON values that follow a schema.

use base64::alphabet::URL_SAFE;
use serde_json::Value as Json;

use super::collections::{List, Map};
use super::{Text, Value, decode_base64};
use crate::failure::Failure;
use crate::library::time::{parse_date_time, parse_full_date, parse_openapi_duration};
use crate::schema::{Decl, DeclKind};

/// Converts a JSON value with its schema.
///
/// # Errors
/// The value does not follow the schema. Upstream: `UnstructuredToVal`.
pub(crate) fn typed<'a>(json: &'a Json, decl: &'a Decl) -> Result<Value<'a>, Failure> {
    if json.is_null() {
        if decl.nullable {
            return Ok(Value::Null);
        }
        return Err(Failure::new("invalid data, got null for schema with nullable=false"));
    }
    match (&decl.kind, json) {
        (DeclKind::IntOrString, Json::String(text)) => Ok(Value::String(Text::Borrowed(text))),
        (DeclKind::IntOrString, Json::Number(number)) if number.is_i64() => {
            Ok(Value::Int(number.as_i64().unwrap_or_default()))
        }
        (DeclKind::IntOrString, _) => {
            Err(Failure::new("invalid data, expected XIntOrString value to be either a string or integer"))
        }
        (DeclKind::Object(_) | DeclKind::Map(_), Json::Object(fields)) => {
            Ok(Value::Map(Map::Typed(fields, decl)))
        }
        (DeclKind::Object(_) | DeclKind::Map(_), _) => {
            Err(Failure::new("invalid data, expected a map for the provided schema with type=object"))
        }
        (DeclKind::List { .. }, Json::Array(items)) => Ok(Value::List(List::json(items, Some(decl)))),
        (DeclKind::List { .. }, _) => {
            Err(Failure::new("invalid data, expected an array for the provided schema with type=array"))
        }
        (DeclKind::String, Json::String(text)) => Ok(Value::String(Text::Borrowed(text))),
        (DeclKind::Bytes, Json::String(text)) => bytes(text),
        (DeclKind::Duration, Json::String(text)) => parse_openapi_duration(text)
            .map(Value::Duration)
            .ok_or_else(|| Failure::new(format!("Invalid duration {text}: unable to parse"))),
        (DeclKind::Date, Json::String(text)) => parse_full_date(text)
            .map(Value::Timestamp)
            .ok_or_else(|| Failure::new(format!("Invalid date formatted string {text}: unable to parse"))),
        (DeclKind::DateTime, Json::String(text)) => {
            parse_date_time(text).map(Value::Timestamp).ok_or_else(|| {
                Failure::new(format!("Invalid date-time formatted string {text}: unable to parse"))
            })
        }
        (
            DeclKind::String | DeclKind::Bytes | DeclKind::Duration | DeclKind::Date | DeclKind::DateTime,
            _,
        ) => Err(Failure::new(format!("invalid data, expected string, got {}", go_json_type(json)))),
        (DeclKind::Double, Json::Number(number)) => Ok(Value::Double(number.as_f64().unwrap_or(f64::NAN))),
        (DeclKind::Double, _) => {
            Err(Failure::new(format!("invalid data, expected float, got {}", go_json_type(json))))
        }
        (DeclKind::Int, Json::Number(number)) if number.is_i64() => {
            Ok(Value::Int(number.as_i64().unwrap_or_default()))
        }
        (DeclKind::Int, _) => {
            Err(Failure::new(format!("invalid data, expected int, got {}", go_json_type(json))))
        }
        (DeclKind::Bool, Json::Bool(it)) => Ok(Value::Bool(*it)),
        (DeclKind::Bool, _) => {
            Err(Failure::new(format!("invalid data, expected bool, got {}", go_json_type(json))))
        }
        (DeclKind::Preserved, _) => Ok(Value::Preserved(json)),
    }
}

fn bytes(text: &str) -> Result<Value<'static>, Failure> {
    // As upstream, the alphabet is that of URLs, although the format has the standard alphabet.
    match decode_base64(&text.replace(['\r', '\n'], ""), &URL_SAFE) {
        Ok(bytes) => Ok(Value::Bytes(bytes.into())),
        Err(at) => Err(Failure::new(format!(
            "Invalid byte formatted string {text}: illegal base64 data at input byte {at}"
        ))),
    }
}

fn go_json_type(json: &Json) -> &'static str {
    match json {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_i64() => "int64",
        Json::Number(_) => "float64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    }
}
