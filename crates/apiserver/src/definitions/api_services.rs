//! The APIServices of groups of custom resources (upstream: `crdRegistrationController` and `autoregister` of
//! `kube-aggregator`).

use std::collections::BTreeSet;

use nave_machinery::options::DeleteOptions;
use nave_machinery::{GroupVersionResource, Status, Value, meta};
use serde_json::json;

use super::Definitions;
use crate::endpoints::Endpoint;
use crate::internal::InternalWriter;

/// Label of APIServices that the server creates and deletes.
const AUTOMANAGED: (&str, &str) = ("kube-aggregator.kubernetes.io/automanaged", "true");
/// Priorities of all groups and versions of custom resources, as upstream.
const GROUP_PRIORITY: u32 = 1000;
const VERSION_PRIORITY: u32 = 100;

impl Definitions {
    /// Creates the APIServices of the served versions of a group, and deletes those of other versions.
    ///
    /// # Errors
    /// An APIService cannot be written.
    pub(super) async fn sync_api_services(&self, group: &str) -> Result<(), Status> {
        let catalog = self.catalogs.load();
        let resource = GroupVersionResource::new("apiregistration.k8s.io", "v1", "apiservices");
        let Some(endpoint) = catalog.endpoint(&resource) else { return Ok(()) };
        let storage = endpoint.storage()?;
        let served = catalog.registry().group(group).filter(|group| group.is_custom());
        let served: BTreeSet<&String> = served.into_iter().flat_map(|group| &group.versions).collect();
        let writer = InternalWriter::new(endpoint, &self.admission);
        for version in &served {
            if storage.find("", &format!("{version}.{group}")).is_none() {
                tolerate(409, writer.create("", api_service(group, version)).await.map(drop))?;
            }
        }
        for name in surplus(endpoint, group, &served)? {
            tolerate(404, writer.delete(("", &name), &DeleteOptions::default()).await)?;
        }
        Ok(())
    }
}

/// Returns the names of automanaged APIServices whose version of the group is not served.
fn surplus(endpoint: &Endpoint, group: &str, served: &BTreeSet<&String>) -> Result<Vec<String>, Status> {
    let storage = endpoint.storage()?;
    let suffix = format!(".{group}");
    let mut names = Vec::new();
    for cached in storage.cacher().snapshot().range("", None).filter(|it| it.name().ends_with(&suffix)) {
        let object = storage.codec().parse_cached(cached)?;
        let spec = |field: &str| meta::value_at(&object, &["spec", field]).and_then(Value::as_str);
        let is_ours = meta::label(&object, AUTOMANAGED.0) == Some(AUTOMANAGED.1);
        let is_served = spec("version").is_some_and(|version| served.iter().any(|it| *it == version));
        if is_ours && spec("group") == Some(group) && !is_served {
            names.push(cached.name().to_owned());
        }
    }
    Ok(names)
}

fn api_service(group: &str, version: &str) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {AUTOMANAGED.0: AUTOMANAGED.1}},
        "spec": {
            "group": group,
            "version": version,
            "groupPriorityMinimum": GROUP_PRIORITY,
            "versionPriority": VERSION_PRIORITY,
        },
    })
}

/// Ignores an error with this code, which another writer has caused.
fn tolerate(code: u16, outcome: Result<(), Status>) -> Result<(), Status> {
    outcome.or_else(|status| if status.code == code { Ok(()) } else { Err(status) })
}
