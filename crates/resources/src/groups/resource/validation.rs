//! Validation of device classes and resource claims (upstream: `pkg/apis/resource/validation`).

use std::collections::{BTreeMap, BTreeSet};

use nave_cel::policies::COMPATIBILITY_VERSION;
use nave_cel::{DeviceSelectorError, check_device_selector};
use nave_machinery::{FieldError, FieldErrorKind, Value, names};

use super::parts::{each, fully_qualified, raw, unique};
use crate::resource_names;
use crate::validate::{At, Errors, absent_or_one_of, checked, driver_name, required_checked};

pub(super) const REQUESTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const SELECTORS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
pub(super) const CONFIGS_MAX: usize = 32;
const TOLERATIONS_MAX: usize = 16;
const EXPRESSION_MAX: usize = 10 * 1024;
const PARAMETERS_MAX: usize = 10 * 1024;

const NO_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
const ONE_KIND: &str = "exactly one of `exactly` or `firstAvailable` is required";

/// The names of requests, each with its subrequest names.
pub(super) type Requests<'v> = BTreeMap<&'v str, BTreeSet<&'v str>>;

/// Validates a device class.
pub(super) fn class(class: &Value) -> Errors {
    class_in(class, COMPATIBILITY_VERSION)
}

/// Validates an update of a device class. Stored selectors can use the newest libraries.
pub(super) fn class_update(class: &Value, old: &Value) -> Errors {
    let is_stored = class.pointer("/spec/selectors") == old.pointer("/spec/selectors");
    class_in(class, if is_stored { nave_cel::NEWEST } else { COMPATIBILITY_VERSION })
}

fn class_in(class: &Value, version: u32) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(class);
    let spec = root.field("spec");
    selectors(spec.field("selectors"), version, &mut errors);
    each(spec.field("config"), CONFIGS_MAX, &mut errors, |config, errors| {
        opaque(config.field("opaque"), errors);
    });
    let name = spec.field("extendedResourceName");
    if name.is_set() && !resource_names::is_extended(name.text()) {
        errors.push(name.invalid("must be a valid extended resource name"));
    }
    errors
}

/// Validates the spec of a claim or of a claim template's claims.
pub(super) fn claim(spec: At, errors: &mut Errors) {
    let devices = spec.field("devices");
    let requests = devices.field("requests");
    let names = request_names(spec);
    each(requests, REQUESTS_MAX, errors, request);
    unique(requests, REQUESTS_MAX, errors, |request| request.field("name").text());
    each(devices.field("constraints"), CONSTRAINTS_MAX, errors, |it, errors| constraint(it, &names, errors));
    each(devices.field("config"), CONFIGS_MAX, errors, |config, errors| {
        references(config.field("requests"), &names, errors);
        opaque(config.field("opaque"), errors);
    });
}

/// Returns the names by which a claim's requests can be referenced.
pub(super) fn request_names<'v>(spec: At<'_, 'v>) -> Requests<'v> {
    let devices = spec.field("devices");
    let requests = devices.field("requests");
    let with_alternatives = requests.items().map(|request| {
        let alternatives = request.field("firstAvailable");
        let names = alternatives.items().map(|it| it.field("name").text()).collect();
        (request.field("name").text(), names)
    });
    with_alternatives.collect()
}

fn request(request: At, errors: &mut Errors) {
    checked(request.field("name"), names::is_dns1123_label, errors);
    let (exactly, alternatives) = (request.field("exactly"), request.field("firstAvailable"));
    match (exactly.is_set(), alternatives.len() > 0) {
        (false, false) => errors.push(request.required(ONE_KIND)),
        (true, true) => {
            let why = format!("{ONE_KIND}, but multiple fields are set");
            errors.push(FieldError::invalid(&request.path(), Value::Null, why));
        }
        (true, false) => devices(exactly, errors),
        (false, true) => {
            each(alternatives, ALTERNATIVES_MAX, errors, |alternative, errors| {
                checked(alternative.field("name"), names::is_dns1123_label, errors);
                devices(alternative, errors);
            });
            unique(alternatives, ALTERNATIVES_MAX, errors, |it| it.field("name").text());
        }
    }
}

/// Checks the device class, selectors and count of a request.
fn devices(request: At, errors: &mut Errors) {
    required_checked(request.field("deviceClassName"), names::is_dns1123_subdomain, errors);
    selectors(request.field("selectors"), COMPATIBILITY_VERSION, errors);
    let (mode, count) = (request.field("allocationMode"), request.field("count"));
    let number = count.int().unwrap_or_default();
    let wrong = match mode.text() {
        "All" if number != 0 => Some("must not be specified when allocationMode is 'All'"),
        "ExactCount" if number <= 0 => Some("must be greater than zero"),
        "All" | "ExactCount" => None,
        _ => {
            errors.push(mode.not_supported(&["All", "ExactCount"]));
            None
        }
    };
    errors.extend(wrong.map(|why| FieldError::invalid(&count.path(), number, why)));
    each(request.field("tolerations"), TOLERATIONS_MAX, errors, toleration);
}

/// Checks selectors that can use the libraries of a minor version of Kubernetes.
fn selectors(list: At, version: u32, errors: &mut Errors) {
    each(list, SELECTORS_MAX, errors, |selector, errors| {
        let cel = selector.field("cel");
        if !cel.is_set() {
            errors.push(cel.required(""));
            return;
        }
        let expression = cel.field("expression");
        let (at, text) = (expression.path(), expression.text());
        if text.len() > EXPRESSION_MAX {
            errors.push(FieldError::too_long(&at, EXPRESSION_MAX));
            return;
        }
        let Err(error) = check_device_selector(text, version) else { return };
        let why = error.to_string();
        errors.push(match error {
            DeviceSelectorError::Invalid(_) => FieldError::invalid(&at, text, why),
            DeviceSelectorError::TooComplex => FieldError::forbidden(&at, why),
            DeviceSelectorError::Program(_) => {
                FieldError { kind: FieldErrorKind::Internal, field: at, value: Value::Null, detail: why }
            }
        });
    });
}

fn toleration(toleration: At, errors: &mut Errors) {
    let (key, operator, value) =
        (toleration.field("key"), toleration.field("operator"), toleration.field("value"));
    if !key.text().is_empty() {
        checked(key, names::is_qualified_name, errors);
    }
    match operator.text() {
        "Exists" if !value.text().is_empty() => {
            errors.push(value.invalid("must be empty for operator `Exists`"));
        }
        "Exists" => {}
        "Equal" => checked(value, names::is_valid_label_value, errors),
        "" => errors.push(operator.required("")),
        _ => errors.push(operator.not_supported(&["Equal", "Exists"])),
    }
    absent_or_one_of(toleration.field("effect"), &["NoExecute", "NoSchedule", "None"], errors);
}

fn constraint(constraint: At, names: &Requests, errors: &mut Errors) {
    references(constraint.field("requests"), names, errors);
    let (matching, distinct) = (constraint.field("matchAttribute"), constraint.field("distinctAttribute"));
    if matching.is_set() {
        fully_qualified(matching, errors);
    } else if distinct.is_set() {
        fully_qualified(distinct, errors);
    } else {
        errors.push(
            constraint.required("exactly one of \"matchAttribute\" or \"distinctAttribute\" is required"),
        );
    }
}

/// Checks references to requests or subrequests.
pub(super) fn references(list: At, names: &Requests, errors: &mut Errors) {
    each(list, REQUESTS_MAX, errors, |it, errors| self::reference(it, names, errors));
    unique(list, REQUESTS_MAX, errors, |reference| reference.text());
}

/// Checks a reference to a request (`request`) or a subrequest (`request/subrequest`).
pub(super) fn reference(reference: At, names: &Requests, errors: &mut Errors) {
    let name = reference.text();
    if name.split('/').count() > 2 {
        errors.push(reference.invalid(NO_REQUEST));
        return;
    }
    let wrong = name.split('/').flat_map(names::is_dns1123_label);
    errors.extend(wrong.map(|why| reference.invalid_text(why)));
    let (request, alternative) =
        name.split_once('/').map_or((name, None), |(request, name)| (request, Some(name)));
    let known = names.get(request);
    if !known.is_some_and(|known| alternative.is_none_or(|name| known.contains(name))) {
        errors.push(reference.invalid_text(NO_REQUEST));
    }
}

/// Checks driver parameters.
pub(super) fn opaque(opaque: At, errors: &mut Errors) {
    if !opaque.is_set() {
        errors.push(opaque.required(""));
        return;
    }
    driver_name(opaque.field("driver"), errors);
    raw(opaque.field("parameters"), PARAMETERS_MAX, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(errors: &Errors) -> Vec<String> {
        errors.iter().map(|error| format!("{}|{:?}", error.field, error.kind)).collect()
    }

    fn claimed(devices: Value) -> Vec<String> {
        let mut errors = Errors::new();
        let spec = json!({"devices": devices});
        claim(At::named("spec", Some(&spec)), &mut errors);
        messages(&errors)
    }

    #[test]
    fn rejects_invalid_requests() {
        let exactly = |more: Value| {
            let mut request = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"requests": [{"name": "a", "exactly": request}]})
        };
        let at = |field: &str| format!("spec.devices.requests[0].{field}");
        for (devices, expected) in [
            (exactly(json!({})), vec![]),
            (exactly(json!({"allocationMode": "All", "count": 0})), vec![]),
            (exactly(json!({"allocationMode": "All"})), vec![at("exactly.count|Invalid")]),
            (exactly(json!({"count": 0})), vec![at("exactly.count|Invalid")]),
            (exactly(json!({"allocationMode": "Some"})), vec![at("exactly.allocationMode|NotSupported")]),
            (exactly(json!({"deviceClassName": ""})), vec![at("exactly.deviceClassName|Required")]),
            (exactly(json!({"selectors": [{}]})), vec![at("exactly.selectors[0].cel|Required")]),
            (
                exactly(json!({"tolerations": [{"operator": "Exists", "value": "v", "effect": "X"}]})),
                vec![
                    at("exactly.tolerations[0].value|Invalid"),
                    at("exactly.tolerations[0].effect|NotSupported"),
                ],
            ),
            (
                json!({"requests": [{"name": "A"}]}),
                vec![at("name|Invalid"), "spec.devices.requests[0]|Required".to_owned()],
            ),
            (json!({"requests": vec![json!({}); 33]}), vec!["spec.devices.requests|TooMany".to_owned()]),
        ] {
            assert_eq!(claimed(devices.clone()), expected, "{devices}");
        }
        let alternative = json!({"name": "x", "deviceClassName": "c", "allocationMode": "All"});
        let both = json!({"requests": [{"name": "a", "firstAvailable": [alternative, alternative]}]});
        assert_eq!(claimed(both), [at("firstAvailable[1]|Duplicate")]);
    }

    #[test]
    fn constraints_and_parameters_refer_to_requests() {
        let alternative = json!({"name": "x", "deviceClassName": "c", "allocationMode": "All"});
        let with = |field: &str, value: Value| {
            let mut devices = json!({"requests": [{"name": "a", "firstAvailable": [alternative]}]});
            devices[field] = json!([value]);
            devices
        };
        let driver = json!({"driver": "d.example.com", "parameters": {}});
        for (devices, expected) in [
            (with("constraints", json!({"requests": ["a", "a/x"], "matchAttribute": "d.com/n"})), &[][..]),
            (
                with("constraints", json!({"requests": ["a/y"]})),
                &["spec.devices.constraints[0].requests[0]|Invalid", "spec.devices.constraints[0]|Required"],
            ),
            (
                with("constraints", json!({"distinctAttribute": "n"})),
                &["spec.devices.constraints[0].distinctAttribute|Invalid"],
            ),
            (
                with("constraints", json!({"matchAttribute": "/1"})),
                &[
                    "spec.devices.constraints[0].matchAttribute|Invalid",
                    "spec.devices.constraints[0].matchAttribute|Invalid",
                ],
            ),
            (
                with("config", json!({"requests": ["a", "a"], "opaque": driver})),
                &["spec.devices.config[0].requests[1]|Duplicate"],
            ),
            (with("config", json!({})), &["spec.devices.config[0].opaque|Required"]),
            (
                with("config", json!({"opaque": {"driver": "A_", "parameters": "x"}})),
                &[
                    "spec.devices.config[0].opaque.driver|Invalid",
                    "spec.devices.config[0].opaque.parameters|Invalid",
                ],
            ),
        ] {
            assert_eq!(claimed(devices.clone()), expected, "{devices}");
        }
    }

    #[test]
    fn compiles_selectors() {
        let class = |expression: &str| {
            let selectors = json!([{"cel": {"expression": expression}}]);
            let found = self::class(&json!({"spec": {"selectors": selectors}}));
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(class(r#"device.driver == "d.example.com""#), [""; 0]);
        assert_eq!(
            class("device.driver"),
            [
                "spec.selectors[0].cel.expression: Invalid value: \"device.driver\": must evaluate to bool or the unknown type, not string"
            ]
        );
        let empty = class("");
        assert!(empty[0].contains("compilation failed: ERROR: <input>:1:0: Syntax error"), "{empty:?}");
    }

    #[test]
    fn rejects_invalid_extended_resource_names() {
        let class = |spec: Value| messages(&self::class(&json!({"spec": spec})));
        assert_eq!(class(json!({"extendedResourceName": "example.com/gpu"})), [""; 0]);
        assert_eq!(
            class(json!({"extendedResourceName": "cpu", "selectors": [{}]})),
            ["spec.selectors[0].cel|Required", "spec.extendedResourceName|Invalid"]
        );
    }
}
