//! Encodes OpenAPI documents as gnostic's protobuf, from their JSON and from message tables.
//!
//! A message is a list of fields: JSON name, number, and form. Members of the JSON object whose names begin with `x-`
//! are the extensions of the message.

pub(super) mod v2;
pub(super) mod v3;

use nave_machinery::{Map, Value};

/// The form of a field.
#[derive(Clone, Copy)]
enum Form {
    /// A string, or a list of strings.
    Text,
    Flag,
    Integer,
    Double,
    /// A message, or a list of messages.
    Message(&'static Message),
    /// A message with a single field, `value`, which is a list of strings.
    Texts,
    /// Any value, as YAML inside a message.
    Any,
    /// A message that contains another message in the field with this number.
    Wrapped(u32, &'static Form),
    /// A message that contains a message in field 1, or in field 2 a reference to one.
    OrReference(&'static Form),
    /// An object with arbitrary keys: name-value pairs in the field with this number.
    Pairs(u32, &'static Form),
    /// A message, or a list of messages, that this function encodes.
    Custom(fn(&Value) -> Vec<u8>),
    /// A message that this function encodes, also if the value is a list.
    Whole(fn(&Value) -> Vec<u8>),
}

/// The fields of a message.
struct Message {
    fields: &'static [(&'static str, u32, Form)],
    /// The field number of the extensions; 0 if the message has no extensions.
    extensions: u32,
}

static REFERENCE: Message = Message { fields: &[("$ref", 1, Form::Text)], extensions: 0 };

impl Message {
    fn encode(&self, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, number, form) in self.fields {
            let Some(value) = value.get(name) else { continue };
            match value {
                Value::Array(values) if !matches!(form, Form::Texts | Form::Whole(_)) => {
                    for value in values {
                        put_field(&mut out, *number, *form, value);
                    }
                }
                value => put_field(&mut out, *number, *form, value),
            }
        }
        let extensions = value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"));
        for (name, value) in extensions.filter(|_| self.extensions != 0) {
            put_bytes(&mut out, self.extensions, &pair(name, Form::Any, value));
        }
        out
    }
}

fn put_field(out: &mut Vec<u8>, number: u32, form: Form, value: &Value) {
    match form {
        Form::Flag => {
            if value.as_bool().unwrap_or_default() {
                put_flag(out, number, true);
            }
        }
        Form::Integer => {
            if let Some(integer) = integer(value).filter(|integer| *integer != 0) {
                put_number(out, u64::from(number) << 3);
                // Negative numbers have ten bytes.
                put_number(out, integer.cast_unsigned());
            }
        }
        Form::Double => {
            if let Some(double) = value.as_f64().filter(|double| *double != 0.0) {
                put_double(out, number, double);
            }
        }
        form => put_bytes(out, number, &content(form, value)),
    }
}

/// Encodes the content of a field.
fn content(form: Form, value: &Value) -> Vec<u8> {
    match form {
        Form::Text => value.as_str().unwrap_or_default().as_bytes().to_vec(),
        // `put_field` writes these; they are not the content of another field.
        Form::Flag | Form::Integer | Form::Double => Vec::new(),
        Form::Message(message) => message.encode(value),
        Form::Texts => texts(value),
        Form::Any => nested(2, yaml(value).as_bytes()),
        Form::Wrapped(number, inner) => nested(number, &content(*inner, value)),
        Form::Pairs(number, inner) => pairs(number, *inner, value.as_object()),
        Form::OrReference(_) if value.get("$ref").is_some() => nested(2, &REFERENCE.encode(value)),
        Form::OrReference(inner) => nested(1, &content(*inner, value)),
        Form::Custom(encode) | Form::Whole(encode) => encode(value),
    }
}

fn texts(value: &Value) -> Vec<u8> {
    let one = std::slice::from_ref(value);
    let values = value.as_array().map_or(one, |values| &values[..]);
    let mut out = Vec::new();
    for value in values {
        put_bytes(&mut out, 1, value.as_str().unwrap_or_default().as_bytes());
    }
    out
}

fn pairs(number: u32, form: Form, map: Option<&Map>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in map.into_iter().flatten() {
        put_bytes(&mut out, number, &pair(name, form, value));
    }
    out
}

fn pair(name: &str, form: Form, value: &Value) -> Vec<u8> {
    let mut out = nested(1, name.as_bytes());
    put_bytes(&mut out, 2, &content(form, value));
    out
}

/// Returns the value as YAML: JSON is YAML, and gnostic's parsers expect a trailing newline.
fn yaml(value: &Value) -> String {
    format!("{value}\n")
}

/// Returns an integer, which a schema may also have as a double.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().map(|double| double as i64))
}

fn nested(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    put_bytes(&mut out, number, content);
    out
}

fn put_bytes(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    put_number(out, u64::from(number) << 3 | 2);
    put_number(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_flag(out: &mut Vec<u8>, number: u32, flag: bool) {
    put_number(out, u64::from(number) << 3);
    put_number(out, flag.into());
}

fn put_double(out: &mut Vec<u8>, number: u32, double: f64) {
    put_number(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&double.to_le_bytes());
}
