//! What webhook configurations and policies must be (upstream: `pkg/apis/admissionregistration/validation`). CEL
//! expressions are compiled where they are evaluated, not here.

use std::collections::HashSet;

use nave_machinery::names;

use crate::validate::{
    At, Errors, absent_or_one_of, checked, fully_qualified_name, label_selector, one_of, required_checked,
    required_text,
};
use crate::webhook_client::{webhook_service, webhook_url};

const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const CONDITIONS_MAX: usize = 64;

pub(super) fn webhooks(configuration: At, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for webhook in configuration.field("webhooks").items() {
        self::webhook(webhook, errors);
        let name = webhook.field("name");
        if !name.text().is_empty() && !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
    }
}

fn webhook(webhook: At, errors: &mut Errors) {
    fully_qualified_name(webhook.field("name"), errors);
    label_selector(webhook.field("objectSelector"), errors);
    label_selector(webhook.field("namespaceSelector"), errors);
    absent_or_one_of(webhook.field("failurePolicy"), &FAILURE_POLICIES, errors);
    absent_or_one_of(webhook.field("matchPolicy"), &MATCH_POLICIES, errors);
    absent_or_one_of(webhook.field("reinvocationPolicy"), &["IfNeeded", "Never"], errors);
    let effects = webhook.field("sideEffects");
    if effects.is_set() {
        one_of(effects, &["None", "NoneOnDryRun"], errors);
    } else {
        errors.push(effects.required("must specify one of None, NoneOnDryRun"));
    }
    let timeout = webhook.field("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        errors.push(timeout.invalid("the timeout value must be between 1 and 30 seconds"));
    }
    for rule in webhook.field("rules").items() {
        self::rule(rule, errors);
    }
    review_versions(webhook.field("admissionReviewVersions"), errors);
    client_config(webhook.field("clientConfig"), errors);
    match_conditions(webhook.field("matchConditions"), errors);
}

fn client_config(config: At, errors: &mut Errors) {
    let (url, service) = (config.field("url"), config.field("service"));
    if url.is_set() == service.is_set() {
        errors.push(config.required("exactly one of url or service is required"));
    } else if url.is_set() {
        webhook_url(url, errors);
    } else {
        webhook_service(service, errors);
    }
}

/// At least one of the versions a review may have must be one that this server speaks.
fn review_versions(versions: At, errors: &mut Errors) {
    let known = REVIEW_VERSIONS.join(", ");
    if versions.len() == 0 {
        errors.push(versions.required(format!("must specify one of {known}")));
        return;
    }
    let mut seen = HashSet::new();
    let mut accepted = false;
    for version in versions.items() {
        if !seen.insert(version.text()) {
            errors.push(version.invalid("duplicate version"));
            continue;
        }
        checked(version, names::is_dns1035_label, errors);
        accepted |= REVIEW_VERSIONS.contains(&version.text());
    }
    if !accepted {
        errors.push(versions.invalid(format!("must include at least one of {known}")));
    }
}

/// What a webhook or a policy is asked about: operations on resources.
fn rule(rule: At, errors: &mut Errors) {
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

/// Something must be listed, and where everything is, nothing else.
fn one_wildcard(list: At, what: &str, errors: &mut Errors) {
    if list.len() == 0 {
        errors.push(list.required(""));
    } else if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        errors.push(list.invalid(format!("if '*' is present, must not specify other {what}")));
    }
}

/// Resources and subresources, without one that another covers.
fn resources(list: At, errors: &mut Errors) {
    if list.len() == 0 {
        errors.push(list.required(""));
    }
    let all: HashSet<&str> = list.items().map(|item| item.text()).collect();
    for item in list.items() {
        if item.text().is_empty() {
            errors.push(item.required(""));
            continue;
        }
        let Some((resource, subresource)) = item.text().split_once('/') else { continue };
        let covered = [format!("{resource}/*"), format!("*/{subresource}"), "*/*".to_owned()];
        let covering = covered.iter().find(|it| *it != item.text() && all.contains(it.as_str()));
        if let Some(covering) = covering {
            let why = format!("if '{covering}' is present, must not specify {}", item.text());
            errors.push(item.invalid(why));
        }
    }
    if list.len() > 1 && all.contains("*/*") {
        errors.push(list.invalid("if '*/*' is present, must not specify other resources"));
    } else if list.items().any(|item| item.text() == "*")
        && list.items().any(|item| item.text() != "*" && !item.text().contains('/'))
    {
        errors.push(list.invalid("if '*' is present, must not specify other resources without subresources"));
    }
}

fn match_conditions(conditions: At, errors: &mut Errors) {
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
        required_text(condition.field("expression"), errors);
    }
}

pub(super) fn policy(policy: At, errors: &mut Errors) {
    let spec = policy.field("spec");
    absent_or_one_of(spec.field("failurePolicy"), &FAILURE_POLICIES, errors);
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
    match_conditions(spec.field("matchConditions"), errors);
    variables(spec.field("variables"), errors);
}

pub(super) fn validations(policy: At, errors: &mut Errors) {
    let spec = policy.field("spec");
    let (validations, annotations) = (spec.field("validations"), spec.field("auditAnnotations"));
    if validations.len() == 0 && annotations.len() == 0 {
        let why = "validations or auditAnnotations must contain at least one item";
        errors.push(validations.required(why));
        errors.push(annotations.required(why));
    }
    for validation in validations.items() {
        expression(validation.field("expression"), errors);
        let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
        absent_or_one_of(validation.field("reason"), &reasons, errors);
        let message = validation.field("message");
        if message.is_set() && message.text().trim().is_empty() {
            errors.push(message.invalid("message must be non-empty if specified"));
        }
    }
    for annotation in annotations.items() {
        required_checked(annotation.field("key"), names::is_qualified_name, errors);
        let value = annotation.field("valueExpression");
        if value.text().trim().is_empty() {
            errors.push(value.required("valueExpression is not specified"));
        }
    }
}

pub(super) fn mutations(policy: At, errors: &mut Errors) {
    let spec = policy.field("spec");
    let mutations = spec.field("mutations");
    if mutations.len() == 0 {
        errors.push(mutations.required("mutations must contain at least one item"));
    }
    for mutation in mutations.items() {
        let kind = mutation.field("patchType");
        if !required_text(kind, errors) {
            continue;
        }
        match kind.text() {
            "ApplyConfiguration" => {
                let patch = mutation.field("applyConfiguration");
                expression(patch.field("expression"), errors);
            }
            "JSONPatch" => {
                let patch = mutation.field("jsonPatch");
                expression(patch.field("expression"), errors);
            }
            _ => errors.push(kind.not_supported(&["ApplyConfiguration", "JSONPatch"])),
        }
    }
    let again = spec.field("reinvocationPolicy");
    if required_text(again, errors) {
        one_of(again, &["IfNeeded", "Never"], errors);
    }
}

fn expression(at: At, errors: &mut Errors) {
    if at.text().trim().is_empty() {
        errors.push(at.required("expression is not specified"));
    }
}

fn variables(variables: At, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for variable in variables.items() {
        let name = variable.field("name");
        if name.text().is_empty() {
            errors.push(name.required("name is not specified"));
        } else if !is_identifier(name.text()) {
            errors.push(name.invalid("name is not a valid CEL identifier"));
        } else if !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
        expression(variable.field("expression"), errors);
    }
}

fn is_identifier(name: &str) -> bool {
    let start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(start) && name.bytes().all(|byte| start(byte) || byte.is_ascii_digit())
}

fn parameter_kind(kind: At, errors: &mut Errors) {
    let (version, name) = (kind.field("apiVersion"), kind.field("kind"));
    if required_text(version, errors) {
        let parts: Vec<&str> = version.text().split('/').collect();
        match parts[..] {
            [version_only] if !version_only.is_empty() => {}
            [group, version_only] if !group.is_empty() && !version_only.is_empty() => {}
            _ => errors.push(version.invalid(format!("unexpected GroupVersion string: {}", version.text()))),
        }
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

fn match_resources(matching: At, errors: &mut Errors) {
    absent_or_one_of(matching.field("matchPolicy"), &MATCH_POLICIES, errors);
    label_selector(matching.field("namespaceSelector"), errors);
    label_selector(matching.field("objectSelector"), errors);
    for field in ["resourceRules", "excludeResourceRules"] {
        for rule in matching.field(field).items() {
            self::rule(rule, errors);
            named_rule(rule.field("resourceNames"), errors);
        }
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
    match (name.text().is_empty(), selector.is_set()) {
        (true, false) => errors.push(name.required("one of name or selector must be specified")),
        (true, true) => label_selector(selector, errors),
        (false, false) => checked(name, names::is_path_segment_name, errors),
        (false, true) => errors.push(name.forbidden("name and selector are mutually exclusive")),
    }
    if action.is_set() {
        one_of(action, &["Allow", "Deny"], errors);
    } else {
        errors.push(action.required(""));
    }
}

/// What a binding does with what fails: something, each thing once, and not what would say the same twice.
pub(super) fn actions(binding: At, errors: &mut Errors) {
    let spec = binding.field("spec");
    let actions = spec.field("validationActions");
    if actions.len() == 0 {
        errors.push(actions.required(""));
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
