//! Validation of an applied configuration against its type (upstream: `structured-merge-diff/typed.Validate`).

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use nave_machinery::go_value::{GoSyntax, GoValue, go_type};
use nave_machinery::limits::clipped;
use nave_machinery::{Map, Value};
use nave_schema::Scalar;

use super::path::{PathElement, display};
use super::schema::{Kind, ListType, MapType, Relation, TypeRef};

/// Maximum number of errors reported.
const MAX_ERRORS: usize = 100;

/// Maximum length of a path and of the rest of an error, in bytes. Names and values can be as long as the body.
const MAX_SHOWN_BYTES: usize = 1024;

/// Checks that all fields are declared, all values have the right kind, and no list has duplicate items.
///
/// # Errors
/// The problems, one per line.
pub(super) fn validate(ty: TypeRef<'_>, object: &Value) -> Result<(), String> {
    let mut walk = Walk::default();
    walk.visit(ty, object);
    match walk.errors.as_slice() {
        [] => Ok(()),
        [error] => Err(error.clone()),
        errors => Err(errors.iter().fold("errors:".to_owned(), |mut text, error| {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  {error}");
            text
        })),
    }
}

#[derive(Default)]
struct Walk {
    path: Vec<PathElement>,
    errors: Vec<String>,
}

impl Walk {
    fn visit(&mut self, ty: TypeRef<'_>, value: &Value) {
        if value.is_null() || self.errors.len() >= MAX_ERRORS {
            return;
        }
        match ty.kind(Some(value)) {
            Kind::Scalar => {
                if let Some(why) = ty.scalar().and_then(|scalar| wrong_scalar(scalar, value)) {
                    self.report(why);
                }
            }
            Kind::List => match (ty.list(), value) {
                (Some(list), Value::Array(items)) => self.visit_items(list, items),
                _ => self.report(format_args!("expected list, got &{{{}}}", GoValue(value))),
            },
            Kind::Map => match (ty.map(), value) {
                (Some(map), Value::Object(fields)) => self.visit_fields(map, fields),
                _ => self.report(format_args!("expected map, got &{{{}}}", GoValue(value))),
            },
        }
    }

    fn visit_fields(&mut self, map: MapType<'_>, fields: &Map) {
        for (name, value) in fields {
            self.path.push(PathElement::field(name));
            let ty = map.entry(name);
            match ty {
                Some(ty) => self.visit(ty, value),
                None => self.report("field not declared in schema"),
            }
            self.path.pop();
            // As upstream, the fields after an undeclared one are not checked.
            if ty.is_none() {
                return;
            }
        }
    }

    fn visit_items(&mut self, list: ListType<'_>, items: &[Value]) {
        let mut seen = BTreeSet::new();
        for (index, item) in (0..).zip(items) {
            let element = if list.relation == Relation::Atomic {
                PathElement::Index(index)
            } else {
                match list.element(item) {
                    Ok(element) => element,
                    Err(why) => return self.report(format_args!("element {index}: {why}")),
                }
            };
            if list.relation != Relation::Atomic && !seen.insert(element.clone()) {
                self.report(format_args!("duplicate entries for key {element}"));
            }
            self.path.push(element);
            self.visit(list.items, item);
            self.path.pop();
        }
    }

    fn report(&mut self, why: impl fmt::Display) {
        if self.errors.len() < MAX_ERRORS {
            let colon = if self.path.is_empty() { "" } else { ": " };
            let path = clipped(display(self.path.iter()), MAX_SHOWN_BYTES);
            self.errors.push(format!("{path}{colon}{}", clipped(why, MAX_SHOWN_BYTES)));
        }
    }
}

/// Returns the error for a value that is not a scalar of this kind. As upstream, each kind shows the value in its own
/// way.
fn wrong_scalar(scalar: Scalar, value: &Value) -> Option<String> {
    match scalar {
        Scalar::Int32 | Scalar::Int64 | Scalar::Double => {
            (!value.is_number()).then(|| format!("expected numeric (int or float), got {}", go_type(value)))
        }
        Scalar::String | Scalar::Bytes | Scalar::Duration => (!value.is_string()).then(|| {
            let shown = clipped(GoSyntax(value), MAX_SHOWN_BYTES);
            format!("expected string, got &value.valueUnstructured{{Value:{shown}}}")
        }),
        Scalar::Bool => (!value.is_boolean()).then(|| {
            let shown = clipped(GoValue(value), MAX_SHOWN_BYTES);
            format!("expected boolean, got &{{{shown}}}")
        }),
        Scalar::Time | Scalar::MicroTime | Scalar::Quantity | Scalar::IntOrString => {
            (value.is_array() || value.is_object()).then(|| {
                let shown = clipped(GoValue(value), MAX_SHOWN_BYTES);
                format!("expected any scalar, got &{{{shown}}}")
            })
        }
    }
}
