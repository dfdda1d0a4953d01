//! Defaults and validation of API services (upstream: `kube-aggregator/pkg/apis/apiregistration`).

use nave_machinery::{FieldError, Value, conditions, names, time};
use serde_json::json;

use crate::defaults::{object_at, set};
use crate::strategy::Strategy;
use crate::validate::{At, Errors, checked, one_of};
use crate::webhook_client::named_service;

/// The strategy of API services.
pub(super) struct ApiServiceStrategy;

impl Strategy for ApiServiceStrategy {
    fn default(&self, object: &mut Value, _version: &str) {
        if let Some(service) =
            object.as_object_mut().and_then(|fields| object_at(fields, &["spec", "service"]))
        {
            set(service, "port", 443);
        }
    }

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(object);
        let (metadata, spec) = (root.field("metadata"), root.field("spec"));
        let (group, version) = (spec.field("group"), spec.field("version"));
        let name = metadata.field("name");
        let required = format!("{}.{}", version.text(), group.text());
        let minimal = names::is_path_segment_name(name.text());
        if !name.text().is_empty() && minimal.is_empty() && name.text() != required {
            errors.push(name.invalid(format!(r#"must be `spec.version+"."+spec.group`: "{required}""#)));
        }
        if group.text().is_empty() {
            if version.text() != "v1" {
                errors.push(group.required("only v1 may have an empty group and it better be legacy kube"));
            }
        } else {
            checked(group, names::is_dns1123_subdomain, &mut errors);
        }
        checked(version, names::is_dns1035_label, &mut errors);
        priority(spec.field("groupPriorityMinimum"), 20_000, &mut errors);
        priority(spec.field("versionPriority"), 1_000, &mut errors);
        self::service(spec, &mut errors);
        errors
    }

    fn prepare_for_create(&self, object: &mut Value) {
        // Group versions served by this server are available immediately.
        if object.pointer("/spec/service").is_none_or(Value::is_null) {
            let now = time::now().rfc3339();
            conditions::set(
                object,
                json!({
                    "type": "Available", "status": "True", "reason": "Local",
                    "message": "Local APIServices are always available", "lastTransitionTime": now,
                }),
            );
        }
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(object);
        let status = root.field("status");
        for condition in status.field("conditions").items() {
            one_of(condition.field("status"), &["True", "False", "Unknown"], &mut errors);
        }
        errors
    }
}

fn priority(at: At, max: i64, errors: &mut Errors) {
    let number = at.int().unwrap_or_default();
    if number <= 0 || number > max {
        let why = format!("must be positive and less than {max}");
        errors.push(FieldError::invalid(&at.path(), number, why));
    }
}

/// Checks the reference to the aggregated server's service.
fn service(spec: At, errors: &mut Errors) {
    let (bundle, insecure) = (spec.field("caBundle"), spec.field("insecureSkipTLSVerify"));
    let has_bundle = !bundle.text().is_empty();
    if !spec.field("service").is_set() {
        if has_bundle {
            let why = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid(
                &bundle.path(),
                format!("{} bytes", bundle.text().len() / 4 * 3),
                why,
            ));
        }
        if insecure.flag() {
            errors.push(insecure.invalid("local APIServices may not have insecureSkipTLSVerify"));
        }
        return;
    }
    named_service(spec.field("service"), errors);
    if insecure.flag() && has_bundle {
        errors.push(insecure.invalid("may not be true if caBundle is present"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_versions_are_available_immediately() {
        let mut local = json!({"spec": {"service": null}});
        ApiServiceStrategy.prepare_for_create(&mut local);
        assert!(conditions::is_true(&local, "Available"));
        let mut remote = json!({"spec": {"service": {"name": "s"}}});
        ApiServiceStrategy.prepare_for_create(&mut remote);
        assert_eq!(remote.get("status"), None);
        let odd = json!({"status": {"conditions": [{"status": "yes"}]}});
        assert_eq!(ApiServiceStrategy.validate_status_update(&odd, &odd).len(), 1);
    }

    #[test]
    fn name_must_match_version_and_group() {
        let service = |name: &str, spec: Value| {
            let mut object = json!({"metadata": {"name": name}, "spec": spec});
            ApiServiceStrategy.default(&mut object, "v1");
            ApiServiceStrategy.validate(&object).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let full = json!({
            "group": "a.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
            "service": {"name": "s", "namespace": "n"}, "insecureSkipTLSVerify": true,
        });
        assert_eq!(service("v1.a.example.com", full.clone()), [""; 0]);
        assert_eq!(
            service("v1.b", full.clone()),
            [
                r#"metadata.name: Invalid value: "v1.b": must be `spec.version+"."+spec.group`: "v1.a.example.com""#
            ]
        );
        let mut bad = full;
        bad["caBundle"] = json!("Yw==");
        bad["versionPriority"] = json!(1001);
        bad["service"]["port"] = json!(70_000);
        assert_eq!(
            service("v1.a.example.com", bad),
            [
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
                "spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive",
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ]
        );
    }
}
