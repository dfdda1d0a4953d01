//! Validation shared by webhook configurations and policies (upstream:
//! `pkg/apis/admissionregistration/validation`). CEL expressions are compiled on evaluation, not here.

use std::collections::HashSet;

use nave_machinery::names;

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

pub(super) fn match_conditions(conditions: At, errors: &mut Errors) {
    if conditions.len() > CONDITIONS_MAX {
        errors.push(conditions.too_many(CONDITIONS_MAX));
    }
    let mut seen = HashSet::new();
    for condition in conditions.items() {
        let name = condition.field("name");
        required_checked(name, names::is_qualified_name, errors);
        if !name.text().is_empty() && !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
        expression(condition.field("expression"), errors);
    }
}

pub(super) fn expression(at: At, errors: &mut Errors) {
    if at.text().trim().is_empty() {
        errors.push(at.required("expression is not specified"));
    }
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
