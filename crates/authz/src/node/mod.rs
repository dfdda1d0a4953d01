//! The node authorizer (upstream: `plugin/pkg/auth/authorizer/node`).
//!
//! A kubelet authenticates as `system:node:NAME` in the group `system:nodes`. It may read the objects to which pods on
//! its node refer, write its own node, lease and `CSINode`, and make the requests that the role `system:node` allows.
//!
//! | file | contents |
//! | --- | --- |
//! | `graph` | [`Graph`]: the nodes related to an object through pods, volumes and claims |
//! | `deferred` | pods that are read when their node makes a request |
//! | `references` | the references of pods and persistent volumes |

mod deferred;
mod graph;
mod references;

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::user::UserInfo;
use parking_lot::{RwLock, RwLockWriteGuard};

use crate::bootstrap;
use crate::rbac::Rule;
use crate::rules::{RuleResolver, UserRules};
use crate::{Attributes, Authorizer, Verdict};

pub use graph::{Graph, Kind};
pub use references::{OwnedView, VolumeView};

/// The group of kubelets.
pub const NODES_GROUP: &str = "system:nodes";

/// The prefix of a kubelet's user name.
const NODE_USER: &str = "system:node:";

/// Returns the node of a kubelet user: `None` if the user is not a kubelet, `Some("")` if the node is unknown.
pub fn node_of(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_USER)?;
    user.groups.iter().any(|group| group == NODES_GROUP).then_some(name)
}

/// The node authorizer.
pub struct Node {
    graph: Arc<RwLock<Graph>>,
    rules: Vec<Rule>,
}

impl Node {
    /// Creates an authorizer that looks up relations in `graph`. The caller keeps the graph up to date.
    ///
    /// # Errors
    /// A bug in the bootstrap policy, which contains the rules of `system:node`.
    pub fn new(graph: Arc<RwLock<Graph>>) -> Result<Self, bootstrap::PolicyError> {
        Ok(Self { graph, rules: bootstrap::rules_of("system:node")? })
    }

    fn decide(&self, node: &str, attributes: &Attributes<'_>) -> Verdict {
        match (attributes.group, attributes.resource) {
            ("", "secrets") => self.read(node, Kind::Secret, attributes),
            ("", "configmaps") => self.read(node, Kind::ConfigMap, attributes),
            ("", "persistentvolumeclaims") if attributes.subresource == "status" => match attributes.verb {
                "update" | "patch" => self.related(node, Kind::Claim, attributes),
                _ => Verdict::no_opinion("can only get/update/patch this type"),
            },
            ("", "persistentvolumeclaims") => self.get(node, Kind::Claim, attributes),
            ("", "persistentvolumes") => self.get(node, Kind::Volume, attributes),
            ("resource.k8s.io", "resourceclaims") => self.get(node, Kind::ResourceClaim, attributes),
            ("storage.k8s.io", "volumeattachments") => self.get(node, Kind::Attachment, attributes),
            ("", "serviceaccounts") => self.service_account(node, attributes),
            ("coordination.k8s.io", "leases") => lease(node, attributes),
            ("storage.k8s.io", "csinodes") => csi_node(node, attributes),
            ("resource.k8s.io", "resourceslices") => self.resource_slice(node, attributes),
            ("", "nodes") => own_node(node, attributes),
            ("", "pods") => self.pod(node, attributes),
            _ if self.rules.iter().any(|rule| rule.allows(attributes)) => Verdict::allow(""),
            _ => Verdict::no_opinion(""),
        }
    }

    /// Decides about get, list and watch requests for a single object in a namespace.
    fn read(&self, node: &str, kind: Kind, attributes: &Attributes<'_>) -> Verdict {
        if !matches!(attributes.verb, "get" | "list" | "watch") {
            return Verdict::no_opinion("can only read resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return Verdict::no_opinion("cannot read subresource");
        }
        if attributes.namespace.is_empty() {
            return Verdict::no_opinion("can only read namespaced object of this type");
        }
        self.related(node, kind, attributes)
    }

    fn get(&self, node: &str, kind: Kind, attributes: &Attributes<'_>) -> Verdict {
        if attributes.verb != "get" {
            return Verdict::no_opinion("can only get individual resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return Verdict::no_opinion("cannot get subresource");
        }
        self.related(node, kind, attributes)
    }

    fn related(&self, node: &str, kind: Kind, attributes: &Attributes<'_>) -> Verdict {
        if attributes.name.is_empty() {
            return Verdict::no_opinion("No Object name found");
        }
        self.relation(node, kind, attributes)
    }

    fn relation(&self, node: &str, kind: Kind, attributes: &Attributes<'_>) -> Verdict {
        let mut graph = self.graph.read();
        if graph.has_deferred(node) {
            drop(graph);
            let mut changed = self.graph.write();
            changed.read_deferred(node);
            graph = RwLockWriteGuard::downgrade(changed);
        }
        if graph.is_related(kind, attributes.namespace, attributes.name, node) {
            return Verdict::allow("");
        }
        Verdict::no_opinion(format!("no relationship found between node '{node}' and this object"))
    }

    /// Decides about service accounts: a kubelet may read those of its pods and create tokens for them.
    fn service_account(&self, node: &str, attributes: &Attributes<'_>) -> Verdict {
        if attributes.verb == "get" && attributes.subresource.is_empty() {
            return self.related(node, Kind::ServiceAccount, attributes);
        }
        if attributes.verb != "create" || attributes.name.is_empty() {
            return Verdict::no_opinion("can only create tokens for individual service accounts");
        }
        if attributes.subresource != "token" {
            return Verdict::no_opinion("can only create token subresource of serviceaccount");
        }
        self.relation(node, Kind::ServiceAccount, attributes)
    }

    fn resource_slice(&self, node: &str, attributes: &Attributes<'_>) -> Verdict {
        if !attributes.subresource.is_empty() {
            return Verdict::no_opinion("cannot authorize ResourceSlice subresources");
        }
        match attributes.verb {
            // The NodeRestriction admission plugin checks that the new slice is for the node.
            "create" => Verdict::allow(""),
            "get" | "update" | "patch" | "delete" => self.related(node, Kind::ResourceSlice, attributes),
            "watch" | "list" | "deletecollection" if attributes.requires_field("spec.nodeName", node) => {
                Verdict::allow("")
            }
            "watch" | "list" | "deletecollection" => Verdict::no_opinion(
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => Verdict::no_opinion(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn pod(&self, node: &str, attributes: &Attributes<'_>) -> Verdict {
        match (attributes.subresource, attributes.verb) {
            ("", "get") => self.get(node, Kind::Pod, attributes),
            ("", "list" | "watch") if attributes.requires_field("spec.nodeName", node) => Verdict::allow(""),
            ("", "list" | "watch") if !attributes.name.is_empty() => {
                self.related(node, Kind::Pod, attributes)
            }
            ("", "list" | "watch") => {
                Verdict::no_opinion("can only list/watch pods with spec.nodeName field selector")
            }
            // The NodeRestriction admission plugin checks that the pods are on the node.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Verdict::allow("")
            }
            _ => Verdict::no_opinion(""),
        }
    }
}

#[async_trait]
impl Authorizer for Node {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        match node_of(attributes.user) {
            None => Verdict::no_opinion(""),
            Some("") => Verdict::no_opinion(format!("unknown node for user {:?}", attributes.user.name)),
            Some(node) => self.decide(node, attributes),
        }
    }
}

impl RuleResolver for Node {
    fn rules_for(&self, user: &UserInfo, _: &str) -> UserRules {
        match node_of(user) {
            Some(_) => UserRules::unknown("node authorizer does not support user rule resolution"),
            None => UserRules::default(),
        }
    }
}

/// Decides about leases: a kubelet may access its own heartbeat lease.
fn lease(node: &str, attributes: &Attributes<'_>) -> Verdict {
    const NAMESPACE: &str = "kube-node-lease";
    if !matches!(attributes.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Verdict::no_opinion("can only get, create, update, patch, or delete a node lease");
    }
    if attributes.namespace != NAMESPACE {
        return Verdict::no_opinion(format!("can only access leases in the {NAMESPACE:?} system namespace"));
    }
    // A create request has no object name; NodeRestriction checks the name in the object.
    if attributes.verb != "create" && attributes.name != node {
        return Verdict::no_opinion("can only access node lease with the same name as the requesting node");
    }
    Verdict::allow("")
}

fn csi_node(node: &str, attributes: &Attributes<'_>) -> Verdict {
    if !matches!(attributes.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Verdict::no_opinion("can only get, create, update, patch, or delete a CSINode");
    }
    if !attributes.subresource.is_empty() {
        return Verdict::no_opinion("cannot authorize CSINode subresources");
    }
    if attributes.verb != "create" && attributes.name != node {
        return Verdict::no_opinion("can only access CSINode with the same name as the requesting node");
    }
    Verdict::allow("")
}

/// Decides about nodes. Compares the name instead of using the graph, because a kubelet reads its node before it
/// creates it.
fn own_node(node: &str, attributes: &Attributes<'_>) -> Verdict {
    match (attributes.subresource, attributes.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Verdict::allow(""),
        ("", "get" | "list" | "watch") if attributes.name == node => Verdict::allow(""),
        ("", "get" | "list" | "watch") if attributes.name.is_empty() => {
            Verdict::no_opinion(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => Verdict::no_opinion(format!(
            "node '{node}' cannot read '{}', only its own Node object",
            attributes.name
        )),
        _ => Verdict::no_opinion(""),
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::selector::FieldSelector;

    use super::*;
    use crate::{Decision, Selected};

    fn node() -> Node {
        let mut graph = Graph::default();
        let refers_to = [
            (Kind::Secret, "s"),
            (Kind::ConfigMap, "m"),
            (Kind::ServiceAccount, "robot"),
            (Kind::Claim, "c"),
        ];
        graph.set_pod("a", "p", "n1", refers_to);
        graph.set_volume("v", ("a", "c"), [("a", "vs")]);
        graph.set_owned(Kind::Attachment, "va", "n1");
        graph.set_owned(Kind::ResourceSlice, "rs", "n1");
        Node::new(Arc::new(RwLock::new(graph))).unwrap()
    }

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        let groups = groups.iter().map(ToString::to_string).collect();
        UserInfo { name: name.into(), groups, ..UserInfo::default() }
    }

    /// `verb group/resource/subresource [namespace/]name [selector]`, `-` for empty, and the decision for node n1.
    const CASES: &str = r#"
        get /secrets/ a/s -> allow
        list /secrets/ a/s -> allow
        watch /secrets/ a/vs -> allow
        get /secrets/ a/other -> no relationship found between node 'n1' and this object
        get /secrets/ b/s -> no relationship found between node 'n1' and this object
        list /secrets/ a/ -> No Object name found
        list /secrets/ / -> can only read namespaced object of this type
        update /secrets/ a/s -> can only read resources of this type
        get /secrets/x a/s -> cannot read subresource
        get /configmaps/ a/m -> allow
        get /persistentvolumeclaims/ a/c -> allow
        list /persistentvolumeclaims/ a/c -> can only get individual resources of this type
        patch /persistentvolumeclaims/status a/c -> allow
        get /persistentvolumeclaims/status a/c -> can only get/update/patch this type
        get /persistentvolumes/ /v -> allow
        get /persistentvolumes/ /w -> no relationship found between node 'n1' and this object
        get storage.k8s.io/volumeattachments/ /va -> allow
        get resource.k8s.io/resourceclaims/ a/rc -> no relationship found between node 'n1' and this object
        create /serviceaccounts/token a/robot -> allow
        create /serviceaccounts/token a/other -> no relationship found between node 'n1' and this object
        create /serviceaccounts/ a/robot -> can only create token subresource of serviceaccount
        list /serviceaccounts/ a/ -> can only create tokens for individual service accounts
        get /serviceaccounts/ a/robot -> allow
        create coordination.k8s.io/leases/ kube-node-lease/ -> allow
        update coordination.k8s.io/leases/ kube-node-lease/n1 -> allow
        update coordination.k8s.io/leases/ kube-node-lease/n2 -> can only access node lease with the same name as the requesting node
        update coordination.k8s.io/leases/ a/n1 -> can only access leases in the "kube-node-lease" system namespace
        list coordination.k8s.io/leases/ kube-node-lease/ -> can only get, create, update, patch, or delete a node lease
        create storage.k8s.io/csinodes/ / -> allow
        delete storage.k8s.io/csinodes/ /n2 -> can only access CSINode with the same name as the requesting node
        list storage.k8s.io/csinodes/ / -> can only get, create, update, patch, or delete a CSINode
        create resource.k8s.io/resourceslices/ / -> allow
        delete resource.k8s.io/resourceslices/ /rs -> allow
        delete resource.k8s.io/resourceslices/ /other -> no relationship found between node 'n1' and this object
        list resource.k8s.io/resourceslices/ / spec.nodeName=n1 -> allow
        list resource.k8s.io/resourceslices/ / spec.nodeName=n2 -> can only list/watch/deletecollection resourceslices with nodeName field selector
        get /nodes/ /n1 -> allow
        get /nodes/ /n2 -> node 'n1' cannot read 'n2', only its own Node object
        list /nodes/ / -> node 'n1' cannot read all nodes, only its own Node object
        create /nodes/ / -> allow
        patch /nodes/status /n2 -> allow
        delete /nodes/ /n1 ->
        get /pods/ a/p -> allow
        get /pods/ a/q -> no relationship found between node 'n1' and this object
        list /pods/ / spec.nodeName=n1 -> allow
        watch /pods/ / spec.nodeName!=n1 -> can only list/watch pods with spec.nodeName field selector
        list /pods/ a/ -> can only list/watch pods with spec.nodeName field selector
        watch /pods/ a/p -> allow
        update /pods/status a/p -> allow
        create /pods/eviction a/p -> allow
        create /pods/exec a/p ->
        create /pods/ a/ -> allow
        update /pods/ a/p ->
        get /services/ a/x -> allow
        list node.k8s.io/runtimeclasses/ / -> allow
        create certificates.k8s.io/certificatesigningrequests/ / -> allow
        get apps/deployments/ a/d ->
    "#;

    #[tokio::test]
    async fn kubelet_may_access_objects_of_its_pods() {
        let (node, kubelet) = (node(), user("system:node:n1", &["system:nodes"]));
        let mut cases = 0;
        for line in CASES.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (request, expected) = line.split_once(" ->").unwrap();
            let words: Vec<&str> = request.split(' ').collect();
            let [group, resource, subresource] = words[1].split('/').collect::<Vec<_>>().try_into().unwrap();
            let (namespace, name) = words[2].split_once('/').unwrap();
            let fields = FieldSelector::parse(words.get(3).unwrap_or(&"")).unwrap();
            let fields = Selected { requirements: fields.requirements(), incomplete: false };
            let all = Attributes::for_user(&kubelet);
            let attributes =
                Attributes { verb: words[0], group, resource, subresource, namespace, name, fields, ..all };
            let verdict = node.authorize(&attributes).await;
            let said = match verdict.decision {
                Decision::Allow => "allow",
                _ => &verdict.reason,
            };
            assert_eq!(said, expected.trim(), "{line}");
            cases += 1;
        }
        assert!(cases > 50, "{cases}");
    }

    #[tokio::test]
    async fn a_check_reads_the_pods_of_its_node_first() {
        let pod = r#"{"spec":{"nodeName":"n1","imagePullSecrets":[{"name":"s"}]}}"#;
        let mut graph = Graph::default();
        graph.defer_pod(&"/registry/pods/a/p".into(), "n1", pod.into());
        let node = Node::new(Arc::new(RwLock::new(graph))).unwrap();
        for (name, expected) in [("n2", Decision::NoOpinion), ("n1", Decision::Allow)] {
            let kubelet = user(&format!("system:node:{name}"), &["system:nodes"]);
            let all = Attributes::for_user(&kubelet);
            let attributes =
                Attributes { verb: "get", resource: "secrets", namespace: "a", name: "s", ..all };
            assert_eq!(node.authorize(&attributes).await.decision, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn has_no_opinion_about_other_users() {
        let node = node();
        let decide = async |user: UserInfo| {
            let attributes =
                Attributes { verb: "get", resource: "nodes", name: "n1", ..Attributes::for_user(&user) };
            let verdict = node.authorize(&attributes).await;
            (verdict.decision, verdict.reason.into_owned())
        };
        for (name, group) in
            [("n1", "system:nodes"), ("system:node:n1", "system:node"), ("system:nodes", "system:nodes")]
        {
            assert_eq!(decide(user(name, &[group])).await, (Decision::NoOpinion, String::new()), "{name}");
        }
        let unknown = (Decision::NoOpinion, "unknown node for user \"system:node:\"".to_owned());
        assert_eq!(decide(user("system:node:", &["system:nodes"])).await, unknown);
    }
}
