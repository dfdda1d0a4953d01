//! NodeRestriction limits the writes of kubelets (upstream: `plugin/pkg/admission/noderestriction`).
//!
//! Authorization allows kubelets to write nodes, pods and leases. This plugin restricts them to certain objects and
//! fields.
//!
//! | resource | a kubelet may |
//! | --- | --- |
//! | pods | create mirror pods of its node without references; delete pods of its node |
//! | `pods/status`, `pods/eviction` | write them for pods on its node, without changing labels |
//! | nodes | create and update its own, without taints and restricted labels |
//! | `persistentvolumeclaims/status` | change capacity, conditions and resize status |
//! | `serviceaccounts/token` | request tokens bound to pods on its node, for audiences that the pods' volumes name |
//! | leases, `csinodes`, `resourceslices` | write its own |
//! | certificate signing requests | request certificates for its own name |

mod labels;
mod requests;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use nave_authz::node::node_of;
use nave_machinery::{GroupResource, Object, Status, Value, meta};
use nave_resources::pod::{self, MIRROR_ANNOTATION};

use super::Parts;
use crate::{Attributes, Lister, Mutate, Operation, Plugin};
use tokens::Audiences;

/// NodeRestriction.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    let cluster = &parts.cluster;
    let audiences = Audiences {
        claims: Arc::clone(&cluster.persistent_volume_claims),
        volumes: Arc::clone(&cluster.persistent_volumes),
        drivers: Arc::clone(&cluster.csi_drivers),
        authorizer: parts.authorizer.clone(),
    };
    Plugin::mutating(NodeRestriction {
        pods: Arc::clone(&cluster.pods),
        nodes: Arc::clone(&cluster.nodes),
        audiences,
    })
}

struct NodeRestriction {
    pods: Arc<dyn Lister>,
    nodes: Arc<dyn Lister>,
    audiences: Audiences,
}

#[async_trait]
impl Mutate for NodeRestriction {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation != Operation::Connect && node_of(attributes.user).is_some()
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(node) = node_of(attributes.user) else { return Ok(()) };
        let object = object.map_or(&Value::Null, |object| object.as_value());
        let write = Write { attributes, node, object };
        if node.is_empty() {
            let why = format!("could not determine node from user {:?}", attributes.user.name);
            return Err(write.forbidden(&why));
        }
        let def = attributes.def;
        match (def.group.as_str(), def.resource.as_str(), attributes.subresource) {
            ("", "pods", "") => self.pod(&write).await,
            ("", "pods", "status") => write.pod_status(),
            ("", "pods", "eviction") => self.eviction(&write).await,
            ("", "pods", other) => Err(write.forbidden(&format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            ))),
            ("", "nodes", _) => write.node_itself(),
            ("", "persistentvolumeclaims", "status") => write.claim_status(),
            ("", "persistentvolumeclaims", _) => Err(write.forbidden("may only update PVC status")),
            ("", "serviceaccounts", "token") => self.token(&write).await,
            ("coordination.k8s.io", "leases", _) => write.lease(),
            ("storage.k8s.io", "csinodes", _) => write.csi_node(),
            ("resource.k8s.io", "resourceslices", _) => write.slice(),
            ("certificates.k8s.io", "certificatesigningrequests", _) => requests::admit(&write),
            _ => Ok(()),
        }
    }
}

impl NodeRestriction {
    async fn pod(&self, write: &Write<'_>) -> Result<(), Status> {
        let (node, attributes) = (write.node, write.attributes);
        match attributes.operation {
            Operation::Create => self.mirror_pod(write),
            Operation::Delete => {
                let is_on_node = |pod: &Object| pod.str_at(&["spec", "nodeName"]) == Some(node);
                let allowed = match attributes.old {
                    Some(old) => is_on_node(old),
                    None => is_on_node(&*self.find_pod(write, attributes.name).await?),
                };
                if allowed {
                    return Ok(());
                }
                let why = format!("node {node:?} can only delete pods with spec.nodeName set to itself");
                Err(write.forbidden(&why))
            }
            _ => Err(write.forbidden(&format!(
                "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
            ))),
        }
    }

    /// Checks a mirror pod, which represents a static pod of the kubelet.
    fn mirror_pod(&self, write: &Write<'_>) -> Result<(), Status> {
        let (node, object) = (write.node, write.object);
        let refuse = |why: String| Err(write.forbidden(&why));
        if !pod::is_mirror(object) {
            return refuse(format!(
                "pod does not have {MIRROR_ANNOTATION:?} annotation, node {node:?} can only create mirror pods"
            ));
        }
        if meta::str_at(object, &["spec", "nodeName"]) != Some(node) {
            return refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
        }
        self.owned_by_node(write)?;
        match pod::api_reference(object) {
            Ok(None) => Ok(()),
            Ok(Some(what)) => refuse(format!("node {node:?} can not create pods that reference {what}")),
            Err(why) => refuse(why),
        }
    }

    /// Checks that a mirror pod is owned by its node.
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
        let found = self.nodes.get("", node)?.ok_or_else(not_found)?;
        let (expected, uid) = (owner["uid"].as_str().unwrap_or_default(), found.uid());
        if expected != uid {
            return refuse(format!("node {node} UID mismatch: expected {expected} got {uid}"));
        }
        Ok(())
    }

    async fn eviction(&self, write: &Write<'_>) -> Result<(), Status> {
        write.only_create()?;
        let pod = self.find_pod(write, write.attributes.name).await?;
        if pod.str_at(&["spec", "nodeName"]) == Some(write.node) {
            return Ok(());
        }
        let why = format!("node {} can only evict pods with spec.nodeName set to itself", write.node);
        Err(write.forbidden(&why))
    }

    /// Checks a token request, which must be bound to a pod on the node.
    async fn token(&self, write: &Write<'_>) -> Result<(), Status> {
        if !write.attributes.is_create() {
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
        let pod = self.find_pod(write, bound("name")).await?;
        if pod.uid() != bound("uid") {
            return refuse(&format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                bound("uid")
            ));
        }
        if pod.str_at(&["spec", "nodeName"]) != Some(write.node) {
            return refuse("node requested token bound to a pod scheduled on a different node");
        }
        self.audiences.check(write, &pod).await
    }

    /// Returns a pod; reads it live if the watch cache does not have it yet.
    async fn find_pod(&self, write: &Write<'_>, name: &str) -> Result<Arc<Object>, Status> {
        let namespace = write.attributes.namespace;
        let mut pod = self.pods.get(namespace, name)?;
        if pod.is_none() {
            pod = self.pods.get_live(namespace, name).await?;
        }
        pod.ok_or_else(|| Status::not_found(&GroupResource::new("", "pods"), name))
    }
}

/// A write by a kubelet.
struct Write<'a> {
    attributes: &'a Attributes<'a>,
    node: &'a str,
    /// The object to store; null for a deletion.
    object: &'a Value,
}

impl Write<'_> {
    fn forbidden(&self, why: &str) -> Status {
        let names = [self.attributes.name, meta::name(self.object), meta::generate_name(self.object)];
        let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or("Unknown");
        Status::forbidden(&self.attributes.def.group_resource(), name, why)
    }

    fn only_create(&self) -> Result<(), Status> {
        if self.attributes.is_create() {
            return Ok(());
        }
        Err(self.forbidden(&format!("unexpected operation {}", self.attributes.operation)))
    }

    fn updated(&self) -> Result<&Value, Status> {
        match self.attributes.old {
            Some(old) if self.attributes.is_update() => Ok(old.as_value()),
            _ => {
                let operation = self.attributes.operation.as_str();
                Err(self.forbidden(&format!("unexpected operation {operation:?}")))
            }
        }
    }

    fn slice(&self) -> Result<(), Status> {
        let is_of_node = |slice: &Value| meta::str_at(slice, &["spec", "nodeName"]) == Some(self.node);
        let what = match self.attributes.operation {
            Operation::Create if !is_of_node(self.object) => "create",
            // If the slice does not exist, a later stage returns 404.
            Operation::Delete if self.attributes.old.is_some_and(|old| !is_of_node(old.as_value())) => {
                "delete"
            }
            _ => return Ok(()),
        };
        let why = format!("can only {what} ResourceSlice with the same NodeName as the requesting node");
        Err(self.forbidden(&why))
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
            let claims = |pod| meta::value_at(pod, &["status", field]);
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
        let config = |object| meta::value_at(object, &["spec", "configSource"]).filter(|it| !it.is_null());
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
            Operation::Update => {
                let old = self.updated()?;
                let taints = |object| meta::value_at(object, &["spec", "taints"]);
                let owners = |object| meta::field(object, "ownerReferences");
                if config(self.object).is_some() && config(self.object) != config(old) {
                    return Err(self.forbidden(&format!(
                        "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                    )));
                }
                if !same(taints(old), taints(self.object)) {
                    return Err(self.forbidden(&format!("node {node:?} is not allowed to modify taints")));
                }
                // With other owners, the node could be garbage collected and recreated without its taints and labels.
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
            Operation::Delete | Operation::Connect => {}
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

/// Returns whether two fields are equal. Empty and absent fields are equal.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    let is_empty = |value: &&Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    a.filter(|value| !is_empty(value)) == b.filter(|value| !is_empty(value))
}
