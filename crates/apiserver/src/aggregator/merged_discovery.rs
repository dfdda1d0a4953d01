//! The aggregated discovery document of this server and of aggregated servers.

use std::sync::Arc;

use bytes::Bytes;
use nave_resources::{Registry, discovery};
use parking_lot::Mutex;
use serde_json::Value;

use super::directory::{ApiServices, GroupVersions};
use super::discovery::VersionResources;
use crate::aggregated_discovery::{AggregatedDiscovery, Document};
use crate::raw_response;

type Resources = imbl::OrdMap<String, Arc<VersionResources>>;

/// The latest document with the states that it was made from.
#[derive(Default)]
pub(super) struct MergedDiscovery(Mutex<Option<Made>>);

struct Made {
    registry: Arc<Registry>,
    services: Arc<ApiServices>,
    resources: Arc<Resources>,
    document: Document,
}

impl MergedDiscovery {
    /// Returns the document at `/apis`.
    pub(super) fn named(
        &self,
        registry: &Arc<Registry>,
        own: &AggregatedDiscovery,
        services: Arc<ApiServices>,
        resources: Arc<Resources>,
    ) -> Document {
        let mut made = self.0.lock();
        if let Some(made) = &*made
            && Arc::ptr_eq(&made.registry, registry)
            && Arc::ptr_eq(&made.services, &services)
            && Arc::ptr_eq(&made.resources, &resources)
        {
            return made.document.clone();
        }
        let groups = services.groups(registry);
        let named = groups.iter().filter(|group| !group.name.is_empty());
        let parts: Vec<Bytes> =
            named.map(|group| part(group, registry, own, &services, &resources)).collect();
        let json = Bytes::from(discovery::aggregated(parts.iter().map(AsRef::as_ref)));
        let document = Document { etag: raw_response::etag(&json), json };
        let registry = Arc::clone(registry);
        *made = Some(Made { registry, services, resources, document: document.clone() });
        document
    }
}

/// Returns the JSON of a group.
fn part(
    group: &GroupVersions,
    registry: &Registry,
    own: &AggregatedDiscovery,
    services: &ApiServices,
    resources: &Resources,
) -> Bytes {
    let name = &group.name;
    let is_remote = |version: &String| services.remote(name, version).is_some();
    let own = registry.group(name).map(|group| own.part(group));
    if let Some(own) = &own
        && !group.versions.iter().any(is_remote)
    {
        return own.clone();
    }
    let own: Value = own.and_then(|own| serde_json::from_slice(&own).ok()).unwrap_or_default();
    let own_versions = own["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let versions = group.versions.iter().filter_map(|version| match services.remote(name, version) {
        Some(service) => Some(remote_version(version, resources.get(&service.name).map(AsRef::as_ref))),
        None => own_versions.iter().find(|own| own["version"] == **version).map(Value::to_string),
    });
    let versions = versions.collect::<Vec<_>>().join(",");
    let name = Value::from(name.as_str());
    Bytes::from(format!(r#"{{"metadata":{{"name":{name}}},"versions":[{versions}]}}"#))
}

fn remote_version(version: &str, resources: Option<&VersionResources>) -> String {
    let unknown = VersionResources::unknown();
    let VersionResources { resources, is_stale, .. } = resources.unwrap_or(&unknown);
    let freshness = if *is_stale { "Stale" } else { "Current" };
    let version = Value::from(version);
    format!(r#"{{"version":{version},"resources":{resources},"freshness":"{freshness}"}}"#)
}
