//! Discovery of the served resources, for controllers that handle every type.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::core::discovery::v2::{APIGroupDiscoveryList, APIResourceDiscovery};
use kube::discovery::ApiResource;
use nave_machinery::GroupVersionResource;
use parking_lot::Mutex;

/// A resource in one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Resource {
    /// The API group; empty for the core group.
    pub(crate) group: String,
    /// The version.
    pub(crate) version: String,
    /// The plural name in paths.
    pub(crate) plural: String,
    /// The kind.
    pub(crate) kind: String,
    /// True if its objects are namespaced.
    pub(crate) namespaced: bool,
    /// The supported verbs.
    pub(crate) verbs: Vec<String>,
    /// The subresources.
    pub(crate) subresources: Vec<String>,
}

impl Resource {
    pub(crate) fn serves(&self, verb: &str) -> bool {
        self.verbs.iter().any(|served| served == verb)
    }

    /// Group and version as in `apiVersion`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    pub(crate) fn resource(&self) -> GroupVersionResource {
        GroupVersionResource::new(&self.group, &self.version, &self.plural)
    }

    /// Converts the resource to the type that kube's client uses.
    pub(crate) fn api_resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.clone(),
            version: self.version.clone(),
            api_version: self.api_version(),
            kind: self.kind.clone(),
            plural: self.plural.clone(),
        }
    }
}

/// A cached discovery document, refreshed on use if it is older than [`FRESH`].
pub(crate) struct DiscoveryCache {
    client: kube::Client,
    kept: Mutex<Option<(Instant, Arc<Discovered>)>>,
}

impl DiscoveryCache {
    /// An empty cache.
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client, kept: Mutex::default() }
    }

    /// The served resources, at most half a minute old.
    ///
    /// # Errors
    /// The API server returned an error or did not respond.
    pub(crate) async fn get(&self) -> Result<Arc<Discovered>, kube::Error> {
        if let Some((at, known)) = self.kept.lock().as_ref()
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(known));
        }
        let discovered = Arc::new(Discovered::discover(&self.client).await?);
        *self.kept.lock() = Some((Instant::now(), Arc::clone(&discovered)));
        Ok(discovered)
    }
}

/// The maximum age of the cached document; served resources rarely change.
const FRESH: Duration = Duration::from_secs(30);

/// The resources that a server serves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Discovered {
    /// By group and plural; the preferred version is first.
    resources: HashMap<(String, String), Vec<Resource>>,
    /// The group versions whose resources are unknown because their aggregated server does not respond.
    pub(crate) failed: Vec<String>,
}

impl Discovered {
    /// Reads the discovery documents of the server.
    ///
    /// # Errors
    /// The request failed or its response cannot be read. An aggregated server that does not respond is not an
    /// error; its group versions are in [`failed`](Self::failed).
    pub(crate) async fn discover(client: &kube::Client) -> Result<Self, kube::Error> {
        let mut discovered = Self::default();
        discovered.add_groups(client.list_core_api_versions_aggregated().await?);
        discovered.add_groups(client.list_api_groups_aggregated().await?);
        discovered.failed.sort();
        Ok(discovered)
    }

    /// All resources, each in its preferred version.
    pub(crate) fn preferred(&self) -> impl Iterator<Item = &Resource> {
        self.resources.values().filter_map(|versions| versions.first())
    }

    /// The resource of a group and plural, in its preferred version.
    pub(crate) fn resource(&self, group: &str, plural: &str) -> Option<&Resource> {
        self.resources.get(&(group.to_owned(), plural.to_owned()))?.first()
    }

    /// The preferred version of a group, if the group has resources.
    pub(crate) fn version_of(&self, group: &str) -> Option<&str> {
        let preferred = self.preferred().find(|resource| resource.group == group)?;
        Some(&preferred.version)
    }

    /// The resource of a kind in this version. Falls back to the preferred version that has the kind.
    pub(crate) fn kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let of_kind = |resource: &&Resource| resource.group == group && resource.kind == kind;
        let versions = self.resources.values().find(|versions| versions.iter().any(|it| of_kind(&it)))?;
        let exact = versions.iter().find(|resource| resource.version == version);
        exact.or_else(|| versions.iter().find(of_kind))
    }

    fn add_groups(&mut self, list: APIGroupDiscoveryList) {
        for group in list.items {
            let group_name = group.metadata.and_then(|meta| meta.name).unwrap_or_default();
            for version in group.versions {
                let version_name = version.version.unwrap_or_default();
                if version.freshness.as_deref() == Some("Stale") {
                    self.failed.push(format!("{group_name}/{version_name}"));
                }
                for resource in version.resources {
                    let Some(resource) = read(resource, &group_name, &version_name) else { continue };
                    let key = (resource.group.clone(), resource.plural.clone());
                    self.resources.entry(key).or_default().push(resource);
                }
            }
        }
    }
}

fn read(resource: APIResourceDiscovery, group: &str, version: &str) -> Option<Resource> {
    Some(Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: resource.resource?,
        kind: resource.response_kind?.kind?,
        namespaced: resource.scope.as_deref() == Some("Namespaced"),
        verbs: resource.verbs,
        subresources: resource.subresources.into_iter().filter_map(|below| below.subresource).collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn discovered() -> Discovered {
        let resource = |plural: &str, kind: &str| {
            json!({"resource": plural, "responseKind": {"group": "", "version": "", "kind": kind},
                "scope": "Namespaced", "singularResource": "", "verbs": ["delete", "list"],
                "subresources": [{"subresource": "scale", "verbs": ["get"]}]})
        };
        let list = json!({"items": [
            {"metadata": {"name": ""}, "versions": [{"version": "v1", "resources": [resource("pods", "Pod")]}]},
            {"metadata": {"name": "example.com"}, "versions": [
                {"version": "v2", "resources": [resource("things", "Thing")]},
                {"version": "v1", "resources": [resource("things", "Thing"), resource("olds", "Old")]}]},
            {"metadata": {"name": "broken.io"}, "versions": [{"version": "v1", "freshness": "Stale"}]},
        ]});
        let mut discovered = Discovered::default();
        discovered.add_groups(serde_json::from_value(list).unwrap());
        discovered
    }

    #[test]
    fn finds_resources_in_their_preferred_version() {
        let discovered = discovered();
        let mut found: Vec<_> =
            discovered.preferred().map(|it| format!("{} {}", it.api_version(), it.plural)).collect();
        found.sort();
        assert_eq!(found, ["example.com/v1 olds", "example.com/v2 things", "v1 pods"]);
        assert_eq!(discovered.failed, ["broken.io/v1"]);
        let pods = discovered.resource("", "pods").unwrap();
        assert!(pods.namespaced && pods.serves("delete") && !pods.serves("watch"));
        assert_eq!(pods.subresources, ["scale"]);
    }

    #[test]
    fn finds_kinds_in_the_given_version_or_another() {
        let discovered = discovered();
        let version = |api_version: &str, kind: &str| {
            discovered.kind(api_version, kind).map(|resource| resource.version.as_str())
        };
        assert_eq!(version("example.com/v1", "Thing"), Some("v1"));
        assert_eq!(version("example.com/v9", "Thing"), Some("v2"));
        assert_eq!(version("v1", "Pod"), Some("v1"));
        assert_eq!(version("other.com/v1", "Thing"), None);
    }
}
