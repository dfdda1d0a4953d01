//! Updates the authorizers from the watch caches.

use std::collections::HashSet;
use std::sync::Arc;

use nave_authz::node::{self, Graph};
use nave_authz::rbac::{self, Change, Rbac};
use nave_cacher::{CachedObject, Delivery, EventType};
use nave_machinery::GroupVersionResource;
use parking_lot::RwLock;

use crate::storage::{Follower, Following, Storages};

/// Starts updating the RBAC index from the stored roles and bindings.
pub fn follow_rbac(storages: &Storages, rbac: &Arc<Rbac>) -> Vec<Following> {
    let kinds = [
        ("roles", rbac::Kind::Role),
        ("clusterroles", rbac::Kind::ClusterRole),
        ("rolebindings", rbac::Kind::RoleBinding),
        ("clusterrolebindings", rbac::Kind::ClusterRoleBinding),
    ];
    let follow = |(resource, kind)| {
        let cacher = storages.cacher(&GroupVersionResource::new(rbac::GROUP, "v1", resource))?;
        let follower = RbacFollower { rbac: Arc::clone(rbac), kind };
        Some(Following::start(Arc::clone(cacher), Arc::new(follower)))
    };
    kinds.into_iter().filter_map(follow).collect()
}

/// Updates the RBAC index from the objects of one kind.
struct RbacFollower {
    rbac: Arc<Rbac>,
    kind: rbac::Kind,
}

impl RbacFollower {
    fn change(&self, object: &CachedObject, gone: bool) -> Change {
        Change {
            kind: self.kind,
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            json: (!gone).then(|| object.json()),
        }
    }
}

impl Follower for RbacFollower {
    fn replace(&self, objects: &[Arc<CachedObject>]) {
        let objects = objects.iter().map(|object| self.change(object, false));
        self.rbac.replace(self.kind, objects.collect());
    }

    fn apply(&self, changes: &[Delivery]) {
        let change =
            |delivery: &Delivery| self.change(&delivery.object(), delivery.kind == EventType::Deleted);
        self.rbac.apply(changes.iter().map(change));
    }
}

/// Starts updating the node authorizer's graph from stored pods, volumes, attachments and resource slices.
pub fn follow_nodes(storages: &Storages, graph: &Arc<RwLock<Graph>>) -> Vec<Following> {
    let kinds = [
        ("", "persistentvolumes", node::Kind::Volume),
        ("storage.k8s.io", "volumeattachments", node::Kind::Attachment),
        ("resource.k8s.io", "resourceslices", node::Kind::ResourceSlice),
    ];
    let follow = |(group, resource, kind)| {
        let cacher = storages.cacher(&GroupVersionResource::new(group, "v1", resource))?;
        let follower = GraphFollower { graph: Arc::clone(graph), kind };
        Some(Following::start(Arc::clone(cacher), Arc::new(follower)))
    };
    kinds.into_iter().filter_map(follow).chain(follow_pods(storages, graph)).collect()
}

fn follow_pods(storages: &Storages, graph: &Arc<RwLock<Graph>>) -> Option<Following> {
    let storage = storages.get(&GroupVersionResource::new("", "v1", "pods"))?;
    let node_field = storage.def().fields.iter().position(|field| field.path == "spec.nodeName")?;
    let follower = PodFollower { graph: Arc::clone(graph), node_field };
    Some(Following::start(Arc::clone(storage.cacher()), Arc::new(follower)))
}

/// Updates the pods of the graph.
struct PodFollower {
    graph: Arc<RwLock<Graph>>,
    /// The index of `spec.nodeName` in the attributes of cached pods.
    node_field: usize,
}

impl PodFollower {
    fn node<'o>(&self, pod: &'o CachedObject) -> &'o str {
        pod.attributes().field(self.node_field)
    }

    fn enter(&self, graph: &mut Graph, pod: &CachedObject) {
        match self.node(pod) {
            "" => graph.remove_pod(pod.key(), ""),
            node => graph.defer_pod(pod.key(), node, pod.json()),
        }
    }
}

impl Follower for PodFollower {
    fn replace(&self, pods: &[Arc<CachedObject>]) {
        self.graph.write().clear_deferred();
        remove_absent(&self.graph, node::Kind::Pod, pods);
        for pod in pods {
            self.enter(&mut self.graph.write(), pod);
        }
    }

    fn apply(&self, changes: &[Delivery]) {
        for change in changes {
            let (pod, mut graph) = (change.object(), self.graph.write());
            if change.kind == EventType::Deleted {
                graph.remove_pod(pod.key(), self.node(&pod));
            } else {
                self.enter(&mut graph, &pod);
            }
        }
    }
}

/// Removes the objects of a kind that no longer exist.
fn remove_absent(graph: &RwLock<Graph>, kind: node::Kind, objects: &[Arc<CachedObject>]) {
    let present: HashSet<(&str, &str)> = objects.iter().map(|it| (it.namespace(), it.name())).collect();
    let known = graph.read().known(kind);
    for (namespace, name) in known {
        if !present.contains(&(namespace.as_str(), name.as_str())) {
            graph.write().remove(kind, &namespace, &name);
        }
    }
}

/// Updates the graph from the objects of a kind other than pods.
struct GraphFollower {
    graph: Arc<RwLock<Graph>>,
    kind: node::Kind,
}

impl GraphFollower {
    /// Adds an object. An object that cannot be decoded adds no edges.
    fn enter(&self, object: &CachedObject) {
        let (namespace, name, json) = (object.namespace(), object.name(), object.json());
        let graph = || self.graph.write();
        let entered = match self.kind {
            node::Kind::Volume => serde_json::from_slice(&json)
                .map(|volume: node::VolumeView<'_>| volume.enter(&mut graph(), name)),
            kind => serde_json::from_slice(&json)
                .map(|owned: node::OwnedView<'_>| owned.enter(&mut graph(), kind, name)),
        };
        if let Err(error) = entered {
            tracing::error!(key = %object.key(), %error, "object cannot be decoded; kubelets get no access to the objects it refers to");
            graph().remove(self.kind, namespace, name);
        }
    }
}

impl Follower for GraphFollower {
    fn replace(&self, objects: &[Arc<CachedObject>]) {
        remove_absent(&self.graph, self.kind, objects);
        for object in objects {
            self.enter(object);
        }
    }

    fn apply(&self, changes: &[Delivery]) {
        for change in changes {
            let object = change.object();
            if change.kind == EventType::Deleted {
                self.graph.write().remove(self.kind, object.namespace(), object.name());
            } else {
                self.enter(&object);
            }
        }
    }
}
