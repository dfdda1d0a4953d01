//! Checks the form of `x-kubernetes-validations`, without compiling the expressions.

use nave_machinery::{FieldError, FieldPath, Map, Value};

use super::{Errors, field_path, list};

/// The reasons that a rule may give, sorted.
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

pub(super) fn check(schema: &Map, path: &FieldPath, errors: &mut Errors) {
    for (index, rule) in list(schema, "x-kubernetes-validations").iter().enumerate() {
        if let Value::Object(rule) = rule {
            self::rule(schema, rule, &path.child("x-kubernetes-validations").index(index), errors);
        }
    }
}

fn rule(schema: &Map, rule: &Map, path: &FieldPath, errors: &mut Errors) {
    let text = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default();
    let has_lines = |text: &str| text.contains(['\n', '\r']);
    let (expression, message) = (text("rule"), text("message"));
    if expression.trim().is_empty() {
        errors.required(&path.child("rule"), "rule is not specified");
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&path.child("message"), message, "must be non-empty if specified");
    } else if has_lines(message.trim()) {
        errors.invalid(&path.child("message"), message, "must not contain line breaks");
    } else if has_lines(expression.trim()) && message.trim().is_empty() {
        errors.required(&path.child("message"), "message must be specified if rule contains line breaks");
    }
    let message_expression = text("messageExpression");
    if !message_expression.is_empty() && message_expression.trim().is_empty() {
        let why = "messageExpression must be non-empty if specified";
        errors.required(&path.child("messageExpression"), why);
    }
    if let Some(reason) =
        rule.get("reason").and_then(Value::as_str).filter(|reason| !REASONS.contains(reason))
    {
        errors.push(FieldError::not_supported(&path.child("reason"), reason, &REASONS));
    }
    let field = text("fieldPath");
    if field.is_empty() {
        return;
    }
    let at = path.child("fieldPath");
    if field.trim().is_empty() {
        errors.invalid(&at, field, "must be non-empty if specified");
    }
    if has_lines(field) {
        errors.invalid(&at, field, "must not contain line breaks");
    }
    if field_path::resolve(schema, field, true).is_err() {
        errors.invalid(&at, field, "must be a valid path");
    }
}
