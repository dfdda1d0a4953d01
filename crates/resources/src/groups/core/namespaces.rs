//! Namespaces.

use nave_machinery::{FieldError, FieldPath, Value, meta, names};
use serde_json::json;

use crate::defaults::{self, object};
use crate::read;
use crate::strategy::Strategy;
use crate::validate::{At, Errors};

/// The finalizer that keeps a namespace until its contents are deleted.
const KUBERNETES: &str = "kubernetes";

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = [KUBERNETES, "orphan", "foregroundDeletion"];

/// The label with the namespace's name, for selectors.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The strategy of namespaces.
pub(super) struct NamespaceStrategy;

/// Checks that a finalizer is a standard one or has a domain.
fn finalizer(at: At, errors: &mut Errors) {
    let name = at.text();
    errors.extend(names::is_qualified_name(name).into_iter().map(|why| at.invalid_text(why)));
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        errors.push(at.invalid_text("name is neither a standard finalizer name nor is it fully qualified"));
    }
}

impl Strategy for NamespaceStrategy {
    fn default(&self, namespace: &mut Value, _version: &str) {
        if let Some(status) = namespace.as_object_mut().and_then(|namespace| object(namespace, "status")) {
            defaults::set(status, "phase", "Active");
        }
        let name = read::text(namespace, "metadata.name").to_owned();
        let Some(metadata) = meta::metadata_mut(namespace).filter(|_| !name.is_empty()) else { return };
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(NAME_LABEL.to_owned(), json!(name));
        }
    }

    fn prepare_for_create(&self, namespace: &mut Value) {
        let mut finalizers = read::list(namespace, "spec.finalizers").to_vec();
        if !finalizers.iter().any(|it| it == KUBERNETES) {
            finalizers.push(json!(KUBERNETES));
        }
        set(namespace, "spec", json!({"finalizers": finalizers}));
        set(namespace, "status", json!({"phase": "Active"}));
    }

    fn prepare_for_update(&self, namespace: &mut Value, old: &Value) {
        // Only the `finalize` subresource writes finalizers.
        set(namespace, "spec", old.get("spec").cloned().unwrap_or_else(|| json!({})));
    }

    fn prepare_for_subresource_update(&self, _subresource: &str, namespace: &mut Value, old: &Value) {
        // The `finalize` subresource writes only finalizers.
        let finalizers = read::list(namespace, "spec.finalizers").to_vec();
        let spec = if finalizers.is_empty() { json!({}) } else { json!({"finalizers": finalizers}) };
        set(namespace, "spec", spec);
        set(namespace, "status", old.get("status").cloned().unwrap_or_else(|| json!({})));
    }

    fn validate(&self, namespace: &Value) -> Errors {
        let root = At::root(namespace);
        let spec = root.field("spec");
        let finalizers = spec.field("finalizers");
        let mut errors = Errors::new();
        for finalizer in finalizers.items() {
            // Upstream's path names the list.
            self::finalizer(finalizers.with(finalizer.value()), &mut errors);
        }
        errors
    }

    fn validate_update(&self, _namespace: &Value, _old: &Value) -> Errors {
        Errors::new()
    }

    fn validate_subresource_update(&self, _subresource: &str, namespace: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(namespace);
        let spec = root.field("spec");
        for finalizer in spec.field("finalizers").items() {
            self::finalizer(finalizer, &mut errors);
        }
        errors
    }

    fn validate_status_update(&self, namespace: &Value, _old: &Value) -> Errors {
        let phase = read::text(namespace, "status.phase");
        let (expected, why) = if read::text(namespace, "metadata.deletionTimestamp").is_empty() {
            ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
        } else {
            ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
        };
        if phase == expected {
            return Errors::new();
        }
        // Upstream's message capitalizes the field name.
        [FieldError::invalid(&FieldPath::new("status").child("Phase"), json!(phase), why)].into()
    }

    fn begin_deletion(&self, namespace: &mut Value) {
        let mut status = namespace.get("status").cloned().unwrap_or_else(|| json!({}));
        set(&mut status, "phase", json!("Terminating"));
        set(namespace, "status", status);
    }

    fn holds_deletion(&self, namespace: &Value) -> bool {
        !read::list(namespace, "spec.finalizers").is_empty()
    }
}

fn set(namespace: &mut Value, field: &str, value: Value) {
    if let Some(fields) = namespace.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_finalizers() {
        let fields =
            |errors: Errors| errors.into_iter().map(|error| error.field.to_string()).collect::<Vec<_>>();
        for (finalizers, expected) in [
            (json!(["kubernetes", "orphan", "example.com/f"]), 0),
            (json!(["mine"]), 1),
            (json!(["kubernetes", "a b/c"]), 1),
            (json!([""]), 3),
        ] {
            let namespace = json!({"metadata": {"name": "n"}, "spec": {"finalizers": finalizers}});
            let found = fields(NamespaceStrategy.validate(&namespace));
            assert_eq!(found, vec!["spec.finalizers"; expected], "{finalizers}");
            let found =
                fields(NamespaceStrategy.validate_subresource_update("finalize", &namespace, &namespace));
            assert!(
                found.len() == expected && found.iter().all(|at| at.starts_with("spec.finalizers[")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn namespace_exists_until_it_is_finalized() {
        let mut namespace = json!({"metadata": {"name": "n"}});
        NamespaceStrategy.default(&mut namespace, "v1");
        assert_eq!(namespace["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "n"}));
        assert_eq!(namespace["status"], json!({"phase": "Active"}));
        NamespaceStrategy.prepare_for_create(&mut namespace);
        assert_eq!(namespace["spec"], json!({"finalizers": ["kubernetes"]}));
        assert_eq!(namespace["status"], json!({"phase": "Active"}));

        let mut update = json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}});
        NamespaceStrategy.prepare_for_update(&mut update, &namespace);
        assert!(NamespaceStrategy.holds_deletion(&update));

        let mut finalized = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["a/b"], "more": 1}});
        NamespaceStrategy.prepare_for_subresource_update("finalize", &mut finalized, &namespace);
        assert_eq!(finalized["spec"], json!({"finalizers": ["a/b"]}));
        assert_eq!(finalized["status"], json!({"phase": "Active"}));

        NamespaceStrategy.begin_deletion(&mut namespace);
        assert_eq!(namespace["status"]["phase"], "Terminating");
        assert!(!NamespaceStrategy.holds_deletion(&json!({"spec": {}})));
    }
}
