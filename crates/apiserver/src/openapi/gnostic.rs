//! Encodes the version 2 document as gnostic's protobuf (`openapi.v2.Document`), from its JSON and from message tables.
//!
//! A message is a list of fields: JSON name, number, and form. Members of the JSON object whose names begin with `x-`
//! are the extensions of the message.

use nave_machinery::{Map, Value};

/// The form of a field.
#[derive(Clone, Copy)]
enum Form {
    /// A string, or a list of strings.
    Text,
    Flag,
    /// A message, or a list of messages.
    Message(&'static Message),
    /// A message with a single field, `value`, which is a list of strings.
    Texts,
    /// Any value, as YAML inside a message.
    Any,
    /// A message that contains another message in the field with this number.
    Wrapped(u32, &'static Form),
    /// An object with arbitrary keys: name-value pairs in the field with this number.
    Pairs(u32, &'static Form),
    /// A parameter.
    Parameter,
    /// A parameter, or a reference to one.
    ParametersItem,
}

/// The fields of a message.
struct Message {
    fields: &'static [(&'static str, u32, Form)],
    /// The field number of the extensions; 0 if the message has no extensions.
    extensions: u32,
}

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Form::Text),
        ("info", 2, Form::Message(&INFO)),
        ("paths", 8, Form::Pairs(2, &Form::Message(&PATH_ITEM))),
        ("definitions", 9, Form::Pairs(1, &SCHEMA_FORM)),
        ("parameters", 10, Form::Pairs(1, &Form::Parameter)),
        ("security", 12, Form::Pairs(1, &Form::Texts)),
        ("securityDefinitions", 13, Form::Pairs(1, &Form::Wrapped(2, &Form::Message(&API_KEY)))),
    ],
    extensions: 16,
};

static INFO: Message =
    Message { fields: &[("title", 1, Form::Text), ("version", 2, Form::Text)], extensions: 7 };

static API_KEY: Message = Message {
    fields: &[
        ("type", 1, Form::Text),
        ("name", 2, Form::Text),
        ("in", 3, Form::Text),
        ("description", 4, Form::Text),
    ],
    extensions: 5,
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, Form::Message(&OPERATION)),
        ("put", 3, Form::Message(&OPERATION)),
        ("post", 4, Form::Message(&OPERATION)),
        ("delete", 5, Form::Message(&OPERATION)),
        ("options", 6, Form::Message(&OPERATION)),
        ("head", 7, Form::Message(&OPERATION)),
        ("patch", 8, Form::Message(&OPERATION)),
        ("parameters", 9, Form::ParametersItem),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Form::Text),
        ("description", 3, Form::Text),
        ("operationId", 5, Form::Text),
        ("produces", 6, Form::Text),
        ("consumes", 7, Form::Text),
        ("parameters", 8, Form::ParametersItem),
        ("responses", 9, Form::Pairs(1, &Form::Wrapped(1, &Form::Message(&RESPONSE)))),
        ("schemes", 10, Form::Text),
    ],
    extensions: 13,
};

static RESPONSE: Message = Message {
    fields: &[("description", 1, Form::Text), ("schema", 2, Form::Wrapped(1, &SCHEMA_FORM))],
    extensions: 5,
};

static REFERENCE: Message = Message { fields: &[("$ref", 1, Form::Text)], extensions: 0 };

static BODY_PARAMETER: Message = Message {
    fields: &[
        ("description", 1, Form::Text),
        ("name", 2, Form::Text),
        ("in", 3, Form::Text),
        ("required", 4, Form::Flag),
        ("schema", 5, SCHEMA_FORM),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Form::Flag),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 6, Form::Text),
        ("uniqueItems", 20, Form::Flag),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Form::Flag),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 5, Form::Text),
        ("uniqueItems", 19, Form::Flag),
    ],
    extensions: 22,
};

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Form::Text),
        ("format", 2, Form::Text),
        ("description", 4, Form::Text),
        ("default", 5, Form::Any),
        ("required", 19, Form::Text),
        ("enum", 20, Form::Any),
        ("additionalProperties", 21, Form::Wrapped(1, &SCHEMA_FORM)),
        ("type", 22, Form::Texts),
        ("items", 23, Form::Wrapped(1, &SCHEMA_FORM)),
        ("properties", 25, Form::Pairs(1, &SCHEMA_FORM)),
    ],
    extensions: 31,
};

static SCHEMA_FORM: Form = Form::Message(&SCHEMA);

/// Encodes a version 2 document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    DOCUMENT.encode(document)
}

impl Message {
    fn encode(&self, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, number, form) in self.fields {
            let Some(value) = value.get(name) else { continue };
            match value {
                Value::Array(values) if !matches!(form, Form::Texts) => {
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
                put_number(out, u64::from(number) << 3);
                put_number(out, 1);
            }
        }
        form => put_bytes(out, number, &content(form, value)),
    }
}

/// Encodes the content of a field.
fn content(form: Form, value: &Value) -> Vec<u8> {
    match form {
        Form::Text => value.as_str().unwrap_or_default().as_bytes().to_vec(),
        Form::Flag => Vec::new(),
        Form::Message(message) => message.encode(value),
        Form::Texts => texts(value),
        Form::Any => nested(2, yaml(value).as_bytes()),
        Form::Wrapped(number, inner) => nested(number, &content(*inner, value)),
        Form::Pairs(number, inner) => pairs(number, *inner, value.as_object()),
        Form::Parameter => parameter(value),
        Form::ParametersItem => parameters_item(value),
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

fn parameters_item(value: &Value) -> Vec<u8> {
    if value.get("$ref").is_some() {
        return nested(2, &REFERENCE.encode(value));
    }
    nested(1, &parameter(value))
}

fn parameter(value: &Value) -> Vec<u8> {
    match value.get("in").and_then(Value::as_str) {
        Some("body") => nested(1, &BODY_PARAMETER.encode(value)),
        Some("path") => nested(2, &nested(4, &PATH_PARAMETER.encode(value))),
        _ => nested(2, &nested(3, &QUERY_PARAMETER.encode(value))),
    }
}

/// Returns the value as YAML: JSON is YAML, and gnostic's parsers expect a trailing newline.
fn yaml(value: &Value) -> String {
    format!("{value}\n")
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
