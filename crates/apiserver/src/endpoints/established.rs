//! Custom resources that another server on the same store has established.
//!
//! A client that has seen the condition `Established` through one server may send its next request to another one, which
//! serves the resource a moment later. So a request for an unknown resource asks the store for the definition, and waits
//! if it is established. (Upstream delays the condition by five seconds when there are several servers.)

use std::sync::Arc;
use std::time::Duration;

use nave_machinery::{GroupVersionResource, Status, Value, conditions, meta};
use nave_resources::storage_key;

use crate::catalog::{Catalog, Catalogs};

/// Returns a catalog that serves the resource; `None` if no established definition serves it.
///
/// # Errors
/// The error of the store.
pub(super) async fn find(
    catalogs: &Catalogs,
    gvr: &GroupVersionResource,
) -> Result<Option<Arc<Catalog>>, Status> {
    // Groups without a dot are built in.
    if !gvr.group.contains('.') {
        return Ok(None);
    }
    let definitions = GroupVersionResource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let Some(storage) = catalogs.load().storages().get(&definitions).cloned() else { return Ok(None) };
    let name = format!("{}.{}", gvr.resource, gvr.group);
    let Ok(key) = storage_key(storage.def(), None, &name) else { return Ok(None) };
    let Some(definition) = storage.get_latest(&key).await? else { return Ok(None) };
    if !serves(&storage.codec().parse_cached(&definition)?, &gvr.version) {
        return Ok(None);
    }
    Ok(tokio::time::timeout(MAX_WAIT, catalogs.wait_until_served(gvr)).await.ok().flatten())
}

/// Returns whether a definition is established and serves a version.
fn serves(definition: &Value, version: &str) -> bool {
    let versions = meta::value_at(definition, &["spec", "versions"]).and_then(Value::as_array);
    let is_served = |of: &Value| of["name"] == version && of["served"] == true;
    conditions::is_true(definition, "Established") && versions.into_iter().flatten().any(is_served)
}

/// Maximum time until an established resource is served.
const MAX_WAIT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_serves_its_versions_once_it_is_established() {
        let definition = |status: &str| {
            json!({"spec": {"versions": [{"name": "v1", "served": true}, {"name": "v2", "served": false}]},
                "status": {"conditions": [{"type": "Established", "status": status}]}})
        };
        let served = ["v1", "v2", "v3"].map(|version| serves(&definition("True"), version));
        assert_eq!(served, [true, false, false]);
        assert!(!serves(&definition("False"), "v1") && !serves(&json!({}), "v1"));
    }
}
