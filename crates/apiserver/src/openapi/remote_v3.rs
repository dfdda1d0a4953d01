//! The OpenAPI 3 documents of aggregated servers that have OpenAPI 2 only (upstream: `openapiconv.ConvertV2ToV3`).

use http::{HeaderMap, Response, header};
use nave_machinery::{Map, Value};
use serde_json::json;

use super::remote::RemoteDocument;
use super::{Form, GNOSTIC_V3, gnostic};
use crate::body::ResponseBody;

/// The methods of a path item.
const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];
/// The fields of a parameter that belong to its schema in OpenAPI 3.
const OF_SCHEMA: [&str; 15] = [
    "type",
    "format",
    "items",
    "default",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "enum",
];
/// The media type of an operation that names none.
const JSON: &str = "application/json";

/// Serves the part of a document that describes a version, converted for each request.
pub(crate) fn serve(document: &RemoteDocument, title: &str, headers: &HeaderMap) -> Response<ResponseBody> {
    let seen = headers.get(header::IF_NONE_MATCH);
    match super::form(headers, &GNOSTIC_V3) {
        None => super::not_acceptable(),
        Some(Form::Json) => {
            super::answer(JSON, &document.hash, seen, || convert(document, title).to_string().into())
        }
        Some(Form::Protobuf) => super::answer(GNOSTIC_V3[1], &document.hash, seen, || {
            gnostic::v3::encode(&convert(document, title)).into()
        }),
    }
}

/// Converts the part of a document that describes a version. The cost is linear in its size.
fn convert(document: &RemoteDocument, title: &str) -> Value {
    let mut paths = document.paths.clone();
    paths.values_mut().for_each(convert_path);
    let mut components = Map::new();
    components.insert("schemas".to_owned(), Value::Object(document.definitions.clone()));
    let (bodies, parameters): (Map, Map) =
        document.parameters.clone().into_iter().partition(|(_, parameter)| parameter["in"] == "body");
    if !parameters.is_empty() {
        let parameters = parameters.into_iter().map(|(name, it)| (name, parameter(it))).collect();
        components.insert("parameters".to_owned(), Value::Object(parameters));
    }
    if !bodies.is_empty() {
        let bodies = bodies.into_iter().map(|(name, it)| (name, request_body(it, &[JSON.to_owned()])));
        components.insert("requestBodies".to_owned(), Value::Object(bodies.collect()));
    }
    let mut converted = json!({"openapi": "3.0.0", "info": {"title": title, "version": "unversioned"},
        "paths": paths, "components": components});
    rewrite_references(&mut converted);
    converted
}

fn convert_path(item: &mut Value) {
    let Some(item) = item.as_object_mut() else { return };
    for method in METHODS {
        if let Some(operation) = item.get_mut(method).and_then(Value::as_object_mut) {
            convert_operation(operation);
        }
    }
    if let Some(Value::Array(parameters)) = item.get_mut("parameters") {
        let converted = std::mem::take(parameters).into_iter().map(parameter);
        *parameters = converted.collect();
    }
}

fn convert_operation(operation: &mut Map) {
    let consumes = media_types(operation.remove("consumes").as_ref());
    let produces = media_types(operation.remove("produces").as_ref());
    operation.remove("schemes");
    if let Some(Value::Array(parameters)) = operation.remove("parameters") {
        let (bodies, others): (Vec<_>, Vec<_>) = parameters.into_iter().partition(|it| it["in"] == "body");
        if let Some(body) = bodies.into_iter().next() {
            operation.insert("requestBody".to_owned(), request_body(body, &consumes));
        }
        if !others.is_empty() {
            let others = others.into_iter().map(parameter).collect();
            operation.insert("parameters".to_owned(), Value::Array(others));
        }
    }
    if let Some(Value::Object(responses)) = operation.get_mut("responses") {
        responses.values_mut().for_each(|it| response(it, &produces));
    }
}

/// Returns the names of media types, which a hostile document may repeat for each schema.
fn media_types(list: Option<&Value>) -> Vec<String> {
    const MAX: usize = 16;
    let list = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let types: Vec<String> = list.iter().filter_map(Value::as_str).take(MAX).map(str::to_owned).collect();
    if types.is_empty() { vec![JSON.to_owned()] } else { types }
}

fn content(schema: &Value, media_types: &[String]) -> Value {
    let content = media_types.iter().map(|media_type| (media_type.clone(), json!({"schema": schema})));
    Value::Object(content.collect())
}

fn request_body(mut body: Value, media_types: &[String]) -> Value {
    let mut converted = Map::new();
    for field in ["description", "required"] {
        if let Some(value) = body.get_mut(field).map(Value::take).filter(|value| !value.is_null()) {
            converted.insert(field.to_owned(), value);
        }
    }
    converted.insert("content".to_owned(), content(&body["schema"], media_types));
    Value::Object(converted)
}

fn response(response: &mut Value, media_types: &[String]) {
    let Some(fields) = response.as_object_mut() else { return };
    fields.remove("examples");
    if let Some(schema) = fields.remove("schema") {
        fields.insert("content".to_owned(), content(&schema, media_types));
    }
}

fn parameter(mut parameter: Value) -> Value {
    let Some(fields) = parameter.as_object_mut().filter(|fields| !fields.contains_key("$ref")) else {
        return parameter;
    };
    fields.remove("collectionFormat");
    let schema: Map =
        OF_SCHEMA.iter().filter_map(|field| Some(((*field).to_owned(), fields.remove(*field)?))).collect();
    if !schema.is_empty() {
        fields.insert("schema".to_owned(), Value::Object(schema));
    }
    parameter
}

/// Rewrites the prefixes of all references.
fn rewrite_references(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get_mut("$ref") {
                for (old, new) in [
                    ("#/definitions/", "#/components/schemas/"),
                    ("#/parameters/", "#/components/parameters/"),
                ] {
                    if let Some(name) = target.strip_prefix(old) {
                        *target = format!("{new}{name}");
                    }
                }
            }
            fields.values_mut().for_each(rewrite_references);
        }
        Value::Array(items) => items.iter_mut().for_each(rewrite_references),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_described_in_version_three() {
        let to = |name: &str| json!({"$ref": format!("#/definitions/{name}")});
        let put = json!({"operationId": "replaceThing", "consumes": ["*/*"], "produces": ["application/json", "application/yaml"],
            "schemes": ["https"], "x-kubernetes-action": "put",
            "parameters": [{"name": "body", "in": "body", "required": true, "schema": to("Thing")},
                {"name": "dryRun", "in": "query", "type": "string", "uniqueItems": true}, {"$ref": "#/parameters/p"}],
            "responses": {"200": {"description": "OK", "schema": to("Thing")}, "401": {"description": "no"}}});
        let document = json!({"paths": {"/apis/a.example/v1/things/{name}": {"put": put,
                "parameters": [{"name": "name", "in": "path", "required": true, "type": "string"}]}},
            "definitions": {"Thing": {"type": "object", "properties": {"next": to("Thing")}}},
            "parameters": {"p": {"name": "pretty", "in": "query", "type": "string"}}});
        let document = RemoteDocument::read(document.to_string().as_bytes(), "/apis/a.example/v1").unwrap();
        let thing = json!({"$ref": "#/components/schemas/Thing"});
        assert_eq!(
            convert(&document, "a"),
            json!({"openapi": "3.0.0", "info": {"title": "a", "version": "unversioned"},
            "paths": {"/apis/a.example/v1/things/{name}": {
                "put": {"operationId": "replaceThing", "x-kubernetes-action": "put",
                    "requestBody": {"required": true, "content": {"*/*": {"schema": thing}}},
                    "parameters": [
                        {"name": "dryRun", "in": "query", "schema": {"type": "string", "uniqueItems": true}},
                        {"$ref": "#/components/parameters/p"}],
                    "responses": {"401": {"description": "no"}, "200": {"description": "OK", "content": {
                        "application/json": {"schema": thing}, "application/yaml": {"schema": thing}}}}},
                "parameters": [{"name": "name", "in": "path", "required": true, "schema": {"type": "string"}}]}},
            "components": {
                "schemas": {"Thing": {"type": "object", "properties": {"next": thing}}},
                "parameters": {"p": {"name": "pretty", "in": "query", "schema": {"type": "string"}}}}})
        );
    }

    #[test]
    fn malformed_documents_are_converted_without_harm() {
        for item in [
            json!(1),
            json!([]),
            json!({"get": 1}),
            json!({"get": {"parameters": 1, "responses": []}}),
            json!({"get": {"parameters": [1, {"in": "body"}], "responses": {"200": 1}}, "parameters": {}}),
        ] {
            let document = json!({"paths": {"/apis/a.example/v1": item}}).to_string();
            let document = RemoteDocument::read(document.as_bytes(), "/apis/a.example/v1").unwrap();
            assert_eq!(convert(&document, "a")["openapi"], "3.0.0");
        }
    }
}
