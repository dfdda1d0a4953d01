//! The served resources, as one immutable value.

use std::collections::HashMap;
use std::sync::Arc;

use nave_machinery::{GroupVersionKind, GroupVersionResource};
use nave_schema::SchemaSet;

use crate::def::ResourceDef;

/// All served resources by group, in the order of discovery. A change creates a new registry.
#[derive(Debug, Default)]
pub struct Registry {
    groups: Vec<Group>,
    by_resource: HashMap<GroupVersionResource, Arc<ResourceDef>>,
    by_kind: HashMap<GroupVersionKind, Arc<ResourceDef>>,
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

impl Registry {
    /// Creates a registry of these groups.
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

    /// The built-in resources, with their types looked up in `schemas`.
    pub fn builtin(schemas: &SchemaSet) -> Self {
        Self::new(crate::groups::builtin(schemas))
    }

    /// The groups in the order of discovery; the core group is first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group with this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// All resources, in the order of discovery.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.groups.iter().flat_map(|group| &group.resources)
    }

    /// The resource with this group, version and plural name.
    pub fn lookup(&self, resource: &GroupVersionResource) -> Option<&Arc<ResourceDef>> {
        self.by_resource.get(resource)
    }

    /// The resource of this kind.
    pub fn by_kind(&self, kind: &GroupVersionKind) -> Option<&Arc<ResourceDef>> {
        self.by_kind.get(kind)
    }

    /// The registry with additional groups at its end; a group with an existing name replaces that one.
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
