use std::collections::BTreeSet;
use std::sync::Arc;

use nave_client::{Object, PartialObjectMetadata};

use super::{Deletion, Kind};
use crate::garbage_collector::uid::Uid;

/// The number of a node.
pub(super) type NodeId = u32;

/// An object that owns or is owned.
pub(super) struct Node {
    pub(super) uid: Uid,
    pub(super) kind: Arc<Kind>,
    pub(super) place: Place,
    pub(super) owners: Box<[Link]>,
    /// Most have none.
    #[expect(clippy::box_collection, reason = "an empty set takes three times as much as no set")]
    pub(super) dependents: Option<Box<BTreeSet<NodeId>>>,
    pub(super) deletion: Deletion,
    pub(super) observed: bool,
}

/// Where an object is.
pub(super) enum Place {
    /// As the object in an informer's cache says, which is there anyway.
    Cached(Object<PartialObjectMetadata>),
    /// Namespace and name.
    Named(Box<(String, String)>),
}

impl Place {
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

    /// Notes a dependent; whether it is new.
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

/// That a node is owned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) owner: NodeId,
    /// The kind and name that the reference gives the owner, hashed: a reference that is wrong there is dangling.
    pub(super) identity: u32,
    pub(super) blocking: bool,
}
