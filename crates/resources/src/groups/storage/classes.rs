//! Storage classes and volume attributes classes (upstream: `pkg/apis/storage`).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use nave_machinery::{FieldError, Value, names};

use crate::defaults::set_absent;
use crate::groups::core::pod_spec::warnings::deprecated_label;
use crate::strategy::Strategy;
use crate::validate::{At, Errors, absent_or_one_of, checked, immutable, one_of, required_text};

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;

/// The strategy of storage classes.
pub(super) struct StorageClassStrategy;

impl Strategy for StorageClassStrategy {
    fn default(&self, class: &mut Value, _version: &str) {
        let Some(fields) = class.as_object_mut() else { return };
        set_absent(fields, "reclaimPolicy", "Delete");
        set_absent(fields, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, class: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(class);
        provisioner(root.field("provisioner"), &mut errors);
        parameters(root.field("parameters"), &mut errors);
        let policy = root.field("reclaimPolicy");
        if !policy.text().is_empty() {
            absent_or_one_of(policy, &["Delete", "Retain"], &mut errors);
        }
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
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            immutable(root.field(field), old.field(field), &mut errors);
        }
        errors
    }

    fn warnings(&self, class: &Value, _old: Option<&Value>) -> Vec<String> {
        let root = At::root(class);
        let mut warnings = Vec::new();
        for term in root.field("allowedTopologies").items() {
            for expression in term.field("matchLabelExpressions").items() {
                let key = expression.field("key");
                warnings.extend(deprecated_label(key.text()).map(|why| format!("{}: {why}", key.path())));
            }
        }
        warnings
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

/// Checks that topology terms are unique. In upstream, a term without expressions is a duplicate of every possible
/// term.
fn topologies(topologies: At, errors: &mut Errors) {
    let mut empty = topologies.len();
    let mut seen: HashSet<BTreeMap<&str, BTreeSet<&str>>> = HashSet::new();
    for term in topologies.items() {
        let expressions = term.field("matchLabelExpressions");
        let mut asked = BTreeMap::new();
        for expression in expressions.items() {
            let (key, values) = (expression.field("key"), expression.field("values"));
            let mut set = BTreeSet::new();
            if values.len() == 0 {
                errors.push(values.required(""));
            }
            for value in values.items().filter(|value| !set.insert(value.text())) {
                errors.push(value.duplicate());
            }
            checked(key, names::is_qualified_name, errors);
            if asked.insert(key.text(), set).is_some() {
                errors.push(key.duplicate());
            }
        }
        let repeats = if asked.is_empty() { empty } else { usize::from(seen.contains(&asked)) };
        errors.extend((0..repeats.min(MAX_REPEATS)).map(|_| FieldError::duplicate(&expressions.path(), "")));
        if asked.is_empty() {
            empty += 1;
        } else {
            seen.insert(asked);
        }
    }
}

/// The maximum number of reported duplicates per term.
const MAX_REPEATS: usize = 16;

/// The strategy of volume attributes classes.
pub(super) struct AttributesClassStrategy;

impl Strategy for AttributesClassStrategy {
    fn validate(&self, class: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(class);
        provisioner(root.field("driverName"), &mut errors);
        let given = root.field("parameters");
        parameters(given, &mut errors);
        if given.len() == 0 {
            errors.push(given.required("must contain at least one key/value pair"));
        }
        errors
    }

    fn validate_update(&self, class: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        let (root, old) = (At::root(class), At::root(old));
        for field in ["driverName", "parameters"] {
            let at = root.field(field);
            if at.value() != old.field(field).value() {
                errors.push(at.forbidden(format!("updates to {field} are forbidden.")));
            }
        }
        errors.extend(self.validate(class));
        errors
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(errors: &Errors) -> Vec<String> {
        errors.iter().map(|error| format!("{} {}", error.field, error.kind.reason())).collect()
    }

    #[test]
    fn provisioner_and_parameters_are_immutable() {
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
        assert_eq!(StorageClassStrategy.validate_update(&old, &old), []);
        let changed = StorageClassStrategy.validate_update(&class("example.com/b", "2"), &old);
        assert_eq!(fields(&changed), ["parameters FieldValueInvalid", "provisioner FieldValueInvalid"]);
        assert_eq!(
            fields(&StorageClassStrategy.validate(&class("", "1"))),
            ["provisioner FieldValueRequired"]
        );
    }

    #[test]
    fn topologies_are_unique() {
        let term =
            |key: &str, values: Value| json!({"matchLabelExpressions": [{"key": key, "values": values}]});
        let path = "allowedTopologies[0].matchLabelExpressions";
        for (list, expected) in [
            (json!([term("zone", json!(["a", "b"]))]), vec![]),
            (json!([{}]), vec![format!("{path} FieldValueDuplicate")]),
            (
                json!([term("zone", json!(["a", "b"])), term("zone", json!(["b", "a"]))]),
                vec!["allowedTopologies[1].matchLabelExpressions FieldValueDuplicate".to_owned()],
            ),
            (
                json!([term("a b", json!(["a", "a"]))]),
                vec![
                    format!("{path}[0].values[1] FieldValueDuplicate"),
                    format!("{path}[0].key FieldValueInvalid"),
                ],
            ),
            (json!([term("zone", json!([]))]), vec![format!("{path}[0].values FieldValueRequired")]),
        ] {
            let mut class = json!({"provisioner": "example.com/a", "allowedTopologies": list});
            StorageClassStrategy.default(&mut class, "v1");
            assert_eq!(fields(&StorageClassStrategy.validate(&class)), expected, "{list}");
        }
        let old =
            json!({"allowedTopologies": [term("failure-domain.beta.kubernetes.io/zone", json!(["a"]))]});
        assert_eq!(StorageClassStrategy.warnings(&old, None).len(), 1);
    }

    #[test]
    fn attributes_class_parameters_are_immutable() {
        let class = |driver: &str, parameters: Value| json!({"driverName": driver, "parameters": parameters});
        let old = class("d.example.com", json!({"a": "b"}));
        assert_eq!(AttributesClassStrategy.validate(&old), []);
        assert_eq!(fields(&AttributesClassStrategy.validate(&class("", json!({})))).len(), 2);
        let changed =
            AttributesClassStrategy.validate_update(&class("e.example.com", json!({"a": "c"})), &old);
        assert_eq!(fields(&changed), ["driverName FieldValueForbidden", "parameters FieldValueForbidden"]);
    }
}
