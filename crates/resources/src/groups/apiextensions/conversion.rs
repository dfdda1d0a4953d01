//! Validation of `spec.conversion`. Error paths follow upstream's internal type, where the webhook's fields are
//! siblings of the strategy.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nave_machinery::{FieldError, Value, names};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::pem;
use crate::validate::{At, Errors};
use crate::webhook_client::{swapped_webhook_service, webhook_url};

/// The supported versions of `ConversionReview`.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// The rules that depend on the old definition.
#[derive(Clone, Copy)]
pub(super) struct Options {
    pub(super) requires_known_review_version: bool,
    pub(super) allows_invalid_bundle: bool,
}

impl Options {
    /// Returns the rules for an update, which may keep faults of the old definition. The CA bundle may be invalid
    /// until the resource is established.
    pub(super) fn of_update(old: &Value, is_established: bool) -> Self {
        let webhook = At::named("webhook", old.pointer("/spec/conversion/webhook"));
        let client = webhook.field("clientConfig");
        let bundle = client.field("caBundle");
        let versions = webhook.field("conversionReviewVersions");
        Self {
            requires_known_review_version: versions.len() == 0 || has_known_version(versions),
            allows_invalid_bundle: !is_established
                || (!bundle.text().is_empty() && bundle_error(bundle.text()).is_some()),
        }
    }
}

/// Checks `spec.conversion`.
pub(super) fn check(spec: At, options: Options, errors: &mut Errors) {
    let conversion = spec.field("conversion");
    if !conversion.is_set() {
        return;
    }
    let strategy = conversion.field("strategy");
    if strategy.text() != "None" && spec.field("preserveUnknownFields").flag() {
        errors.push(strategy.invalid_text("must be None if spec.preserveUnknownFields is true"));
    }
    match strategy.text() {
        "" => errors.push(strategy.required("")),
        "None" | "Webhook" => {}
        _ => errors.push(strategy.not_supported(&["None", "Webhook"])),
    }
    let webhook = conversion.field("webhook");
    let client = At::named("spec.conversion.webhookClientConfig", webhook.field("clientConfig").value());
    let versions = At::named(
        "spec.conversion.conversionReviewVersions",
        webhook.field("conversionReviewVersions").value(),
    );
    if strategy.text() == "Webhook" {
        self::client(client, options.allows_invalid_bundle, errors);
        review_versions(versions, options.requires_known_review_version, errors);
        return;
    }
    let why = "should not be set when strategy is not set to Webhook";
    if client.is_set() {
        errors.push(client.forbidden(why));
    }
    if versions.len() > 0 {
        errors.push(versions.forbidden(why));
    }
}

fn client(client: At, allows_invalid_bundle: bool, errors: &mut Errors) {
    if !client.is_set() {
        errors.push(client.required("required when strategy is set to Webhook"));
        return;
    }
    let (url, service, bundle) = (client.field("url"), client.field("service"), client.field("caBundle"));
    match (url.is_set(), service.is_set()) {
        (true, false) => webhook_url(url, errors),
        (false, true) => swapped_webhook_service(service, errors),
        _ => errors.push(client.required("exactly one of url or service is required")),
    }
    if !allows_invalid_bundle
        && !bundle.text().is_empty()
        && let Some(why) = bundle_error(bundle.text())
    {
        errors.push(bundle.invalid(why));
    }
}

/// Returns the error of a base64-encoded CA bundle without valid certificates.
fn bundle_error(bundle: &str) -> Option<String> {
    let decoded = STANDARD.decode(bundle).unwrap_or_default();
    let mut has_certificate = false;
    for block in pem::blocks(&String::from_utf8_lossy(&decoded)) {
        if block.label != "CERTIFICATE" || block.has_headers {
            continue;
        }
        if let Err(error) = X509Certificate::from_der(&block.contents) {
            return Some(format!("unable to load root certificates: {error}"));
        }
        has_certificate = true;
    }
    (!has_certificate).then(|| {
        let text = String::from_utf8_lossy(&decoded);
        let shown = nave_machinery::limits::clipped(format_args!("{text:?}"), 1024);
        format!("unable to load root certificates: unable to parse bytes as PEM block: {shown}")
    })
}

fn has_known_version(versions: At) -> bool {
    versions.items().any(|version| REVIEW_VERSIONS.contains(&version.text()))
}

fn review_versions(versions: At, requires_known: bool, errors: &mut Errors) {
    if versions.len() == 0 {
        errors.push(versions.required(""));
        return;
    }
    let mut seen = HashSet::new();
    for version in versions.items() {
        if !seen.insert(version.text()) {
            errors.push(version.invalid("duplicate version"));
            continue;
        }
        let wrong = names::is_dns1035_label(version.text());
        errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&version.path(), version.text(), why)));
    }
    if requires_known && !has_known_version(versions) {
        errors.push(versions.invalid("must include at least one of v1, v1beta1"));
    }
}
