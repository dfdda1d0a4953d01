//! Defaults and validation of resource slices (upstream: `pkg/apis/resource`).

use nave_machinery::{FieldError, GroupVersion, Map, Value, names, time};

use super::parts::{binding_conditions, each, pool_name, qualified, unique};
use super::{beta, capacity};
use crate::convert::ConversionError;
use crate::defaults::{each as each_object, object_at, set_absent};
use crate::groups::core::pod_spec::affinity;
use crate::semantic::is_equal;
use crate::strategy::Strategy;
use crate::validate::{At, Errors, checked, driver_name, immutable, required_checked};

const DEVICES_MAX: usize = 128;
/// The maximum number of devices if any device has taints, counters or list attributes.
const ADVANCED_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const CONSUMPTIONS_MAX: usize = 2;
const PROPERTIES_MAX: usize = 32;
const VALUES_MAX: usize = 48;
const VALUE_LENGTH_MAX: usize = 64;
const TAINTS_MAX: usize = 16;

/// The fields of features that are disabled by default: list attributes, and mappings to node allocatable resources.
const ATTRIBUTE_LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];
const MAPPINGS: &str = "nodeAllocatableResourceMappings";

/// The strategy of resource slices.
pub(super) struct ResourceSliceStrategy;

impl Strategy for ResourceSliceStrategy {
    fn default(&self, slice: &mut Value, _version: &str) {
        let Some(spec) = slice.as_object_mut().and_then(|slice| object_at(slice, &["spec"])) else { return };
        for device in each_object(spec, "devices") {
            // The fields of a device of v1beta1 are in `basic`.
            let device =
                if device.contains_key("basic") { object_at(device, &["basic"]) } else { Some(device) };
            for taint in device.into_iter().flat_map(|device| each_object(device, "taints")) {
                set_absent(taint, "timeAdded", time::now().rfc3339());
            }
        }
    }

    fn convert(
        &self,
        object: &mut Value,
        from: &GroupVersion,
        to: &GroupVersion,
    ) -> Result<(), ConversionError> {
        beta::slice(object, from, to)
    }

    fn prepare_for_create(&self, slice: &mut Value) {
        drop_disabled(slice, None);
    }

    fn prepare_for_update(&self, slice: &mut Value, old: &Value) {
        drop_disabled(slice, Some(old));
    }

    fn validate(&self, slice: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(slice);
        spec(root.field("spec"), At::named("spec", None), &mut errors);
        errors
    }

    fn validate_update(&self, slice: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        let (root, old) = (At::root(slice), At::root(old));
        spec(root.field("spec"), old.field("spec"), &mut errors);
        errors
    }

    fn warnings(&self, slice: &Value, _old: Option<&Value>) -> Vec<String> {
        let root = At::root(slice);
        let spec = root.field("spec");
        let driver = spec.field("driver").text();
        let is_odd = driver.chars().any(char::is_uppercase);
        let warning = || {
            format!("spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters")
        };
        is_odd.then(warning).into_iter().collect()
    }
}

/// Drops fields of disabled features unless the stored slice uses them.
fn drop_disabled(slice: &mut Value, old: Option<&Value>) {
    let in_use = |uses: fn(&Map) -> bool| {
        let devices = old.and_then(|old| old.pointer("/spec/devices")).and_then(Value::as_array);
        devices.into_iter().flatten().filter_map(Value::as_object).any(uses)
    };
    let (keeps_lists, keeps_mappings) = (in_use(has_lists), in_use(|device| device.contains_key(MAPPINGS)));
    let Some(spec) = slice.as_object_mut().and_then(|slice| object_at(slice, &["spec"])) else { return };
    for device in each_object(spec, "devices") {
        if !keeps_mappings {
            device.remove(MAPPINGS);
        }
        let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
        for attribute in attributes.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
            if !keeps_lists {
                attribute.retain(|field, _| !ATTRIBUTE_LISTS.contains(&field.as_str()));
            }
        }
    }
}

fn has_lists(device: &Map) -> bool {
    let attributes = device.get("attributes").and_then(Value::as_object);
    let has_list = |attribute: &Value| ATTRIBUTE_LISTS.iter().any(|field| attribute.get(field).is_some());
    attributes.into_iter().flat_map(Map::values).any(has_list)
}

fn spec(spec: At, old: At, errors: &mut Errors) {
    let (driver, pool) = (spec.field("driver"), spec.field("pool"));
    driver_name(driver, errors);
    self::pool(pool, errors);
    if old.is_set() {
        let old_pool = old.field("pool");
        immutable(pool.field("name"), old_pool.field("name"), errors);
        immutable(driver, old.field("driver"), errors);
        immutable(spec.field("nodeName"), old.field("nodeName"), errors);
    }
    let selector = spec.field("nodeSelector");
    nodes(spec, &["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"], errors);
    let terms = selector.field("nodeSelectorTerms");
    if selector.is_set() && terms.len() != 1 {
        errors.push(terms.invalid("must have exactly one node selector term"));
    }
    let (devices, counters) = (spec.field("devices"), spec.field("sharedCounters"));
    if devices.is_set() && counters.is_set() {
        let why = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(FieldError::invalid(&spec.path(), "", why));
    }
    let is_advanced = |device: At| {
        device.field("taints").len() + device.field("consumesCounters").len() > 0
            || device.map().is_some_and(has_lists)
    };
    let max = if devices.items().any(is_advanced) { ADVANCED_DEVICES_MAX } else { DEVICES_MAX };
    let per_device = spec.field("perDeviceNodeSelection").flag();
    let old_devices = old.field("devices");
    let old_taints = |name: &str| {
        let old = old_devices.items().find(|old| old.field("name").text() == name)?;
        old.field("taints").value()
    };
    each(devices, max, errors, |device, errors| {
        self::device(device, per_device, errors);
        let taints = device.field("taints");
        let stored = old_taints(device.field("name").text());
        if stored.is_none() || !is_equal(taints.value(), stored) {
            each(taints, TAINTS_MAX, errors, taint);
        }
    });
    unique(devices, max, errors, |device| device.field("name").text());
    each(counters, COUNTER_SETS_MAX, errors, |set, errors| {
        required_checked(set.field("name"), names::is_dns1123_label, errors);
        self::counters(set.field("counters"), errors);
    });
    unique(counters, COUNTER_SETS_MAX, errors, |set| set.field("name").text());
}

fn pool(pool: At, errors: &mut Errors) {
    pool_name(pool.field("name"), errors);
    let (count, generation) = (pool.field("resourceSliceCount"), pool.field("generation"));
    let number = count.int().unwrap_or_default();
    if number <= 0 {
        errors.push(FieldError::invalid(&count.path(), number, "must be greater than zero"));
    }
    if generation.int().is_some_and(|number| number < 0) {
        errors.push(generation.invalid("must be greater than or equal to zero"));
    }
}

/// Checks that exactly one of the node fields in a slice or device is set.
fn nodes(at: At, ways: &[&'static str], errors: &mut Errors) {
    let mut given = Vec::new();
    for way in ways {
        let place = at.field(way);
        match *way {
            _ if !place.is_set() => continue,
            "nodeName" if place.text().is_empty() => {
                errors.push(place.invalid("must be either unset or set to a non-empty string"));
                continue;
            }
            "nodeName" => checked(place, names::is_dns1123_subdomain, errors),
            "nodeSelector" => affinity::node_selector(place, errors),
            _ if !place.flag() => {
                errors.push(place.invalid("must be either unset or set to true"));
                continue;
            }
            _ => {}
        }
        given.push(format!("`{way}`"));
    }
    let all = ways.iter().map(|way| format!("`{way}`")).collect::<Vec<_>>().join(", ");
    let why = format!("exactly one of {all} is required");
    match given.len() {
        0 => errors.push(at.required(why)),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", given.join(", "));
            errors.push(FieldError::invalid(
                &at.path(),
                shown,
                format!("{why}, but multiple fields are set"),
            ));
        }
    }
}

fn counters(counters: At, errors: &mut Errors) {
    match counters.len() {
        0 => errors.push(counters.required("")),
        1..=COUNTERS_MAX => {
            for (name, _) in counters.entries() {
                let wrong = names::is_dns1123_label(name);
                errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&counters.path(), name, why)));
            }
        }
        _ => errors.push(counters.too_many(COUNTERS_MAX)),
    }
}

fn device(device: At, per_device: bool, errors: &mut Errors) {
    checked(device.field("name"), names::is_dns1123_label, errors);
    let (attributes, capacity) = (device.field("attributes"), device.field("capacity"));
    let mut bounded = |count: usize, max: usize, what: &str| {
        if count > max {
            let why = format!("the total number of {what} must not exceed {max}");
            errors.push(FieldError::invalid(&device.path(), count, why));
        }
    };
    bounded(attributes.len() + capacity.len(), PROPERTIES_MAX, "attributes and capacities");
    let values = attributes.entries().map(|(_, it)| ATTRIBUTE_LISTS.map(|field| it.field(field).len()));
    bounded(values.map(|it| it.iter().sum::<usize>().max(1)).sum(), VALUES_MAX, "attribute values");
    for (name, attribute) in attributes.entries() {
        qualified(&attributes.path(), name, errors);
        self::attribute(attribute, errors);
    }
    for (name, amount) in capacity.entries() {
        qualified(&capacity.path(), name, errors);
        let policy = amount.field("requestPolicy");
        if device.field("allowMultipleAllocations").flag() {
            capacity::policy(policy, amount.field("value"), errors);
        } else if policy.is_set() {
            errors.push(policy.forbidden("allowMultipleAllocations must be true"));
        }
    }
    let consumed = device.field("consumesCounters");
    each(consumed, CONSUMPTIONS_MAX, errors, |it, errors| {
        required_checked(it.field("counterSet"), names::is_dns1123_label, errors);
        counters(it.field("counters"), errors);
    });
    unique(consumed, CONSUMPTIONS_MAX, errors, |it| it.field("counterSet").text());
    let ways = ["nodeName", "nodeSelector", "allNodes"];
    if per_device {
        nodes(device, &ways, errors);
    } else if ways.iter().any(|way| device.field(way).is_set()) {
        let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        errors.push(FieldError::invalid(&device.path(), Value::Null, why));
    }
    binding_conditions(device, errors);
}

/// Checks an attribute: one value, or one list of values.
fn attribute(attribute: At, errors: &mut Errors) {
    let (text, version) = (attribute.field("string"), attribute.field("version"));
    if text.is_set() {
        short(text, errors);
    }
    if version.is_set() {
        semantic_version(version, errors);
    }
    for list in ATTRIBUTE_LISTS.map(|field| attribute.field(field)) {
        if list.is_set() && list.len() == 0 {
            errors.push(list.invalid("must not be empty if specified"));
        }
    }
    attribute.field("strings").items().for_each(|item| short(item, errors));
    attribute.field("versions").items().for_each(|item| semantic_version(item, errors));
    let scalars = ["bool", "int", "string", "version"];
    let given =
        scalars.iter().chain(&ATTRIBUTE_LISTS).filter(|field| attribute.field(field).is_set()).count();
    if given != 1 {
        errors.push(FieldError::invalid(&attribute.path(), "", "exactly one value must be specified"));
    }
}

fn short(text: At, errors: &mut Errors) {
    if text.text().len() > VALUE_LENGTH_MAX {
        errors.push(FieldError::too_long(&text.path(), VALUE_LENGTH_MAX));
    }
}

fn semantic_version(version: At, errors: &mut Errors) {
    if !is_semantic_version(version.text()) {
        errors.push(version.invalid_text("must be a string compatible with semver.org spec 2.0.0"));
    }
    short(version, errors);
}

/// Returns whether a text is a semantic version (semver.org 2.0.0).
pub(in crate::groups) fn is_semantic_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, release) = rest.split_once('-').map_or((rest, None), |(core, release)| (core, Some(release)));
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let is_word = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_release =
        |part: &str| is_word(part) && (is_number(part) || !part.bytes().all(|byte| byte.is_ascii_digit()));
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && release.is_none_or(|parts| parts.split('.').all(is_release))
        && build.is_none_or(|parts| parts.split('.').all(is_word))
}

fn taint(taint: At, errors: &mut Errors) {
    taint_key_and_value(taint, errors);
    taint_effect(taint, errors);
}

pub(super) fn taint_key_and_value(taint: At, errors: &mut Errors) {
    checked(taint.field("key"), names::is_qualified_name, errors);
    checked(taint.field("value"), names::is_valid_label_value, errors);
}

pub(super) fn taint_effect(taint: At, errors: &mut Errors) {
    let effect = taint.field("effect");
    match effect.text() {
        "" => errors.push(effect.required("")),
        "NoExecute" | "NoSchedule" | "None" => {}
        _ => errors.push(effect.not_supported(&["NoExecute", "NoSchedule", "None"])),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(more: Value) -> Value {
        let mut slice = json!({"spec": {
            "driver": "d.example.com", "pool": {"name": "p", "resourceSliceCount": 1}, "nodeName": "n",
        }});
        slice["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        slice
    }

    fn fields(errors: &Errors) -> Vec<String> {
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    fn of_device(more: Value) -> Vec<String> {
        let mut device = json!({"name": "d"});
        device.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let errors = ResourceSliceStrategy.validate(&slice(json!({"devices": [device]})));
        let path = "spec.devices[0]";
        fields(&errors).iter().map(|field| field.strip_prefix(path).unwrap_or(field).to_owned()).collect()
    }

    #[test]
    fn slice_requires_nodes_and_pool() {
        for (more, expected) in [
            (json!({}), &[][..]),
            (
                json!({"driver": "", "pool": {"name": "A", "generation": -1}}),
                &["spec.driver", "spec.pool.name", "spec.pool.resourceSliceCount", "spec.pool.generation"],
            ),
            (json!({"nodeName": null}), &["spec"]),
            (json!({"allNodes": true}), &["spec"]),
            (json!({"nodeName": "", "allNodes": false}), &["spec.nodeName", "spec.allNodes", "spec"]),
            (
                json!({"nodeName": null, "nodeSelector": {"nodeSelectorTerms": []}}),
                &["spec.nodeSelector.nodeSelectorTerms", "spec.nodeSelector.nodeSelectorTerms"],
            ),
            (json!({"devices": [], "sharedCounters": []}), &["spec"]),
            (json!({"devices": [{"name": "a"}, {"name": "a"}]}), &["spec.devices[1]"]),
            (json!({"devices": vec![json!({"name": "a", "taints": [{}]}); 65]}), &["spec.devices"]),
            (
                json!({"sharedCounters": [{"name": "A", "counters": {"B": {"value": "1"}}}, {}]}),
                &[
                    "spec.sharedCounters[0].name",
                    "spec.sharedCounters[0].counters",
                    "spec.sharedCounters[1].name",
                    "spec.sharedCounters[1].counters",
                ],
            ),
        ] {
            assert_eq!(fields(&ResourceSliceStrategy.validate(&slice(more.clone()))), expected, "{more}");
        }
        let old = slice(json!({}));
        let new = slice(json!({"driver": "e.example.com", "nodeName": "m"}));
        let errors = ResourceSliceStrategy.validate_update(&new, &old);
        assert_eq!(fields(&errors), ["spec.driver", "spec.nodeName"]);
        let upper = slice(json!({"driver": "D.example.com"}));
        assert_eq!(ResourceSliceStrategy.warnings(&upper, None).len(), 1);
    }

    #[test]
    fn attribute_has_one_value() {
        for (more, expected) in [
            (json!({"attributes": {"a.com/b": {"int": 1}, "c": {"version": "1.0.0-a.1+b"}}}), &[][..]),
            (json!({"attributes": {"1": {}}}), &[".attributes", ".attributes[1]"]),
            (
                json!({"attributes": {"a": {"version": "1.0", "int": 1}}}),
                &[".attributes[a].version", ".attributes[a]"],
            ),
            (json!({"attributes": {"a": {"string": "x".repeat(65)}}}), &[".attributes[a].string"]),
            (json!({"nodeName": "n"}), &[""]),
            (
                json!({"taints": [{"key": "", "effect": "X"}, {"key": "a"}]}),
                &[".taints[0].key", ".taints[0].key", ".taints[0].effect", ".taints[1].effect"],
            ),
            (
                json!({"bindingConditions": ["a", "a"]}),
                &[".bindingConditions[1]", ".bindingFailureConditions"],
            ),
            (
                json!({"bindingConditions": ["a"], "bindingFailureConditions": ["a"]}),
                &[".bindingFailureConditions[0]"],
            ),
            (
                json!({"capacity": {"m": {"value": "1", "requestPolicy": {}}}}),
                &[".capacity[m].requestPolicy"],
            ),
            (
                json!({"consumesCounters": [{}]}),
                &[".consumesCounters[0].counterSet", ".consumesCounters[0].counters"],
            ),
        ] {
            assert_eq!(of_device(more.clone()), expected, "{more}");
        }
        let mut slice = slice(json!({"devices": [{"name": "d", "taints": [{"key": "a", "effect": "None"}],
            "attributes": {"a": {"ints": [1]}}, MAPPINGS: {}}]}));
        ResourceSliceStrategy.default(&mut slice, "v1");
        ResourceSliceStrategy.prepare_for_create(&mut slice);
        let device = &slice["spec"]["devices"][0];
        assert!(device["taints"][0]["timeAdded"].is_string());
        assert_eq!(device["attributes"], json!({"a": {}}));
        assert_eq!(device.get(MAPPINGS), None);
    }

    #[test]
    fn rejects_invalid_semantic_versions() {
        for (text, expected) in [
            ("0.0.0", true),
            ("1.2.3-rc.1+x.0", true),
            ("1.2.3--", true),
            ("1.2", false),
            ("01.2.3", false),
            ("1.2.3-01", false),
            ("1.2.3+", false),
            ("1.2.3-", false),
            ("v1.2.3", false),
        ] {
            assert_eq!(is_semantic_version(text), expected, "{text}");
        }
    }
}
