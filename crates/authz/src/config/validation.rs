//! Validation of `AuthorizationConfiguration`, with upstream's messages (`apiserver/pkg/apis/apiserver/validation`).

use std::collections::BTreeSet;

use nave_machinery::{FieldError, FieldPath, names};

use super::{Configuration, ConnectionInfo, Interval, MAX_TIMEOUT, WebhookEntry, json_string};
use crate::webhook::Conditions;

/// The authorizer types, sorted.
const KINDS: [&str; 6] = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];

/// The maximum number of match conditions of a webhook.
const MAX_CONDITIONS: usize = 64;

pub(super) fn validate(configuration: &Configuration) -> Vec<FieldError> {
    let at = FieldPath::new("authorizers");
    let mut errors = Vec::new();
    if configuration.authorizers.is_empty() {
        errors.push(FieldError::required(&at, "at least one authorization mode must be defined"));
    }
    let (mut kinds, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (index, entry) in configuration.authorizers.iter().enumerate() {
        let at = at.index(index);
        let kind = entry.kind.as_str();
        if kind.is_empty() {
            errors.push(FieldError::required(&at.child("type"), ""));
            continue;
        }
        if !KINDS.contains(&kind) {
            errors.push(FieldError::not_supported(&at.child("type"), kind, &KINDS));
            continue;
        }
        if !kinds.insert(kind) && kind != "Webhook" {
            errors.push(FieldError::duplicate(&at.child("type"), kind));
            continue;
        }
        name(&entry.name, &mut seen, &at.child("name"), &mut errors);
        match (&entry.webhook, kind) {
            (Some(entry), "Webhook") => webhook(entry, &at, &mut errors),
            (None, "Webhook") => {
                errors.push(FieldError::required(&at.child("webhook"), "required when type=Webhook"));
            }
            (Some(_), _) => {
                let why = "may only be specified when type=Webhook";
                errors.push(FieldError::invalid(&at.child("webhook"), "non-null", why));
            }
            (None, _) => {}
        }
    }
    errors
}

fn name<'a>(name: &'a str, seen: &mut BTreeSet<&'a str>, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let wrong = names::is_dns1123_subdomain(name);
    if name.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else if !seen.insert(name) {
        errors.push(FieldError::duplicate(at, name));
    } else if !wrong.is_empty() {
        let why = format!("authorizer name is invalid: {}", wrong.join(", "));
        errors.push(FieldError::invalid(at, name, why));
    }
}

// As in upstream, the field paths omit `webhook`.
fn webhook(entry: &WebhookEntry, at: &FieldPath, errors: &mut Vec<FieldError>) {
    match entry.timeout.0 {
        None => errors.push(FieldError::required(&at.child("timeout"), "")),
        Some(timeout) if timeout > MAX_TIMEOUT || timeout.is_zero() => {
            let value = json_string(&format!("{}s", timeout.as_secs_f64()));
            errors.push(FieldError::invalid(&at.child("timeout"), value, "must be > 0s and <= 30s"));
        }
        Some(_) => {}
    }
    for (field, ttl) in [("authorizedTTL", entry.authorized_ttl), ("unauthorizedTTL", entry.unauthorized_ttl)]
    {
        if ttl.0.is_none() || ttl == Interval(Some(std::time::Duration::ZERO)) {
            errors.push(FieldError::required(&at.child(field), ""));
        }
    }
    one_of(
        &entry.subject_access_review_version,
        &["v1", "v1beta1"],
        &at.child("subjectAccessReviewVersion"),
        errors,
    );
    let conditions_at = at.child("matchConditionSubjectAccessReviewVersion");
    match entry.match_condition_subject_access_review_version.as_str() {
        "" if entry.match_conditions.is_empty() => {}
        "" => {
            let why = "required if match conditions are specified";
            errors.push(FieldError::required(&conditions_at, why));
        }
        version => one_of(version, &["v1"], &conditions_at, errors),
    }
    one_of(&entry.failure_policy, &["NoOpinion", "Deny"], &at.child("failurePolicy"), errors);
    connection(&entry.connection_info, &at.child("connectionInfo"), errors);
    conditions(entry, &at.child("matchConditions"), errors);
}

fn one_of(text: &str, supported: &[&str], at: &FieldPath, errors: &mut Vec<FieldError>) {
    if text.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else if !supported.contains(&text) {
        errors.push(FieldError::not_supported(at, text, supported));
    }
}

fn connection(info: &ConnectionInfo, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let file_at = at.child("kubeConfigFile");
    let file = info.kube_config_file.as_deref();
    match info.kind.as_str() {
        "InClusterConfig" => {
            if let Some(file) = file {
                let why = "can only be set when type=KubeConfigFile";
                errors.push(FieldError::invalid(&file_at, file.display().to_string(), why));
            }
        }
        "KubeConfigFile" => {
            let Some(file) = file.filter(|file| !file.as_os_str().is_empty()) else {
                errors.push(FieldError::required(&file_at, ""));
                return;
            };
            let found = std::fs::metadata(file);
            let why = match found {
                _ if !file.is_absolute() => "must be an absolute path".to_owned(),
                Err(error) => format!("error loading file: {error}"),
                Ok(found) if !found.is_file() => "must be a regular file".to_owned(),
                Ok(_) => return,
            };
            errors.push(FieldError::invalid(&file_at, file.display().to_string(), why));
        }
        kind => one_of(kind, &["InClusterConfig", "KubeConfigFile"], &at.child("type"), errors),
    }
}

fn conditions(entry: &WebhookEntry, at: &FieldPath, errors: &mut Vec<FieldError>) {
    if entry.match_conditions.len() > MAX_CONDITIONS {
        errors.push(FieldError::too_many(at, entry.match_conditions.len(), MAX_CONDITIONS));
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, condition) in entry.match_conditions.iter().enumerate() {
        let at = at.index(index).child("expression");
        let expression = condition.expression.as_str();
        if expression.trim().is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else if !seen.insert(expression) {
            errors.push(FieldError::duplicate(&at, expression));
        } else if let Err(error) = Conditions::default().add(expression) {
            errors.push(FieldError::invalid(&at, expression, error.to_string()));
        }
    }
}
