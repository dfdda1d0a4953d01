//! Checks calls of `format` whose format and arguments are literals.

use super::{Checked, Reference};
use crate::kinds::Type;
use crate::library::format::{Clause, Part, clause_error, each_part};
use crate::messages::WRAPPER;
use crate::syntax::ast::{Expr, Id, Kind, Literal};

/// Checks one call.
pub(super) fn check(checked: &Checked, expr: &Expr, report: &mut dyn FnMut(Id, String)) {
    let Kind::Call { function, target: Some(target), args } = &expr.kind else { return };
    let is_format = match checked.reference(expr.id) {
        Some(Reference::Function { overloads, .. }) => overloads.iter().any(|it| it.id == "string_format"),
        _ => false,
    };
    let (Kind::Literal(Literal::String(format)), [list]) = (&target.kind, args.as_slice()) else { return };
    let Kind::List { elements, .. } = &list.kind else { return };
    if &**function != "format" || !is_format {
        return;
    }
    let mut place = expr.id;
    let requested = each_part(format, elements.len(), &mut |part, index| {
        let (Part::Clause(clause), Some(element)) = (part, elements.get(index)) else { return Ok(()) };
        match mismatch(checked, clause, element) {
            Some((id, name)) => {
                place = id;
                Err(clause_error(clause, &name))
            }
            None => Ok(()),
        }
    });
    match requested {
        Err(message) => report(place, message),
        Ok(requested) if elements.len() > requested => {
            let found = elements.len();
            let message =
                format!("too many arguments supplied to string.format (expected {requested}, got {found})");
            report(expr.id, message);
        }
        Ok(_) => {}
    }
}

/// Returns the first part of an argument that a clause does not support, and the name of the part's type.
fn mismatch(checked: &Checked, clause: Clause, element: &Expr) -> Option<(Id, String)> {
    if clause == Clause::String {
        return string_mismatch(checked, element);
    }
    let ty = unwrapped_type(checked, element);
    let fits = match clause {
        Clause::String => true,
        Clause::Decimal | Clause::Octal => matches!(ty, Type::Int | Type::Uint),
        Clause::Fixed(_) | Clause::Scientific(_) => matches!(ty, Type::Double | Type::String),
        Clause::Binary => matches!(ty, Type::Int | Type::Uint | Type::Bool),
        Clause::Hex { .. } => matches!(ty, Type::Int | Type::Uint | Type::String | Type::Bytes),
    };
    let fits = fits || ty.is_dyn();
    (!fits).then(|| (element.id, ty.runtime_name().to_owned()))
}

/// Returns the type of an element. A wrapper such as `google.protobuf.Int32Value` counts as what it wraps.
fn unwrapped_type<'a>(checked: &'a Checked, element: &Expr) -> &'a Type {
    match checked.type_of(element.id) {
        Type::Opaque(WRAPPER, Some(wrapped)) => wrapped,
        ty => ty,
    }
}

fn string_mismatch(checked: &Checked, element: &Expr) -> Option<(Id, String)> {
    let ty = unwrapped_type(checked, element);
    let fits = matches!(
        ty,
        Type::Dyn
            | Type::Any
            | Type::Null
            | Type::Bool
            | Type::Int
            | Type::Uint
            | Type::Double
            | Type::String
            | Type::Bytes
            | Type::Duration
            | Type::Timestamp
            | Type::List(_)
            | Type::Map(..)
            | Type::Type(_)
    );
    if !fits {
        return Some((element.id, ty.runtime_name().to_owned()));
    }
    match (ty, &element.kind) {
        (Type::List(_), Kind::List { elements, .. }) => {
            elements.iter().find_map(|element| string_mismatch(checked, element))
        }
        // Formatting refuses more keys than this check, but only when it is evaluated.
        (Type::Map(..), Kind::Map(entries)) => entries.iter().find_map(|entry| {
            string_mismatch(checked, &entry.key).or_else(|| string_mismatch(checked, &entry.value))
        }),
        _ => None,
    }
}
