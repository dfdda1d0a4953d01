//! The deletion of a definition, which also deletes its objects (upstream: `Delete` in
//! `pkg/registry/customresourcedefinition`).

use nave_machinery::{Value, conditions, meta, time};
use serde_json::json;

use super::{CLEANUP_FINALIZER, names};

/// Returns whether a definition must be kept when it is deleted, because its objects are deleted first.
pub(crate) fn is_held(definition: &Value) -> bool {
    meta::deletion_timestamp(definition).is_none()
}

/// Marks a definition whose deletion has begun.
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
        // After the cleanup, another delete request does not start a second one.
        definition["metadata"]["finalizers"] = json!(["example.com/own"]);
        begin(&mut definition);
        assert_eq!(definition["metadata"]["finalizers"], json!(["example.com/own"]));
    }
}
