//! Checks that value validations do not specify structure (upstream: `validateNestedValueValidation`).

use nave_machinery::{FieldPath, Map, Value, go_regex};

use super::{Errors, list, map};
use crate::compile::{flag, present, text};

/// True if `anyOf` holds the alternatives of an int-or-string, which may specify types.
#[derive(Clone, Copy, Default)]
pub(super) struct Skip {
    /// `anyOf` itself.
    pub(super) any_of: bool,
    /// `anyOf` in the first schema of `allOf`.
    pub(super) first_any_of: bool,
}

/// Checks the value validations of a schema.
pub(super) fn check(schema: &Map, skip: Skip, path: &FieldPath, errors: &mut Errors) {
    if !skip.any_of {
        alternatives(schema, "anyOf", path, errors);
    }
    for (index, alternative) in list(schema, "allOf").iter().enumerate() {
        let skip = Skip { any_of: skip.first_any_of && index == 0, first_any_of: false };
        if let Value::Object(alternative) = alternative {
            nested(alternative, skip, &path.child("allOf").index(index), errors);
        }
    }
    alternatives(schema, "oneOf", path, errors);
    if let Some(not) = map(schema, "not") {
        nested(not, Skip::default(), &path.child("not"), errors);
    }
    if let Some(pattern) = text(schema, "pattern")
        && let Err(why) = go_regex::check(pattern)
    {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        errors.invalid(&path.child("pattern"), pattern, why);
    }
}

fn alternatives(schema: &Map, name: &str, path: &FieldPath, errors: &mut Errors) {
    for (index, alternative) in list(schema, name).iter().enumerate() {
        if let Value::Object(alternative) = alternative {
            nested(alternative, Skip::default(), &path.child(name).index(index), errors);
        }
    }
}

/// Checks a schema inside `allOf`, `anyOf`, `oneOf` or `not`.
fn nested(schema: &Map, skip: Skip, path: &FieldPath, errors: &mut Errors) {
    check(schema, skip, path, errors);
    if let Some(items) = map(schema, "items") {
        nested(items, Skip::default(), &path.child("items"), errors);
    }
    let properties = map(schema, "properties");
    for (name, property) in properties.into_iter().flatten() {
        if let Value::Object(property) = property {
            nested(property, Skip::default(), &path.child("properties").key(name), errors);
        }
    }
    structure(schema, path, errors);
    if properties.is_some_and(|all| all.contains_key("metadata")) {
        let at = path.child("properties").key("metadata");
        errors.forbidden(&at, "must not be specified in a nested context");
    }
}

/// The structural keywords, and what the error requires of each.
const STRUCTURE: [(&str, &str); 10] = [
    ("type", "empty"),
    ("title", "empty"),
    ("description", "empty"),
    ("nullable", "false"),
    ("x-kubernetes-preserve-unknown-fields", "false"),
    ("x-kubernetes-embedded-resource", "false"),
    ("x-kubernetes-int-or-string", "false"),
    ("x-kubernetes-list-type", "undefined"),
    ("x-kubernetes-map-type", "undefined"),
    ("default", "undefined"),
];

fn structure(schema: &Map, path: &FieldPath, errors: &mut Errors) {
    for (keyword, state) in STRUCTURE {
        let is_set = match state {
            "false" => flag(schema, keyword),
            "empty" => text(schema, keyword).is_some(),
            _ => present(schema, keyword).is_some(),
        };
        if is_set {
            errors.forbidden(&path.child(keyword), &format!("must be {state} to be structural"));
        }
    }
    for keyword in ["x-kubernetes-list-map-keys", "x-kubernetes-validations"] {
        if !list(schema, keyword).is_empty() {
            errors.forbidden(&path.child(keyword), "must be empty to be structural");
        }
    }
    if present(schema, "additionalProperties").is_some_and(|value| *value != Value::Bool(false)) {
        errors.forbidden(&path.child("additionalProperties"), "must be undefined to be structural");
    }
}
