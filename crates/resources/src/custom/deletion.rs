//! The deletion of a definition, which also deletes its objects (upstream: `Delete` in
//! `pkg/registry/customresourcedefinition`).

use nave_machinery::{Value, conditions, meta, time};
use serde_json::json;

use super::{CLEANUP_FINALIZER, names};

/// Returns whether a delete request must keep the definition. The first request keeps it until its objects are
/// deleted.
pub(crate) fn is_held(definition: &Value) -> bool {
    meta::deletion_timestamp(definition).is_none()
}

/// Marks the definition as terminating and adds the cleanup finalizer.
pub(crate) fn begin(definition: &mut Value) {
    if conditions::find(definition, "Terminating").is_some() {
        return;
    }
    let mut finalizers: Vec<Value> = meta::finalizers(definition).into_iter().map(|it| json!(it)).collect();
    if !finalizers.iter().any(|finalizer| finalizer == CLEANUP_FINALIZER) {
        finalizers.push(json!(CLEANUP_FINALIZER));
    }
    meta::set(definition, "finalizers", Value::Array(finalizers));
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    names::set(definition, "Terminating", true, "InstanceDeletionPending", message, &time::now().rfc3339());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_deletion_waits_for_the_finalizer() {
        let mut definition = json!({"metadata": {"finalizers": ["example.com/own"]}});
        assert!(is_held(&definition));
        definition["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!is_held(&definition));
        begin(&mut definition);
        assert_eq!(definition["metadata"]["finalizers"], json!(["example.com/own", CLEANUP_FINALIZER]));
        assert!(conditions::is_true(&definition, "Terminating"));
        // A delete request after the cleanup does not start another cleanup.
        definition["metadata"]["finalizers"] = json!(["example.com/own"]);
        begin(&mut definition);
        assert_eq!(definition["metadata"]["finalizers"], json!(["example.com/own"]));
    }
}
