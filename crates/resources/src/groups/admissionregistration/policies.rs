//! Validation of policies and their bindings (upstream: `pkg/apis/admissionregistration/validation`).

use std::collections::HashSet;

use nave_cel::Type;
use nave_cel::policies::{COMPATIBILITY_VERSION, PolicyCompiler};
use nave_machinery::{FieldError, names};

use super::rules::{
    FAILURE_POLICIES, REINVOCATIONS, compiled, match_conditions, match_resources, required_one_of,
};
use crate::conditions::conditions;
use crate::validate::{
    At, Errors, absent_or_one_of, checked, label_selector, one_of, required_checked, required_text,
};

const ANNOTATIONS_MAX: usize = 20;
/// The maximum length of the value expression of an audit annotation.
const VALUE_MAX: usize = 5 * 1024;

/// The compiler of a policy's expressions, which knows the variables once they are checked.
pub(super) struct Expressions {
    compiler: PolicyCompiler,
    /// Match conditions that an update does not change are not compiled again.
    skips_conditions: bool,
}

impl Expressions {
    /// Creates the compiler. Only mutating policies can use `variables` without declaring any.
    pub(super) fn new(policy: At, stored: Option<At>, is_mutating: bool) -> Self {
        let spec = policy.field("spec");
        let with_params = spec.field("paramKind").is_set();
        let has_variables = is_mutating || spec.field("variables").len() > 0;
        let new = if has_variables { PolicyCompiler::new } else { PolicyCompiler::without_variables };
        let is_same = |old: At| {
            ["paramKind", "matchConditions"]
                .into_iter()
                .all(|field| old.field("spec").field(field).value() == spec.field(field).value())
        };
        Self {
            compiler: new(COMPATIBILITY_VERSION, with_params),
            skips_conditions: stored.is_some_and(is_same),
        }
    }
}

/// Checks an expression that must not be empty.
fn expression(at: At, compiler: &PolicyCompiler, wanted: &[Type], errors: &mut Errors) {
    if at.text().trim().is_empty() {
        errors.push(at.required("expression is not specified"));
    } else {
        compiled(at, at.text(), compiler.compile(at.text(), wanted), errors);
    }
}

pub(super) fn policy(policy: At, expressions: &mut Expressions, errors: &mut Errors) {
    let spec = policy.field("spec");
    required_one_of(spec.field("failurePolicy"), &FAILURE_POLICIES, errors);
    let kind = spec.field("paramKind");
    if kind.is_set() {
        parameter_kind(kind, errors);
    }
    let matching = spec.field("matchConstraints");
    if matching.is_set() {
        match_resources(matching, errors);
        if matching.field("resourceRules").len() == 0 {
            errors.push(matching.field("resourceRules").required(""));
        }
    } else {
        errors.push(matching.required(""));
    }
    if !expressions.skips_conditions {
        let compiler = PolicyCompiler::without_variables(COMPATIBILITY_VERSION, kind.is_set());
        match_conditions(spec.field("matchConditions"), &compiler, errors);
    }
    variables(spec.field("variables"), expressions, errors);
}

pub(super) fn validations(policy: At, expressions: Expressions, errors: &mut Errors) {
    let compiler = expressions.compiler;
    let spec = policy.field("spec");
    let (validations, annotations) = (spec.field("validations"), spec.field("auditAnnotations"));
    if validations.len() == 0 && annotations.len() == 0 {
        let why = "validations or auditAnnotations must contain at least one item";
        errors.push(validations.required(why));
        errors.push(annotations.required(why));
    }
    validations.items().for_each(|it| validation(it, &compiler, errors));
    if annotations.len() > ANNOTATIONS_MAX {
        errors
            .push(annotations.invalid(format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations")));
    }
    let mut seen = HashSet::new();
    let metadata = policy.field("metadata");
    for annotation in annotations.items() {
        let key = annotation.field("key");
        audit_annotation(annotation, metadata.field("name").text(), &compiler, errors);
        if !seen.insert(key.text()) {
            errors.push(FieldError::duplicate(&key.path(), key.text()));
        }
    }
}

fn validation(validation: At, compiler: &PolicyCompiler, errors: &mut Errors) {
    expression(validation.field("expression"), compiler, &[Type::Bool], errors);
    let (detail, message) = (validation.field("messageExpression"), validation.field("message"));
    if !detail.text().trim().is_empty() {
        let result = compiler.compile_without_authorizer(detail.text(), &[Type::String]);
        compiled(detail, detail.text(), result, errors);
    }
    for text in [detail, message] {
        if !text.text().is_empty() && text.text().trim().is_empty() {
            errors.push(text.invalid("must be non-empty if specified"));
        }
    }
    if message.text().trim().contains(['\n', '\r']) {
        errors.push(message.invalid("must not contain line breaks"));
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
    absent_or_one_of(validation.field("reason"), &reasons, errors);
}

fn audit_annotation(annotation: At, policy: &str, compiler: &PolicyCompiler, errors: &mut Errors) {
    let (key, value) = (annotation.field("key"), annotation.field("valueExpression"));
    if policy.is_empty() {
        errors.push(key.invalid_text("requires metadata.name be non-empty"));
    } else {
        let full = format!("{policy}/{}", key.text());
        let wrong = names::is_qualified_name(&full);
        errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&key.path(), full.as_str(), why)));
    }
    match value.text().trim().len() {
        0 => errors.push(value.required("valueExpression is not specified")),
        1..=VALUE_MAX => {
            let result = compiler.compile(value.text().trim(), &[Type::String, Type::Null]);
            compiled(value, value.text(), result, errors);
        }
        _ => errors.push(value.required(format!("must not exceed {VALUE_MAX} bytes in length"))),
    }
}

pub(super) fn mutations(policy: At, expressions: Expressions, errors: &mut Errors) {
    // Only the expressions of mutations can create objects.
    let compiler = expressions.compiler.with_patch_types();
    let spec = policy.field("spec");
    let mutations = spec.field("mutations");
    if mutations.len() == 0 {
        errors.push(mutations.required("mutations must contain at least one item"));
    }
    mutations.items().for_each(|it| mutation(it, &compiler, errors));
    let again = spec.field("reinvocationPolicy");
    if required_text(again, errors) {
        one_of(again, &REINVOCATIONS, errors);
    }
    changes_only(spec.field("matchConstraints"), errors);
}

fn mutation(mutation: At, compiler: &PolicyCompiler, errors: &mut Errors) {
    const FIELDS: [(&str, &str); 2] =
        [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
    let kind = mutation.field("patchType");
    if !required_text(kind, errors) {
        return;
    }
    if !FIELDS.iter().any(|(known, _)| *known == kind.text()) {
        errors.push(kind.not_supported(&FIELDS.map(|(known, _)| known)));
        return;
    }
    for (known, field) in FIELDS {
        let patch = mutation.field(field);
        match (known == kind.text(), patch.is_set()) {
            (true, true) => patch_expression(patch.field("expression"), field, compiler, errors),
            (true, false) => {
                errors.push(patch.required(format!("must be specified when patchType is {known}")));
            }
            (false, true) => {
                let why = format!("must not be specified when patchType is {}", kind.text());
                errors.push(FieldError::invalid(&patch.path(), format!("{{{field}}}"), why));
            }
            (false, false) => {}
        }
    }
}

/// Checks the expression of a patch. Leading and trailing space is ignored.
fn patch_expression(at: At, field: &str, compiler: &PolicyCompiler, errors: &mut Errors) {
    let wanted = match field {
        "jsonPatch" => Type::list(Type::object("JSONPatch", [])),
        _ => Type::object("Object", []),
    };
    match at.text().trim() {
        "" => errors.push(at.required("")),
        text => compiled(at, text, compiler.compile(text, &[wanted]), errors),
    }
}

/// Mutating policies must not match deletes. Upstream reports the error at the list of rules.
pub(super) fn changes_only(matching: At, errors: &mut Errors) {
    let rules = matching.field("resourceRules");
    for rule in rules.items() {
        for operation in rule.field("operations").items() {
            let operations = ["*", "CONNECT", "CREATE", "UPDATE"];
            if !operations.contains(&operation.text()) {
                let path = rules.path().child("operations");
                errors.push(FieldError::not_supported(&path, operation.text(), &operations));
            }
        }
    }
}

fn variables(variables: At, expressions: &mut Expressions, errors: &mut Errors) {
    for variable in variables.items() {
        let name = variable.field("name");
        if name.text().trim().is_empty() {
            errors.push(name.required("name is not specified"));
        } else if !is_identifier(name.text()) {
            errors.push(name.invalid("must be a valid CEL identifier"));
        }
        let expression = variable.field("expression");
        if expression.text().trim().is_empty() {
            errors.push(expression.required("expression is not specified"));
        } else {
            let result = expressions.compiler.declare(name.text(), expression.text());
            compiled(expression, expression.text(), result, errors);
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(start)
        && name.bytes().all(|byte| start(byte) || byte.is_ascii_digit())
        && !nave_cel::is_reserved(name)
}

fn parameter_kind(kind: At, errors: &mut Errors) {
    let (version, name) = (kind.field("apiVersion"), kind.field("kind"));
    if required_text(version, errors) {
        parameter_version(version, errors);
    }
    if required_text(name, errors) {
        let found = names::is_dns1035_label(&name.text().to_lowercase());
        errors.extend(
            found
                .into_iter()
                .map(|why| name.invalid(format!("may have mixed case, but should otherwise match: {why}"))),
        );
    }
}

/// Checks an API version: an optional group and a version.
fn parameter_version(at: At, errors: &mut Errors) {
    let text = if at.text() == "/" { "" } else { at.text() };
    let (group, version) = text.split_once('/').unwrap_or(("", text));
    if version.contains('/') {
        errors.push(at.invalid(format!("unexpected GroupVersion string: {text}")));
        return;
    }
    let mut wrong = |shown: &str, found: Vec<String>| {
        if !found.is_empty() {
            errors.push(FieldError::invalid(&at.path(), shown, found.join(",")));
        }
    };
    if !group.is_empty() {
        wrong(group, names::is_dns1123_subdomain(group));
    }
    if version.is_empty() {
        wrong(at.text(), vec!["version must be specified".to_owned()]);
    } else {
        wrong(version, names::is_dns1035_label(version));
    }
}

pub(super) fn binding(binding: At, errors: &mut Errors) {
    let spec = binding.field("spec");
    required_checked(spec.field("policyName"), names::is_dns1123_subdomain, errors);
    let parameters = spec.field("paramRef");
    if parameters.is_set() {
        parameter_reference(parameters, errors);
    }
    match_resources(spec.field("matchResources"), errors);
}

fn parameter_reference(reference: At, errors: &mut Errors) {
    let (name, selector, action) =
        (reference.field("name"), reference.field("selector"), reference.field("parameterNotFoundAction"));
    if !name.text().is_empty() {
        checked(name, names::is_path_segment_name, errors);
    }
    label_selector(selector, errors);
    match (name.text().is_empty(), selector.is_set()) {
        (true, false) => errors.push(reference.required("one of name or selector must be specified")),
        (false, true) => {
            let why = "name and selector are mutually exclusive";
            errors.extend([name.forbidden(why), selector.forbidden(why)]);
        }
        _ => {}
    }
    if required_text(action, errors) {
        one_of(action, &["Deny", "Allow"], errors);
    }
}

/// Checks the actions of a binding: at least one, no duplicates, and not both `Deny` and `Warn`.
pub(super) fn actions(binding: At, errors: &mut Errors) {
    let spec = binding.field("spec");
    let actions = spec.field("validationActions");
    if actions.len() == 0 {
        errors.push(actions.required("at least one validation action is required"));
    }
    let mut seen = HashSet::new();
    for action in actions.items() {
        one_of(action, &["Audit", "Deny", "Warn"], errors);
        if !seen.insert(action.text()) {
            errors.push(action.duplicate());
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        errors
            .push(actions.invalid(
                "must not contain both Deny and Warn: the client would read the same failure twice",
            ));
    }
}

/// Checks the status of a policy.
pub(super) fn status(policy: At, errors: &mut Errors) {
    let status = policy.field("status");
    let checking = status.field("typeChecking");
    for warning in checking.field("expressionWarnings").items() {
        required_text(warning.field("warning"), errors);
        let reference = warning.field("fieldRef");
        if reference.text().trim().is_empty() {
            errors.push(reference.required(""));
        }
    }
    conditions(status.field("conditions"), errors);
}
