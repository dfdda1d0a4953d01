//! Validation of the defaults in a schema (upstream: `apiserver/schema/defaulting/validation.go`).

use nave_machinery::{FieldError, FieldPath, Map, Value};

use crate::excerpt::excerpt;
use crate::metadata::{self, Malformed};
use crate::node::{Node, Property};
use crate::prune::{self, META_FIELDS};
use crate::{Structural, validate};

/// Returns the errors of the defaults in a schema at `path`.
pub fn check(schema: &Structural, path: &FieldPath, requires_pruned: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let place = Place { resource: schema.root(), steps: Vec::new(), in_metadata: false };
    walk(schema.root(), path, &place, requires_pruned, &mut errors);
    errors
}

/// Returns whether all defaults are free of unknown fields.
pub(crate) fn are_pruned(node: &Node) -> bool {
    let is_pruned = node.default.as_deref().is_none_or(|default| pruned(node, default) == *default);
    let below = node.properties.iter().map(|property| &property.node).chain(&node.items);
    is_pruned && below.filter(|node| node.has_defaults).all(|node| are_pruned(node))
}

fn pruned(node: &Node, default: &Value) -> Value {
    let mut pruned = default.clone();
    prune::prune(node, &mut pruned);
    pruned
}

/// A place in a schema, with the path to it from the enclosing resource.
#[derive(Clone)]
struct Place<'n> {
    resource: &'n Node,
    steps: Vec<Step<'n>>,
    /// True inside `apiVersion`, `kind` or `metadata` of the resource.
    in_metadata: bool,
}

#[derive(Clone, Copy)]
enum Step<'n> {
    Field(&'n str),
    Item,
}

impl<'n> Place<'n> {
    fn below(&self, step: Step<'n>) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { steps, ..*self }
    }

    /// Returns a resource that contains only `value`, at this place.
    fn surround(&self, value: Value) -> Value {
        let mut object = value;
        for step in self.steps.iter().rev() {
            object = match step {
                Step::Field(name) => Value::Object(Map::from_iter([((*name).to_owned(), object)])),
                Step::Item => Value::Array(vec![object]),
            };
        }
        if let Value::Object(fields) = &mut object {
            fields.entry("apiVersion").or_insert_with(|| Value::from("validation/v1"));
            fields.entry("kind").or_insert_with(|| Value::from("Validation"));
        }
        object
    }
}

fn walk<'n>(
    node: &'n Node,
    path: &FieldPath,
    place: &Place<'n>,
    requires_pruned: bool,
    errors: &mut Vec<FieldError>,
) {
    if !node.has_defaults || errors.len() >= validate::MAX_ERRORS {
        return;
    }
    let own;
    let place = if node.embedded_resource {
        own = Place { resource: node, steps: Vec::new(), in_metadata: false };
        &own
    } else {
        place
    };
    if let Some(default) = node.default.as_deref() {
        let at = path.child("default");
        let found = if place.in_metadata {
            in_metadata(node, default, &at, place)
        } else {
            plain(node, default, &at, requires_pruned)
        };
        errors.extend(found);
    }
    if let Some(items) = node.items.as_deref() {
        walk(items, &path.child("items"), &place.below(Step::Item), requires_pruned, errors);
    }
    for Property { name, node: property } in &node.properties {
        let mut below = place.below(Step::Field(name));
        below.in_metadata |= node.embedded_resource && META_FIELDS.contains(&&**name);
        walk(property, &path.child("properties").key(name), &below, requires_pruned, errors);
    }
}

fn plain(node: &Node, default: &Value, at: &FieldPath, requires_pruned: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if requires_pruned && pruned(node, default) != *default {
        errors.push(FieldError::invalid(at, excerpt(default), "must not have unknown fields"));
    }
    let mut coerced = default.clone();
    if let Err(error) = metadata::coerce_value(node, &mut coerced, at, Malformed::Refuse) {
        errors.push(error);
        return errors;
    }
    let mut found = Vec::new();
    metadata::validate(node, &coerced, at, &mut found);
    if found.is_empty() {
        found = validate::value(node, &coerced, at);
    }
    errors.extend(found);
    errors
}

/// Checks that a default inside metadata results in valid metadata of the resource.
fn in_metadata(node: &Node, default: &Value, at: &FieldPath, place: &Place) -> Vec<FieldError> {
    let mut object = place.surround(default.clone());
    let invalid = |why: String| {
        vec![FieldError::invalid(at, excerpt(default), format!("must result in valid metadata: {why}"))]
    };
    let path = FieldPath::default();
    if let Err(error) = metadata::coerce_value(place.resource, &mut object, &path, Malformed::Refuse) {
        return invalid(error.to_string());
    }
    let mut found = Vec::new();
    metadata::validate(place.resource, &object, &path, &mut found);
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    match texts.as_slice() {
        [] => validate::value(node, default, at),
        [one] => invalid(one.clone()),
        more => invalid(format!("[{}]", more.join(", "))),
    }
}
