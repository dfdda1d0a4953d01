//! The ownership graph: objects that have owners or are owned (upstream: `GraphBuilder`).
//!
//! Objects without owners and dependents are not in the graph, so most objects of a cluster use no memory. Each pod of
//! a replica set uses about 150 bytes.
//!
//! A node is *observed* once a watch or a live read has returned its object. An owner known only from its dependents
//! has an unobserved node (upstream: virtual), which must be verified by a live read. The graph alone never causes a
//! deletion: it selects objects to process, and processing reads the object and its owners live.

mod node;

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use nave_client::{Object, PartialObjectMetadata};
use slab::Slab;

use super::uid::Uid;
use node::{Link, NamespacedName, Node, NodeId};

/// A kind, as in owner references.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// Group and version, such as `apps/v1`.
    pub(crate) api_version: String,
    /// The kind, such as `Deployment`.
    pub(crate) kind: String,
}

/// An observed object.
pub(crate) struct Observed<'a> {
    /// Its kind.
    pub(crate) kind: &'a Arc<Kind>,
    /// Its namespace; empty for a cluster-scoped object.
    pub(crate) namespace: &'a str,
    /// Its name.
    pub(crate) name: &'a str,
    /// Its uid.
    pub(crate) uid: Uid,
    /// Its owners.
    pub(crate) owners: &'a [Owner<'a>],
    /// Its deletion state.
    pub(crate) deletion: Deletion,
    /// The object in an informer's cache, if it was observed there.
    pub(crate) cached: Option<&'a Object<PartialObjectMetadata>>,
}

/// An owner, as described by a reference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    /// Group and version of its kind.
    pub(crate) api_version: &'a str,
    /// Its kind.
    pub(crate) kind: &'a str,
    /// Its name.
    pub(crate) name: &'a str,
    /// Its uid.
    pub(crate) uid: &'a str,
    /// True if the owner's foreground deletion waits for the dependent (`blockOwnerDeletion`).
    pub(crate) blocking: bool,
}

/// The deletion state of an object with respect to its dependents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// The object is not being deleted.
    #[default]
    None,
    /// Being deleted, regardless of dependents.
    Begun,
    /// In foreground deletion: waits until its dependents are deleted (finalizer `foregroundDeletion`).
    Foreground,
    /// In orphaning deletion: waits until its dependents are orphaned (finalizer `orphan`).
    Orphan,
}

/// Work that results from a change of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Check by live reads whether the object must be deleted or its deletion can proceed.
    Attempt(Uid),
    /// Check by a live read whether an unobserved object exists.
    Verify(Uid),
    /// Remove the owner from its dependents' references.
    Orphan(Uid),
    /// Record an event on a dependent that refers to an owner in another namespace.
    ForeignOwner {
        /// The dependent.
        dependent: Uid,
        /// The owner.
        owner: Uid,
    },
}

/// A copy of a node, for processing.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// The object's kind.
    pub(crate) kind: Arc<Kind>,
    /// Its namespace; for an unobserved owner, the namespace of a dependent.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// True if the object was observed.
    pub(crate) observed: bool,
    /// True if any object refers to it as owner.
    pub(crate) has_dependents: bool,
}

/// A dependent, for foreground deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependent {
    /// The dependent.
    pub(crate) uid: Uid,
    /// True if it blocks its owner's deletion.
    pub(crate) blocking: bool,
    /// Its own deletion state.
    pub(crate) deletion: Deletion,
}

/// The graph. It performs no I/O; each change returns the work that it causes.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: Slab<Node>,
    by_uid: HashTable<NodeId>,
    hasher: RandomState,
}

impl Graph {
    /// Adds or updates an object that was added, changed or read.
    pub(crate) fn observe(&mut self, object: &Observed<'_>, work: &mut Vec<Work>) {
        let known = self.find(&object.uid);
        let waits = matches!(object.deletion, Deletion::Foreground | Deletion::Orphan);
        if known.is_none() && object.owners.is_empty() && !waits {
            return;
        }
        let id =
            known.unwrap_or_else(|| self.insert(&object.uid, object.kind, object.namespace, object.name));
        self.identify(id, object, work);
        self.set_owners(id, object.owners, work);
        self.set_deletion(id, object.deletion, work);
        self.remove_if_unused(id);
    }

    /// Removes a deleted object.
    pub(crate) fn remove(&mut self, uid: &Uid, work: &mut Vec<Work>) {
        let Some(id) = self.find(uid) else { return };
        let owners = std::mem::take(&mut self.nodes[id as usize].owners);
        for link in &owners {
            self.unlink(link.owner, id);
        }
        for owner in owners.iter().filter_map(|link| self.nodes.get(link.owner as usize)) {
            if owner.deletion == Deletion::Foreground {
                work.push(Work::Attempt(owner.uid.clone()));
            }
        }
        let node = &mut self.nodes[id as usize];
        (node.observed, node.deletion) = (false, Deletion::None);
        // Releases the cached object.
        node.namespaced_name =
            NamespacedName::named(node.namespaced_name.namespace(), node.namespaced_name.name());
        self.attempt_dependents(id, work);
        self.remove_if_unused(id);
    }

    /// The node of a uid.
    pub(crate) fn item(&self, uid: &Uid) -> Option<Item> {
        let node = self.node(uid)?;
        Some(Item {
            kind: Arc::clone(&node.kind),
            namespace: node.namespaced_name.namespace().to_owned(),
            name: node.namespaced_name.name().to_owned(),
            observed: node.observed,
            has_dependents: node.dependents.is_some(),
        })
    }

    /// The objects that refer to this UID as owner.
    pub(crate) fn dependents(&self, uid: &Uid) -> Vec<Dependent> {
        let Some(id) = self.find(uid) else { return Vec::new() };
        let dependents = self.nodes[id as usize].dependents().map(|at| &self.nodes[at as usize]);
        dependents
            .map(|node| Dependent {
                uid: node.uid.clone(),
                blocking: node.owners.iter().any(|link| link.owner == id && link.blocking),
                deletion: node.deletion,
            })
            .collect()
    }

    /// The number of nodes.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn node(&self, uid: &Uid) -> Option<&Node> {
        self.nodes.get(self.find(uid)? as usize)
    }

    fn find(&self, uid: &Uid) -> Option<NodeId> {
        let has_uid = |id: &NodeId| self.nodes.get(*id as usize).is_some_and(|node| node.uid == *uid);
        self.by_uid.find(self.hasher.hash_one(uid), has_uid).copied()
    }

    fn insert(&mut self, uid: &Uid, kind: &Arc<Kind>, namespace: &str, name: &str) -> NodeId {
        let Self { nodes, by_uid, hasher } = self;
        let id = nodes.insert(Node {
            uid: uid.clone(),
            kind: Arc::clone(kind),
            namespaced_name: NamespacedName::named(namespace, name),
            owners: Box::default(),
            dependents: None,
            deletion: Deletion::None,
            observed: false,
        }) as NodeId;
        by_uid.insert_unique(hasher.hash_one(uid), id, |id| hasher.hash_one(&nodes[*id as usize].uid));
        id
    }

    /// Stores the object's actual identity. Enqueues dependents whose reference disagrees with it.
    fn identify(&mut self, id: NodeId, object: &Observed<'_>, work: &mut Vec<Work>) {
        let node = &mut self.nodes[id as usize];
        match object.cached {
            Some(cached) => node.namespaced_name = NamespacedName::Cached(cached.clone()),
            None if !node.observed => {
                node.namespaced_name = NamespacedName::named(object.namespace, object.name);
            }
            None => {}
        }
        if std::mem::replace(&mut node.observed, true) {
            return;
        }
        node.kind = Arc::clone(object.kind);
        for dependent in self.nodes[id as usize].dependents() {
            self.check_link(dependent, id, work);
        }
    }

    fn set_owners(&mut self, id: NodeId, references: &[Owner<'_>], work: &mut Vec<Work>) {
        let namespace = self.nodes[id as usize].namespaced_name.namespace().to_owned();
        let mut links: Vec<Link> = Vec::with_capacity(references.len());
        for reference in references {
            let &Owner { api_version, kind, name, uid, blocking } = reference;
            let uid = Uid::new(uid);
            let owner = self.find(&uid).unwrap_or_else(|| {
                let kind = Kind { api_version: api_version.to_owned(), kind: kind.to_owned() };
                self.insert(&uid, &Arc::new(kind), &namespace, name)
            });
            // Merges references to the same owner; the link blocks if any of them does.
            if let Some(link) = links.iter_mut().find(|link| link.owner == owner) {
                link.blocking |= blocking;
            } else {
                links.push(Link { owner, identity: identity(api_version, kind, name), blocking });
            }
        }
        let old = std::mem::take(&mut self.nodes[id as usize].owners);
        self.nodes[id as usize].owners = links.clone().into_boxed_slice();
        for link in &links {
            if self.nodes[link.owner as usize].add_dependent(id) {
                self.check_link(id, link.owner, work);
            }
        }
        for link in &old {
            let now = links.iter().find(|new| new.owner == link.owner);
            if link.blocking && !now.is_some_and(|now| now.blocking) {
                self.unblock(link.owner, work);
            }
            if now.is_none() {
                self.unlink(link.owner, id);
            }
        }
    }

    /// Enqueues the work for a dependent whose owner is unobserved, in foreground deletion, or different from the
    /// reference.
    fn check_link(&self, dependent: NodeId, owner: NodeId, work: &mut Vec<Work>) {
        let (owned, owning) = (&self.nodes[dependent as usize], &self.nodes[owner as usize]);
        let Some(link) = owned.owners.iter().find(|link| link.owner == owner) else { return };
        if !owning.observed {
            return work.push(Work::Verify(owning.uid.clone()));
        }
        let (namespace, name) = (owning.namespaced_name.namespace(), owning.namespaced_name.name());
        let foreign = !namespace.is_empty() && namespace != owned.namespaced_name.namespace();
        let misnamed = link.identity != identity(&owning.kind.api_version, &owning.kind.kind, name);
        if foreign || misnamed || owning.deletion == Deletion::Foreground {
            work.push(Work::Attempt(owned.uid.clone()));
        }
        if foreign {
            work.push(Work::ForeignOwner { dependent: owned.uid.clone(), owner: owning.uid.clone() });
        }
    }

    fn set_deletion(&mut self, id: NodeId, deletion: Deletion, work: &mut Vec<Work>) {
        let node = &mut self.nodes[id as usize];
        if std::mem::replace(&mut node.deletion, deletion) == deletion {
            return;
        }
        let uid = node.uid.clone();
        match deletion {
            Deletion::Foreground => {
                self.attempt_dependents(id, work);
                work.push(Work::Attempt(uid));
            }
            Deletion::Orphan => work.push(Work::Orphan(uid)),
            Deletion::Begun | Deletion::None => {}
        }
    }

    fn attempt_dependents(&self, id: NodeId, work: &mut Vec<Work>) {
        let dependents = self.nodes[id as usize].dependents();
        work.extend(dependents.map(|at| Work::Attempt(self.nodes[at as usize].uid.clone())));
    }

    /// Enqueues an owner in foreground deletion after one of its dependents stopped blocking it.
    fn unblock(&self, owner: NodeId, work: &mut Vec<Work>) {
        if let Some(node) = self.nodes.get(owner as usize)
            && node.deletion == Deletion::Foreground
        {
            work.push(Work::Attempt(node.uid.clone()));
        }
    }

    fn unlink(&mut self, owner: NodeId, dependent: NodeId) {
        if let Some(node) = self.nodes.get_mut(owner as usize) {
            node.remove_dependent(dependent);
            // The caller still needs the node of an object that owns itself.
            if owner != dependent {
                self.remove_if_unused(owner);
            }
        }
    }

    /// Removes a node without owners and dependents, unless its object waits in foreground or orphaning deletion.
    fn remove_if_unused(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(id as usize) else { return };
        let waits = matches!(node.deletion, Deletion::Foreground | Deletion::Orphan);
        if node.dependents.is_none() && node.owners.is_empty() && !(node.observed && waits) {
            let node = self.nodes.remove(id as usize);
            if let Ok(entry) = self.by_uid.find_entry(self.hasher.hash_one(&node.uid), |it| *it == id) {
                entry.remove();
            }
        }
    }
}

/// A hash of the owner's identity in a reference. Ignores the version, because an owner has the same identity in all
/// versions of a group.
fn identity(api_version: &str, kind: &str, name: &str) -> u32 {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    BuildHasherDefault::<DefaultHasher>::default().hash_one((group, kind, name)) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn kind(name: &str) -> Arc<Kind> {
        Arc::new(Kind { api_version: "apps/v1".to_owned(), kind: name.to_owned() })
    }

    /// An owner in a test: kind, name, name for its UID, and whether its deletion waits for the dependent.
    type Reference<'a> = (&'a str, &'a str, &'a str, bool);

    fn reference<'a>(kind: &'a str, name: &'a str, blocking: bool) -> Reference<'a> {
        (kind, name, name, blocking)
    }

    fn uid(name: &str) -> Uid {
        Uid::new(&format!("uid-{name}"))
    }

    fn observe(graph: &mut Graph, name: &str, owners: &[Reference<'_>], deletion: Deletion) -> Vec<Work> {
        observe_in(graph, "ns", name, owners, deletion)
    }

    fn observe_in(
        graph: &mut Graph,
        namespace: &str,
        name: &str,
        owners: &[Reference<'_>],
        deletion: Deletion,
    ) -> Vec<Work> {
        let mut work = Vec::new();
        let uids: Vec<_> = owners.iter().map(|(_, _, uid, _)| format!("uid-{uid}")).collect();
        let owners = owners.iter().zip(&uids);
        let owners: Vec<_> = owners
            .map(|(&(kind, name, _, blocking), uid)| Owner {
                api_version: "apps/v1",
                kind,
                name,
                uid,
                blocking,
            })
            .collect();
        let owners = owners.as_slice();
        let (kind, uid) = (&kind("Thing"), uid(name));
        let object = Observed { kind, namespace, name, uid, owners, deletion, cached: None };
        graph.observe(&object, &mut work);
        work
    }

    fn remove_from(graph: &mut Graph, name: &str) -> Vec<Work> {
        let mut work = Vec::new();
        graph.remove(&uid(name), &mut work);
        work
    }

    #[test]
    fn object_without_owners_and_dependents_has_no_node() {
        let mut graph = Graph::default();
        assert!(observe(&mut graph, "alone", &[], Deletion::None).is_empty());
        assert!(observe(&mut graph, "alone", &[], Deletion::Begun).is_empty());
        assert_eq!(graph.len(), 0);
        assert!(size_of::<Node>() <= 80);
    }

    #[test]
    fn node_refers_to_the_cached_object_until_removal() {
        let mut graph = Graph::default();
        observe(&mut graph, "a", &[reference("Thing", "owner", false)], Deletion::None);
        let metadata = serde_json::json!({"name": "owner", "namespace": "ns"});
        let cached = Object::from_value(&serde_json::json!({"metadata": metadata})).unwrap();
        let (kind, uid, deletion) = (&kind("Thing"), uid("owner"), Deletion::None);
        let owner = Observed {
            kind,
            namespace: "ns",
            name: "owner",
            uid: uid.clone(),
            owners: &[],
            deletion,
            cached: Some(&cached),
        };
        graph.observe(&owner, &mut Vec::new());
        assert!(matches!(graph.node(&uid).unwrap().namespaced_name, NamespacedName::Cached(_)));
        graph.remove(&uid, &mut Vec::new());
        assert!(matches!(graph.node(&uid).unwrap().namespaced_name, NamespacedName::Named(_)));
        let item = graph.item(&uid).unwrap();
        assert_eq!((item.namespace.as_str(), item.name.as_str(), item.observed), ("ns", "owner", false));
    }

    #[test]
    fn unobserved_owner_is_verified_and_its_removal_enqueues_dependents() {
        let mut graph = Graph::default();
        let owner = [reference("Thing", "owner", false)];
        assert_eq!(observe(&mut graph, "a", &owner, Deletion::None), [Work::Verify(uid("owner"))]);
        assert_eq!(observe(&mut graph, "b", &owner, Deletion::None), [Work::Verify(uid("owner"))]);
        assert!(!graph.item(&uid("owner")).unwrap().observed);
        assert!(observe(&mut graph, "owner", &[], Deletion::None).is_empty());
        assert!(graph.item(&uid("owner")).unwrap().observed);
        assert!(observe(&mut graph, "c", &owner, Deletion::None).is_empty());
        let attempts = ["a", "b", "c"].map(|name| Work::Attempt(uid(name)));
        assert_eq!(remove_from(&mut graph, "owner").as_slice(), attempts);
        for name in ["a", "b", "c"] {
            assert!(remove_from(&mut graph, name).is_empty());
        }
        assert_eq!(graph.len(), 0);
    }

    #[test]
    fn foreground_deletion_is_retried_when_a_dependent_stops_blocking() {
        let mut graph = Graph::default();
        let blocking = [reference("Thing", "owner", true)];
        for name in ["a", "b", "c"] {
            observe(&mut graph, name, &blocking, Deletion::None);
        }
        let work = observe(&mut graph, "owner", &[], Deletion::Foreground);
        let all = ["a", "b", "c", "owner"].map(|name| Work::Attempt(uid(name)));
        assert_eq!(work.as_slice(), all);
        assert!(observe(&mut graph, "owner", &[], Deletion::Foreground).is_empty());
        assert_eq!(remove_from(&mut graph, "a"), [Work::Attempt(uid("owner"))]);
        let not_blocking = [reference("Thing", "owner", false)];
        assert_eq!(observe(&mut graph, "b", &not_blocking, Deletion::None), [Work::Attempt(uid("owner"))]);
        assert_eq!(observe(&mut graph, "c", &[], Deletion::None), [Work::Attempt(uid("owner"))]);
        let dependent = Dependent { uid: uid("b"), blocking: false, deletion: Deletion::None };
        assert_eq!(graph.dependents(&uid("owner")), [dependent]);
        remove_from(&mut graph, "b");
        assert_eq!(graph.len(), 1, "the owner stays while it waits");
        remove_from(&mut graph, "owner");
        assert_eq!(graph.len(), 0);
    }

    #[test]
    fn mismatched_namespaces_kinds_and_names_are_checked() {
        for (namespace, reference) in [
            ("other", reference("Thing", "owner", false)),
            ("ns", reference("Other", "owner", false)),
            ("ns", ("Thing", "renamed", "owner", false)),
        ] {
            for owner_first in [true, false] {
                let mut graph = Graph::default();
                let mut work = Vec::new();
                if owner_first {
                    observe(
                        &mut graph,
                        "keeper",
                        &[self::reference("Thing", "owner", false)],
                        Deletion::None,
                    );
                    observe(&mut graph, "owner", &[], Deletion::None);
                }
                work.extend(observe_in(
                    &mut graph,
                    namespace,
                    "a",
                    std::slice::from_ref(&reference),
                    Deletion::None,
                ));
                work.extend(observe(&mut graph, "owner", &[], Deletion::None));
                assert!(work.contains(&Work::Attempt(uid("a"))), "{namespace} {reference:?}");
                let foreign = Work::ForeignOwner { dependent: uid("a"), owner: uid("owner") };
                assert_eq!(work.contains(&foreign), namespace == "other");
            }
        }
    }

    #[test]
    fn removes_object_that_owns_itself() {
        let mut graph = Graph::default();
        let own = [reference("Thing", "a", true)];
        observe(&mut graph, "a", &own, Deletion::None);
        observe(&mut graph, "a", &[], Deletion::None);
        assert_eq!(graph.len(), 0);
        observe(&mut graph, "a", &own, Deletion::Foreground);
        remove_from(&mut graph, "a");
        assert_eq!(graph.len(), 0);
    }

    proptest! {
        /// Compares with a model: a map from each object to its owners.
        #[test]
        fn dependents_are_the_objects_that_refer_to_an_owner(
            steps in proptest::collection::vec((0usize..6, proptest::collection::vec(0usize..6, 0..3), 0u8..5), 0..60),
        ) {
            let mut graph = Graph::default();
            let mut model: HashMap<usize, Vec<usize>> = HashMap::new();
            for (object, owners, what) in steps {
                if what == 0 {
                    remove_from(&mut graph, &object.to_string());
                    model.remove(&object);
                } else {
                    let deletion = if what == 1 { Deletion::Foreground } else { Deletion::None };
                    let names: Vec<_> = owners.iter().map(ToString::to_string).collect();
                    let references: Vec<_> =
                        names.iter().map(|owner| reference("Thing", owner, false)).collect();
                    observe(&mut graph, &object.to_string(), &references, deletion);
                    model.insert(object, owners);
                }
                for owner in 0..6 {
                    let mut wanted: Vec<_> = model
                        .iter()
                        .filter(|(_, owners)| owners.contains(&owner))
                        .map(|(object, _)| uid(&object.to_string()))
                        .collect();
                    let mut found: Vec<_> =
                        graph.dependents(&uid(&owner.to_string())).into_iter().map(|it| it.uid).collect();
                    wanted.sort();
                    found.sort();
                    prop_assert_eq!(found, wanted);
                }
            }
            for object in 0..6 {
                remove_from(&mut graph, &object.to_string());
            }
            prop_assert_eq!(graph.len(), 0);
        }
    }
}
