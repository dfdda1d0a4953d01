//! The rules for schemas in definitions (upstream: `apis/apiextensions/validation`, `apiserver/schema/validation.go`).
//!
//! The checks read the schema as JSON, because errors name keywords that the compiled form does not contain.

mod complete;
mod expressions;
mod field_path;
mod invariants;
mod lists;
mod openapi;
mod values;

use nave_machinery::{FieldError, FieldPath, Map, Value};

use crate::compile::{self, CompileError};
use crate::excerpt::excerpt;
use crate::{Structural, defaults};

pub use field_path::{FieldTarget, field_path};

/// Maximum number of errors collected for one schema. A response shows 100.
const MAX_ERRORS: usize = 500;

/// The rules to enforce on a schema. An update does not enforce rules that the old definition violates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent rules")]
pub struct Requirements {
    /// The schema must be structural.
    pub structural: bool,
    /// Types must be OpenAPI types.
    pub known_types: bool,
    /// Defaults must have no unknown fields.
    pub pruned_defaults: bool,
    /// Items of sets must be atomic.
    pub atomic_sets: bool,
    /// Keys of lists of type map must be required or have a default, and must not be nullable.
    pub sound_map_keys: bool,
}

impl Requirements {
    /// All rules, as for a new definition.
    pub const ALL: Self = Self {
        structural: true,
        known_types: true,
        pruned_defaults: true,
        atomic_sets: true,
        sound_map_keys: true,
    };

    /// Returns the rules that all old schemas follow.
    pub fn of_update(old: &[&Value]) -> Self {
        let root = FieldPath::default();
        let all = |holds: &dyn Fn(&Value) -> bool| old.iter().all(|schema| holds(schema));
        Self {
            structural: all(&|schema| is_structural(schema)),
            known_types: all(&|schema| !any(schema, &|fields| openapi::has_unknown_type(fields))),
            pruned_defaults: all(&|schema| {
                !is_structural(schema)
                    || Structural::compile(schema).is_ok_and(|compiled| defaults::are_pruned(compiled.root()))
            }),
            atomic_sets: all(&|schema| !any(schema, &|fields| lists::has_non_atomic_items(fields))),
            sound_map_keys: all(&|schema| {
                !any(schema, &|fields| {
                    let mut errors = Errors::default();
                    lists::map_keys(fields, &root, &mut errors);
                    !errors.list.is_empty()
                })
            }),
        }
    }
}

/// Errors, up to a limit.
#[derive(Default)]
struct Errors {
    list: Vec<FieldError>,
}

impl Errors {
    fn push(&mut self, error: FieldError) {
        if self.list.len() < MAX_ERRORS {
            self.list.push(error);
        }
    }

    fn required(&mut self, path: &FieldPath, detail: impl Into<String>) {
        self.push(FieldError::required(path, detail));
    }

    fn forbidden(&mut self, path: &FieldPath, detail: &str) {
        self.push(FieldError::forbidden(path, detail));
    }

    fn invalid(&mut self, path: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) {
        self.push(FieldError::invalid(path, excerpt(&value.into()), detail));
    }
}

/// The result of checking a schema.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The errors.
    pub errors: Vec<FieldError>,
    /// The schema must be structural, is, and has valid defaults. Only such schemas have their CEL rules checked.
    pub is_structural: bool,
}

impl Report {
    /// Returns whether the schema at `path` and those inside it have no errors. Schemas with errors have no CEL types.
    pub fn is_sound(&self, path: &str) -> bool {
        let is_inside = |error: &FieldError| {
            error.field.as_str().strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        !self.errors.iter().any(is_inside)
    }
}

/// Checks a resource's schema, which is at `path`.
pub fn check(schema: &Value, path: &FieldPath, requirements: Requirements) -> Report {
    let mut errors = Vec::new();
    let mut unsupported = None;
    if requirements.structural {
        match Structural::compile(schema) {
            Ok(compiled) => {
                errors = structural_errors(schema, path);
                if errors.is_empty() {
                    errors = defaults::check(&compiled, path, requirements.pruned_defaults);
                }
            }
            // The type is reported below, like most unsupported keywords.
            Err(CompileError::UnknownType(_)) => errors = structural_errors(schema, path),
            Err(error) => unsupported = Some(error),
        }
    }
    let is_structural = requirements.structural && unsupported.is_none() && errors.is_empty();
    errors.extend(openapi::check(schema, path, requirements));
    if errors.is_empty()
        && let Some(error) = unsupported
    {
        errors.push(FieldError::invalid(path, "", error.to_string()));
    }
    Report { errors, is_structural }
}

/// Returns the violations of structural rules, sorted by text. The caller must check first that the schema compiles.
pub fn structural_errors(schema: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Errors::default();
    if let Value::Object(fields) = schema {
        invariants::check(fields, invariants::Level::Root, path, &mut errors);
        complete::check(fields, path, &mut errors);
    }
    errors.list.sort_by_cached_key(ToString::to_string);
    errors.list
}

/// Returns whether a schema is structural.
pub fn is_structural(schema: &Value) -> bool {
    let compiles = match Structural::compile(schema) {
        Ok(_) | Err(CompileError::UnknownType(_)) => true,
        Err(_) => false,
    };
    compiles && structural_errors(schema, &FieldPath::default()).is_empty()
}

/// Returns whether a schema, or a schema inside it, has a Kubernetes keyword that only structural schemas can have.
pub fn has_extensions(schema: &Value) -> bool {
    const FLAGS: [&str; 2] = ["x-kubernetes-embedded-resource", "x-kubernetes-int-or-string"];
    any(schema, &|fields| {
        FLAGS.iter().any(|name| compile::flag(fields, name))
            || ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type"]
                .iter()
                .any(|name| compile::present(fields, name).is_some())
            || ["x-kubernetes-list-map-keys", "x-kubernetes-validations"]
                .iter()
                .any(|name| !list(fields, name).is_empty())
    })
}

/// Returns whether a schema, or a schema inside it, has CEL rules.
pub fn has_expressions(schema: &Value) -> bool {
    any(schema, &|fields| {
        fields.get("x-kubernetes-validations").and_then(Value::as_array).is_some_and(|it| !it.is_empty())
    })
}

/// Returns whether a schema, or a schema inside it, has a pattern that takes long even for a short text: one with counted
/// repetitions, one that may ignore the case, or a long one.
pub fn has_costly_patterns(schema: &Value) -> bool {
    const LONG: usize = 256;
    any(schema, &|fields| {
        compile::text(fields, "pattern")
            .is_some_and(|it| it.contains('{') || it.contains("(?") || it.len() > LONG)
    })
}

/// Returns whether a schema, or a schema inside it, has a default.
pub fn has_defaults(schema: &Value) -> bool {
    any(schema, &|fields| compile::present(fields, "default").is_some())
}

/// Returns the formats in a schema that are not checked, as in upstream's warnings.
pub fn unrecognized_formats(schema: &Value) -> Vec<String> {
    let found = std::cell::RefCell::new(Vec::new());
    any(schema, &|fields| {
        if let Some(format) = compile::text(fields, "format") {
            let kind = compile::text(fields, "type").unwrap_or_default();
            let mut found = found.borrow_mut();
            if crate::formats::Format::supported(format, kind).is_none()
                && found.len() < MAX_ERRORS
                && !found.iter().any(|known| known == format)
            {
                found.push(format.to_owned());
            }
        }
        false
    });
    found.into_inner()
}

/// Returns whether `holds` is true for a schema or a schema inside it.
fn any(schema: &Value, holds: &dyn Fn(&Map) -> bool) -> bool {
    let Value::Object(fields) = schema else { return false };
    if holds(fields) {
        return true;
    }
    let below = |name: &str| fields.get(name).is_some_and(|schema| any(schema, holds));
    let listed = |name: &str| list(fields, name).iter().any(|schema| any(schema, holds));
    let mapped =
        |name: &str| map(fields, name).is_some_and(|map| map.values().any(|schema| any(schema, holds)));
    ["items", "not", "additionalProperties", "additionalItems"].into_iter().any(below)
        || ["items", "allOf", "anyOf", "oneOf"].into_iter().any(listed)
        || ["properties", "patternProperties", "definitions", "dependencies"].into_iter().any(mapped)
}

fn list<'a>(fields: &'a Map, name: &str) -> &'a [Value] {
    fields.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn map<'a>(fields: &'a Map, name: &str) -> Option<&'a Map> {
    fields.get(name).and_then(Value::as_object)
}
