//! Strategies of device classes and resource claims.

use nave_machinery::{FieldError, GroupVersion, Map, Value, names};

use super::{beta, status, validation};
use crate::convert::ConversionError;
use crate::defaults::{each, object_at, set};
use crate::strategy::Strategy;
use crate::validate::{At, Errors, immutable, labels};

pub(super) struct DeviceClassStrategy;

impl Strategy for DeviceClassStrategy {
    fn validate(&self, class: &Value) -> Errors {
        validation::class(class)
    }

    fn validate_update(&self, class: &Value, old: &Value) -> Errors {
        validation::class_update(class, old)
    }
}

pub(super) struct ResourceClaimStrategy;

impl Strategy for ResourceClaimStrategy {
    fn default(&self, claim: &mut Value, _version: &str) {
        if let Some(spec) = claim.as_object_mut().and_then(|claim| object_at(claim, &["spec"])) {
            default_claim(spec);
        }
    }

    fn convert(
        &self,
        object: &mut Value,
        from: &GroupVersion,
        to: &GroupVersion,
    ) -> Result<(), ConversionError> {
        beta::requests(object, &["spec", "devices"], from, to)
    }

    fn validate(&self, claim: &Value) -> Errors {
        let mut errors = Errors::new();
        validation::claim(At::root(claim).field("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, claim: &Value, old: &Value) -> Errors {
        fixed_spec(claim, old)
    }

    fn prepare_for_status_update(&self, claim: &mut Value, old: &Value) {
        status::drop_deallocated(claim, old);
    }

    fn validate_status_update(&self, claim: &Value, old: &Value) -> Errors {
        status::update(claim, old)
    }
}

pub(super) struct ResourceClaimTemplateStrategy;

impl Strategy for ResourceClaimTemplateStrategy {
    fn default(&self, template: &mut Value, _version: &str) {
        if let Some(spec) = template.as_object_mut().and_then(|it| object_at(it, &["spec", "spec"])) {
            default_claim(spec);
        }
    }

    fn convert(
        &self,
        object: &mut Value,
        from: &GroupVersion,
        to: &GroupVersion,
    ) -> Result<(), ConversionError> {
        beta::requests(object, &["spec", "spec", "devices"], from, to)
    }

    fn validate(&self, template: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(template);
        let spec = root.field("spec");
        let metadata = spec.field("metadata");
        labels(metadata.field("labels"), &mut errors);
        let annotations = metadata.field("annotations");
        let path = annotations.path();
        errors.extend(annotations.map().into_iter().flat_map(|map| names::validate_annotations(map, &path)));
        for (name, value) in metadata.map().into_iter().flatten() {
            if !matches!(name.as_str(), "annotations" | "labels") && !value.is_null() {
                // Upstream derives the name from Go's.
                let shown = if name == "uid" { "uID" } else { name };
                errors.push(FieldError::forbidden(&metadata.path().child(shown), "cannot be set"));
            }
        }
        validation::claim(spec.field("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, template: &Value, old: &Value) -> Errors {
        fixed_spec(template, old)
    }
}

/// Checks that the spec is unchanged. An unchanged spec is not validated again.
fn fixed_spec(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (new, old) = (At::root(new), At::root(old));
    immutable(new.field("spec"), old.field("spec"), &mut errors);
    errors
}

/// Sets the defaults of requests, such as one device per request (upstream: `pkg/apis/resource/v1/defaults.go`).
fn default_claim(spec: &mut Map) {
    let Some(devices) = object_at(spec, &["devices"]) else { return };
    for request in each(devices, "requests") {
        if let Some(exactly) = object_at(request, &["exactly"]) {
            default_request(exactly);
        }
        // A request of v1beta1 is an exact one if it names a class.
        if request.get("deviceClassName").is_some_and(|class| class != "") {
            default_request(request);
        }
        each(request, "firstAvailable").for_each(default_request);
    }
}

fn default_request(request: &mut Map) {
    set(request, "allocationMode", "ExactCount");
    if request.get("allocationMode").and_then(Value::as_str) == Some("ExactCount") {
        set(request, "count", 1);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn request_defaults_to_one_device() {
        let spec = |one: Value, other: Value| json!({"devices": {"requests": [{"exactly": one}, {"firstAvailable": [other]}]}});
        let given = spec(json!({}), json!({"allocationMode": "All"}));
        let wanted =
            spec(json!({"allocationMode": "ExactCount", "count": 1}), json!({"allocationMode": "All"}));
        let mut claim = json!({"spec": given});
        ResourceClaimStrategy.default(&mut claim, "v1");
        assert_eq!(claim, json!({"spec": wanted}));
        let of_beta = |request: Value| json!({"spec": {"devices": {"requests": [request]}}});
        for (given, wanted) in [
            (
                json!({"deviceClassName": "a"}),
                json!({"deviceClassName": "a", "allocationMode": "ExactCount", "count": 1}),
            ),
            (json!({"deviceClassName": ""}), json!({"deviceClassName": ""})),
        ] {
            let mut claim = of_beta(given);
            ResourceClaimStrategy.default(&mut claim, "v1beta1");
            assert_eq!(claim, of_beta(wanted));
        }
        let mut template = json!({"spec": {"spec": given}});
        ResourceClaimTemplateStrategy.default(&mut template, "v1");
        assert_eq!(template, json!({"spec": {"spec": wanted}}));
    }

    #[test]
    fn spec_is_immutable() {
        let (old, new) = (json!({"spec": {"devices": {}}}), json!({"spec": {}}));
        assert!(ResourceClaimStrategy.validate_update(&old, &old).is_empty());
        assert_eq!(ResourceClaimStrategy.validate_update(&new, &old).len(), 1);
        assert_eq!(ResourceClaimTemplateStrategy.validate_update(&new, &old).len(), 1);
    }
}
