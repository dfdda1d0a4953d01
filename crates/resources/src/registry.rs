//! The registry of served resources, an immutable value.

use std::sync::Arc;
use std::time::Duration;

use nave_machinery::{GroupVersionKind, GroupVersionResource};
use nave_schema::SchemaSet;

use crate::custom::versions;
use crate::def::{ResourceDef, ResourceVersion};
use crate::optional;
use crate::pod;

/// All served resources by group, in discovery order. A change creates a new registry that shares the unchanged
/// parts.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    groups: Vec<Arc<Group>>,
    by_resource: imbl::HashMap<GroupVersionResource, Arc<ResourceDef>>,
    by_kind: imbl::HashMap<GroupVersionKind, Arc<ResourceDef>>,
    /// The storage prefixes of the built-in resources.
    reserved: Arc<[String]>,
}

/// An API group with its versions and resources.
#[derive(Clone, Debug)]
pub struct Group {
    /// The name; empty for the core group.
    pub name: String,
    /// The served versions, in order of preference.
    pub versions: Vec<String>,
    /// The resources, sorted by name.
    pub resources: Vec<Arc<ResourceDef>>,
}

impl Group {
    /// Returns whether all resources of the group are custom resources.
    pub fn is_custom(&self) -> bool {
        self.resources.iter().all(|def| def.is_custom())
    }
}

impl Registry {
    /// Creates a registry of these groups.
    pub fn new(groups: Vec<Group>) -> Self {
        let mut registry = Self::default();
        for group in groups {
            for def in &group.resources {
                registry.insert(def);
            }
            registry.groups.push(Arc::new(group));
        }
        let builtin = registry.all().filter(|def| !def.is_custom());
        let prefix = |def: &Arc<ResourceDef>| def.storage.as_ref().map(|storage| storage.prefix.clone());
        registry.reserved = builtin.filter_map(prefix).collect();
        registry
    }

    /// Creates a registry of the built-in resources that are served by default, with their types looked up in `schemas`.
    pub fn builtin(schemas: &SchemaSet) -> Self {
        Self::builtin_with(schemas, |resource| optional::is_enabled_by_default(&resource.version))
    }

    /// Creates a registry of the built-in resources and versions for which `serves` returns true. The storage prefixes
    /// of the others stay reserved; managed fields of the others are still understood.
    pub fn builtin_with(schemas: &SchemaSet, serves: impl Fn(&GroupVersionResource) -> bool) -> Self {
        let mut groups = crate::groups::builtin(schemas);
        let reserved = Self::new(groups.clone()).reserved;
        for group in &mut groups {
            for def in &mut group.resources {
                let def = Arc::make_mut(def);
                let (group, resource) = (&def.group, &def.resource);
                let is_served = |version: &ResourceVersion| {
                    serves(&GroupVersionResource::new(&**group, &*version.name, &**resource))
                };
                (def.versions, def.unserved) =
                    std::mem::take(&mut def.versions).into_iter().partition(is_served);
            }
            group.resources.retain(|def| !def.versions.is_empty());
            let resources = &group.resources;
            group.versions.retain(|version| resources.iter().any(|def| def.version(version).is_some()));
        }
        groups.retain(|group| !group.resources.is_empty());
        Self { reserved, ..Self::new(groups) }
    }

    /// Returns a registry in which objects that expire (events) do so after `ttl`; zero means never.
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        let mut groups: Vec<Group> = self.groups.iter().map(|group| Group::clone(group)).collect();
        for def in groups.iter_mut().flat_map(|group| &mut group.resources) {
            let expires = def.storage.as_ref().is_some_and(|storage| storage.ttl.is_some());
            if let (true, Some(storage)) = (expires, &mut Arc::make_mut(def).storage) {
                storage.ttl = Some(ttl).filter(|ttl| !ttl.is_zero());
            }
        }
        Self { reserved: self.reserved, ..Self::new(groups) }
    }

    /// Returns a registry in which pods and pod templates must not have privileged containers.
    #[must_use]
    pub fn without_privileged(self) -> Self {
        let mut groups: Vec<Group> = self.groups.iter().map(|group| Group::clone(group)).collect();
        for def in groups.iter_mut().flat_map(|group| &mut group.resources) {
            if pod::spec_path(&def.group, &def.resource).is_some() {
                Arc::make_mut(def).rules.refuses_privileged = true;
            }
        }
        Self { reserved: self.reserved, ..Self::new(groups) }
    }

    /// Returns whether a key prefix equals, contains, or is below the prefix of a built-in resource. A custom
    /// resource with such a prefix would share keys with the built-in resource and give access to its objects.
    pub fn is_reserved_prefix(&self, prefix: &str) -> bool {
        let is_below = |one: &str, other: &str| {
            one.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.reserved.iter().any(|reserved| is_below(prefix, reserved) || is_below(reserved, prefix))
    }

    /// Returns the groups in discovery order; the core group is the first.
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// Returns the group with this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name).map(AsRef::as_ref)
    }

    /// Returns all resources in discovery order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.groups.iter().flat_map(|group| &group.resources)
    }

    /// Returns the resource with this group, version and plural name.
    pub fn lookup(&self, resource: &GroupVersionResource) -> Option<&Arc<ResourceDef>> {
        self.by_resource.get(resource)
    }

    /// Returns the resource of this kind.
    pub fn by_kind(&self, kind: &GroupVersionKind) -> Option<&Arc<ResourceDef>> {
        self.by_kind.get(kind)
    }

    /// Returns a registry in which `custom` replaces all custom resources of the group. Built-in resources take
    /// precedence: a custom resource with the name or kind of a built-in resource in any version is omitted. A group
    /// without resources is removed.
    #[must_use]
    pub fn with_custom(&self, group: &str, custom: impl IntoIterator<Item = Arc<ResourceDef>>) -> Self {
        let mut registry = self.clone();
        let place = registry.groups.iter().position(|known| known.name == group);
        let known = place.and_then(|place| registry.groups.get(place)).cloned();
        let (old, mut resources): (Vec<_>, Vec<_>) =
            known.iter().flat_map(|known| &known.resources).cloned().partition(|def| def.is_custom());
        for def in &old {
            registry.remove(def);
        }
        let builtin: Vec<_> =
            resources.iter().flat_map(|def| &def.versions).map(|it| it.name.clone()).collect();
        let mut versions: Vec<String> = known.iter().flat_map(|known| known.versions.clone()).collect();
        versions.retain(|version| builtin.contains(version));
        let mut added = Vec::new();
        for def in custom {
            let is_taken =
                |known: &Arc<ResourceDef>| known.resource == def.resource || known.kind == def.kind;
            if resources.iter().any(is_taken) {
                continue;
            }
            for version in &def.versions {
                if !versions.contains(&version.name) && !added.contains(&version.name) {
                    added.push(version.name.clone());
                }
            }
            registry.insert(&def);
            resources.push(def);
        }
        added.sort_by(|one, other| versions::compare(one, other));
        versions.extend(added);
        resources.sort_by(|one, other| one.resource.cmp(&other.resource));
        resources.retain(|def| !def.versions.is_empty());
        let changed = Arc::new(Group { name: group.to_owned(), versions, resources });
        match place {
            Some(place) if changed.resources.is_empty() => drop(registry.groups.remove(place)),
            Some(place) => drop(std::mem::replace(&mut registry.groups[place], changed)),
            None if changed.resources.is_empty() => {}
            None => {
                // Custom groups follow the built-in groups and are sorted by name.
                let follows = |known: &Arc<Group>| known.is_custom() && *known.name > *group;
                let place = registry.groups.iter().position(follows).unwrap_or(registry.groups.len());
                registry.groups.insert(place, changed);
            }
        }
        registry
    }

    /// Returns whether the registry serves this instance of the definition.
    pub fn serves(&self, def: &Arc<ResourceDef>) -> bool {
        names(def).any(|(resource, _)| self.by_resource.get(&resource).is_some_and(|it| Arc::ptr_eq(it, def)))
    }

    fn insert(&mut self, def: &Arc<ResourceDef>) {
        for (resource, kind) in names(def) {
            self.by_resource.insert(resource, Arc::clone(def));
            self.by_kind.insert(kind, Arc::clone(def));
        }
    }

    fn remove(&mut self, def: &ResourceDef) {
        for (resource, kind) in names(def) {
            self.by_resource.remove(&resource);
            self.by_kind.remove(&kind);
        }
    }
}

/// The resources that two groups serve from the same stored objects: resource, group and the other group (upstream:
/// `AddCohabitatingResources`).
const COHABITING: [(&str, &str, &str); 2] =
    [("events", "", "events.k8s.io"), ("events", "events.k8s.io", "")];

/// Returns the resources of a group that another group also serves from the same stored objects, with the other group.
/// The resource `*` stands for all resources of the group.
pub fn cohabiting_resources(
    group: &str,
    resource: &str,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let found = COHABITING
        .into_iter()
        .filter(move |(of, in_group, _)| *in_group == group && (*of == resource || resource == "*"));
    found.map(|(resource, _, other)| (resource, other))
}

/// Returns the name and kind of a resource in each version.
fn names(def: &ResourceDef) -> impl Iterator<Item = (GroupVersionResource, GroupVersionKind)> {
    def.versions.iter().map(|version| {
        let resource = GroupVersionResource::new(&*def.group, &*version.name, &*def.resource);
        (resource, def.group_version(&version.name).with_kind(&*def.kind))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn custom(group: &str, plural: &str, kind: &str, versions: &[&str]) -> Arc<ResourceDef> {
        let versions: Vec<_> = versions
            .iter()
            .map(|name| json!({"name": name, "served": true, "storage": *name == versions[0]}))
            .collect();
        let names =
            json!({"plural": plural, "kind": kind, "singular": "one", "listKind": format!("{kind}List")});
        let definition = json!({"spec": {"group": group, "scope": "Namespaced", "versions": versions},
            "status": {"acceptedNames": names}});
        Arc::new(crate::custom::resource(&definition).unwrap())
    }

    fn versions(registry: &Registry, group: &str) -> Vec<String> {
        registry.group(group).map(|group| group.versions.clone()).unwrap_or_default()
    }

    #[test]
    fn the_ttl_applies_to_objects_that_expire() {
        let ttl_of = |registry: &Registry, group: &str, resource: &str| {
            let def = registry.lookup(&GroupVersionResource::new(group, "v1", resource)).unwrap();
            def.storage.as_ref().unwrap().ttl
        };
        for (set, expected) in [(90, Some(Duration::from_secs(90))), (0, None)] {
            let registry = Registry::builtin(&SchemaSet::default()).with_ttl(Duration::from_secs(set));
            assert_eq!(ttl_of(&registry, "", "events"), expected);
            assert_eq!(ttl_of(&registry, "events.k8s.io", "events"), expected);
            assert_eq!(ttl_of(&registry, "", "pods"), None);
            assert!(registry.is_reserved_prefix("/registry/events"));
        }
    }

    #[test]
    fn custom_resources_come_and_go_by_group() {
        let builtin = Registry::builtin(&SchemaSet::default());
        let count = builtin.groups().len();
        let registry = builtin
            .with_custom("b.example.com", [custom("b.example.com", "bees", "Bee", &["v1"])])
            .with_custom(
                "a.example.com",
                [
                    custom("a.example.com", "ants", "Ant", &["v1beta1", "v2"]),
                    custom("a.example.com", "apes", "Ape", &["v1"]),
                ],
            );
        assert_eq!(registry.groups()[count].name, "a.example.com");
        assert_eq!(registry.groups()[count + 1].name, "b.example.com");
        assert_eq!(versions(&registry, "a.example.com"), ["v2", "v1", "v1beta1"]);
        let ants = GroupVersionResource::new("a.example.com", "v2", "ants");
        assert!(registry.lookup(&ants).is_some() && builtin.lookup(&ants).is_none());
        let registry =
            registry.with_custom("a.example.com", [custom("a.example.com", "apes", "Ape", &["v1"])]);
        assert!(registry.lookup(&ants).is_none());
        assert_eq!(versions(&registry, "a.example.com"), ["v1"]);
        let registry = registry.with_custom("a.example.com", []).with_custom("b.example.com", []);
        assert_eq!(registry.groups().len(), count);
    }

    #[test]
    fn built_in_resources_are_not_replaced() {
        let builtin = Registry::builtin(&SchemaSet::default());
        let registry = builtin.with_custom(
            "storage.k8s.io",
            [
                custom("storage.k8s.io", "storageclasses", "Other", &["v1"]),
                custom("storage.k8s.io", "others", "StorageClass", &["v1"]),
                custom("storage.k8s.io", "apps", "App", &["v1", "v3"]),
            ],
        );
        let classes = GroupVersionResource::new("storage.k8s.io", "v1", "storageclasses");
        assert!(!registry.lookup(&classes).unwrap().is_custom());
        assert!(registry.lookup(&GroupVersionResource::new("storage.k8s.io", "v1", "others")).is_none());
        assert!(registry.lookup(&GroupVersionResource::new("storage.k8s.io", "v3", "apps")).is_some());
        assert_eq!(versions(&registry, "storage.k8s.io"), ["v1", "v3"]);
        let registry = registry.with_custom("storage.k8s.io", []);
        assert_eq!(versions(&registry, "storage.k8s.io"), ["v1"]);
        assert_eq!(registry.all().count(), builtin.all().count());
    }
}
