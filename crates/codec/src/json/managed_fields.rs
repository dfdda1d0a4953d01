//! Encoding of objects whose `fieldsV1` may be texts (see [`nave_machinery::managed_fields`]).

use nave_machinery::limits::MAX_DEPTH;
use nave_machinery::{Map, Value};

use super::{JsonError, check, encode_text_into, encode_value_into};

/// Appends the compact form of an object to `out`. Writes `fieldsV1` texts as the trees that they contain.
///
/// If one is not JSON, all are written as texts: only clients write such texts, into objects without a field manager
/// such as a binding. A webhook must see these objects too.
pub fn encode_object_into(object: &Value, out: &mut Vec<u8>) {
    encode_fields(object, out, |name, value, out| match value {
        Value::Object(_) if name == "metadata" => encode_fields(value, out, |name, value, out| {
            let start = out.len();
            match value {
                Value::Array(entries)
                    if name == "managedFields" && encode_managed_fields_into(entries, out).is_ok() => {}
                _ => {
                    out.truncate(start);
                    encode_value_into(value, out);
                }
            }
        }),
        _ => encode_value_into(value, out),
    });
}

/// Appends the compact form of the list `metadata.managedFields` to `out`. Writes `fieldsV1` texts as the trees that
/// they contain.
///
/// # Errors
/// A `fieldsV1` text is not JSON. `out` then has a part of the list.
pub fn encode_managed_fields_into(entries: &[Value], out: &mut Vec<u8>) -> Result<(), JsonError> {
    out.push(b'[');
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let mut checked = Ok(());
        encode_fields(entry, out, |name, value, out| match value {
            Value::String(text) if name == "fieldsV1" => {
                checked = check(text.as_bytes(), MAX_DEPTH);
                out.extend_from_slice(text.as_bytes());
            }
            _ => encode_value_into(value, out),
        });
        checked?;
    }
    out.push(b']');
    Ok(())
}

/// Appends a map, with the values that `encode` writes. Writes other values as they are.
fn encode_fields(value: &Value, out: &mut Vec<u8>, mut encode: impl FnMut(&str, &Value, &mut Vec<u8>)) {
    let Value::Object(fields) = value else { return encode_value_into(value, out) };
    out.push(b'{');
    for (at, (name, value)) in Map::iter(fields).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        encode_text_into(name, out);
        out.push(b':');
        encode(name, value, out);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn encoded(object: &Value) -> Value {
        let mut out = Vec::new();
        encode_object_into(object, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn texts_are_written_as_trees() {
        let object = |fields: Value| {
            json!({"kind": "Pod", "metadata": {
                "name": "a\"b", "managedFields": [{"manager": "m", "fieldsV1": fields}, 1],
            }, "spec": {"fieldsV1": "{}"}})
        };
        let tree = object(json!({"f:a": {"f:\"": {}}}));
        assert_eq!(encoded(&object(json!("{\"f:a\":{\"f:\\\"\":{}}}"))), tree);
        assert_eq!(encoded(&tree), tree);
        for text in ["", "{", "{}{}", "{\"f:a\":{}},\"x\":{"] {
            let (invalid, mut out) = (object(json!(text)), Vec::new());
            let entries = invalid["metadata"]["managedFields"].as_array().unwrap();
            assert!(encode_managed_fields_into(entries, &mut out).is_err(), "{text}");
            assert_eq!(encoded(&invalid), invalid, "a text stays a text");
        }
        for other in
            [json!(null), json!([]), json!({"metadata": 1}), json!({"metadata": {"managedFields": {}}})]
        {
            assert_eq!(encoded(&other), other);
        }
    }
}
