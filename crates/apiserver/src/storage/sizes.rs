//! Sizes of the watch cache windows.

use std::collections::HashMap;

use nave_cacher::WindowBounds;
use nave_machinery::GroupResource;
use nave_resources::Registry;

/// Minimum number of events in each watch cache window (`--default-watch-cache-size`, `--watch-cache-sizes`). A window
/// grows from this size with the rate of changes.
///
/// In upstream, 0 disables the watch cache and any other size means the default. Here, reads and watches always use the
/// cache: 0 selects the shortest window that does not end watches that keep up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchCacheSizes {
    /// The size for resources not in `resources`.
    pub default: usize,
    /// Sizes by resource.
    pub resources: HashMap<GroupResource, usize>,
}

impl WatchCacheSizes {
    /// Upstream's default size.
    pub const DEFAULT: usize = 100;

    /// Returns the bounds of a resource's window.
    pub fn bounds(&self, resource: &GroupResource) -> WindowBounds {
        let usual = WindowBounds::default();
        match self.resources.get(resource).copied().unwrap_or(self.default) {
            0 => WindowBounds { max: SHORTEST, ..usual },
            size => WindowBounds { min: size, max: usual.max.max(size), ..usual },
        }
    }

    /// Returns the configured resources that do not exist, sorted by name. `registry` has the built-in resources.
    /// Ignores resources that may be custom: those in a group with a dot and without built-in resources.
    pub fn unknown(&self, registry: &Registry) -> Vec<String> {
        let is_stored = |name: &GroupResource| {
            registry.all().any(|def| def.storage.is_some() && def.group_resource() == *name)
        };
        let may_be_custom = |name: &GroupResource| {
            name.group.contains('.') && registry.all().all(|def| def.group != name.group)
        };
        let unknown = self.resources.keys().filter(|name| !is_stored(name) && !may_be_custom(name));
        let mut unknown: Vec<String> = unknown.map(ToString::to_string).collect();
        unknown.sort_unstable();
        unknown
    }
}

impl Default for WatchCacheSizes {
    fn default() -> Self {
        Self { default: Self::DEFAULT, resources: HashMap::new() }
    }
}

/// Number of events in the shortest window: enough for a burst during which a watcher lags behind.
const SHORTEST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_the_minimum_of_the_window() {
        let pods = GroupResource::new("", "pods");
        let nodes = GroupResource::new("", "nodes");
        let resources = HashMap::from([(pods.clone(), 200_000), (nodes.clone(), 0)]);
        let sizes = WatchCacheSizes { default: 300, resources };
        let of = |resource| {
            let WindowBounds { min, max, .. } = sizes.bounds(resource);
            (min, max)
        };
        assert_eq!(of(&pods), (200_000, 200_000));
        assert_eq!(of(&nodes), (100, 1024));
        assert_eq!(of(&GroupResource::new("apps", "deployments")), (300, 102_400));
        assert_eq!(WatchCacheSizes::default().bounds(&pods), WindowBounds::default());
    }

    #[test]
    fn names_resources_that_are_not_stored() {
        let named = [
            ("", "pods"),
            ("apps", "pods"),
            ("", "podz"),
            ("apps", "deployments"),
            ("", "bindings"),
            ("example.com", "widgets"),
            ("policy", "widgets"),
            ("rbac.authorization.k8s.io", "rolez"),
        ];
        let resources = named.map(|(group, resource)| (GroupResource::new(group, resource), 1));
        let sizes = WatchCacheSizes { default: 300, resources: resources.into() };
        let registry = Registry::builtin(nave_schema::builtin());
        let unknown = ["bindings", "pods.apps", "podz", "rolez.rbac.authorization.k8s.io", "widgets.policy"];
        assert_eq!(sizes.unknown(&registry), unknown);
    }
}
