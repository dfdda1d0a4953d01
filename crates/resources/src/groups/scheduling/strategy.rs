//! Defaults and validation of priority classes (upstream: `pkg/apis/scheduling`).

use nave_machinery::{Value, meta};

use crate::defaults::set_absent;
use crate::strategy::Strategy;
use crate::validate::{At, Errors, immutable, one_of, required_text};

/// The highest priority of user-defined classes.
const USER_MAX: i64 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";

/// The system classes and their values.
const SYSTEM: [(&str, i64); 2] =
    [("system-cluster-critical", 2 * USER_MAX), ("system-node-critical", 2 * USER_MAX + 1000)];

/// The strategy of priority classes.
pub(super) struct PriorityClassStrategy;

impl Strategy for PriorityClassStrategy {
    fn default(&self, class: &mut Value, _version: &str) {
        if let Some(fields) = class.as_object_mut() {
            set_absent(fields, "preemptionPolicy", "PreemptLowerPriority");
        }
    }

    fn validate(&self, class: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(class);
        let (metadata, value) = (root.field("metadata"), root.field("value"));
        if meta::name(class).starts_with(SYSTEM_PREFIX) {
            if let Err(why) = known_system_class(root) {
                let reserved =
                    "priority class names with 'system-' prefix are reserved for system use only. error: ";
                errors.push(metadata.field("name").forbidden(format!("{reserved}{why}")));
            }
        } else if value.int().is_some_and(|value| value > USER_MAX) {
            errors.push(
                value.forbidden(format!("maximum allowed value of a user defined priority is {USER_MAX}")),
            );
        }
        let policy = root.field("preemptionPolicy");
        if required_text(policy, &mut errors) {
            one_of(policy, &["PreemptLowerPriority", "Never"], &mut errors);
        }
        errors
    }

    fn validate_update(&self, class: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        let (root, old) = (At::root(class), At::root(old));
        if root.field("value").int() != old.field("value").int() {
            errors.push(root.field("value").forbidden("may not be changed in an update."));
        }
        immutable(root.field("preemptionPolicy"), old.field("preemptionPolicy"), &mut errors);
        errors
    }

    fn refuses_deletion(&self, name: &str) -> Option<&'static str> {
        let is_system = SYSTEM.iter().any(|(known, _)| *known == name);
        is_system.then_some("this is a system priority class and cannot be deleted")
    }
}

fn known_system_class(class: At) -> Result<(), String> {
    let metadata = class.field("metadata");
    let name = metadata.field("name").text();
    let Some((_, value)) = SYSTEM.iter().find(|(known, _)| *known == name) else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if class.field("value").int() != Some(*value) {
        return Err(format!("value of {name} PriorityClass must be {value}"));
    }
    if class.field("globalDefault").flag() {
        return Err(format!("globalDefault of {name} PriorityClass must be false"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn system_classes_cannot_be_deleted() {
        assert!(PriorityClassStrategy.refuses_deletion("system-node-critical").is_some());
        assert_eq!(PriorityClassStrategy.refuses_deletion("gold"), None);
    }

    fn messages(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn system_names_and_values_are_reserved() {
        let validate = |name: &str, value: i64| {
            let mut class = json!({"metadata": {"name": name}, "value": value});
            PriorityClassStrategy.default(&mut class, "v1");
            messages(&PriorityClassStrategy.validate(&class))
        };
        assert_eq!(validate("high", USER_MAX), [""; 0]);
        assert_eq!(validate("system-node-critical", 2_000_001_000), [""; 0]);
        assert_eq!(
            validate("high", USER_MAX + 1),
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
        );
        assert!(validate("system-mine", 1)[0].ends_with("system-mine is not a known system priority class"));
        assert!(validate("system-node-critical", 1)[0].ends_with("PriorityClass must be 2000001000"));
    }

    #[test]
    fn value_is_immutable() {
        let class = |value: i64, policy: &str| json!({"value": value, "preemptionPolicy": policy});
        let update = |new: Value| messages(&PriorityClassStrategy.validate_update(&new, &class(1, "Never")));
        assert_eq!(update(class(1, "Never")), [""; 0]);
        assert_eq!(update(class(2, "Never")), ["value: Forbidden: may not be changed in an update."]);
        assert_eq!(
            update(class(1, "PreemptLowerPriority")),
            [r#"preemptionPolicy: Invalid value: "PreemptLowerPriority": field is immutable"#]
        );
    }
}
