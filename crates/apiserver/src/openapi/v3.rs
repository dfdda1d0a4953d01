//! OpenAPI 3.0: one document for each group and version.

use nave_machinery::{Map, Value};
use nave_schema::SchemaSet;
use serde_json::json;

use super::custom::CustomTypes;
use super::definitions::{Definitions, Dialect, Kinds, object};
use super::documentation::Documentation;
use super::operations::{Content, Operation, PathItem};
use super::parameters::Parameter;

/// Returns the document that describes these paths.
pub(super) fn document(
    items: &[PathItem],
    kinds: &Kinds,
    custom: CustomTypes<'_>,
    schemas: &SchemaSet,
    documentation: &Documentation,
) -> Value {
    let mut definitions = Definitions::new(Dialect::V3, schemas, documentation, kinds).with_custom(custom);
    let paths: Map =
        items.iter().map(|item| (item.path.clone(), path_item(item, &mut definitions))).collect();
    json!({
        "openapi": "3.0.0",
        "info": super::info(),
        "paths": paths,
        "components": {
            "schemas": definitions.finish(),
            "securitySchemes": {"BearerToken": super::security_scheme()},
        },
    })
}

fn path_item(item: &PathItem, definitions: &mut Definitions<'_>) -> Value {
    let mut written = Map::new();
    for of in &item.operations {
        written.insert(of.method.to_owned(), operation(of, definitions));
    }
    add_parameters(&mut written, &item.parameters);
    Value::Object(written)
}

fn operation(of: &Operation, definitions: &mut Definitions<'_>) -> Value {
    let mut written = object(json!({"tags": [of.tag], "description": of.about, "operationId": of.id}));
    add_parameters(&mut written, &of.parameters);
    if let Some(body) = &of.body {
        let schema = definitions.reference(&body.type_name);
        let mut body_of = object(json!({"content": content(of.consumes, &schema)}));
        if body.required {
            body_of.insert("required".to_owned(), json!(true));
        }
        written.insert("requestBody".to_owned(), Value::Object(body_of));
    }
    let schema = match &of.answer {
        Content::Type(name) => definitions.reference(name),
        Content::Text => json!({"type": "string"}),
    };
    let mut responses: Map = of
        .codes
        .iter()
        .map(|code| {
            let description = super::reason(*code);
            (code.to_string(), json!({"description": description, "content": content(of.produces, &schema)}))
        })
        .collect();
    responses.insert("401".to_owned(), json!({"description": super::reason(401)}));
    written.insert("responses".to_owned(), Value::Object(responses));
    super::add_action(&mut written, of);
    Value::Object(written)
}

fn content(media_types: &[&str], schema: &Value) -> Map {
    media_types.iter().map(|media_type| ((*media_type).to_owned(), json!({"schema": schema}))).collect()
}

fn add_parameters(to: &mut Map, parameters: &[Parameter]) {
    if !parameters.is_empty() {
        to.insert("parameters".to_owned(), parameters.iter().map(parameter).collect());
    }
}

fn parameter(of: &Parameter) -> Value {
    let mut written = object(json!({
        "name": of.name,
        "in": super::place(of),
        "description": of.about,
        "schema": {"type": of.kind, "uniqueItems": true},
    }));
    if of.in_path {
        written.insert("required".to_owned(), json!(true));
    }
    Value::Object(written)
}
