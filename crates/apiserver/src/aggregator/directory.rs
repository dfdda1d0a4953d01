//! All APIServices, as one value.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use nave_resources::Registry;
use nave_resources::custom::versions;

use super::api_service::ApiService;

/// The current APIServices, replaced as a whole.
#[derive(Default)]
pub(crate) struct Directory(ArcSwap<ApiServices>);

/// A state of all APIServices.
#[derive(Clone, Default)]
pub(crate) struct ApiServices {
    by_name: imbl::OrdMap<String, Arc<ApiService>>,
    /// Those of aggregated servers, by group and version.
    remotes: imbl::OrdMap<(String, String), Arc<ApiService>>,
}

/// A group with its versions, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupVersions {
    /// The group.
    pub(crate) name: String,
    /// The versions.
    pub(crate) versions: Vec<String>,
}

impl Directory {
    /// Returns the current state.
    pub(crate) fn load(&self) -> Arc<ApiServices> {
        self.0.load_full()
    }

    /// Replaces the state. Only one task may do so.
    pub(super) fn store(&self, services: ApiServices) {
        self.0.store(Arc::new(services));
    }
}

impl ApiServices {
    /// Adds or replaces an APIService.
    pub(super) fn insert(&mut self, service: ApiService) {
        self.remove(&service.name);
        let service = Arc::new(service);
        if service.remote.is_some() {
            let version = (service.group.clone(), service.version.clone());
            self.remotes.insert(version, Arc::clone(&service));
        }
        self.by_name.insert(service.name.clone(), service);
    }

    /// Removes an APIService.
    pub(super) fn remove(&mut self, name: &str) {
        let Some(old) = self.by_name.remove(name) else { return };
        if old.remote.is_some() {
            self.remotes.remove(&(old.group.clone(), old.version.clone()));
        }
    }

    /// Returns the APIService with this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<ApiService>> {
        self.by_name.get(name)
    }

    /// Returns the names of all APIServices.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.by_name.keys()
    }

    /// Returns the APIServices of aggregated servers.
    pub(crate) fn remotes(&self) -> impl Iterator<Item = &Arc<ApiService>> {
        self.remotes.values()
    }

    /// Returns whether there is an aggregated server.
    pub(crate) fn has_remotes(&self) -> bool {
        !self.remotes.is_empty()
    }

    /// Returns the APIService of a version that an aggregated server serves.
    pub(crate) fn remote(&self, group: &str, version: &str) -> Option<&Arc<ApiService>> {
        if self.remotes.is_empty() {
            return None;
        }
        self.remotes.get(&(group.to_owned(), version.to_owned()))
    }

    /// Returns the groups of this server and of aggregated servers, the core group first. Groups are ordered by the
    /// highest `groupPriorityMinimum` of their versions, versions by `versionPriority` and then by their names.
    /// Groups of this server without APIServices stay behind their predecessors.
    pub(crate) fn groups(&self, registry: &Registry) -> Vec<GroupVersions> {
        let mut highest: BTreeMap<&str, i64> = BTreeMap::new();
        for service in self.by_name.values() {
            let priority = highest.entry(&service.group).or_insert(service.group_priority);
            *priority = service.group_priority.max(*priority);
        }
        let mut groups: Vec<(i64, GroupVersions)> = Vec::new();
        let mut previous = i64::MAX;
        for group in registry.groups() {
            let is_first = group.name.is_empty() || group.name == "apiregistration.k8s.io";
            let priority = if is_first { i64::MAX } else { *highest.get(&*group.name).unwrap_or(&previous) };
            previous = priority;
            let versions = self.versions(&group.name, group.versions.clone());
            groups.push((priority, GroupVersions { name: group.name.clone(), versions }));
        }
        let mut added: Vec<&str> = self.remotes.keys().map(|(group, _)| group.as_str()).collect();
        added.dedup();
        for group in added.into_iter().filter(|group| registry.group(group).is_none()) {
            let priority = highest.get(group).copied().unwrap_or_default();
            let versions = self.versions(group, Vec::new());
            groups.push((priority, GroupVersions { name: group.to_owned(), versions }));
        }
        // The sort is stable, so equal groups of this server keep their order.
        groups.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        groups.into_iter().map(|(_, group)| group).collect()
    }

    /// Adds the versions of aggregated servers to those of this server.
    fn versions(&self, group: &str, mut versions: Vec<String>) -> Vec<String> {
        let remotes = self.remotes.keys().filter(|(of, _)| of == group);
        let added: Vec<_> = remotes.map(|(_, version)| version).filter(|it| !versions.contains(it)).collect();
        if added.is_empty() {
            return versions;
        }
        versions.extend(added.into_iter().cloned());
        let priority = |version: &String| {
            let service = self.by_name.get(&format!("{version}.{group}"));
            service.map_or(0, |service| service.version_priority)
        };
        versions.sort_by(|one, other| {
            priority(other).cmp(&priority(one)).then_with(|| versions::compare(one, other))
        });
        versions
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(group: &str, version: &str, priorities: (i64, i64), is_remote: bool) -> ApiService {
        let mut object = json!({"metadata": {"name": format!("{version}.{group}")}, "spec": {
            "group": group, "version": version,
            "groupPriorityMinimum": priorities.0, "versionPriority": priorities.1}});
        if is_remote {
            object["spec"]["service"] = json!({"namespace": "n", "name": "s"});
            object["spec"]["insecureSkipTLSVerify"] = json!(true);
        }
        ApiService::read(&object, None)
    }

    #[test]
    fn groups_and_versions_follow_their_priorities() {
        let registry = Registry::builtin(nave_schema::builtin());
        let mut services = ApiServices::default();
        services.insert(service("apps", "v1", (17_800, 15), false));
        services.insert(service("batch", "v1", (17_400, 15), false));
        for (group, version, priorities) in [
            ("low.example", "v1", (100, 100)),
            ("high.example", "v1beta1", (17_500, 10)),
            ("high.example", "v2", (17_500, 10)),
            ("high.example", "v3", (17_500, 9)),
            ("batch", "v9", (1, 20)),
        ] {
            services.insert(service(group, version, priorities, true));
        }
        let groups = services.groups(&registry);
        let find = |name: &str| groups.iter().position(|group| group.name == name).unwrap();
        assert_eq!((find(""), find("apiregistration.k8s.io") < find("apps")), (0, true));
        assert!(find("apps") < find("high.example") && find("high.example") < find("batch"));
        assert_eq!(find("low.example"), groups.len() - 1);
        assert_eq!(groups[find("high.example")].versions, ["v2", "v1beta1", "v3"]);
        assert_eq!(groups[find("batch")].versions, ["v9", "v1"]);
    }

    #[test]
    fn removed_servers_leave_nothing() {
        let registry = Registry::builtin(nave_schema::builtin());
        let mut services = ApiServices::default();
        services.insert(service("a.example", "v1", (1, 1), true));
        assert!(services.has_remotes() && services.remote("a.example", "v1").is_some());
        assert!(services.remote("a.example", "v2").is_none());
        // The version moves to this server.
        services.insert(service("a.example", "v1", (1, 1), false));
        assert!(!services.has_remotes());
        services.remove("v1.a.example");
        assert_eq!(services.names().count(), 0);
        let names = |groups: Vec<GroupVersions>| groups.into_iter().map(|it| it.name).collect::<Vec<_>>();
        let own: Vec<_> = registry.groups().iter().map(|group| group.name.clone()).collect();
        assert_eq!(names(services.groups(&registry)), own);
    }
}
