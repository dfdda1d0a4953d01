//! Validation of webhook configurations (upstream: `pkg/apis/admissionregistration/validation`).

use std::collections::HashSet;

use nave_machinery::names;

use super::rules::{
    FAILURE_POLICIES, MATCH_POLICIES, REINVOCATIONS, match_conditions, rule, webhook_compiler,
};
use crate::validate::{At, Errors, absent_or_one_of, checked, fully_qualified_name, label_selector, one_of};
use crate::webhook_client::{swapped_webhook_service, webhook_url};

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const ALL_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];

/// Requirements that an update need not meet because the stored configuration does not meet them.
#[derive(Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each waives one requirement")]
pub(super) struct Leniency {
    effects: bool,
    versions: bool,
    names: bool,
    /// Match conditions that an update does not change are not compiled again.
    conditions: bool,
}

impl Leniency {
    /// Returns the waivers for a stored configuration.
    pub(super) fn for_stored(stored: At, updated: At) -> Self {
        let webhooks = stored.field("webhooks");
        let mut names = HashSet::new();
        let updated = updated.field("webhooks");
        let mut pairs = webhooks.items().zip(updated.items());
        Self {
            conditions: webhooks.len() == updated.len()
                && pairs.all(|(old, new)| {
                    old.field("matchConditions").value() == new.field("matchConditions").value()
                }),
            effects: webhooks.items().any(|it| !SIDE_EFFECTS.contains(&it.field("sideEffects").text())),
            versions: webhooks.items().any(|it| {
                let versions = it.field("admissionReviewVersions");
                versions.len() > 0 && !versions.items().any(is_review_version)
            }),
            names: !webhooks.items().all(|it| names.insert(it.field("name").text())),
        }
    }
}

pub(super) fn webhooks(configuration: At, leniency: Leniency, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for webhook in configuration.field("webhooks").items() {
        self::webhook(webhook, leniency, errors);
        review_versions(webhook.field("admissionReviewVersions"), leniency, errors);
        let name = webhook.field("name");
        if !leniency.names && !name.text().is_empty() && !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
    }
}

fn webhook(webhook: At, leniency: Leniency, errors: &mut Errors) {
    fully_qualified_name(webhook.field("name"), errors);
    for rule in webhook.field("rules").items() {
        self::rule(rule, errors);
    }
    absent_or_one_of(webhook.field("failurePolicy"), &FAILURE_POLICIES, errors);
    absent_or_one_of(webhook.field("matchPolicy"), &MATCH_POLICIES, errors);
    let effects = webhook.field("sideEffects");
    let allowed: &[&str] = if leniency.effects { &ALL_EFFECTS } else { &SIDE_EFFECTS };
    if effects.is_set() {
        one_of(effects, allowed, errors);
    } else {
        errors.push(effects.required(format!("must specify one of {}", allowed.join(", "))));
    }
    let timeout = webhook.field("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        errors.push(timeout.invalid("the timeout value must be between 1 and 30 seconds"));
    }
    label_selector(webhook.field("namespaceSelector"), errors);
    label_selector(webhook.field("objectSelector"), errors);
    absent_or_one_of(webhook.field("reinvocationPolicy"), &REINVOCATIONS, errors);
    client_config(webhook.field("clientConfig"), errors);
    if !leniency.conditions {
        match_conditions(webhook.field("matchConditions"), &webhook_compiler(), errors);
    }
}

fn client_config(config: At, errors: &mut Errors) {
    let (url, service) = (config.field("url"), config.field("service"));
    if url.is_set() == service.is_set() {
        errors.push(config.required("exactly one of url or service is required"));
    } else if url.is_set() {
        webhook_url(url, errors);
    } else {
        swapped_webhook_service(service, errors);
    }
}

/// Checks that this server supports at least one of the review versions.
fn review_versions(versions: At, leniency: Leniency, errors: &mut Errors) {
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
        accepted |= is_review_version(version);
    }
    if !accepted && !leniency.versions {
        errors.push(versions.invalid(format!("must include at least one of {known}")));
    }
}

fn is_review_version(version: At) -> bool {
    REVIEW_VERSIONS.contains(&version.text())
}
