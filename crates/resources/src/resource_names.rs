//! Names of resources in containers, limit ranges and quotas (upstream: `pkg/apis/core/helper`).

use nave_machinery::{FieldError, names};

use crate::validate::{At, Errors, NOT_NEGATIVE, quantity};

/// The error detail for a fractional amount of an integer resource.
pub(crate) const NOT_INTEGER: &str = "must be an integer";

const CONTAINER: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];

/// Standard resources that are counted as objects.
const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

const MEASURED: [&str; 10] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
];

/// Returns whether a name is a huge page resource.
pub(crate) fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Returns whether a name has no domain or a `kubernetes.io` domain.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Returns whether a name is an extended resource, such as a device.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::is_qualified_name(&format!("requests.{name}")).is_empty()
}

/// Returns whether the limits of a resource may exceed its requests.
pub(crate) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// Returns whether the amounts of a resource are integers.
pub(crate) fn is_integer(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// Returns whether a name without a domain is a valid quota resource.
pub(crate) fn is_standard_quota(name: &str) -> bool {
    COUNTED.contains(&name)
        || MEASURED.contains(&name)
        || is_huge_pages(name)
        || name.starts_with("requests.hugepages-")
}

fn is_standard(name: &str) -> bool {
    is_standard_quota(name) || name == "storage"
}

/// Checks the name of any resource, which is the key of `at`.
pub(crate) fn any(name: &str, at: At, errors: &mut Errors) {
    let found = names::is_qualified_name(name);
    if found.is_empty() && !name.contains('/') && !is_standard(name) {
        errors.push(named(name, at, "must be a standard resource type or fully qualified"));
    }
    errors.extend(found.into_iter().map(|why| named(name, at, why)));
}

/// Checks the name of a container resource.
pub(crate) fn container(name: &str, at: At, errors: &mut Errors) {
    any(name, at, errors);
    if !name.contains('/') {
        if !CONTAINER.contains(&name) && !is_huge_pages(name) {
            errors.push(named(name, at, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(named(name, at, "doesn't follow extended resource name standard"));
    }
}

/// Checks the name of a quota resource.
pub(crate) fn quota(name: &str, at: At, errors: &mut Errors) {
    any(name, at, errors);
    if !name.contains('/') && !is_standard_quota(name) {
        errors.push(named(name, at, "must be a standard resource for quota"));
    }
}

/// Checks an amount of resource `name`: not negative, and an integer if the resource requires it.
pub(crate) fn amount(name: &str, at: At, errors: &mut Errors) {
    let Some(amount) = quantity(at) else { return };
    if amount.is_negative() {
        errors.push(FieldError::invalid(&at.path(), amount.to_string(), NOT_NEGATIVE));
    }
    if is_integer(name) && amount.milli_value() % 1000 != 0 {
        errors.push(FieldError::invalid(&at.path(), amount.to_string(), NOT_INTEGER));
    }
}

fn named(name: &str, at: At, why: impl Into<String>) -> FieldError {
    FieldError::invalid(&at.path(), name, why)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the number of errors of a name as any resource, as a container resource, and as a quota resource.
    fn counts(name: &str) -> [usize; 3] {
        let object = json!({"list": {name: "1"}});
        let root = At::root(&object);
        let list = root.field("list");
        [any, container, quota].map(|check| {
            let mut errors = Errors::new();
            check(name, list.key(name), &mut errors);
            errors.len()
        })
    }

    #[test]
    fn rejects_unknown_names() {
        for (name, expected) in [
            ("cpu", [0, 0, 0]),
            ("hugepages-2Mi", [0, 0, 0]),
            ("requests.hugepages-2Mi", [0, 1, 0]),
            ("storage", [0, 1, 1]),
            ("pods", [0, 1, 0]),
            ("bogus", [1, 2, 2]),
            ("example.com/gpu", [0, 0, 0]),
            ("requests.example.com/gpu", [0, 1, 0]),
            ("count/jobs.batch", [0, 0, 0]),
            ("a b", [1, 2, 2]),
        ] {
            assert_eq!(counts(name), expected, "{name}");
        }
    }

    #[test]
    fn rejects_fractional_counts() {
        let object = json!({"pods": "1500m", "cpu": "1500m", "example.com/a": "500m", "memory": "-1"});
        let root = At::root(&object);
        let mut errors = Errors::new();
        for (name, at) in root.entries() {
            amount(name, at, &mut errors);
        }
        let fields: Vec<_> = errors.iter().map(|error| error.detail.as_str()).collect();
        assert_eq!(fields, [NOT_INTEGER, NOT_NEGATIVE, NOT_INTEGER]);
    }
}
