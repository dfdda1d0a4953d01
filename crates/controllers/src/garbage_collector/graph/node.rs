use std::collections::BTreeSet;
use std::sync::Arc;

use nave_client::{Object, PartialObjectMetadata};

use super::{Deletion, Kind};
use crate::garbage_collector::uid::Uid;

/// The index of a node.
pub(super) type NodeId = u32;

/// An object with owners or dependents.
pub(super) struct Node {
    pub(super) uid: Uid,
    pub(super) kind: Arc<Kind>,
    pub(super) namespaced_name: NamespacedName,
    pub(super) owners: Box<[Link]>,
    /// Boxed, because most nodes have no dependents.
    #[expect(clippy::box_collection, reason = "an empty set takes three times as much as no set")]
    pub(super) dependents: Option<Box<BTreeSet<NodeId>>>,
    pub(super) deletion: Deletion,
    pub(super) observed: bool,
}

/// The namespace and name of a node.
pub(super) enum NamespacedName {
    /// Shared with the object in an informer's cache, which uses no extra memory.
    Cached(Object<PartialObjectMetadata>),
    /// Namespace and name.
    Named(Box<(String, String)>),
}

impl NamespacedName {
    pub(super) fn named(namespace: &str, name: &str) -> Self {
        Self::Named(Box::new((namespace.to_owned(), name.to_owned())))
    }

    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Cached(object) => object.namespace(),
            Self::Named(names) => &names.0,
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Cached(object) => object.name(),
            Self::Named(names) => &names.1,
        }
    }
}

impl Node {
    pub(super) fn dependents(&self) -> impl Iterator<Item = NodeId> {
        self.dependents.iter().flat_map(|dependents| dependents.iter().copied())
    }

    /// Adds a dependent; returns whether it is new.
    pub(super) fn add_dependent(&mut self, dependent: NodeId) -> bool {
        self.dependents.get_or_insert_default().insert(dependent)
    }

    pub(super) fn remove_dependent(&mut self, dependent: NodeId) {
        if let Some(dependents) = &mut self.dependents {
            dependents.remove(&dependent);
            if dependents.is_empty() {
                self.dependents = None;
            }
        }
    }
}

/// The edge from a dependent to an owner.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) owner: NodeId,
    /// A hash of the owner's kind and name in the reference: a reference that does not match the owner is dangling.
    pub(super) identity: u32,
    pub(super) blocking: bool,
}
