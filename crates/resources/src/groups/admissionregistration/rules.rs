//! Validation shared by webhook configurations and policies (upstream:
//! `pkg/apis/admissionregistration/validation`).

use std::collections::HashSet;

use nave_cel::Type;
use nave_cel::policies::{COMPATIBILITY_VERSION, PolicyCompiler};
use nave_machinery::{FieldError, FieldErrorKind, Value, limits, names};

use crate::validate::{
    At, Errors, absent_or_one_of, checked, label_selector, one_of, required_checked, required_text,
};

pub(super) const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
pub(super) const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
pub(super) const REINVOCATIONS: [&str; 2] = ["IfNeeded", "Never"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const CONDITIONS_MAX: usize = 64;

/// Checks a rule of a webhook or policy: operations on resources.
pub(super) fn rule(rule: At, errors: &mut Errors) {
    let operations = rule.field("operations");
    one_wildcard(operations, "operations", errors);
    for operation in operations.items() {
        one_of(operation, &OPERATIONS, errors);
    }
    one_wildcard(rule.field("apiGroups"), "API groups", errors);
    let versions = rule.field("apiVersions");
    one_wildcard(versions, "API versions", errors);
    for version in versions.items() {
        required_text(version, errors);
    }
    resources(rule.field("resources"), errors);
    absent_or_one_of(rule.field("scope"), &SCOPES, errors);
}

/// Checks that the list is not empty and that `*` is its only item.
fn one_wildcard(list: At, what: &str, errors: &mut Errors) {
    if list.len() == 0 {
        errors.push(list.required(""));
    } else if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        errors.push(list.invalid(format!("if '*' is present, must not specify other {what}")));
    }
}

/// Checks resources and subresources. Rejects an item that an earlier item covers.
fn resources(list: At, errors: &mut Errors) {
    if list.len() == 0 {
        errors.push(list.required(""));
    }
    let (mut whole, mut subresources) = (HashSet::new(), HashSet::new());
    // Upstream considers only the last entry without a subresource.
    let mut has_plain = false;
    for item in list.items() {
        let text = item.text();
        if text.is_empty() {
            errors.push(item.required(""));
            continue;
        }
        let Some((resource, subresource)) = text.split_once('/') else {
            has_plain = text != "*";
            continue;
        };
        let mut covered = |by: String| {
            errors.push(item.invalid(format!("if '{by}' is present, must not specify {text}")));
        };
        if whole.contains(resource) {
            covered(format!("{resource}/*"));
        }
        if subresources.contains(subresource) {
            covered(format!("*/{subresource}"));
        }
        if subresource == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            subresources.insert(subresource);
        }
    }
    let has = |wanted: &str| list.items().any(|item| item.text() == wanted);
    if list.len() > 1 && has("*/*") {
        errors.push(list.invalid("if '*/*' is present, must not specify other resources"));
    }
    if has_plain && has("*") {
        errors.push(list.invalid("if '*' is present, must not specify other resources without subresources"));
    }
}

/// Checks match conditions. Unlike at evaluation, the API does not let them use the variables of a policy.
pub(super) fn match_conditions(conditions: At, compiler: &PolicyCompiler, errors: &mut Errors) {
    if conditions.len() > CONDITIONS_MAX {
        errors.push(conditions.too_many(CONDITIONS_MAX));
    }
    let mut seen = HashSet::new();
    for condition in conditions.items() {
        let (expression, name) = (condition.field("expression"), condition.field("name"));
        match expression.text().trim() {
            "" => errors.push(expression.required("")),
            text => compiled(expression, text, compiler.compile(text, &[Type::Bool]), errors),
        }
        required_checked(name, names::is_qualified_name, errors);
        if !name.text().is_empty() && !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
    }
}

/// Reports the error of compiling an expression. `shown` is the text that the error quotes.
pub(super) fn compiled<T>(at: At, shown: &str, result: Result<T, String>, errors: &mut Errors) {
    errors.extend(result.err().map(|why| {
        // A constant part of the expression fails.
        let is_internal = why.starts_with("program instantiation failed");
        if is_internal {
            FieldError::with(FieldErrorKind::Internal, &at.path(), Value::Null, why)
        } else {
            FieldError::invalid(&at.path(), limits::clipped(shown, MAX_SHOWN_BYTES), why)
        }
    }));
}

/// Maximum size of an expression in an error, in bytes.
const MAX_SHOWN_BYTES: usize = 16 * 1024;

/// Returns the compiler of the match conditions of webhooks.
pub(super) fn webhook_compiler() -> PolicyCompiler {
    PolicyCompiler::without_variables(COMPATIBILITY_VERSION, false)
}

pub(super) fn match_resources(matching: At, errors: &mut Errors) {
    if !matching.is_set() {
        return;
    }
    required_one_of(matching.field("matchPolicy"), &MATCH_POLICIES, errors);
    for selector in ["namespaceSelector", "objectSelector"].map(|field| matching.field(field)) {
        if selector.is_set() {
            label_selector(selector, errors);
        } else {
            errors.push(selector.required(""));
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for rule in matching.field(field).items() {
            named_rule(rule.field("resourceNames"), errors);
            self::rule(rule, errors);
        }
    }
}

pub(super) fn required_one_of(at: At, supported: &[&str], errors: &mut Errors) {
    if at.is_set() {
        one_of(at, supported, errors);
    } else {
        errors.push(at.required(""));
    }
}

fn named_rule(names: At, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for name in names.items() {
        checked(name, names::is_path_segment_name, errors);
        if !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
    }
}
