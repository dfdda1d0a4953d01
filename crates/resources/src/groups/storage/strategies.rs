//! Defaults and validation of kinds of storage (upstream: `pkg/apis/storage`).

use std::collections::HashSet;

use nave_machinery::{FieldError, Value, names};
use serde_json::json;

use crate::defaults::{object, set};
use crate::strategy::Strategy;
use crate::validate::{
    At, Errors, checked, immutable, label_selector, labels, one_of, quantity_not_negative, required_checked,
    required_text,
};

const DRIVER_NAME_MAX: usize = 63;
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
const NODE_ID_MAX: usize = 256;
/// The shortest life of a token for a driver, in seconds.
const TOKEN_SECONDS_MIN: i64 = 600;

/// What is particular to storage classes.
pub(super) struct StorageClassStrategy;

impl Strategy for StorageClassStrategy {
    fn default(&self, class: &mut Value, _version: &str) {
        let Some(fields) = class.as_object_mut() else { return };
        set(fields, "reclaimPolicy", "Delete");
        set(fields, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, class: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(class);
        provisioner(root.field("provisioner"), &mut errors);
        parameters(root.field("parameters"), &mut errors);
        one_of(root.field("reclaimPolicy"), &["Delete", "Retain"], &mut errors);
        let mode = root.field("volumeBindingMode");
        if required_text(mode, &mut errors) {
            one_of(mode, &["Immediate", "WaitForFirstConsumer"], &mut errors);
        }
        topologies(root.field("allowedTopologies"), &mut errors);
        errors
    }

    fn validate_update(&self, class: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(class);
        let (root, old) = (At::root(class), At::root(old));
        unchanged(root, old, &["parameters", "provisioner", "reclaimPolicy"], &mut errors);
        immutable(root.field("volumeBindingMode"), old.field("volumeBindingMode"), &mut errors);
        errors
    }
}

/// Fields that an update may not touch, told as upstream tells it of classes.
fn unchanged(new: At, old: At, fields: &[&'static str], errors: &mut Errors) {
    for field in fields {
        if new.field(field).value() != old.field(field).value() {
            errors.push(new.field(field).forbidden(format!("updates to {field} are forbidden.")));
        }
    }
}

fn provisioner(at: At, errors: &mut Errors) {
    if required_text(at, errors) {
        let found = names::is_qualified_name(&at.text().to_lowercase());
        errors.extend(found.into_iter().map(|why| at.invalid(why)));
    }
}

fn parameters(parameters: At, errors: &mut Errors) {
    if parameters.len() > PARAMETERS_MAX {
        errors.push(FieldError::too_long(&parameters.path(), PARAMETERS_MAX));
        return;
    }
    let mut bytes = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            errors.push(FieldError::invalid(&parameters.path(), key, "field can not be empty."));
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > PARAMETERS_BYTES_MAX {
        errors.push(FieldError::too_long(&parameters.path(), PARAMETERS_BYTES_MAX));
    }
}

fn topologies(topologies: At, errors: &mut Errors) {
    for term in topologies.items() {
        let mut seen = HashSet::new();
        for expression in term.field("matchLabelExpressions").items() {
            let (key, values) = (expression.field("key"), expression.field("values"));
            checked(key, names::is_qualified_name, errors);
            if !seen.insert(key.text()) {
                errors.push(key.duplicate());
            }
            if values.len() == 0 {
                errors.push(values.required(""));
            }
        }
    }
}

/// What is particular to drivers of storage.
pub(super) struct DriverStrategy;

impl Strategy for DriverStrategy {
    fn default(&self, driver: &mut Value, _version: &str) {
        let Some(spec) = driver.as_object_mut().and_then(|driver| object(driver, "spec")) else { return };
        set(spec, "attachRequired", true);
        set(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        for field in ["podInfoOnMount", "requiresRepublish", "seLinuxMount", "storageCapacity"] {
            set(spec, field, false);
        }
        if spec.get("volumeLifecycleModes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
        }
    }

    fn validate(&self, driver: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(driver);
        let (metadata, spec) = (root.field("metadata"), root.field("spec"));
        driver_name(metadata.field("name"), &mut errors);
        let policy = spec.field("fsGroupPolicy");
        one_of(policy, &["File", "None", "ReadWriteOnceWithFSType"], &mut errors);
        for mode in spec.field("volumeLifecycleModes").items() {
            one_of(mode, &["Ephemeral", "Persistent"], &mut errors);
        }
        let mut seen = HashSet::new();
        for request in spec.field("tokenRequests").items() {
            let (audience, seconds) = (request.field("audience"), request.field("expirationSeconds"));
            if !seen.insert(audience.text()) {
                errors.push(audience.duplicate());
            }
            if seconds.int().is_some_and(|seconds| seconds < TOKEN_SECONDS_MIN) {
                errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
            }
        }
        errors
    }

    fn validate_update(&self, driver: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(driver);
        let (root, old) = (At::root(driver), At::root(old));
        let (spec, old) = (root.field("spec"), old.field("spec"));
        for field in ["attachRequired", "volumeLifecycleModes"] {
            immutable(spec.field(field), old.field(field), &mut errors);
        }
        errors
    }
}

/// The name of a driver: a domain name, in whatever case, of at most 63 characters.
fn driver_name(at: At, errors: &mut Errors) {
    if !required_text(at, errors) {
        return;
    }
    if at.text().len() > DRIVER_NAME_MAX {
        errors.push(FieldError::too_long(&at.path(), DRIVER_NAME_MAX));
    }
    let found = names::is_dns1123_subdomain(&at.text().to_lowercase());
    errors.extend(found.into_iter().map(|why| at.invalid(why)));
}

/// What is particular to the drivers of a node.
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
            if !seen.insert(name.text()) {
                errors.push(name.duplicate());
            }
            if required_text(id, &mut errors) && id.text().len() > NODE_ID_MAX {
                errors.push(id.invalid(format!("must be {NODE_ID_MAX} characters or less")));
            }
            let allocatable = driver.field("allocatable");
            let count = allocatable.field("count");
            if count.int().is_some_and(|count| count < 0) {
                errors.push(count.invalid(crate::validate::NOT_NEGATIVE));
            }
            let mut keys = HashSet::new();
            for key in driver.field("topologyKeys").items() {
                if !keys.insert(key.text()) {
                    errors.push(key.duplicate());
                }
                required_checked(key, names::is_qualified_name, &mut errors);
            }
        }
        errors
    }
}

/// What is particular to attachments of volumes to nodes.
pub(super) struct AttachmentStrategy;

impl Strategy for AttachmentStrategy {
    fn validate(&self, attachment: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(attachment);
        let spec = root.field("spec");
        driver_name(spec.field("attacher"), &mut errors);
        required_text(spec.field("nodeName"), &mut errors);
        let source = spec.field("source");
        let (inline, named) = (source.field("inlineVolumeSpec"), source.field("persistentVolumeName"));
        match (inline.is_set(), named.is_set()) {
            (false, false) => errors.push(
                source.required("must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
            ),
            (true, true) => {
                errors.push(
                    source.forbidden("inlineVolumeSpec and persistentVolumeName are mutually exclusive"),
                );
            }
            (false, true) if named.text().is_empty() => {
                errors.push(named.required("must specify non empty persistentVolumeName"));
            }
            _ => {}
        }
        errors
    }

    fn validate_update(&self, attachment: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(attachment);
        let (root, old) = (At::root(attachment), At::root(old));
        if root.field("spec").value() != old.field("spec").value() {
            errors.push(root.field("spec").invalid("field is immutable"));
        }
        errors
    }
}

/// What is particular to what is left of a kind of storage somewhere.
pub(super) struct CapacityStrategy;

impl Strategy for CapacityStrategy {
    fn validate(&self, capacity: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(capacity);
        label_selector(root.field("nodeTopology"), &mut errors);
        required_checked(root.field("storageClassName"), names::is_dns1123_subdomain, &mut errors);
        quantity_not_negative(root.field("capacity"), &mut errors);
        quantity_not_negative(root.field("maximumVolumeSize"), &mut errors);
        errors
    }

    fn validate_update(&self, capacity: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(capacity);
        let (root, old) = (At::root(capacity), At::root(old));
        for field in ["nodeTopology", "storageClassName"] {
            immutable(root.field(field), old.field(field), &mut errors);
        }
        errors
    }
}

/// What is particular to classes of volumes' attributes.
pub(super) struct AttributesClassStrategy;

impl Strategy for AttributesClassStrategy {
    fn validate(&self, class: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(class);
        driver_name(root.field("driverName"), &mut errors);
        let given = root.field("parameters");
        if given.len() == 0 {
            errors.push(given.required("must contain at least one key/value pair"));
        }
        parameters(given, &mut errors);
        let metadata = root.field("metadata");
        labels(metadata.field("labels"), &mut errors);
        errors
    }

    fn validate_update(&self, class: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(class);
        unchanged(At::root(class), At::root(old), &["driverName", "parameters"], &mut errors);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_storage_class_keeps_what_volumes_were_made_by() {
        let class = |provisioner: &str, size: &str| {
            let mut class = json!({"provisioner": provisioner, "parameters": {"size": size}});
            StorageClassStrategy.default(&mut class, "v1");
            class
        };
        let old = class("example.com/a", "1");
        assert_eq!(
            (&old["reclaimPolicy"], &old["volumeBindingMode"]),
            (&json!("Delete"), &json!("Immediate"))
        );
        assert_eq!(shown(&StorageClassStrategy.validate_update(&old, &old)), [""; 0]);
        assert_eq!(
            shown(&StorageClassStrategy.validate_update(&class("example.com/b", "2"), &old)),
            [
                "parameters: Forbidden: updates to parameters are forbidden.",
                "provisioner: Forbidden: updates to provisioner are forbidden.",
            ]
        );
        assert_eq!(shown(&StorageClassStrategy.validate(&class("", "1"))), ["provisioner: Required value"]);
    }

    #[test]
    fn a_driver_says_little_and_gets_the_rest() {
        let mut driver = json!({"metadata": {"name": "a.example.com"}, "spec": {}});
        DriverStrategy.default(&mut driver, "v1");
        assert_eq!(
            driver["spec"],
            json!({
                "attachRequired": true, "podInfoOnMount": false, "requiresRepublish": false, "seLinuxMount": false,
                "storageCapacity": false, "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"],
            })
        );
        assert_eq!(shown(&DriverStrategy.validate(&driver)), [""; 0]);
        let mut other = driver.clone();
        other["spec"]["attachRequired"] = json!(false);
        other["spec"]["tokenRequests"] = json!([{"audience": ""}, {"audience": "", "expirationSeconds": 1}]);
        assert_eq!(
            shown(&DriverStrategy.validate_update(&other, &driver)),
            [
                r#"spec.tokenRequests[1].audience: Duplicate value: """#,
                "spec.tokenRequests[1].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                "spec.attachRequired: Invalid value: false: field is immutable",
            ]
        );
    }

    #[test]
    fn an_attachment_is_of_one_volume() {
        let errors =
            AttachmentStrategy.validate(&json!({"spec": {"attacher": "a", "nodeName": "n", "source": {}}}));
        assert_eq!(
            shown(&errors),
            [
                "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"
            ]
        );
        let class = json!({"driverName": "A", "parameters": {}});
        assert_eq!(
            shown(&AttributesClassStrategy.validate(&class)),
            ["parameters: Required value: must contain at least one key/value pair"]
        );
    }

    #[test]
    fn a_nodes_drivers_are_named_once() {
        let node = json!({"spec": {"drivers": [{"name": "a", "nodeID": "n"}, {"name": "a", "nodeID": ""}]}});
        assert_eq!(
            shown(&NodeDriversStrategy.validate(&node)),
            [r#"spec.drivers[1].name: Duplicate value: "a""#, "spec.drivers[1].nodeID: Required value"]
        );
        let capacity = json!({"storageClassName": "", "capacity": "-1"});
        assert_eq!(
            shown(&CapacityStrategy.validate(&capacity)),
            [
                "storageClassName: Required value",
                r#"capacity: Invalid value: "-1": must be greater than or equal to 0"#
            ]
        );
    }
}
