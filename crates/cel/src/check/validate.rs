//! Validates checked trees: constant arguments, and equal types in literals. Upstream: cel-go's AST validators.

use nave_machinery::go_regex;

use super::{Checked, format_calls};
use crate::env::Env;
use crate::kinds::Type;
use crate::library::time;
use crate::syntax::Issue;
use crate::syntax::ast::{Expr, Id, Kind, Literal};
use crate::value::Timestamp;

/// The minor version of Kubernetes that introduced the checks of constants.
const SINCE: u32 = 29;

/// Returns the errors of a checked tree.
pub(super) fn validate(checked: &Checked, env: &Env) -> Vec<Issue> {
    let mut issues = Vec::new();
    let mut report = |id: Id, message: String| issues.push(checked.source.issue_at(id, message));
    if env.version() >= SINCE {
        for function in ["duration", "timestamp", "matches"] {
            checked.expr.walk(&mut |expr| constant_argument(expr, function, &mut report));
        }
    }
    homogeneous(checked, &checked.expr, false, &mut report);
    if env.version() >= SINCE {
        checked.expr.walk(&mut |expr| format_calls::check(checked, expr, &mut report));
    }
    issues
}

fn constant_argument(expr: &Expr, wanted: &str, report: &mut dyn FnMut(Id, String)) {
    let Kind::Call { function, args, .. } = &expr.kind else { return };
    let [first, ..] = args.as_slice() else { return };
    let Kind::Literal(literal) = &first.kind else { return };
    if **function != *wanted {
        return;
    }
    let valid = match (wanted, literal) {
        ("duration", Literal::String(text)) => time::parse_duration(text).is_some(),
        ("duration", _) => false,
        ("timestamp", Literal::String(text)) => {
            time::parse_timestamp(text).is_some_and(|at| Timestamp::RANGE.contains(&at.seconds))
        }
        ("timestamp", Literal::Int(seconds)) => Timestamp::RANGE.contains(seconds),
        ("timestamp", _) => false,
        (_, Literal::String(pattern)) => go_regex::check(pattern).is_ok(),
        _ => true,
    };
    if !valid {
        report(first.id, format!("invalid {wanted} argument"));
    }
}

/// Returns whether types are equal, without conversions.
fn same(left: &Type, right: &Type) -> bool {
    left == right
}

fn homogeneous(checked: &Checked, expr: &Expr, exempt: bool, report: &mut dyn FnMut(Id, String)) {
    let mut mismatch = |id: Id, expected: &Type, found: &Type| {
        report(id, format!("expected type '{expected}' but found '{found}'"));
    };
    let inner = |ty: &Type, optional: bool| {
        if optional { ty.unwrap_optional().0.clone() } else { ty.clone() }
    };
    match &expr.kind {
        Kind::List { elements, optional } if !exempt => {
            let mut expected: Option<Type> = None;
            for (index, element) in elements.iter().enumerate() {
                let optional = optional.get(index).copied().unwrap_or_default();
                let found = inner(checked.type_of(element.id), optional);
                match &expected {
                    None => expected = Some(found),
                    Some(expected) if !same(expected, &found) => {
                        mismatch(element.id, expected, &found);
                        break;
                    }
                    Some(_) => {}
                }
            }
        }
        Kind::Map(entries) if !exempt => {
            let mut expected: Option<(Type, Type)> = None;
            for entry in entries {
                let key = checked.type_of(entry.key.id).clone();
                let value = inner(checked.type_of(entry.value.id), entry.optional);
                match &expected {
                    None => expected = Some((key, value)),
                    Some((keys, values)) => {
                        if !same(keys, &key) {
                            mismatch(entry.key.id, keys, &key);
                        }
                        if !same(values, &value) {
                            mismatch(entry.value.id, values, &value);
                        }
                    }
                }
            }
        }
        _ => {}
    }
    // Arguments of `format` may have different types.
    let exempt = exempt || matches!(&expr.kind, Kind::Call { function, .. } if &**function == "format");
    for child in expr.children() {
        homogeneous(checked, child, exempt, report);
    }
}
