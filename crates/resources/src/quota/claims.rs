//! The quota usage of persistent volume claims.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use nave_machinery::quantity::Quantity;

use super::{Usage, one, read};

/// The infix between a storage class and the counted resource.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
/// The legacy annotation for the storage class.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Returns the usage of a persistent volume claim.
pub fn claim(claim: &PersistentVolumeClaim) -> Usage {
    let mut usage = Usage::from([
        ("count/persistentvolumeclaims".to_owned(), one()),
        ("persistentvolumeclaims".to_owned(), one()),
    ]);
    let storage = storage(claim);
    if let Some(storage) = storage {
        usage.insert("requests.storage".to_owned(), storage);
    }
    if let Some(class) = class(claim) {
        usage.insert(format!("{class}{OF_CLASS}persistentvolumeclaims"), one());
        if let Some(storage) = storage {
            usage.insert(format!("{class}{OF_CLASS}requests.storage"), storage);
        }
    }
    usage
}

/// Returns whether a quota counts claims under this name.
pub fn is_claim_name(name: &str) -> bool {
    let of_class = name.split_once(OF_CLASS).is_some_and(|(class, what)| {
        !class.is_empty() && matches!(what, "persistentvolumeclaims" | "requests.storage")
    });
    of_class || matches!(name, "count/persistentvolumeclaims" | "persistentvolumeclaims" | "requests.storage")
}

/// Returns the requested storage or the allocated storage, whichever is larger.
fn storage(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let spec = claim.spec.as_ref()?;
    let requested = *read(spec.resources.as_ref()?.requests.as_ref()).get("storage")?;
    let status = claim.status.as_ref();
    let allocated = read(status.and_then(|status| status.allocated_resources.as_ref()));
    Some(allocated.get("storage").copied().filter(|allocated| *allocated > requested).unwrap_or(requested))
}

fn class(claim: &PersistentVolumeClaim) -> Option<&str> {
    let annotated = claim.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
    let named = annotated.or_else(|| claim.spec.as_ref()?.storage_class_name.as_ref());
    named.map(String::as_str).filter(|class| !class.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_count_in_total_and_by_class() {
        let mut object = json!({
            "metadata": {"name": "c"},
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}
        });
        let used = |object: &serde_json::Value| claim(&serde_json::from_value(object.clone()).unwrap());
        let found = used(&object);
        assert_eq!(found.len(), 5);
        assert!(found.keys().all(|name| is_claim_name(name)));
        assert_eq!(found["requests.storage"].to_string(), "1Gi");
        assert_eq!(found["fast.storageclass.storage.k8s.io/requests.storage"].to_string(), "1Gi");
        assert_eq!(found["fast.storageclass.storage.k8s.io/persistentvolumeclaims"].to_string(), "1");
        object["status"] = json!({"allocatedResources": {"storage": "2Gi"}});
        assert_eq!(used(&object)["requests.storage"].to_string(), "2Gi");
        object["spec"]["storageClassName"] = json!("");
        assert_eq!(used(&object).len(), 3);
    }
}
