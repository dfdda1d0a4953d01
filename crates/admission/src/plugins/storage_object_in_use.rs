//! StorageObjectInUseProtection adds finalizers to volumes, claims and volume attributes classes (upstream:
//! `plugin/pkg/admission/storage/storageobjectinuseprotection`).

use async_trait::async_trait;
use nave_machinery::{Object, Status};

use super::pods::list_mut;
use crate::{Attributes, Mutate, Plugin};

/// The protected resources, and the finalizer that the protection controller removes.
const PROTECTED: [(&str, &str, &str); 3] = [
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

/// StorageObjectInUseProtection.
pub(super) fn plugin() -> Plugin {
    Plugin::mutating(StorageObjectInUse)
}

struct StorageObjectInUse;

fn finalizer(attributes: &Attributes<'_>) -> Option<&'static str> {
    let protected = PROTECTED.iter().find(|(group, resource, _)| attributes.is_resource(group, resource));
    protected.map(|(_, _, finalizer)| *finalizer)
}

#[async_trait]
impl Mutate for StorageObjectInUse {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_create() && attributes.is_object() && finalizer(attributes).is_some()
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let (Some(finalizer), Some(object)) = (finalizer(attributes), object) else { return Ok(()) };
        if let Some(finalizers) = list_mut(object.metadata_mut(), "finalizers")
            && !finalizers.iter().any(|found| found == finalizer)
        {
            finalizers.push(finalizer.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;
    use crate::testing::{Request, registry};

    #[tokio::test]
    async fn adds_the_finalizer_once() {
        for (group, resource, finalizer) in PROTECTED {
            for (given, expected) in [
                (json!({"name": "a"}), json!([finalizer])),
                (json!({"name": "a", "finalizers": ["x"]}), json!(["x", finalizer])),
                (json!({"name": "a", "finalizers": [finalizer]}), json!([finalizer])),
            ] {
                let mut request =
                    Request::new(registry(), group, resource, json!({"metadata": given}), Value::Null);
                request.mutate(&StorageObjectInUse).await.unwrap();
                assert_eq!(request.object["metadata"]["finalizers"], expected);
            }
        }
        let mut other = Request::new(registry(), "", "secrets", json!({"metadata": {}}), Value::Null);
        other.mutate(&StorageObjectInUse).await.unwrap();
        assert_eq!(other.object, json!({"metadata": {}}));
    }
}
