//! The messages of version 2 (`openapi.v2.Document`).

use nave_machinery::Value;

use super::{Form, Message, REFERENCE, nested};

/// Encodes a document.
pub(in crate::openapi) fn encode(document: &Value) -> Vec<u8> {
    DOCUMENT.encode(document)
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

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Form::Text),
        ("info", 2, Form::Message(&INFO)),
        ("paths", 8, Form::Pairs(2, &Form::Message(&PATH_ITEM))),
        ("definitions", 9, Form::Pairs(1, &SCHEMA_FORM)),
        ("parameters", 10, Form::Pairs(1, &Form::Custom(parameter))),
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
        ("parameters", 9, Form::Custom(parameters_item)),
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
        ("parameters", 8, Form::Custom(parameters_item)),
        ("responses", 9, Form::Pairs(1, &Form::Wrapped(1, &Form::Message(&RESPONSE)))),
        ("schemes", 10, Form::Text),
    ],
    extensions: 13,
};

static RESPONSE: Message = Message {
    fields: &[("description", 1, Form::Text), ("schema", 2, Form::Wrapped(1, &SCHEMA_FORM))],
    extensions: 5,
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
