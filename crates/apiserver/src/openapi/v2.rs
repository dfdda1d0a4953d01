//! OpenAPI 2.0: one document for the whole API.

use nave_machinery::{Map, Value};
use nave_schema::SchemaSet;
use serde_json::json;
use sha2::{Digest, Sha256};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::custom::CustomTypes;
use super::definitions::{Definitions, Dialect, Kinds, META, object};
use super::documentation::Documentation;
use super::operations::{Body, Content, Operation, PathItem};
use super::parameters::Parameter;

/// Returns the document that describes these paths.
pub(super) fn document(
    items: &[PathItem],
    kinds: &Kinds,
    custom: CustomTypes<'_>,
    schemas: &SchemaSet,
    documentation: &Documentation,
) -> Value {
    let definitions = Definitions::new(Dialect::V2, schemas, documentation, kinds).with_custom(custom);
    let mut writer = Writer { definitions, shared: Map::new() };
    let paths: Map = items.iter().map(|item| (item.path.clone(), writer.path_item(item))).collect();
    let mut document = head();
    document["paths"] = Value::Object(paths);
    document["definitions"] = Value::Object(writer.definitions.finish());
    document["parameters"] = Value::Object(writer.shared);
    document
}

/// Returns a document without paths and types.
pub(super) fn head() -> Value {
    json!({
        "swagger": "2.0",
        "info": super::info(),
        "securityDefinitions": {"BearerToken": super::security_scheme()},
        "security": [{"BearerToken": []}],
    })
}

struct Writer<'a> {
    definitions: Definitions<'a>,
    /// The shared parameters, named by a digest of their content.
    shared: Map,
}

impl Writer<'_> {
    fn path_item(&mut self, item: &PathItem) -> Value {
        let mut written = Map::new();
        for operation in &item.operations {
            written.insert(operation.method.to_owned(), self.operation(operation));
        }
        self.add_parameters(&mut written, None, &item.parameters);
        Value::Object(written)
    }

    fn operation(&mut self, of: &Operation) -> Value {
        let mut written = object(json!({
            "consumes": of.consumes,
            "description": of.about,
            "operationId": of.id,
            "produces": of.produces,
            "schemes": ["https"],
            "tags": [of.tag],
        }));
        self.add_parameters(&mut written, of.body.as_ref(), &of.parameters);
        let schema = match &of.answer {
            Content::Type(name) => self.definitions.reference(name),
            Content::Text => json!({"type": "string"}),
        };
        let response =
            |code: &u16| (code.to_string(), json!({"description": super::reason(*code), "schema": schema}));
        let mut responses: Map = of.codes.iter().map(response).collect();
        responses.insert("401".to_owned(), json!({"description": super::reason(401)}));
        written.insert("responses".to_owned(), Value::Object(responses));
        super::add_action(&mut written, of);
        Value::Object(written)
    }

    fn add_parameters(&mut self, to: &mut Map, body: Option<&Body>, parameters: &[Parameter]) {
        let mut written: Vec<Value> = body.into_iter().map(|body| self.body(body)).collect();
        written.extend(parameters.iter().map(|parameter| self.parameter(parameter)));
        if !written.is_empty() {
            to.insert("parameters".to_owned(), Value::Array(written));
        }
    }

    fn body(&mut self, body: &Body) -> Value {
        let schema = self.definitions.reference(&body.type_name);
        let mut written = object(json!({"name": "body", "in": "body", "schema": schema}));
        if body.required {
            written.insert("required".to_owned(), json!(true));
        }
        // These bodies do not depend on the kind.
        let shared =
            ["DeleteOptions", "Patch"].iter().any(|kind| body.type_name.strip_prefix(META) == Some(kind));
        self.shared("body", shared, Value::Object(written))
    }

    fn parameter(&mut self, of: &Parameter) -> Value {
        let mut written = object(json!({
            "name": of.name,
            "in": super::place(of),
            "description": of.about,
            "type": of.kind,
            "uniqueItems": true,
        }));
        if of.in_path {
            written.insert("required".to_owned(), json!(true));
        }
        self.shared(of.name, of.shared, Value::Object(written))
    }

    /// Returns the parameter itself, or a reference if it is shared.
    fn shared(&mut self, name: &str, shared: bool, parameter: Value) -> Value {
        if !shared {
            return parameter;
        }
        let digest = Sha256::digest(parameter.to_string().as_bytes());
        let name = format!("{name}-{}", URL_SAFE_NO_PAD.encode(&digest[..6]));
        let reference = json!({"$ref": format!("#/parameters/{name}")});
        self.shared.insert(name, parameter);
        reference
    }
}
