//! Type checking of policies against the schemas of the kinds that they match (upstream:
//! `policy/validating/typechecking.go`).

use nave_machinery::GroupVersionKind;
use serde_json::{Map, Value as Json};

use crate::authorizer::authorizer_type;
use crate::env::Env;
use crate::kinds::Type;
use crate::policies::{COMPATIBILITY_VERSION, VARIABLES, VARIABLES_TYPE, namespace_type, request_type};
use crate::program::Ast;
use crate::schema::Decl;

/// Maximum number of values in a schema whose references are resolved.
const MAX_VALUES: usize = 200_000;

/// A warning about an expression of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionWarning {
    /// The path of the field, such as `spec.validations[0].expression`.
    pub field: String,
    /// The errors, by kind.
    pub warning: String,
}

/// Checks the validations of a policy and their messages against each kind. `params` is the schema of the parameters:
/// `None` if the policy has none, null if the schema is not known. References in schemas must be resolved.
pub fn check_policy(
    spec: &Json,
    kinds: &[(GroupVersionKind, Json)],
    params: Option<&Json>,
) -> Vec<ExpressionWarning> {
    let params = params.map(|schema| declared_type(schema, "Params"));
    let env = |(kind, schema): &(GroupVersionKind, Json)| {
        let object = declared_type(schema, &kind.kind);
        (kind.clone(), typed_env(spec, &object, params.as_ref()))
    };
    let envs: Vec<_> = kinds.iter().map(env).collect();
    let validations = spec.get("validations").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut warnings = Vec::new();
    for (index, validation) in validations.iter().enumerate() {
        for name in ["expression", "messageExpression"] {
            let text = validation.get(name).and_then(Json::as_str).unwrap_or_default();
            if name == "messageExpression" && text.is_empty() {
                continue;
            }
            let found: Vec<String> = envs.iter().filter_map(|(kind, env)| issues(kind, text, env)).collect();
            if !found.is_empty() {
                let field = format!("spec.validations[{index}].{name}");
                warnings.push(ExpressionWarning { field, warning: found.join("\n") });
            }
        }
    }
    warnings
}

fn issues(kind: &GroupVersionKind, text: &str, env: &Env) -> Option<String> {
    let GroupVersionKind { group, version, kind } = kind;
    let issues = Ast::compile(text, env).err()?;
    Some(format!("{group}/{version}, Kind={kind}: {issues}\n"))
}

/// Returns the type of values of a schema. Upstream's names of types end with a changing number.
fn declared_type(schema: &Json, kind: &str) -> Type {
    Decl::from_schema(schema, true).map_or(Type::Dyn, |decl| decl.to_type(&format!("{kind}1")))
}

fn typed_env(spec: &Json, object: &Type, params: Option<&Type>) -> Env {
    let mut env = Env::new(COMPATIBILITY_VERSION)
        .with("namespaceObject", namespace_type())
        .with("request", request_type())
        .with("object", object.clone())
        .with("oldObject", object.clone())
        .with("authorizer", authorizer_type())
        .with(VARIABLES, Type::object(VARIABLES_TYPE, []));
    if let Some(params) = params {
        env = env.with("params", params.clone());
    }
    for variable in spec.get("variables").and_then(Json::as_array).into_iter().flatten() {
        let text = |name: &str| variable.get(name).and_then(Json::as_str).unwrap_or_default();
        let ty = Ast::compile(text("expression"), &env).map_or(Type::Dyn, |ast| ast.output_type().clone());
        env.declare_field(VARIABLES, text("name"), &ty);
    }
    env
}

/// Returns the schema of a kind in an OpenAPI v3 document, with resolved references; `None` if the document lacks it or
/// it is too large. A reference to an enclosing schema becomes an object, as upstream.
pub fn resolve_schema(document: &Json, kind: &GroupVersionKind) -> Option<Json> {
    let schemas = document.pointer("/components/schemas")?.as_object()?;
    let is_kind = |it: &Json| {
        let text = |name: &str| it.get(name).and_then(Json::as_str).unwrap_or_default();
        text("group") == kind.group && text("version") == kind.version && text("kind") == kind.kind
    };
    let declares = |schema: &Json| {
        let kinds = schema.get("x-kubernetes-group-version-kind").and_then(Json::as_array);
        kinds.is_some_and(|kinds| kinds.iter().any(is_kind))
    };
    let (name, schema) = schemas.iter().find(|(_, schema)| declares(schema))?;
    Resolver { schemas, enclosing: vec![name], left: MAX_VALUES }.resolve(schema)
}

struct Resolver<'d> {
    schemas: &'d Map<String, Json>,
    /// The names of the schemas that enclose the current one.
    enclosing: Vec<&'d str>,
    left: usize,
}

impl<'d> Resolver<'d> {
    fn resolve(&mut self, schema: &'d Json) -> Option<Json> {
        self.left = self.left.checked_sub(1)?;
        if let Some(name) = reference(schema) {
            if self.enclosing.contains(&name) {
                return Some(serde_json::json!({"type": "object"}));
            }
            let referenced = self.schemas.get(name)?;
            self.enclosing.push(name);
            let resolved = self.resolve(referenced);
            self.enclosing.pop();
            return resolved;
        }
        let fields = schema.as_object()?;
        let mut resolved = Map::new();
        for (name, value) in fields {
            let value = match name.as_str() {
                "properties" => {
                    let properties = value.as_object()?.iter();
                    let properties =
                        properties.map(|(name, schema)| Some((name.clone(), self.resolve(schema)?)));
                    Json::Object(properties.collect::<Option<_>>()?)
                }
                "items" | "additionalProperties" if value.is_object() => self.resolve(value)?,
                "description" | "default" | "allOf" | "oneOf" => continue,
                _ => value.clone(),
            };
            resolved.insert(name.clone(), value);
        }
        if fields.get("format").and_then(Json::as_str) == Some("int-or-string") {
            resolved.insert("x-kubernetes-int-or-string".to_owned(), Json::Bool(true));
        }
        Some(Json::Object(resolved))
    }
}

/// Returns the name of the referenced schema. A reference may be wrapped in `allOf` to have a description.
fn reference(schema: &Json) -> Option<&str> {
    let own = schema.get("$ref").and_then(Json::as_str);
    let wrapped = || schema.get("allOf")?.as_array()?.iter().find_map(reference);
    own.map(|path| path.strip_prefix("#/components/schemas/").unwrap_or(path)).or_else(wrapped)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Json {
        let thing = json!({
            "type": "object",
            "x-kubernetes-group-version-kind": [{"group": "example.com", "version": "v1", "kind": "Thing"}],
            "properties": {
                "spec": {"allOf": [{"$ref": "#/components/schemas/Spec"}], "default": {}},
                "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}},
            },
        });
        let spec = json!({"type": "object", "properties": {
            "size": {"type": "integer"},
            "port": {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        }});
        json!({"components": {"schemas": {"Thing": thing, "Spec": spec}}})
    }

    fn check(spec: &Json) -> Vec<(String, String)> {
        let kind = GroupVersionKind::new("example.com", "v1", "Thing");
        let schema = resolve_schema(&document(), &kind).unwrap();
        let warnings = check_policy(spec, &[(kind, schema)], None).into_iter();
        warnings.map(|it| (it.field, it.warning)).collect()
    }

    #[test]
    fn warns_about_fields_and_types_that_the_schema_lacks() {
        let policy = json!({
            "variables": [{"name": "size", "expression": "object.spec.size"}],
            "validations": [
                {"expression": "variables.size > 1 && object.spec.port == 80 && object.spec.labels.a == 'b'"},
                {"expression": "object.spec.missing == 1", "messageExpression": "variables.size + 'a'"},
                {"expression": "object.metadata.name == 'a' && object.parts[0].spec.size > 1"},
            ],
        });
        assert_eq!(
            check(&policy),
            [
                (
                    "spec.validations[1].expression".to_owned(),
                    "example.com/v1, Kind=Thing: ERROR: <input>:1:12: undefined field 'missing'\n | object.spec.missing == 1\n | ...........^\n".to_owned()
                ),
                (
                    "spec.validations[1].messageExpression".to_owned(),
                    "example.com/v1, Kind=Thing: ERROR: <input>:1:16: found no matching overload for '_+_' applied to '(int, string)'\n | variables.size + 'a'\n | ...............^\n".to_owned()
                ),
                (
                    "spec.validations[2].expression".to_owned(),
                    "example.com/v1, Kind=Thing: ERROR: <input>:1:47: undefined field 'spec'\n | object.metadata.name == 'a' && object.parts[0].spec.size > 1\n | ..............................................^\n".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn references_are_resolved_once_per_level() {
        let kind = GroupVersionKind::new("example.com", "v1", "Thing");
        let schema = resolve_schema(&document(), &kind).unwrap();
        assert_eq!(schema["properties"]["parts"]["items"], json!({"type": "object"}));
        assert_eq!(schema["properties"]["spec"]["properties"]["port"]["x-kubernetes-int-or-string"], true);
        assert_eq!(resolve_schema(&document(), &GroupVersionKind::new("", "v1", "Thing")), None);
    }
}
