//! Volumes and claims cannot vanish while they are used (upstream:
//! `plugin/pkg/admission/storage/storageobjectinuseprotection`).

use nave_machinery::{Status, Value};
use serde_json::json;

use super::{Attributes, Operation, Plugin, is};

/// The kinds that are protected, and the finalizer that holds each until its controller takes it.
const PROTECTED: [(&str, &str); 2] = [
    ("persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("persistentvolumes", "kubernetes.io/pv-protection"),
];

/// Gives new volumes and claims their finalizer.
pub struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Value>) -> Result<(), Status> {
        let created = matches!(attributes.operation, Operation::Create) && attributes.subresource.is_empty();
        let found = PROTECTED.iter().find(|(resource, _)| created && is(attributes.def, resource));
        let metadata = object.and_then(|object| object.get_mut("metadata")).and_then(Value::as_object_mut);
        let (Some((_, finalizer)), Some(metadata)) = (found, metadata) else { return Ok(()) };
        let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(finalizers) = finalizers.as_array_mut()
            && !finalizers.iter().any(|found| found == finalizer)
        {
            finalizers.push(json!(finalizer));
        }
        Ok(())
    }
}
