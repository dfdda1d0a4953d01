//! The types of custom resources, as their definitions describe them (upstream: `pkg/controller/openapi` of
//! `apiextensions-apiserver`).

use std::collections::HashMap;
use std::sync::Arc;

use nave_machinery::{Map, Value};
use nave_resources::custom::CustomSchema;
use nave_resources::{ResourceDef, ResourceVersion, Verb};
use serde_json::json;

use super::definitions::{Definitions, Dialect, META, describe, object};
use super::operations::list_type;

/// The custom types of a document, by name.
pub(super) type CustomTypes<'r> = HashMap<String, CustomType<'r>>;

/// A version of a custom resource, or of its list.
#[derive(Clone, Copy)]
pub(super) struct CustomType<'r> {
    def: &'r ResourceDef,
    version: &'r ResourceVersion,
    is_list: bool,
}

/// The address of the conventions of the API, as upstream's descriptions give it.
const CONVENTIONS: &str =
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";

/// Returns the custom types among the resources.
pub(super) fn types<'r>(resources: impl Iterator<Item = &'r Arc<ResourceDef>>) -> CustomTypes<'r> {
    let mut types = CustomTypes::new();
    for def in resources.filter(|def| def.is_custom()) {
        for version in &def.versions {
            types.insert(version.type_name.clone(), CustomType { def, version, is_list: false });
            if def.serves(Verb::List) {
                types.insert(list_type(def, version), CustomType { def, version, is_list: true });
            }
        }
    }
    types
}

/// A type whose `apiVersion`, `kind` and `metadata` have the documentation common to all objects.
const ANY_OBJECT: &str = "io.k8s.api.core.v1.ConfigMap";
const ANY_LIST: &str = "io.k8s.api.core.v1.ConfigMapList";

impl CustomType<'_> {
    /// Returns the definition of the type.
    pub(super) fn definition(self, definitions: &mut Definitions<'_>) -> Map {
        let mut definition = if self.is_list { self.list(definitions) } else { self.object(definitions) };
        if definitions.dialect() == Dialect::V3 && !self.version.selectable.is_empty() {
            let fields = self.version.selectable.iter().map(|path| json!({"fieldPath": path}));
            definition.insert("x-kubernetes-selectable-fields".to_owned(), fields.collect());
        }
        definition
    }

    fn object(self, definitions: &mut Definitions<'_>) -> Map {
        let schema = self.version.custom().and_then(CustomSchema::json);
        let is_v2 = definitions.dialect() == Dialect::V2;
        let plain = || object(json!({"type": "object"}));
        let Some(mut schema) = schema else { return plain() };
        if is_v2 && preserves_unknown(&schema) {
            return plain();
        }
        if is_v2 {
            reduce(&mut schema);
        }
        embed(&mut schema, definitions, true);
        object(schema)
    }

    fn list(self, definitions: &mut Definitions<'_>) -> Map {
        let items = definitions.reference(&self.version.type_name);
        let mut properties = type_meta(definitions, ANY_LIST);
        properties.insert("metadata".to_owned(), metadata(definitions, "ListMeta", ANY_LIST));
        let about = format!("List of {}. More info: {CONVENTIONS}", self.def.resource);
        properties.insert("items".to_owned(), json!({"type": "array", "items": items, "description": about}));
        object(json!({
            "type": "object",
            "description": format!("{} is a list of {}", self.def.list_kind, self.def.kind),
            "required": ["items"],
            "properties": properties,
        }))
    }
}

/// Returns the schemas of `apiVersion` and `kind`, with the documentation of a built-in type.
fn type_meta(definitions: &Definitions<'_>, type_name: &str) -> Map {
    let field = |name: &str| {
        let mut schema = object(json!({"type": "string"}));
        describe(&mut schema, definitions.documentation().of_field(type_name, name));
        (name.to_owned(), Value::Object(schema))
    };
    ["apiVersion", "kind"].into_iter().map(field).collect()
}

/// Returns the schema of `metadata`, which is of type `kind`.
fn metadata(definitions: &mut Definitions<'_>, kind: &str, type_name: &str) -> Value {
    let reference = definitions.reference(&format!("{META}{kind}"));
    let mut schema = match definitions.dialect() {
        Dialect::V2 => object(reference),
        // A reference must not have sibling keywords.
        Dialect::V3 => object(json!({"allOf": [reference]})),
    };
    describe(&mut schema, definitions.documentation().of_field(type_name, "metadata"));
    Value::Object(schema)
}

/// Adds `apiVersion`, `kind` and `metadata` to the root and to embedded resources.
fn embed(schema: &mut Value, definitions: &mut Definitions<'_>, is_root: bool) {
    for_each_below(schema, &mut |below| embed(below, definitions, false));
    if definitions.dialect() == Dialect::V3
        && flag(schema, "x-kubernetes-int-or-string")
        && schema.get("anyOf").is_none()
        && schema.get("allOf").is_none()
    {
        schema["anyOf"] = json!([{"type": "integer"}, {"type": "string"}]);
    }
    let is_embedded = flag(schema, "x-kubernetes-embedded-resource")
        && !(definitions.dialect() == Dialect::V2 && preserves_unknown(schema));
    let Some(fields) = schema.as_object_mut().filter(|_| is_root || is_embedded) else { return };
    let added = type_meta(definitions, ANY_OBJECT);
    let metadata = metadata(definitions, "ObjectMeta", ANY_OBJECT);
    let properties = fields.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        properties.extend(added);
        properties.insert("metadata".to_owned(), metadata);
    }
    if !is_root {
        let required = fields.entry("required").or_insert_with(|| json!([]));
        for name in ["kind", "apiVersion"] {
            if let Some(required) = required.as_array_mut().filter(|list| !list.contains(&json!(name))) {
                required.push(json!(name));
            }
        }
    }
}

/// Removes the keywords that OpenAPI 2 lacks or that kubectl cannot read.
fn reduce(schema: &mut Value) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let nullable: Vec<String> =
            properties.iter().filter(|(_, it)| flag(it, "nullable")).map(|(name, _)| name.clone()).collect();
        if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|name| !nullable.iter().any(|it| name == it));
        }
    }
    if schema.get("additionalProperties").is_some_and(|values| flag(values, "nullable")) {
        remove(schema, &["required"]);
    }
    let is_empty = schema.get("required").and_then(Value::as_array).is_some_and(Vec::is_empty);
    if is_empty {
        remove(schema, &["required"]);
    }
    remove(schema, &["allOf", "anyOf", "oneOf", "not", "default", "example", "externalDocs"]);
    if flag(schema, "nullable") {
        remove(schema, &["type", "nullable", "items", "properties"]);
    }
    remove(schema, &["nullable"]);
    if preserves_unknown(schema) {
        remove(schema, &["items", "properties"]);
        if schema.get("type").is_some_and(|kind| kind == "object") {
            remove(schema, &["type"]);
        }
    }
    if schema.get("items").is_none() && schema.get("type").is_some_and(|kind| kind == "array") {
        remove(schema, &["type"]);
    }
    for_each_below(schema, &mut reduce);
}

fn for_each_below(schema: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(&mut *visit);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(below) = schema.get_mut(name).filter(|below| below.is_object()) {
            visit(below);
        }
    }
}

fn preserves_unknown(schema: &Value) -> bool {
    flag(schema, "x-kubernetes-preserve-unknown-fields")
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn remove(schema: &mut Value, names: &[&str]) {
    if let Some(fields) = schema.as_object_mut() {
        for name in names {
            fields.remove(*name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_says_only_what_clients_can_read() {
        let mut schema = json!({"type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "string", "nullable": true, "enum": ["x"]},
            "b": {"type": "integer", "default": 3, "oneOf": [{"minimum": 1}]},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"c": {}}},
            "any": {"type": "array", "nullable": true, "items": {"type": "string"}},
        }});
        reduce(&mut schema);
        let expected = json!({"type": "object", "required": ["b"], "properties": {
            "a": {"enum": ["x"]}, "b": {"type": "integer"},
            "free": {"x-kubernetes-preserve-unknown-fields": true}, "any": {},
        }});
        assert_eq!(schema, expected);
    }
}
