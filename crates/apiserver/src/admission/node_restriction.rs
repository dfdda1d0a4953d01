//! What kubelets may write (upstream: `plugin/pkg/admission/noderestriction`).
//!
//! Authorization lets a kubelet write nodes, pods and leases; which of them, and what in them, is decided here, where
//! the objects are seen.
//!
//! | resource | a kubelet may |
//! | --- | --- |
//! | pods | create mirror pods of its own node that refer to nothing else; delete those of its node |
//! | `pods/status`, `pods/eviction` | of pods on its node, without touching labels |
//! | nodes | create and update its own, without taints and without labels that are not kubelets' |
//! | `persistentvolumeclaims/status` | capacity, conditions and what resizing needs |
//! | `serviceaccounts/token` | tokens bound to pods on its node, for audiences that their volumes name |
//! | leases, `csinodes`, `resourceslices` | its own |
//! | certificate signing requests | for its own name |

use std::collections::BTreeSet;
use std::sync::Arc;

use nave_authz::Chain;
use nave_authz::node::node_of;
use nave_cacher::CachedObject;
use nave_machinery::{GroupResource, GroupVersionResource, Status, Value, meta};
use nave_resources::pod::MIRROR_ANNOTATION;

use super::{Attributes, Operation, Plugin, Rights};
use crate::storage::{ResourceStorage, Storages};

mod labels;
mod requests;
#[cfg(test)]
mod tests;
mod tokens;

use tokens::{Audiences, CachedVolumes};

/// The plugin.
pub struct NodeRestriction {
    pods: Arc<ResourceStorage>,
    nodes: Arc<ResourceStorage>,
    slices: Arc<ResourceStorage>,
    audiences: Audiences,
}

impl Plugin for NodeRestriction {
    fn admit_by_rights(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Value>,
        rights: &Rights,
    ) -> Result<(), Status> {
        let Some(node) = node_of(attributes.user) else { return Ok(()) };
        let write = Write { attributes, node, object: object.map_or(&Value::Null, |object| &*object) };
        if node.is_empty() {
            let why = format!("could not determine node from user {:?}", attributes.user.name);
            return Err(write.forbidden(&why));
        }
        let def = attributes.def;
        match (def.group.as_str(), def.resource.as_str(), attributes.subresource) {
            ("", "pods", "") => self.pod(&write),
            ("", "pods", "status") => write.pod_status(),
            ("", "pods", "eviction") => self.eviction(&write),
            ("", "pods", other) => Err(write.forbidden(&format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            ))),
            ("", "nodes", _) => write.node_itself(),
            ("", "persistentvolumeclaims", "status") => write.claim_status(),
            ("", "persistentvolumeclaims", _) => Err(write.forbidden("may only update PVC status")),
            ("", "serviceaccounts", "token") => self.token(&write, rights),
            ("coordination.k8s.io", "leases", _) => write.lease(),
            ("storage.k8s.io", "csinodes", _) => write.csi_node(),
            ("resource.k8s.io", "resourceslices", _) => self.slice(&write),
            ("certificates.k8s.io", "certificatesigningrequests", _) => requests::admit(&write),
            _ => Ok(()),
        }
    }
}

impl NodeRestriction {
    /// The plugin on the objects of `storages`; `None` if a resource that it needs is not served.
    pub fn new(storages: &Storages, authorization: Chain) -> Option<Self> {
        let storage = |group: &str, resource: &str| {
            storages.get(&GroupVersionResource::new(group, "v1", resource)).cloned()
        };
        let volumes = CachedVolumes {
            claims: storage("", "persistentvolumeclaims")?,
            volumes: storage("", "persistentvolumes")?,
            drivers: storage("storage.k8s.io", "csidrivers")?,
        };
        Some(Self {
            pods: storage("", "pods")?,
            nodes: storage("", "nodes")?,
            slices: storage("resource.k8s.io", "resourceslices")?,
            audiences: Audiences { drivers: Box::new(volumes), authorization },
        })
    }

    fn pod(&self, write: &Write<'_>) -> Result<(), Status> {
        let (node, attributes) = (write.node, write.attributes);
        match attributes.operation {
            Operation::Create => self.mirror_pod(write),
            Operation::Delete => {
                let pod = self.find_pod(write, attributes.name)?;
                if self.pods.field(&pod, "spec.nodeName") == Some(node) {
                    return Ok(());
                }
                let why = format!("node {node:?} can only delete pods with spec.nodeName set to itself");
                Err(write.forbidden(&why))
            }
            Operation::Update(_) => Err(write.forbidden(&format!(
                "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
            ))),
        }
    }

    /// A pod that a kubelet runs by itself, so that others see it.
    fn mirror_pod(&self, write: &Write<'_>) -> Result<(), Status> {
        let (node, pod) = (write.node, write.object);
        let refuse = |why: String| Err(write.forbidden(&why));
        if !nave_resources::pod::is_mirror(pod) {
            return refuse(format!(
                "pod does not have {MIRROR_ANNOTATION:?} annotation, node {node:?} can only create mirror pods"
            ));
        }
        if meta::str_at(pod, &["spec", "nodeName"]) != Some(node) {
            return refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
        }
        self.owned_by_node(write)?;
        match nave_resources::pod::api_reference(pod) {
            Ok(None) => Ok(()),
            Ok(Some(what)) => refuse(format!("node {node:?} can not create pods that reference {what}")),
            Err(why) => refuse(format!("error checking mirror pod for API references: {why}")),
        }
    }

    /// A mirror pod goes when its node does.
    fn owned_by_node(&self, write: &Write<'_>) -> Result<(), Status> {
        let node = write.node;
        let refuse = |why: String| Err(write.forbidden(&why));
        let owners = meta::field(write.object, "ownerReferences").and_then(Value::as_array);
        let owner = match owners.map_or(&[][..], Vec::as_slice) {
            [owner] => owner,
            [] => {
                let why = format!("node {node:?} can only create pods with an owner reference set to itself");
                return refuse(why);
            }
            _ => {
                return refuse(format!(
                    "node {node:?} can only create pods with a single owner reference set to itself"
                ));
            }
        };
        let is = |field: &str, value: &str| owner[field].as_str() == Some(value);
        if !is("apiVersion", "v1") || !is("kind", "Node") || !is("name", node) {
            return refuse(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
        if owner["controller"].as_bool() != Some(true) {
            return refuse(format!(
                "node {node:?} can only create pods with a controller owner reference set to itself"
            ));
        }
        if owner["blockOwnerDeletion"].as_bool() == Some(true) {
            return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        let not_found = || Status::not_found(&GroupResource::new("", "nodes"), node);
        let found = self.nodes.codec().parse_cached(&*self.nodes.find("", node).ok_or_else(not_found)?)?;
        let (expected, uid) = (owner["uid"].as_str().unwrap_or_default(), meta::uid(&found));
        if expected != uid {
            return refuse(format!("node {node} UID mismatch: expected {expected} got {uid}"));
        }
        Ok(())
    }

    fn eviction(&self, write: &Write<'_>) -> Result<(), Status> {
        write.only_create()?;
        let pod = self.find_pod(write, write.attributes.name)?;
        if self.pods.field(&pod, "spec.nodeName") == Some(write.node) {
            return Ok(());
        }
        let why = format!("node {} can only evict pods with spec.nodeName set to itself", write.node);
        Err(write.forbidden(&why))
    }

    /// A token that dies with a pod on the node.
    fn token(&self, write: &Write<'_>, rights: &Rights) -> Result<(), Status> {
        if !matches!(write.attributes.operation, Operation::Create) {
            return Ok(());
        }
        let bound =
            |field: &str| meta::str_at(write.object, &["spec", "boundObjectRef", field]).unwrap_or_default();
        let refuse = |why: &str| Err(write.forbidden(why));
        if bound("apiVersion") != "v1" || bound("kind") != "Pod" || bound("name").is_empty() {
            return refuse("node requested token not bound to a pod");
        }
        if bound("uid").is_empty() {
            return refuse("node requested token with a pod binding without a uid");
        }
        let found = self.find_pod(write, bound("name"))?;
        let pod = self.pods.codec().parse_cached(&found)?;
        if meta::uid(&pod) != bound("uid") {
            return refuse(&format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                bound("uid")
            ));
        }
        if meta::str_at(&pod, &["spec", "nodeName"]) != Some(write.node) {
            return refuse("node requested token bound to a pod scheduled on a different node");
        }
        self.audiences.check(write, &pod, rights)
    }

    fn slice(&self, write: &Write<'_>) -> Result<(), Status> {
        let of_node = |slice: &Value| meta::str_at(slice, &["spec", "nodeName"]) == Some(write.node);
        let what = match write.attributes.operation {
            Operation::Create if !of_node(write.object) => "create",
            Operation::Delete => {
                let found = self.slices.find("", write.attributes.name);
                let slice = found.map(|found| self.slices.codec().parse_cached(&found)).transpose()?;
                // One that is gone is for the deletion to miss.
                if slice.as_ref().is_none_or(of_node) {
                    return Ok(());
                }
                "delete"
            }
            _ => return Ok(()),
        };
        let why = format!("can only {what} ResourceSlice with the same NodeName as the requesting node");
        Err(write.forbidden(&why))
    }

    fn find_pod(&self, write: &Write<'_>, name: &str) -> Result<Arc<CachedObject>, Status> {
        let not_found = || Status::not_found(&GroupResource::new("", "pods"), name);
        self.pods.find(write.attributes.namespace, name).ok_or_else(not_found)
    }
}

/// A write by a kubelet.
struct Write<'a> {
    attributes: &'a Attributes<'a>,
    node: &'a str,
    /// What is to be stored; null for a deletion.
    object: &'a Value,
}

impl Write<'_> {
    fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&self.attributes.def.group_resource(), self.attributes.name, why)
    }

    fn operation(&self) -> &'static str {
        match self.attributes.operation {
            Operation::Create => "CREATE",
            Operation::Update(_) => "UPDATE",
            Operation::Delete => "DELETE",
        }
    }

    fn only_create(&self) -> Result<(), Status> {
        match self.attributes.operation {
            Operation::Create => Ok(()),
            _ => Err(self.forbidden(&format!("unexpected operation {}", self.operation()))),
        }
    }

    fn updated(&self) -> Result<&Value, Status> {
        match self.attributes.operation {
            Operation::Update(old) => Ok(old),
            _ => Err(self.forbidden(&format!("unexpected operation {:?}", self.operation()))),
        }
    }

    fn pod_status(&self) -> Result<(), Status> {
        let (old, new, node) = (self.updated()?, self.object, self.node);
        if meta::str_at(old, &["spec", "nodeName"]) != Some(node) {
            return Err(self.forbidden(&format!(
                "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
            )));
        }
        if !same(meta::field(old, "labels"), meta::field(new, "labels")) {
            return Err(self.forbidden(&format!("node {node:?} cannot update labels through pod status")));
        }
        for field in ["resourceClaimStatuses", "extendedResourceClaimStatus"] {
            let claims = |pod| meta::at(pod, &["status", field]);
            if !same(claims(old), claims(new)) {
                return Err(self.forbidden(&format!("node {node:?} cannot update resource claim statues")));
            }
        }
        Ok(())
    }

    fn node_itself(&self) -> Result<(), Status> {
        let (node, name) = (self.node, self.attributes.name);
        if name != node {
            return Err(self.forbidden(&format!("node {node:?} is not allowed to modify node {name:?}")));
        }
        let config = |object| meta::at(object, &["spec", "configSource"]).filter(|it| !it.is_null());
        let list = |labels: BTreeSet<&str>| labels.into_iter().collect::<Vec<_>>().join(", ");
        match self.attributes.operation {
            Operation::Create => {
                if config(self.object).is_some() {
                    return Err(self.forbidden(&format!(
                        "node {node:?} is not allowed to create pods with a non-nil configSource"
                    )));
                }
                let forbidden = labels::forbidden(self.object, &Value::Null);
                if !forbidden.is_empty() {
                    return Err(self.forbidden(&format!(
                        "node {node:?} is not allowed to set the following labels: {}",
                        list(forbidden)
                    )));
                }
            }
            Operation::Update(old) => {
                let taints = |object| meta::at(object, &["spec", "taints"]);
                let owners = |object| meta::field(object, "ownerReferences");
                if config(self.object).is_some() && config(self.object) != config(old) {
                    return Err(self.forbidden(&format!(
                        "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                    )));
                }
                if !same(taints(old), taints(self.object)) {
                    return Err(self.forbidden(&format!("node {node:?} is not allowed to modify taints")));
                }
                // A node could have itself collected, and come back without its taints and labels.
                if !same(owners(old), owners(self.object)) {
                    return Err(
                        self.forbidden(&format!("node {node:?} is not allowed to modify ownerReferences"))
                    );
                }
                let forbidden = labels::forbidden(self.object, old);
                if !forbidden.is_empty() {
                    return Err(
                        self.forbidden(&format!("is not allowed to modify labels: {}", list(forbidden)))
                    );
                }
            }
            Operation::Delete => {}
        }
        Ok(())
    }

    fn claim_status(&self) -> Result<(), Status> {
        let stripped = |claim: &Value| {
            let mut claim = claim.clone();
            for field in ["resourceVersion", "managedFields"] {
                meta::remove(&mut claim, field);
            }
            if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
                for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                    status.remove(field);
                }
                if status.is_empty() {
                    claim.as_object_mut().map(|claim| claim.remove("status"));
                }
            }
            claim
        };
        if stripped(self.updated()?) == stripped(self.object) {
            return Ok(());
        }
        Err(self.forbidden(&format!(
            "node {:?} is not allowed to update fields other than status.quantity and status.conditions",
            self.node
        )))
    }

    fn lease(&self) -> Result<(), Status> {
        const NAMESPACE: &str = "kube-node-lease";
        if self.attributes.namespace != NAMESPACE {
            let why = format!("can only access leases in the {NAMESPACE:?} system namespace");
            return Err(self.forbidden(&why));
        }
        self.named_like_node("can only access node lease with the same name as the requesting node")
    }

    fn csi_node(&self) -> Result<(), Status> {
        self.named_like_node("can only access CSINode with the same name as the requesting node")
    }

    fn named_like_node(&self, why: &str) -> Result<(), Status> {
        let name = match self.attributes.operation {
            Operation::Create => meta::name(self.object),
            _ => self.attributes.name,
        };
        if name == self.node { Ok(()) } else { Err(self.forbidden(why)) }
    }
}

/// Whether two fields have the same content; an empty one is like an absent one.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    let is_empty = |value: &&Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    a.filter(|value| !is_empty(value)) == b.filter(|value| !is_empty(value))
}
