//! Keywords that definitions may use (upstream: `ValidateCustomResourceDefinitionOpenAPISchema`).

use nave_machinery::{FieldError, FieldPath, Map, Value};

use super::{Errors, Requirements, expressions, list, lists, map};
use crate::compile::{flag, present, text};
use crate::node::Kind;
use crate::prune::META_FIELDS;

/// The known types, sorted.
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Returns the errors of the schema of a resource.
pub(super) fn check(schema: &Value, path: &FieldPath, requirements: Requirements) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let context = Context { requirements, no_defaults: None, in_metadata: false };
    Check { errors: &mut errors }.schema(schema, path, &context, true);
    errors.list
}

pub(super) fn has_unknown_type(schema: &Map) -> bool {
    text(schema, "type").is_some_and(|kind| Kind::parse(kind).is_none())
}

/// The context of a schema, derived from the enclosing schemas.
#[derive(Clone)]
struct Context {
    requirements: Requirements,
    /// The reason why defaults are not allowed here, if any.
    no_defaults: Option<String>,
    in_metadata: bool,
}

struct Check<'e> {
    errors: &'e mut Errors,
}

impl Check<'_> {
    fn schema(&mut self, schema: &Value, path: &FieldPath, context: &Context, is_root: bool) {
        let Value::Object(schema) = schema else { return };
        self.keywords(schema, path, context);
        if flag(schema, "uniqueItems") {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.errors.forbidden(&path.child("uniqueItems"), why);
        }
        self.additional(schema, path, context);
        self.properties(schema, path, context, is_root);
        self.inner(schema, path, context);
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let at = path.child("x-kubernetes-preserve-unknown-fields");
            self.errors.invalid(&at, false, "must be true or undefined");
        }
        lists::map_type(schema, path, self.errors);
        lists::list_type(schema, path, context.requirements, self.errors);
        if context.requirements.sound_map_keys {
            lists::map_keys(schema, path, self.errors);
        }
        expressions::check(schema, path, self.errors);
    }

    /// Checks for keywords that are not allowed (upstream: `specStandardValidatorV3`).
    fn keywords(&mut self, schema: &Map, path: &FieldPath, context: &Context) {
        let kind = text(schema, "type").unwrap_or_default();
        if context.requirements.known_types && has_unknown_type(schema) {
            self.errors.push(FieldError::not_supported(&path.child("type"), kind, &TYPES));
        }
        if let Some(reason) = &context.no_defaults
            && present(schema, "default").is_some()
        {
            self.errors.forbidden(&path.child("default"), &format!("must not be set {reason}"));
        }
        for keyword in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
            let is_set = match present(schema, keyword) {
                None => false,
                Some(Value::String(text)) => keyword == "$ref" || !text.is_empty(),
                Some(Value::Object(map)) => keyword == "additionalItems" || !map.is_empty(),
                Some(_) => true,
            };
            if is_set {
                self.errors.forbidden(&path.child(keyword), &format!("{keyword} is not supported"));
            }
        }
        if kind == "null" {
            let why = "type cannot be set to null, use nullable as an alternative";
            self.errors.forbidden(&path.child("type"), why);
        }
        if !list(schema, "items").is_empty() {
            self.errors.forbidden(&path.child("items"), "items must be a schema object and not an array");
        }
        if context.in_metadata && flag(schema, "x-kubernetes-embedded-resource") {
            let at = path.child("x-kubernetes-embedded-resource");
            self.errors.forbidden(&at, "must not be used inside of resource meta");
        }
    }

    fn additional(&mut self, schema: &Map, path: &FieldPath, context: &Context) {
        let Some(additional) = present(schema, "additionalProperties") else { return };
        let at = path.child("additionalProperties");
        if map(schema, "properties").is_some_and(|all| !all.is_empty()) && *additional != Value::Bool(true) {
            self.errors.forbidden(&at, "additionalProperties and properties are mutual exclusive");
        }
        let mut below = context.clone();
        if context.in_metadata {
            below.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        self.schema(additional, &at, &below, false);
    }

    fn properties(&mut self, schema: &Map, path: &FieldPath, context: &Context, is_root: bool) {
        let is_resource = is_root || flag(schema, "x-kubernetes-embedded-resource");
        for (name, property) in map(schema, "properties").into_iter().flatten() {
            let at = path.child("properties").key(name);
            if !is_resource || !META_FIELDS.contains(&name.as_str()) {
                self.schema(property, &at, context, false);
                continue;
            }
            let mut below = context.clone();
            below.in_metadata = true;
            if is_root {
                below.no_defaults = Some(format!("in top-level {name}"));
            }
            self.schema(property, &at, &below, false);
        }
    }

    /// Checks all other schemas inside a schema.
    fn inner(&mut self, schema: &Map, path: &FieldPath, context: &Context) {
        if let Some(not) = schema.get("not") {
            self.schema(not, &path.child("not"), context, false);
        }
        for name in ["allOf", "oneOf", "anyOf"] {
            self.listed(schema, name, path, context);
        }
        self.mapped(schema, "definitions", path, context);
        if let Some(items) = schema.get("items") {
            self.schema(items, &path.child("items"), context, false);
        }
        self.listed(schema, "items", path, context);
        self.mapped(schema, "dependencies", path, context);
    }

    fn listed(&mut self, schema: &Map, name: &str, path: &FieldPath, context: &Context) {
        for (index, inner) in list(schema, name).iter().enumerate() {
            self.schema(inner, &path.child(name).index(index), context, false);
        }
    }

    fn mapped(&mut self, schema: &Map, name: &str, path: &FieldPath, context: &Context) {
        for (key, inner) in map(schema, name).into_iter().flatten() {
            self.schema(inner, &path.child(name).key(key), context, false);
        }
    }
}
