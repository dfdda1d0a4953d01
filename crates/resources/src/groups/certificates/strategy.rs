//! The strategy of certificate signing requests (upstream: `registry/certificates`, `apis/certificates`).
//!
//! | request | mutable fields |
//! | --- | --- |
//! | create | the spec; admission sets the requesting user |
//! | update | metadata |
//! | `approval` | conditions |
//! | `status` | the certificate, and conditions other than `Approved` and `Denied` |

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nave_machinery::time;
use nave_machinery::{FieldError, FieldPath, Value};
use serde_json::json;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::certificate_request;
use crate::pem;
use crate::read;
use crate::signer::signer_name;
use crate::strategy::Strategy;
use crate::validate::{At, Errors};

/// The minimum lifetime of a requested certificate, in seconds.
const SHORTEST: i64 = 600;

/// The signer of requests that were created before the field was required.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// The allowed usages.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The conditions that cannot be removed.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

pub(super) struct RequestStrategy;

impl Strategy for RequestStrategy {
    fn prepare_for_create(&self, request: &mut Value) {
        set_or_remove(request, "status", Some(&json!({})));
    }

    fn prepare_for_update(&self, request: &mut Value, old: &Value) {
        set_or_remove(request, "spec", old.get("spec"));
        set_or_remove(request, "status", old.get("status"));
    }

    fn prepare_for_subresource_update(&self, _approval: &str, request: &mut Value, old: &Value) {
        set_or_remove(request, "spec", old.get("spec"));
        let conditions = read::value_at(request, "status.conditions").cloned();
        set_or_remove(request, "status", Some(old.get("status").unwrap_or(&json!({}))));
        if let Some(status) = request.get_mut("status") {
            set_or_remove(status, "conditions", conditions.as_ref());
        }
        set_condition_times(request, old);
    }

    fn prepare_for_status_update(&self, request: &mut Value, old: &Value) {
        set_condition_times(request, old);
    }

    fn validate(&self, request: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(request);
        let spec = root.field("spec");
        if let Err(why) = parse(spec.field("request").text()) {
            errors.push(spec.field("request").invalid(why));
        }
        if spec.field("usages").len() == 0 {
            errors.push(spec.field("usages").required(""));
        }
        usages(spec.field("usages"), &mut errors);
        let signer = spec.field("signerName");
        if signer.text() == LEGACY_SIGNER {
            errors.push(signer.invalid("the legacy signerName is not allowed via this API version"));
        } else {
            signer_name(signer, &mut errors);
        }
        if spec.field("expirationSeconds").int().is_some_and(|seconds| seconds < SHORTEST) {
            let text = format!("may not specify a duration less than {SHORTEST} seconds (10 minutes)");
            errors.push(spec.field("expirationSeconds").invalid(text));
        }
        conditions(request, &mut errors);
        if let Err(why) = certificate(read::text(request, "status.certificate")) {
            let path = FieldPath::new("status").child("certificate");
            errors.push(FieldError::invalid(&path, "<certificate data>", why));
        }
        errors
    }

    fn validate_update(&self, request: &Value, old: &Value) -> Errors {
        self.change(request, old, UpdateEndpoint::Object)
    }

    fn validate_subresource_update(&self, _approval: &str, request: &Value, old: &Value) -> Errors {
        self.change(request, old, UpdateEndpoint::Approval)
    }

    fn validate_status_update(&self, request: &Value, old: &Value) -> Errors {
        self.change(request, old, UpdateEndpoint::Status)
    }
}

/// The endpoint of an update, which determines the mutable fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UpdateEndpoint {
    Object,
    Approval,
    Status,
}

impl RequestStrategy {
    fn change(&self, request: &Value, old: &Value, through: UpdateEndpoint) -> Errors {
        let mut errors = self.validate(request);
        let at = FieldPath::new("status").child("conditions");
        let of_kind = |object: &Value, kind: &str| -> Vec<Value> {
            let conditions = read::list(object, "status.conditions").iter();
            conditions.filter(|condition| read::text(condition, "type") == kind).cloned().collect()
        };
        for kind in FINAL {
            let (now, before) = (of_kind(request, kind), of_kind(old, kind));
            let may_decide = kind == "Failed" || through == UpdateEndpoint::Approval;
            let what = if now.len() < before.len() {
                "remove"
            } else if may_decide || now == before {
                continue;
            } else if now.len() > before.len() {
                "add"
            } else {
                "modify"
            };
            let why = format!("updates may not {what} a condition of type {kind:?}");
            errors.push(FieldError::forbidden(&at, why));
        }
        let before = read::text(old, "status.certificate");
        if read::text(request, "status.certificate") != before {
            let at = FieldPath::new("status").child("certificate");
            if through != UpdateEndpoint::Status {
                errors.push(FieldError::forbidden(&at, "updates may not set certificate content"));
            } else if !before.is_empty() {
                errors
                    .push(FieldError::forbidden(&at, "updates may not modify existing certificate content"));
            }
        }
        errors
    }
}

fn set_or_remove(object: &mut Value, field: &str, value: Option<&Value>) {
    if let Some(fields) = object.as_object_mut() {
        match value {
            Some(value) => fields.insert(field.to_owned(), value.clone()),
            None => fields.remove(field),
        };
    }
}

/// Sets missing condition times to now. An unchanged condition keeps its transition time.
fn set_condition_times(request: &mut Value, old: &Value) {
    let now = time::now().rfc3339();
    let Some(conditions) =
        request.get_mut("status").and_then(|it| it.get_mut("conditions")).and_then(Value::as_array_mut)
    else {
        return;
    };
    for condition in conditions {
        let before = read::condition(old, read::text(condition, "type"))
            .filter(|before| before.get("status") == condition.get("status"));
        let transition =
            before.and_then(|before| before.get("lastTransitionTime")).filter(|it| it.is_string());
        let transition = transition.cloned().unwrap_or_else(|| json!(now));
        let Some(fields) = condition.as_object_mut() else { continue };
        for (field, value) in [("lastUpdateTime", json!(now)), ("lastTransitionTime", transition)] {
            if fields.get(field).is_none_or(Value::is_null) {
                fields.insert(field.to_owned(), value);
            }
        }
    }
}

/// Parses a request in base64-encoded PEM.
fn parse(request: &str) -> Result<(), String> {
    let der = certificate_request::der(request)?;
    X509CertificationRequest::from_der(&der).map(drop).map_err(|error| error.to_string())
}

fn usages(at: At, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for usage in at.items() {
        if !USAGES.contains(&usage.text()) {
            errors.push(usage.not_supported(&USAGES));
        }
        if !seen.insert(usage.text()) {
            errors.push(usage.duplicate());
        }
    }
}

/// Checks the issued certificate (base64-encoded PEM), if present.
fn certificate(encoded: &str) -> Result<(), String> {
    if encoded.is_empty() {
        return Ok(());
    }
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    let blocks = pem::blocks(&String::from_utf8_lossy(&bytes));
    for block in &blocks {
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        if block.has_headers {
            return Err("no PEM block headers are permitted".to_owned());
        }
        X509Certificate::from_der(&block.contents).map_err(|error| error.to_string())?;
    }
    if blocks.is_empty() {
        return Err("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    Ok(())
}

fn conditions(request: &Value, errors: &mut Errors) {
    let root = At::root(request);
    let status = root.field("status");
    let all = status.field("conditions");
    let mut seen = HashSet::new();
    for condition in all.items() {
        let kind = condition.field("type").text();
        if kind.is_empty() {
            errors.push(condition.field("type").required(""));
        }
        let state = condition.field("status");
        match state.text() {
            "" => errors.push(state.required("")),
            other if FINAL.contains(&kind) && other != "True" => errors.push(state.not_supported(&["True"])),
            "True" | "False" | "Unknown" => {}
            _ => errors.push(state.not_supported(&["False", "True", "Unknown"])),
        }
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(&condition.path().child("type"), kind));
        }
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !other.is_empty() && seen.contains(other) {
            let why = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(&all.path(), kind, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(kind: &str) -> Value {
        json!({"spec": {"signerName": "example.com/x"}, "status": {"conditions": [{"type": kind, "status": "True"}]}})
    }

    fn messages(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).filter(|text| text.starts_with("status")).collect()
    }

    #[test]
    fn only_approval_sets_decisions_which_are_final() {
        let open = json!({"spec": {"signerName": "example.com/x"}});
        let strategy = RequestStrategy;
        assert!(
            messages(&strategy.validate_subresource_update("approval", &decided("Approved"), &open))
                .is_empty()
        );
        assert_eq!(
            messages(&strategy.validate_status_update(&decided("Approved"), &open)),
            [r#"status.conditions: Forbidden: updates may not add a condition of type "Approved""#]
        );
        assert_eq!(
            messages(&strategy.validate_subresource_update("approval", &open, &decided("Denied"))),
            [r#"status.conditions: Forbidden: updates may not remove a condition of type "Denied""#]
        );
    }

    #[test]
    fn approval_changes_only_conditions_and_sets_their_times() {
        let old =
            json!({"metadata": {"name": "c"}, "spec": {"request": "a"}, "status": {"certificate": "Yw=="}});
        let mut new = json!({"metadata": {"name": "c"}, "spec": {"request": "b"},
            "status": {"certificate": "ZA==", "conditions": [{"type": "Approved", "status": "True"}]}});
        RequestStrategy.prepare_for_subresource_update("approval", &mut new, &old);
        assert_eq!((&new["spec"]["request"], &new["status"]["certificate"]), (&json!("a"), &json!("Yw==")));
        assert!(new["status"]["conditions"][0]["lastTransitionTime"].is_string());
    }

    #[test]
    fn request_requires_pem_and_signer() {
        let request = |request: &str, signer: &str| json!({"spec": {"request": request, "signerName": signer, "usages": ["client auth"]}});
        let errors = RequestStrategy.validate(&request("eA==", "example.com/x"));
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [r#"spec.request: Invalid value: "eA==": PEM block type must be CERTIFICATE REQUEST"#]
        );
        for signer in ["", "example", LEGACY_SIGNER] {
            let errors = RequestStrategy.validate(&request("eA==", signer));
            assert!(errors.iter().any(|error| error.field.to_string() == "spec.signerName"), "{signer}");
        }
    }

    #[test]
    fn certificate_is_pem_and_immutable() {
        let with = |certificate: &str| json!({"status": {"certificate": STANDARD.encode(certificate)}});
        let pem = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        for (text, why) in [
            ("x", "must contain at least one CERTIFICATE PEM block"),
            ("-----BEGIN X-----\nMAA=\n-----END X-----\n", "only CERTIFICATE PEM blocks are allowed"),
            (pem, ""),
        ] {
            let errors = RequestStrategy.validate_status_update(&with(text), &json!({}));
            let found = errors.iter().find(|error| error.field.as_str() == "status.certificate");
            assert!(found.is_some_and(|error| error.detail.starts_with(why)), "{text}: {errors:?}");
        }
        let changed = RequestStrategy.validate_status_update(&with("b"), &with("a"));
        assert_eq!(messages(&changed).len(), 2, "{changed:?}");
        let by_approval = RequestStrategy.validate_subresource_update("approval", &with("b"), &json!({}));
        assert_eq!(messages(&by_approval).len(), 2, "{by_approval:?}");
    }

    #[test]
    fn rejects_contradicting_conditions() {
        let request = |kinds: &[&str]| {
            let conditions: Vec<_> =
                kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
            json!({"status": {"conditions": conditions}})
        };
        for (kinds, expected) in [
            (&["Approved", "Failed"][..], &[][..]),
            (&["Approved", "Denied"], &["status.conditions"]),
            (&["x", "x"], &["status.conditions[1].type"]),
            (&[""], &["status.conditions[0].type"]),
        ] {
            let mut errors = Errors::new();
            conditions(&request(kinds), &mut errors);
            let fields: Vec<_> = errors.iter().map(|error| error.field.to_string()).collect();
            assert_eq!(fields, expected, "{kinds:?}");
        }
    }
}
