//! JSON in the path elements of `fieldsV1`: keys and values of list items.

use std::fmt::{self, Write};

use nave_machinery::Value;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::field_name::FieldName;

/// The fields of a key, in the order in which the text lists them.
pub(super) struct KeyFields(pub Vec<(FieldName, Value)>);

impl<'de> Deserialize<'de> for KeyFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = KeyFields;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KeyFields, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, Scalar(value))) = map.next_entry()? {
            fields.push((name, value));
        }
        Ok(KeyFields(fields))
    }
}

/// A scalar value. Lists and maps are rejected: they cannot be keys and need many times the memory of their text.
pub(super) struct Scalar(pub Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor).map(Self)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a scalar")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }
}

/// Appends a JSON string without Go's HTML escapes. `opening` is the quote and any text before the content.
pub(super) fn push_quoted(out: &mut String, opening: &str, text: &str) {
    out.push_str(opening);
    // Most texts have no special characters. A loop without an early exit can be vectorized.
    if text.bytes().fold(false, |found, byte| found | is_special(byte)) {
        push_escaped(out, text);
    } else {
        out.push_str(text);
    }
    out.push('"');
}

fn push_escaped(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(is_special) {
        let (plain, special) = rest.split_at(at);
        let (special, after) = special.split_at(1);
        out.push_str(plain);
        match special {
            "\"" => out.push_str("\\\""),
            "\\" => out.push_str("\\\\"),
            // Writing to a string cannot fail.
            control => drop(write!(out, "\\u{:04x}", control.bytes().next().unwrap_or_default())),
        }
        rest = after;
    }
    out.push_str(rest);
}

/// Returns whether a byte must be escaped in JSON.
fn is_special(byte: u8) -> bool {
    matches!(byte, ..b' ' | b'"' | b'\\')
}

/// Appends `k:` and the JSON of a key as a JSON string. Most keys have only plain texts and integers, whose quotes are
/// written escaped. Returns false, without a change, for other keys.
pub(super) fn push_plain_key(out: &mut String, fields: &[(FieldName, Value)]) -> bool {
    let start = out.len();
    let mut opening = "\"k:{\\\"";
    for (name, value) in fields {
        let name = name.as_str();
        out.extend([opening, name, "\\\":"]);
        opening = ",\\\"";
        match value {
            Value::String(text) if is_plain(name) && is_plain(text) => out.extend(["\\\"", text, "\\\""]),
            // Writing to a string cannot fail.
            Value::Number(number) if is_plain(name) && !number.is_f64() => drop(write!(out, "{number}")),
            _ => {
                out.truncate(start);
                return false;
            }
        }
    }
    out.push_str(if fields.is_empty() { "\"k:{}\"" } else { "}\"" });
    true
}

/// Appends a value as Go's encoder formats it.
pub(super) fn push_json(text: &mut String, value: &Value) {
    match value {
        Value::String(value) => push_text(text, value),
        Value::Number(number) => push_number(text, number),
        other => escape(text, &other.to_string()),
    }
}

/// Appends a number. Go's encoder writes whole doubles up to 1e21 as integers.
fn push_number(text: &mut String, number: &serde_json::Number) {
    let whole =
        number.as_f64().filter(|double| number.is_f64() && double.fract() == 0.0 && double.abs() < 1e21);
    // Writing to a string cannot fail. Adding zero turns negative zero into zero.
    let _ = match whole {
        Some(double) => write!(text, "{}", double + 0.0),
        None => write!(text, "{number}"),
    };
}

/// Appends a string as Go's encoder formats it.
pub(super) fn push_text(text: &mut String, value: &str) {
    if is_plain(value) {
        text.push('"');
        text.push_str(value);
        text.push('"');
    } else {
        escape(text, &Value::String(value.to_owned()).to_string());
    }
}

/// Returns whether Go's encoder writes a string without escapes.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&'))
}

/// Appends JSON, with `<`, `>` and `&` escaped as Go's encoder does.
fn escape(text: &mut String, json: &str) {
    for character in json.chars() {
        match character {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_json() {
        for text in ["", "plain", "\"", "a\"b\\c", "\u{0}\n\u{1f} \u{7f}", "é\"\u{2028}", r#"k:{"a":"b"}"#] {
            let mut quoted = String::new();
            push_quoted(&mut quoted, "\"f:", text);
            assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), format!("f:{text}"));
        }
    }
}
