//! The messages of version 3 (`openapi.v3.Document`).

use nave_machinery::Value;

use super::{Form, Message, content, put_bytes, put_double, put_flag};

/// Encodes a document.
pub(in crate::openapi) fn encode(document: &Value) -> Vec<u8> {
    DOCUMENT.encode(document)
}

/// Encodes `additionalProperties`: a schema, or whether there may be any.
fn additional_properties(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::Bool(flag) => put_flag(&mut out, 2, *flag),
        schema => put_bytes(&mut out, 1, &content(SCHEMA, schema)),
    }
    out
}

/// Encodes a default. Those of lists and objects have no content, as upstream.
fn default(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::Number(number) => put_double(&mut out, 1, number.as_f64().unwrap_or_default()),
        Value::Bool(flag) => put_flag(&mut out, 2, *flag),
        Value::String(text) => put_bytes(&mut out, 3, text.as_bytes()),
        _ => {}
    }
    out
}

static DOCUMENT: Message = Message {
    fields: &[
        ("openapi", 1, Form::Text),
        ("info", 2, Form::Message(&INFO)),
        ("paths", 4, Form::Pairs(1, &Form::Message(&PATH_ITEM))),
        ("components", 5, Form::Message(&COMPONENTS)),
    ],
    extensions: 9,
};

static INFO: Message = Message {
    fields: &[("title", 1, Form::Text), ("description", 2, Form::Text), ("version", 6, Form::Text)],
    extensions: 7,
};

static COMPONENTS: Message = Message {
    fields: &[
        ("schemas", 1, Form::Pairs(1, &SCHEMA)),
        ("parameters", 3, Form::Pairs(1, &Form::OrReference(&Form::Message(&PARAMETER)))),
        ("requestBodies", 6, Form::Pairs(1, &Form::OrReference(&Form::Message(&REQUEST_BODY)))),
        ("securitySchemes", 7, Form::Pairs(1, &Form::OrReference(&Form::Message(&SECURITY_SCHEME)))),
    ],
    extensions: 10,
};

static SECURITY_SCHEME: Message = Message {
    fields: &[
        ("type", 1, Form::Text),
        ("description", 2, Form::Text),
        ("name", 3, Form::Text),
        ("in", 4, Form::Text),
    ],
    extensions: 9,
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("description", 3, Form::Text),
        ("get", 4, Form::Message(&OPERATION)),
        ("put", 5, Form::Message(&OPERATION)),
        ("post", 6, Form::Message(&OPERATION)),
        ("delete", 7, Form::Message(&OPERATION)),
        ("options", 8, Form::Message(&OPERATION)),
        ("head", 9, Form::Message(&OPERATION)),
        ("patch", 10, Form::Message(&OPERATION)),
        ("parameters", 13, Form::OrReference(&Form::Message(&PARAMETER))),
    ],
    extensions: 14,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Form::Text),
        ("description", 3, Form::Text),
        ("operationId", 5, Form::Text),
        ("parameters", 6, Form::OrReference(&Form::Message(&PARAMETER))),
        ("requestBody", 7, Form::OrReference(&Form::Message(&REQUEST_BODY))),
        ("responses", 8, Form::Pairs(2, &Form::OrReference(&Form::Message(&RESPONSE)))),
        ("deprecated", 10, Form::Flag),
    ],
    extensions: 13,
};

static PARAMETER: Message = Message {
    fields: &[
        ("name", 1, Form::Text),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("required", 4, Form::Flag),
        ("schema", 10, SCHEMA),
    ],
    extensions: 14,
};

static REQUEST_BODY: Message = Message {
    fields: &[
        ("description", 1, Form::Text),
        ("content", 2, Form::Pairs(1, &Form::Message(&MEDIA_TYPE))),
        ("required", 3, Form::Flag),
    ],
    extensions: 4,
};

static RESPONSE: Message = Message {
    fields: &[("description", 1, Form::Text), ("content", 3, Form::Pairs(1, &Form::Message(&MEDIA_TYPE)))],
    extensions: 5,
};

static MEDIA_TYPE: Message = Message { fields: &[("schema", 1, SCHEMA)], extensions: 5 };

static SCHEMA: Form = Form::OrReference(&SCHEMA_MESSAGE);

static SCHEMA_MESSAGE: Form = Form::Message(&SCHEMA_FIELDS);

static SCHEMA_FIELDS: Message = Message {
    fields: &[
        ("nullable", 1, Form::Flag),
        ("readOnly", 3, Form::Flag),
        ("writeOnly", 4, Form::Flag),
        ("example", 7, Form::Any),
        ("deprecated", 8, Form::Flag),
        ("title", 9, Form::Text),
        ("multipleOf", 10, Form::Double),
        ("maximum", 11, Form::Double),
        ("exclusiveMaximum", 12, Form::Flag),
        ("minimum", 13, Form::Double),
        ("exclusiveMinimum", 14, Form::Flag),
        ("maxLength", 15, Form::Integer),
        ("minLength", 16, Form::Integer),
        ("pattern", 17, Form::Text),
        ("maxItems", 18, Form::Integer),
        ("minItems", 19, Form::Integer),
        ("uniqueItems", 20, Form::Flag),
        ("maxProperties", 21, Form::Integer),
        ("minProperties", 22, Form::Integer),
        ("required", 23, Form::Text),
        ("enum", 24, Form::Any),
        ("type", 25, Form::Text),
        ("allOf", 26, Form::OrReference(&SCHEMA_MESSAGE)),
        ("oneOf", 27, Form::OrReference(&SCHEMA_MESSAGE)),
        ("anyOf", 28, Form::OrReference(&SCHEMA_MESSAGE)),
        ("not", 29, Form::Message(&SCHEMA_FIELDS)),
        ("items", 30, Form::Wrapped(1, &SCHEMA)),
        ("properties", 31, Form::Pairs(1, &SCHEMA)),
        ("additionalProperties", 32, Form::Whole(additional_properties)),
        ("default", 33, Form::Whole(default)),
        ("description", 34, Form::Text),
        ("format", 35, Form::Text),
    ],
    extensions: 36,
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    }

    #[test]
    fn fields_have_their_forms() {
        for (schema, expected) in [
            (json!({"type": "string"}), "0a09ca0106737472696e67"),
            (json!({"$ref": "#/a"}), "12050a03232f61"),
            (json!({"minimum": 1.5, "maxLength": 3, "minItems": 0}), "0a0b69000000000000f83f7803"),
            (json!({"minLength": -1}), "0a0c8001ffffffffffffffffff01"),
            (json!({"uniqueItems": true, "nullable": false}), "0a03a00101"),
            (json!({"enum": ["a", 1]}), "0a10c2010612042261220ac201041202310a"),
            (json!({"default": {}}), "0a038a0200"),
            (json!({"default": [1]}), "0a038a0200"),
            (json!({"default": false}), "0a058a02021000"),
            (json!({"default": 2}), "0a0c8a0209090000000000000040"),
            (json!({"default": "x"}), "0a068a02031a0178"),
            (json!({"additionalProperties": true}), "0a058202021001"),
            (json!({"additionalProperties": {}}), "0a078202040a020a00"),
            (json!({"items": {"$ref": "#/a"}}), "0a0cf201090a0712050a03232f61"),
            (
                json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
                "0a12da01060a04ba010161da01060a04ba010162",
            ),
            (json!({"x-a": "b"}), "0a10a2020d0a03782d61120612042262220a"),
        ] {
            assert_eq!(hex(&content(SCHEMA, &schema)), expected, "{schema}");
        }
    }
}
