//! Validation of an applied configuration against its type (upstream: `structured-merge-diff/typed.Validate`).

use std::collections::BTreeSet;
use std::fmt::{self, Write};

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
                if let Some(expected) = ty.scalar().and_then(|scalar| expected(scalar, value)) {
                    self.report(format_args!("expected {expected}, got {value}"));
                }
            }
            Kind::List => match (ty.list(), value) {
                (Some(list), Value::Array(items)) => self.visit_items(list, items),
                _ => self.report(format_args!("expected list, got {value}")),
            },
            Kind::Map => match (ty.map(), value) {
                (Some(map), Value::Object(fields)) => self.visit_fields(map, fields),
                _ => self.report(format_args!("expected map, got {value}")),
            },
        }
    }

    fn visit_fields(&mut self, map: MapType<'_>, fields: &Map) {
        for (name, value) in fields {
            self.path.push(PathElement::field(name));
            match map.entry(name) {
                Some(ty) => self.visit(ty, value),
                None => self.report("field not declared in schema"),
            }
            self.path.pop();
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

/// Returns the expected kind of scalar; `None` if the value has this kind.
fn expected(scalar: Scalar, value: &Value) -> Option<&'static str> {
    let (is_right, name) = match scalar {
        Scalar::Int32 | Scalar::Int64 | Scalar::Double => (value.is_number(), "numeric (int or float)"),
        Scalar::String | Scalar::Bytes | Scalar::Duration => (value.is_string(), "string"),
        Scalar::Bool => (value.is_boolean(), "boolean"),
        Scalar::Time | Scalar::MicroTime | Scalar::Quantity | Scalar::IntOrString => {
            (!value.is_array() && !value.is_object(), "any scalar")
        }
    };
    (!is_right).then_some(name)
}
