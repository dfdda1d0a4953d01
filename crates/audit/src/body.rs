//! Request and response objects in events.

use std::borrow::Cow;

use bytes::Bytes;
use nave_codec::negotiate::Format;
use nave_codec::{json, yaml};
use nave_machinery::Value;

/// An object in an event. Documents are converted when the event is encoded, outside the request.
#[derive(Clone, Debug)]
pub enum Body {
    /// Compact JSON that this server has encoded.
    Json(Bytes),
    /// Another document.
    Document {
        /// JSON or YAML.
        bytes: Bytes,
        /// The format.
        format: Format,
        /// True if managed fields are removed.
        omit_managed_fields: bool,
    },
}

impl Body {
    /// Encodes an object.
    pub fn encoded(object: &Value) -> Self {
        Self::Json(json::encode(object).into())
    }

    /// Creates the body of JSON that this server has sent.
    pub fn sent(bytes: Bytes, omit_managed_fields: bool) -> Self {
        let bytes = match bytes.strip_suffix(b"\n") {
            Some(line) => bytes.slice_ref(line),
            None => bytes,
        };
        if omit_managed_fields || memchr::memchr(b'\n', &bytes).is_some() {
            Self::Document { bytes, format: Format::Json, omit_managed_fields }
        } else {
            Self::Json(bytes)
        }
    }

    /// Returns compact JSON on one line; `None` if a client's document cannot be decoded.
    pub(crate) fn json(&self) -> Option<Cow<'_, [u8]>> {
        let (bytes, format, omit_managed_fields) = match self {
            Self::Json(bytes) => return Some(Cow::Borrowed(bytes)),
            Self::Document { bytes, format, omit_managed_fields } => (bytes, format, *omit_managed_fields),
        };
        let decoded = match format {
            Format::Json => json::decode(bytes).ok()?,
            Format::Yaml => yaml::decode(bytes).ok()?,
            Format::Protobuf => return None,
        };
        let mut value = decoded.value;
        if omit_managed_fields {
            remove_managed_fields(&mut value);
        }
        Some(Cow::Owned(json::encode(&value)))
    }

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Json(bytes) | Self::Document { bytes, .. } => bytes.len(),
        }
    }
}

/// Removes the managed fields of an object, of the items of a list, and of the objects in a table.
fn remove_managed_fields(value: &mut Value) {
    remove_from(value);
    for item in list(value, "items") {
        remove_from(item);
    }
    for row in list(value, "rows") {
        if let Some(object) = row.get_mut("object") {
            remove_from(object);
        }
    }
}

fn remove_from(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

fn list<'v>(value: &'v mut Value, field: &str) -> &'v mut [Value] {
    value.get_mut(field).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &Body) -> Option<String> {
        body.json().map(|json| String::from_utf8(json.into_owned()).unwrap())
    }

    #[test]
    fn documents_become_one_line_of_json() {
        let document = |text: &'static str, format| Body::Document {
            bytes: Bytes::from_static(text.as_bytes()),
            format,
            omit_managed_fields: false,
        };
        for (body, expected) in [
            (Body::sent(Bytes::from_static(b"{\"a\":1}\n"), false), Some("{\"a\":1}")),
            (Body::sent(Bytes::from_static(b"{\n\"a\": 1}\n"), false), Some("{\"a\":1}")),
            (document("[{\"op\":\n\"test\"}]", Format::Json), Some("[{\"op\":\"test\"}]")),
            (document("a:\n  b: c\n", Format::Yaml), Some("{\"a\":{\"b\":\"c\"}}")),
            (document("{", Format::Json), None),
            (document("a: [", Format::Yaml), None),
        ] {
            assert_eq!(text(&body).as_deref(), expected, "{body:?}");
        }
    }

    #[test]
    fn removes_managed_fields_of_objects_lists_and_tables() {
        for (sent, expected) in [
            (r#"{"metadata":{"managedFields":[1],"name":"a"}}"#, r#"{"metadata":{"name":"a"}}"#),
            (r#"{"items":[{"metadata":{"managedFields":[1]}},2]}"#, r#"{"items":[{"metadata":{}},2]}"#),
            (
                r#"{"rows":[{"object":{"metadata":{"managedFields":[1]}}},{}]}"#,
                r#"{"rows":[{"object":{"metadata":{}}},{}]}"#,
            ),
            (r#"{"metadata":3,"items":{}}"#, r#"{"items":{},"metadata":3}"#),
        ] {
            let value = text(&Body::sent(Bytes::from_static(sent.as_bytes()), true)).unwrap();
            let (value, expected): (Value, Value) =
                (serde_json::from_str(&value).unwrap(), serde_json::from_str(expected).unwrap());
            assert_eq!(value, expected);
        }
    }
}
