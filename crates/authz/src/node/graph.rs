//! The graph of objects and their related nodes.
//!
//! ```text
//! node ◄─ pod ◄─ secret, config map, service account, resource claim
//!             ◄─ persistent volume claim ◄─ persistent volume ◄─ secret
//! node ◄─ volume attachment, resource slice
//! ```
//!
//! Each object in the first line stores its related nodes, and for each the number of pods that cause the relation.
//! So a check is one lookup, and a pod adds only a few numbers. A volume has the nodes of its claim.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::deferred::Deferred;

/// The kind of an object in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kind {
    Pod,
    Secret,
    ConfigMap,
    ServiceAccount,
    Claim,
    Volume,
    ResourceClaim,
    Attachment,
    ResourceSlice,
}

const KINDS: usize = 9;

/// The graph.
#[derive(Debug, Default)]
pub struct Graph {
    /// For each kind, the indexes of its objects in `vertices`.
    places: [Places; KINDS],
    vertices: Slab<Vertex>,
    nodes: Nodes,
    pub(super) deferred: Deferred,
}

/// The index of each object of a kind, by namespace and name.
type Places = HashMap<Arc<str>, HashMap<Arc<str>, usize>>;

/// An object in the graph.
#[derive(Debug)]
struct Vertex {
    kind: Kind,
    namespace: Arc<str>,
    name: Arc<str>,
    /// True if the object was added; false if other objects only refer to it.
    exists: bool,
    /// The related nodes with their numbers of pods, ordered by node number.
    nodes: Vec<(u32, u32)>,
    /// The objects to which this object refers: those of a pod, or the claim and secrets of a volume.
    refers_to: Box<[u32]>,
    /// The volumes that refer to this claim or secret.
    leads_to: Vec<u32>,
}

/// Numbers for node names. A number is kept while any object is related to its node.
#[derive(Debug, Default)]
struct Nodes {
    numbers: HashMap<Arc<str>, u32>,
    used: Slab<(Arc<str>, u32)>,
}

impl Graph {
    /// Returns whether an object is related to a node.
    pub fn is_related(&self, kind: Kind, namespace: &str, name: &str, node: &str) -> bool {
        let Some(node) = self.nodes.numbers.get(node) else { return false };
        let Some(vertex) = self.find(kind, namespace, name) else { return false };
        self.reaches(vertex, *node)
    }

    /// Adds or replaces a pod on a node, with the objects in its namespace to which it refers.
    pub fn set_pod<'a>(
        &mut self,
        namespace: &str,
        name: &str,
        node: &str,
        refers_to: impl IntoIterator<Item = (Kind, &'a str)> + Clone,
    ) {
        if self.is_pod(namespace, name, node, refers_to.clone()) {
            return;
        }
        self.remove(Kind::Pod, namespace, name);
        let node = self.nodes.number(node);
        let mut places: Vec<u32> = Vec::new();
        for (kind, name) in refers_to {
            let place = self.place(kind, namespace, name) as u32;
            if !places.contains(&place) {
                places.push(place);
                self.relate(place, node);
            }
        }
        let pod = self.place(Kind::Pod, namespace, name);
        self.relate(pod as u32, node);
        if let Some(pod) = self.vertices.get_mut(pod) {
            pod.exists = true;
            pod.refers_to = places.into();
        }
    }

    /// Returns whether the graph already has the pod with the same node and references, as after a status update.
    fn is_pod<'a>(
        &self,
        namespace: &str,
        name: &str,
        node: &str,
        refers_to: impl IntoIterator<Item = (Kind, &'a str)>,
    ) -> bool {
        let Some(pod) = self.find(Kind::Pod, namespace, name).filter(|pod| pod.exists) else { return false };
        let same_node = self.nodes.numbers.get(node).is_some_and(|node| pod.nodes == [(*node, 1)]);
        let mut known = 0;
        let mut seen = Vec::new();
        for (kind, name) in refers_to {
            let Some(place) = self.place_of(kind, namespace, name).map(|place| place as u32) else {
                return false;
            };
            if seen.contains(&place) {
                continue;
            }
            if pod.refers_to.get(known) != Some(&place) {
                return false;
            }
            seen.push(place);
            known += 1;
        }
        same_node && known == pod.refers_to.len()
    }

    /// Adds or replaces a persistent volume with its claim and its secrets (each by namespace and name).
    pub fn set_volume<'a>(
        &mut self,
        name: &str,
        claim: (&str, &str),
        secrets: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        self.remove(Kind::Volume, "", name);
        let volume = self.place(Kind::Volume, "", name);
        let claim = self.place(Kind::Claim, claim.0, claim.1) as u32;
        // The claim must stay in the graph while a volume refers to it.
        self.link(claim, volume as u32);
        let mut places: Vec<u32> = vec![claim];
        for (namespace, name) in secrets {
            let secret = self.place(Kind::Secret, namespace, name) as u32;
            if !places.contains(&secret) {
                places.push(secret);
                self.link(secret, volume as u32);
            }
        }
        if let Some(volume) = self.vertices.get_mut(volume) {
            volume.exists = true;
            volume.refers_to = places.into();
        }
    }

    /// Sets the node of a volume attachment or a resource slice; an empty name means no node.
    pub fn set_owned(&mut self, kind: Kind, name: &str, node: &str) {
        self.remove(kind, "", name);
        if node.is_empty() {
            return;
        }
        let node = self.nodes.number(node);
        let place = self.place(kind, "", name);
        self.relate(place as u32, node);
        if let Some(vertex) = self.vertices.get_mut(place) {
            vertex.exists = true;
        }
    }

    /// Removes a pod, volume, attachment or slice.
    pub fn remove(&mut self, kind: Kind, namespace: &str, name: &str) {
        let Some(place) = self.place_of(kind, namespace, name) else { return };
        let Some(vertex) = self.vertices.get_mut(place) else { return };
        vertex.exists = false;
        let refers_to = std::mem::take(&mut vertex.refers_to);
        let nodes = std::mem::take(&mut vertex.nodes);
        for other in refers_to {
            if kind == Kind::Volume {
                self.unlink(other, place as u32);
            }
            for (node, _) in &nodes {
                self.unrelate(other, *node);
            }
        }
        for (node, _) in nodes {
            self.nodes.release(node);
        }
        self.forget_if_unused(place);
    }

    /// Returns all added objects of a kind, by namespace and name.
    pub fn known(&self, kind: Kind) -> Vec<(String, String)> {
        let vertices = self.vertices.iter().map(|(_, vertex)| vertex);
        let known = vertices.filter(|vertex| vertex.kind == kind && vertex.exists);
        known.map(|vertex| (vertex.namespace.to_string(), vertex.name.to_string())).collect()
    }

    /// The number of objects in the graph.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Returns whether the graph is empty.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    fn reaches(&self, vertex: &Vertex, node: u32) -> bool {
        if vertex.nodes.binary_search_by_key(&node, |(of, _)| *of).is_ok() {
            return true;
        }
        let others = |places: &'_ [u32]| -> Vec<&Vertex> {
            places.iter().filter_map(|place| self.vertices.get(*place as usize)).collect()
        };
        match vertex.kind {
            // A volume has the nodes of its claim. The claim is its first reference.
            Kind::Volume => others(&vertex.refers_to[..vertex.refers_to.len().min(1)])
                .into_iter()
                .any(|claim| self.reaches(claim, node)),
            Kind::Secret => others(&vertex.leads_to).into_iter().any(|volume| self.reaches(volume, node)),
            _ => false,
        }
    }

    fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Vertex> {
        self.vertices.get(self.place_of(kind, namespace, name)?)
    }

    fn place_of(&self, kind: Kind, namespace: &str, name: &str) -> Option<usize> {
        self.places[kind as usize].get(namespace)?.get(name).copied()
    }

    /// Returns the index of an object; adds the object if it is absent.
    fn place(&mut self, kind: Kind, namespace: &str, name: &str) -> usize {
        if let Some(place) = self.place_of(kind, namespace, name) {
            return place;
        }
        let of_kind = &mut self.places[kind as usize];
        let namespace =
            of_kind.get_key_value(namespace).map_or_else(|| namespace.into(), |(it, _)| Arc::clone(it));
        let name: Arc<str> = name.into();
        let place = self.vertices.insert(Vertex {
            kind,
            namespace: Arc::clone(&namespace),
            name: Arc::clone(&name),
            exists: false,
            nodes: Vec::new(),
            refers_to: Box::default(),
            leads_to: Vec::new(),
        });
        of_kind.entry(namespace).or_default().insert(name, place);
        place
    }

    fn relate(&mut self, place: u32, node: u32) {
        let Some(vertex) = self.vertices.get_mut(place as usize) else { return };
        match vertex.nodes.binary_search_by_key(&node, |(of, _)| *of) {
            Ok(at) => vertex.nodes[at].1 += 1,
            Err(at) => {
                vertex.nodes.insert(at, (node, 1));
                self.nodes.retain(node);
            }
        }
    }

    fn unrelate(&mut self, place: u32, node: u32) {
        let Some(vertex) = self.vertices.get_mut(place as usize) else { return };
        if let Ok(at) = vertex.nodes.binary_search_by_key(&node, |(of, _)| *of) {
            vertex.nodes[at].1 -= 1;
            if vertex.nodes[at].1 == 0 {
                vertex.nodes.remove(at);
                self.nodes.release(node);
            }
        }
        self.forget_if_unused(place as usize);
    }

    fn link(&mut self, place: u32, volume: u32) {
        if let Some(vertex) = self.vertices.get_mut(place as usize) {
            vertex.leads_to.push(volume);
        }
    }

    fn unlink(&mut self, place: u32, volume: u32) {
        if let Some(vertex) = self.vertices.get_mut(place as usize) {
            vertex.leads_to.retain(|other| *other != volume);
        }
        self.forget_if_unused(place as usize);
    }

    fn forget_if_unused(&mut self, place: usize) {
        let Some(vertex) = self.vertices.get(place) else { return };
        if vertex.exists || !vertex.nodes.is_empty() || !vertex.leads_to.is_empty() {
            return;
        }
        let Vertex { kind, namespace, name, .. } = self.vertices.remove(place);
        let of_kind = &mut self.places[kind as usize];
        if let Some(names) = of_kind.get_mut(&namespace) {
            names.remove(&name);
            if names.is_empty() {
                of_kind.remove(&namespace);
            }
        }
    }
}

impl Nodes {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let name: Arc<str> = name.into();
        let number = self.used.insert((Arc::clone(&name), 0)) as u32;
        self.numbers.insert(name, number);
        number
    }

    /// Counts another relation to the node.
    fn retain(&mut self, number: u32) {
        if let Some((_, uses)) = self.used.get_mut(number as usize) {
            *uses += 1;
        }
    }

    fn release(&mut self, number: u32) {
        let Some((_, uses)) = self.used.get_mut(number as usize) else { return };
        *uses -= 1;
        if *uses == 0 {
            let (name, _) = self.used.remove(number as usize);
            self.numbers.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const NAMES: [&str; 3] = ["a", "b", "c"];
    const IN_NAMESPACE: [Kind; 5] =
        [Kind::Secret, Kind::ConfigMap, Kind::ServiceAccount, Kind::Claim, Kind::ResourceClaim];

    #[derive(Clone, Debug)]
    enum Step {
        Pod {
            at: (&'static str, &'static str),
            node: &'static str,
            refers_to: Vec<(Kind, &'static str)>,
        },
        Volume {
            name: &'static str,
            claim: (&'static str, &'static str),
            secrets: Vec<(&'static str, &'static str)>,
        },
        Owned {
            kind: Kind,
            name: &'static str,
            node: &'static str,
        },
        Gone {
            kind: Kind,
            at: (&'static str, &'static str),
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        let name = || select(&NAMES[..]);
        let place = || (name(), name());
        let refers_to = prop::collection::vec((select(&IN_NAMESPACE[..]), name()), 0..4);
        prop_oneof![
            4 => (place(), name(), refers_to).prop_map(|(at, node, refers_to)| Step::Pod { at, node, refers_to }),
            2 => (name(), place(), prop::collection::vec(place(), 0..3))
                .prop_map(|(name, claim, secrets)| Step::Volume { name, claim, secrets }),
            1 => (select(&[Kind::Attachment, Kind::ResourceSlice][..]), name(), select(&["", "a", "b"][..]))
                .prop_map(|(kind, name, node)| Step::Owned { kind, name, node }),
            2 => (select(&[Kind::Pod, Kind::Volume, Kind::Attachment, Kind::ResourceSlice][..]), place())
                .prop_map(|(kind, at)| Step::Gone { kind, at }),
        ]
    }

    /// The objects as they were added; searches for relations on each query.
    #[derive(Default)]
    struct Model(Vec<Step>);

    impl Model {
        fn take(&mut self, step: Step) {
            let key = |step: &Step| match *step {
                Step::Pod { at, .. } | Step::Gone { kind: Kind::Pod, at } => (Kind::Pod, at),
                Step::Volume { name, .. } => (Kind::Volume, ("", name)),
                Step::Owned { kind, name, .. } => (kind, ("", name)),
                Step::Gone { kind, at } => (kind, ("", at.1)),
            };
            self.0.retain(|other| key(other) != key(&step));
            if !matches!(step, Step::Gone { .. }) {
                self.0.push(step);
            }
        }

        fn is_related(&self, kind: Kind, at: (&str, &str), node: &str) -> bool {
            self.0.iter().any(|step| match step {
                Step::Pod { at: pod, node: on, refers_to } => {
                    let refers = pod.0 == at.0 && refers_to.contains(&(kind, at.1));
                    *on == node && (refers || (kind == Kind::Pod && *pod == at))
                }
                Step::Volume { name, claim, secrets } => {
                    let is_it = kind == Kind::Volume && *name == at.1;
                    let refers = kind == Kind::Secret && secrets.contains(&at);
                    (is_it || refers) && self.is_related(Kind::Claim, *claim, node)
                }
                Step::Owned { kind: of, name, node: on } => *of == kind && *name == at.1 && *on == node,
                Step::Gone { .. } => false,
            })
        }
    }

    fn take(graph: &mut Graph, step: &Step) {
        match step {
            Step::Pod { at, node, refers_to } => graph.set_pod(at.0, at.1, node, refers_to.iter().copied()),
            Step::Volume { name, claim, secrets } => graph.set_volume(name, *claim, secrets.iter().copied()),
            Step::Owned { kind, name, node } => graph.set_owned(*kind, name, node),
            Step::Gone { kind, at } => {
                graph.remove(*kind, if *kind == Kind::Pod { at.0 } else { "" }, at.1);
            }
        }
    }

    proptest! {
        #[test]
        fn relations_match_the_model(steps in prop::collection::vec(step(), 1..24)) {
            let (mut graph, mut model) = (Graph::default(), Model::default());
            for step in steps {
                take(&mut graph, &step);
                model.take(step);
            }
            let all = IN_NAMESPACE.into_iter().chain([Kind::Pod, Kind::Volume, Kind::Attachment, Kind::ResourceSlice]);
            for kind in all {
                let of_cluster = matches!(kind, Kind::Volume | Kind::Attachment | Kind::ResourceSlice);
                let namespaces = if of_cluster { &[""][..] } else { &NAMES[..] };
                for (namespace, name, node) in namespaces.iter().flat_map(|namespace| {
                    NAMES.iter().flat_map(move |name| NAMES.iter().map(move |node| (*namespace, *name, *node)))
                }) {
                    let expected = model.is_related(kind, (namespace, name), node);
                    prop_assert_eq!(
                        graph.is_related(kind, namespace, name, node), expected,
                        "{:?} {}/{} on {}", kind, namespace, name, node
                    );
                }
            }
            // Removing everything leaves an empty graph.
            let left: BTreeSet<(Kind, (String, String))> = [Kind::Pod, Kind::Volume, Kind::Attachment, Kind::ResourceSlice]
                .into_iter()
                .flat_map(|kind| graph.known(kind).into_iter().map(move |at| (kind, at)))
                .collect();
            for (kind, (namespace, name)) in left {
                graph.remove(kind, &namespace, &name);
            }
            prop_assert_eq!(graph.len(), 0);
            prop_assert_eq!(graph.nodes.used.len(), 0);
        }
    }
}
