//! The resources a server serves, as one immutable value.

use std::collections::HashMap;
use std::sync::Arc;

use nave_machinery::{GroupVersionKind, GroupVersionResource};
use nave_schema::SchemaSet;

use crate::def::ResourceDef;

/// All resources served, by group, in the order discovery lists them. A change makes a new registry.
#[derive(Debug, Default)]
pub struct Registry {
    groups: Vec<Group>,
    by_resource: HashMap<GroupVersionResource, Arc<ResourceDef>>,
    by_kind: HashMap<GroupVersionKind, Arc<ResourceDef>>,
}

/// An API group: its versions, the preferred one first, and its resources.
#[derive(Clone, Debug)]
pub struct Group {
    /// The name; empty for the core group.
    pub name: String,
    /// The versions served, in order of preference.
    pub versions: Vec<String>,
    /// The resources, sorted by name.
    pub resources: Vec<Arc<ResourceDef>>,
}

impl Registry {
    /// A registry of these groups.
    pub fn new(groups: Vec<Group>) -> Self {
        let mut registry = Self { groups, ..Self::default() };
        for def in registry.groups.iter().flat_map(|group| &group.resources) {
            for version in &def.versions {
                let version = def.group_version(&version.name);
                let resource = GroupVersionResource::new(&*def.group, &*version.version, &*def.resource);
                registry.by_resource.insert(resource, def.clone());
                registry.by_kind.insert(version.with_kind(&*def.kind), def.clone());
            }
        }
        registry
    }

    /// The built-in resources, their types looked up in `schemas`.
    pub fn builtin(schemas: &SchemaSet) -> Self {
        Self::new(crate::groups::builtin(schemas))
    }

    /// The groups, in the order discovery lists them; the core group is the first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// All resources, in the order discovery lists them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.groups.iter().flat_map(|group| &group.resources)
    }

    /// The resource served at a group, version and plural name.
    pub fn lookup(&self, resource: &GroupVersionResource) -> Option<&Arc<ResourceDef>> {
        self.by_resource.get(resource)
    }

    /// The resource whose objects are of this kind.
    pub fn by_kind(&self, kind: &GroupVersionKind) -> Option<&Arc<ResourceDef>> {
        self.by_kind.get(kind)
    }

    /// The same registry with further groups after its own, or in the place of groups of the same name.
    pub fn with_groups(&self, more: Vec<Group>) -> Self {
        let mut groups = self.groups.clone();
        for group in more {
            match groups.iter_mut().find(|known| known.name == group.name) {
                Some(known) => *known = group,
                None => groups.push(group),
            }
        }
        Self::new(groups)
    }
}
