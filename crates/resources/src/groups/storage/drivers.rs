//! CSI drivers, and the drivers of each node (upstream: `pkg/apis/storage`).

use std::collections::{HashMap, HashSet};

use nave_machinery::{FieldError, FieldPath, Value, names};
use serde_json::json;

use crate::defaults::{object, set, set_absent};
use crate::groups::core::same_but;
use crate::read;
use crate::strategy::Strategy;
use crate::validate::{At, Errors, IMMUTABLE, driver_name, immutable, not_negative, one_of, required_text};

const NODE_ID_MAX: usize = 256;
/// The range of a token's lifetime, in seconds.
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const UPDATE_SECONDS_MIN: i64 = 10;
const TOKENS_IN_SECRETS: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";

/// The strategy of CSI drivers.
pub(super) struct DriverStrategy;

impl Strategy for DriverStrategy {
    fn default(&self, driver: &mut Value, _version: &str) {
        let Some(spec) = driver.as_object_mut().and_then(|driver| object(driver, "spec")) else { return };
        set(spec, "attachRequired", true);
        set_absent(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        for field in ["podInfoOnMount", "requiresRepublish", "seLinuxMount", "storageCapacity"] {
            set(spec, field, false);
        }
        if spec.get("volumeLifecycleModes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
        }
    }

    fn prepare_for_create(&self, driver: &mut Value) {
        // Upstream sets no generation on create. It counts the changes.
        nave_machinery::meta::remove(driver, "generation");
        drop_disabled(driver, None);
    }

    fn prepare_for_update(&self, driver: &mut Value, old: &Value) {
        drop_disabled(driver, Some(old));
    }

    fn validate(&self, driver: &Value) -> Errors {
        let mut errors = Errors::new();
        driver_spec(At::root(driver).field("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, driver: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(driver);
        let (root, old) = (At::root(driver), At::root(old));
        let (spec, old) = (root.field("spec"), old.field("spec"));
        // Upstream's path spells the field `attachedRequired`.
        let attach = spec.field("attachedRequired").with(spec.field("attachRequired").value());
        immutable(attach, old.field("attachRequired"), &mut errors);
        immutable(spec.field("volumeLifecycleModes"), old.field("volumeLifecycleModes"), &mut errors);
        errors
    }

    fn warnings(&self, driver: &Value, old: Option<&Value>) -> Vec<String> {
        let tokens = |driver: &'_ Value| read::list(driver, "spec.tokenRequests").to_vec();
        let requests = tokens(driver);
        let is_new = old.is_none_or(|old| tokens(old) != requests);
        let is_warned = is_new
            && !requests.is_empty()
            && read::value_at(driver, "spec.serviceAccountTokenInSecrets").is_none_or(Value::is_null);
        if is_warned { vec![TOKENS_IN_SECRETS.to_owned()] } else { Vec::new() }
    }
}

/// Drops a field of a disabled feature unless the stored object has it.
fn drop_disabled(driver: &mut Value, old: Option<&Value>) {
    let field = "preventPodSchedulingIfMissing";
    let is_stored = old.and_then(|old| old.get("spec")?.get(field)).is_some();
    if let Some(spec) = driver.get_mut("spec").and_then(Value::as_object_mut).filter(|_| !is_stored) {
        spec.remove(field);
    }
}

fn driver_spec(spec: At, errors: &mut Errors) {
    one_of(spec.field("fsGroupPolicy"), &["File", "None", "ReadWriteOnceWithFSType"], errors);
    let requests = spec.field("tokenRequests");
    token_requests(requests, errors);
    let modes = spec.field("volumeLifecycleModes");
    for mode in modes.items().filter(|mode| !matches!(mode.text(), "Ephemeral" | "Persistent")) {
        // Upstream reports the list instead of the item.
        errors.push(FieldError::not_supported(&modes.path(), mode.text(), &["Persistent", "Ephemeral"]));
    }
    let period = spec.field("nodeAllocatableUpdatePeriodSeconds");
    if period.int().is_some_and(|seconds| seconds < UPDATE_SECONDS_MIN) {
        errors.push(period.invalid(format!("must be greater than or equal to {UPDATE_SECONDS_MIN} seconds")));
    }
    let in_secrets = spec.field("serviceAccountTokenInSecrets");
    if in_secrets.is_set() && requests.len() == 0 {
        let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(in_secrets.invalid(why));
    }
}

fn token_requests(requests: At, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for request in requests.items() {
        let (audience, seconds) = (request.field("audience"), request.field("expirationSeconds"));
        if !seen.insert(audience.text()) {
            errors.push(FieldError::duplicate(&audience.path(), audience.text()));
            continue;
        }
        if seconds.int().is_some_and(|seconds| seconds < TOKEN_SECONDS_MIN) {
            errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
        }
        if seconds.int().is_some_and(|seconds| seconds > TOKEN_SECONDS_MAX) {
            errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
        }
    }
}

/// The strategy of CSI nodes.
pub(super) struct NodeDriversStrategy;

impl Strategy for NodeDriversStrategy {
    fn validate(&self, node: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(node);
        let spec = root.field("spec");
        let mut seen = HashSet::new();
        for driver in spec.field("drivers").items() {
            let (name, id) = (driver.field("name"), driver.field("nodeID"));
            driver_name(name, &mut errors);
            if required_text(id, &mut errors) && id.text().len() > NODE_ID_MAX {
                errors.push(id.invalid(format!("must be {NODE_ID_MAX} characters or less")));
            }
            let allocatable = driver.field("allocatable");
            not_negative(allocatable.field("count"), &mut errors);
            if !seen.insert(name.text()) {
                errors.push(FieldError::duplicate(&name.path(), name.text()));
            }
            topology_keys(driver, &mut errors);
        }
        errors
    }

    fn validate_update(&self, node: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(node);
        let drivers = read::list(old, "spec.drivers");
        let before: HashMap<_, _> =
            drivers.iter().map(|driver| (read::text(driver, "name"), driver)).collect();
        for driver in read::list(node, "spec.drivers") {
            let Some(old) = before.get(read::text(driver, "name")) else { continue };
            if !same_but(driver.as_object(), old.as_object(), &["allocatable"]) {
                let path = FieldPath::new("spec").child("drivers");
                errors.push(FieldError::invalid(&path, driver.clone(), IMMUTABLE));
            }
        }
        errors
    }
}

/// Checks topology keys. Upstream reports their errors at the driver.
fn topology_keys(driver: At, errors: &mut Errors) {
    let mut seen = HashSet::new();
    let path = driver.path();
    for key in driver.field("topologyKeys").items().map(|key| key.text()) {
        if key.is_empty() {
            errors.push(FieldError::required(&path, key));
        }
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(&path, key));
        }
        let found = names::is_qualified_name(key);
        errors.extend(found.into_iter().map(|why| FieldError::invalid(&path, key, why)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(errors: &Errors) -> Vec<String> {
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn sets_defaults_of_drivers() {
        let mut driver = json!({"metadata": {"name": "a.example.com"}, "spec": {}});
        DriverStrategy.default(&mut driver, "v1");
        assert_eq!(
            driver["spec"],
            json!({
                "attachRequired": true, "podInfoOnMount": false, "requiresRepublish": false, "seLinuxMount": false,
                "storageCapacity": false, "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"],
            })
        );
        assert_eq!(DriverStrategy.validate(&driver), []);
    }

    #[test]
    fn rejects_invalid_specs() {
        for (field, value, expected) in [
            (
                "tokenRequests",
                json!([{"audience": ""}, {"audience": ""}]),
                &["spec.tokenRequests[1].audience"][..],
            ),
            (
                "tokenRequests",
                json!([{"audience": "", "expirationSeconds": 1}]),
                &["spec.tokenRequests[0].expirationSeconds"],
            ),
            (
                "volumeLifecycleModes",
                json!(["x"]),
                &["spec.volumeLifecycleModes", "spec.volumeLifecycleModes"],
            ),
            ("fsGroupPolicy", json!("x"), &["spec.fsGroupPolicy"]),
            ("nodeAllocatableUpdatePeriodSeconds", json!(9), &["spec.nodeAllocatableUpdatePeriodSeconds"]),
            ("serviceAccountTokenInSecrets", json!(true), &["spec.serviceAccountTokenInSecrets"]),
            ("attachRequired", json!(false), &["spec.attachedRequired"]),
        ] {
            let mut old = json!({"spec": {}});
            DriverStrategy.default(&mut old, "v1");
            let mut new = old.clone();
            new["spec"][field] = value;
            assert_eq!(fields(&DriverStrategy.validate_update(&new, &old)), expected, "{field}");
        }
    }

    #[test]
    fn warns_about_tokens_outside_of_secrets() {
        let driver = json!({"spec": {"tokenRequests": [{"audience": ""}]}});
        assert_eq!(DriverStrategy.warnings(&driver, None).len(), 1);
        assert_eq!(DriverStrategy.warnings(&driver, Some(&driver)).len(), 0);
        let quiet =
            json!({"spec": {"tokenRequests": [{"audience": ""}], "serviceAccountTokenInSecrets": false}});
        assert_eq!(DriverStrategy.warnings(&quiet, None).len(), 0);
    }

    #[test]
    fn node_drivers_are_unique_and_immutable() {
        let node = |drivers: Value| json!({"spec": {"drivers": drivers}});
        let twice = node(json!([{"name": "a", "nodeID": "n"}, {"name": "a", "nodeID": ""}]));
        assert_eq!(
            fields(&NodeDriversStrategy.validate(&twice)),
            ["spec.drivers[1].nodeID", "spec.drivers[1].name"]
        );
        let keys = node(json!([{"name": "a", "nodeID": "n", "topologyKeys": ["a b", "k", "k"]}]));
        assert_eq!(fields(&NodeDriversStrategy.validate(&keys)), ["spec.drivers[0]", "spec.drivers[0]"]);
        let old = node(json!([{"name": "a", "nodeID": "n", "allocatable": {"count": 1}}]));
        let grown = node(json!([{"name": "a", "nodeID": "n", "allocatable": {"count": 2}}]));
        assert_eq!(NodeDriversStrategy.validate_update(&grown, &old), []);
        let moved = node(json!([{"name": "a", "nodeID": "m"}]));
        assert_eq!(fields(&NodeDriversStrategy.validate_update(&moved, &old)), ["spec.drivers"]);
    }
}
