//! Merges a configuration into an object without tracking owners, as mutating admission policies do (upstream:
//! `admission/plugin/policy/mutating/patch/smd.go`).

use std::fmt::Write;

use nave_machinery::Value;

use super::path::PathElement;
use super::schema::{Relation, TypeRef};
use super::{merge, validate};
use crate::{PatchError, check_patched};

/// Maximum number of atomic fields that an error names.
const MAX_ATOMICS: usize = 100;

/// A configuration that cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// A field is unknown or has the wrong type.
    #[error("failed to convert patch object to typed object: {0}")]
    Untyped(String),
    /// The configuration sets lists, maps or structs that are replaced as a whole, so fields that it does not mention
    /// would be lost. Contains their paths.
    #[error("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}", .0.join(", "))]
    Atomic(Vec<String>),
    /// An item of a list cannot be identified.
    #[error("failed to merge patch: {0}")]
    Merge(String),
    /// The merged object is too deep or too large.
    #[error("failed to merge patch: {0}")]
    Limit(#[from] PatchError),
}

/// Merges a configuration into an object of the same version.
///
/// # Errors
/// See [`ConfigurationError`].
pub fn merge_configuration(
    ty: TypeRef<'_>,
    object: &Value,
    configuration: &Value,
) -> Result<Value, ConfigurationError> {
    validate::validate(ty, configuration).map_err(ConfigurationError::Untyped)?;
    let mut atomics = Atomics::default();
    atomics.visit(ty, configuration);
    if !atomics.found.is_empty() {
        return Err(ConfigurationError::Atomic(atomics.found));
    }
    let merged = merge::merge(ty, object, configuration).map_err(ConfigurationError::Merge)?;
    check_patched(&merged)?;
    Ok(merged)
}

/// The atomic fields of a configuration.
#[derive(Default)]
struct Atomics {
    path: Vec<PathElement>,
    found: Vec<String>,
}

impl Atomics {
    fn visit(&mut self, ty: TypeRef<'_>, value: &Value) {
        match value {
            Value::Object(fields) => {
                let Some(map) = ty.map() else { return };
                if map.is_atomic {
                    self.report();
                }
                // As upstream, only declared fields are visited, not the entries of maps.
                let declared =
                    fields.iter().filter_map(|(name, value)| Some((name, map.field_of(name)?, value)));
                for (name, ty, value) in declared {
                    self.path.push(PathElement::field(name));
                    self.visit(ty, value);
                    self.path.pop();
                }
            }
            Value::Array(items) => {
                let Some(list) = ty.list() else { return };
                if list.relation == Relation::Atomic {
                    self.report();
                }
                for (index, item) in (0..).zip(items) {
                    self.path.push(PathElement::Index(index));
                    self.visit(list.items, item);
                    self.path.pop();
                }
            }
            _ => {}
        }
    }

    fn report(&mut self) {
        if self.found.len() < MAX_ATOMICS {
            self.found.push(self.path.iter().fold(String::new(), |mut path, element| {
                // Writing to a string cannot fail.
                let _ = write!(path, "{element}");
                path
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(object: &Value, configuration: &Value) -> Result<Value, String> {
        let set = nave_schema::builtin();
        let ty = TypeRef::Struct(set, set.find("io.k8s.api.apps.v1.Deployment").unwrap());
        merge_configuration(ty, object, configuration).map_err(|error| error.to_string())
    }

    #[test]
    fn merges_items_by_key_and_keeps_other_fields() {
        let container = |fields: Value| json!({"spec": {"template": {"spec": {"containers": [fields]}}}});
        let object = container(json!({"name": "a", "image": "i", "env": [{"name": "X", "value": "1"}]}));
        let configuration = container(json!({"name": "a", "env": [{"name": "Y", "value": "2"}]}));
        let env = json!([{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]);
        let expected = container(json!({"name": "a", "image": "i", "env": env}));
        assert_eq!(merged(&object, &configuration), Ok(expected));
    }

    #[test]
    fn rejects_configurations_that_do_not_fit() {
        let untyped = "failed to convert patch object to typed object: ";
        let atomic = "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: ";
        for (configuration, expected) in [
            (json!({"spec": {"bogus": 1}}), format!("{untyped}.spec.bogus: field not declared in schema")),
            (
                json!({"spec": {"replicas": "5"}}),
                format!("{untyped}.spec.replicas: expected numeric (int or float), got string"),
            ),
            (json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}), format!("{atomic}.spec.selector")),
            (
                json!({"spec": {"template": {"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "c", "command": ["a"]}]}}}}),
                format!("{atomic}.spec.template.spec.containers[0].command, .spec.template.spec.tolerations"),
            ),
        ] {
            assert_eq!(merged(&json!({}), &configuration), Err(expected));
        }
    }
}
