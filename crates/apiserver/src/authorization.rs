//! Requests as authorization sees them, and what keeps the authorizers up to date.

use std::collections::HashSet;
use std::sync::Arc;

use http::Method;
use nave_authz::node::{self, Graph};
use nave_authz::rbac::{self, Change, Rbac};
use nave_authz::{Attributes, Selected};
use nave_cacher::{CachedObject, Delivery, EventType};
use nave_machinery::GroupVersionResource;
use nave_machinery::selector::{FieldSelector, LabelSelector};
use nave_machinery::user::UserInfo;
use parking_lot::RwLock;

use crate::request_info::{RequestInfo, Verb};
use crate::storage::{Follower, Following, Storages};

/// What a request asks to be allowed: the same parsed parts that storage keys are built from.
pub struct Asked<'a> {
    info: &'a RequestInfo,
    verb: &'static str,
    selectors: Option<Selectors>,
}

/// The selectors of a list, a watch or a deletion of a collection; `None` where one could not be read.
#[derive(Default)]
struct Selectors {
    fields: Option<FieldSelector>,
    labels: Option<LabelSelector>,
}

impl<'a> Asked<'a> {
    /// Reads a request.
    pub fn new(info: &'a RequestInfo, method: &Method) -> Self {
        // For paths that are no resource, authorization speaks of the method.
        let verb = if info.resource.is_some() { info.verb.as_str() } else { path_verb(method) };
        Self { info, verb, selectors: Selectors::of(info) }
    }

    /// The question whether this user may do it.
    pub fn by(&'a self, user: &'a UserInfo) -> Attributes<'a> {
        let all = Attributes { verb: self.verb, path: &self.info.path, ..Attributes::of(user) };
        let Some(resource) = &self.info.resource else { return all };
        let mut attributes = Attributes {
            group: &resource.gvr.group,
            version: &resource.gvr.version,
            resource: &resource.gvr.resource,
            subresource: &resource.subresource,
            name: &resource.name,
            namespace: &resource.namespace,
            ..all
        };
        if let Some(Selectors { fields, labels }) = &self.selectors {
            attributes.fields = Selected {
                requirements: fields.as_ref().map_or(&[], FieldSelector::requirements),
                incomplete: fields.is_none(),
            };
            attributes.labels = Selected {
                requirements: labels.as_ref().map_or(&[], LabelSelector::requirements),
                incomplete: labels.is_none(),
            };
            // Who asks for the one object of a name may do so by the rights to that object.
            let named = fields.as_ref().and_then(|fields| fields.exact("metadata.name"));
            if let Some(name) = named.filter(|name| attributes.name.is_empty() && is_path_segment(name))
                && self.info.verb != Verb::DeleteCollection
            {
                attributes.name = name;
            }
        }
        attributes
    }
}

impl Selectors {
    fn of(info: &RequestInfo) -> Option<Self> {
        if !matches!(info.verb, Verb::List | Verb::Watch | Verb::DeleteCollection) {
            return None;
        }
        let (fields, labels) = (info.query.get("fieldSelector"), info.query.get("labelSelector"));
        fields.or(labels)?;
        Some(Self {
            fields: FieldSelector::parse(fields.unwrap_or_default()).ok(),
            labels: LabelSelector::parse(labels.unwrap_or_default()).ok(),
        })
    }
}

/// Whether a text can be the name of an object in a path.
fn is_path_segment(name: &str) -> bool {
    !name.is_empty() && nave_machinery::names::is_path_segment_name(name).is_empty()
}

fn path_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

/// Keeps an index up to date with the roles and bindings that are stored.
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

/// Tells an index about the objects of one kind.
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
            json: (!gone).then(|| object.json().clone()),
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

/// Keeps a graph up to date with what is stored of pods, volumes, attachments and resource slices.
pub fn follow_nodes(storages: &Storages, graph: &Arc<RwLock<Graph>>) -> Vec<Following> {
    let kinds = [
        ("", "pods", node::Kind::Pod),
        ("", "persistentvolumes", node::Kind::Volume),
        ("storage.k8s.io", "volumeattachments", node::Kind::Attachment),
        ("resource.k8s.io", "resourceslices", node::Kind::ResourceSlice),
    ];
    let follow = |(group, resource, kind)| {
        let cacher = storages.cacher(&GroupVersionResource::new(group, "v1", resource))?;
        let follower = GraphFollower { graph: Arc::clone(graph), kind };
        Some(Following::start(Arc::clone(cacher), Arc::new(follower)))
    };
    kinds.into_iter().filter_map(follow).collect()
}

/// Tells a graph about the objects of one kind.
struct GraphFollower {
    graph: Arc<RwLock<Graph>>,
    kind: node::Kind,
}

impl GraphFollower {
    /// An object that cannot be read leads to nothing.
    fn enter(&self, object: &CachedObject) {
        let (namespace, name, json) = (object.namespace(), object.name(), object.json());
        let graph = || self.graph.write();
        let entered = match self.kind {
            node::Kind::Pod => serde_json::from_slice(json)
                .map(|pod: node::PodView<'_>| pod.enter(&mut graph(), namespace, name)),
            node::Kind::Volume => serde_json::from_slice(json)
                .map(|volume: node::VolumeView<'_>| volume.enter(&mut graph(), name)),
            kind => serde_json::from_slice(json)
                .map(|owned: node::OwnedView<'_>| owned.enter(&mut graph(), kind, name)),
        };
        if let Err(error) = entered {
            tracing::error!(key = %object.key(), %error, "nodes cannot reach what this object refers to");
            graph().remove(self.kind, namespace, name);
        }
    }
}

impl Follower for GraphFollower {
    fn replace(&self, objects: &[Arc<CachedObject>]) {
        let present: HashSet<(&str, &str)> = objects.iter().map(|it| (it.namespace(), it.name())).collect();
        let known = self.graph.read().known(self.kind);
        for (namespace, name) in known {
            if !present.contains(&(namespace.as_str(), name.as_str())) {
                self.graph.write().remove(self.kind, &namespace, &name);
            }
        }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nave_authz::{Authorizer, Decision};
    use serde_json::{Value, json};

    use super::*;

    /// An index in which user `u` may get and list pods in namespace `a`, and the secret `s` there by name.
    fn rbac() -> Rbac {
        let rbac = Rbac::default();
        let change = |kind, object: Value| Change {
            kind,
            namespace: "a".to_owned(),
            name: "r".to_owned(),
            json: Some(Bytes::from(object.to_string())),
        };
        let metadata = json!({"namespace": "a", "name": "r"});
        let rules = json!([
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]},
            {"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"]},
        ]);
        let role = json!({"metadata": metadata, "rules": rules});
        let role_ref = json!({"kind": "Role", "name": "r"});
        let subjects = json!([{"kind": "User", "name": "u"}]);
        let binding = json!({"metadata": metadata, "roleRef": role_ref, "subjects": subjects});
        rbac.apply([change(rbac::Kind::Role, role), change(rbac::Kind::RoleBinding, binding)]);
        rbac
    }

    async fn may(rbac: &Rbac, method: &Method, uri: &str) -> bool {
        // What cannot be read is answered with 400 before anybody is asked.
        let Ok(info) = RequestInfo::new(method, &uri.parse().unwrap()) else { return false };
        let user = UserInfo { name: "u".into(), ..UserInfo::default() };
        rbac.authorize(&Asked::new(&info, method).by(&user)).await.decision == Decision::Allow
    }

    #[tokio::test]
    async fn no_way_to_write_a_path_leads_further_than_the_rights() {
        let rbac = rbac();
        for uri in [
            "/api/v1/namespaces/a/pods",
            "/api/v1/namespaces/a/pods/p",
            "/api/v1/namespaces/a/pods/p/",
            "/api/v1/namespaces/%61/pods",
            "/api/v1/namespaces/a/secrets/s",
            "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Ds",
        ] {
            assert!(may(&rbac, &Method::GET, uri).await, "{uri}");
        }
        for uri in [
            "/api/v1/pods",
            "/api/v1/namespaces/b/pods",
            "/api/v1/namespaces//pods",
            "/api/v1//namespaces/a/pods",
            "/api/v1/namespaces/a//pods",
            "/api/v1/namespaces/a/../b/pods",
            "/api/v1/namespaces/a%2f..%2fb/pods",
            "/api/v1/namespaces/a/pods/../secrets/s",
            "/api/v1/namespaces/a/pods%2flog",
            "/api/v1/namespaces/a/pods/p/log",
            "/api/v1/namespaces/a/pods/p/exec",
            "/api/v1/namespaces/A/pods",
            "/api/v1/namespaces/a/Pods",
            "/API/v1/namespaces/a/pods",
            "/apis/apps/v1/namespaces/a/pods",
            "/apis//v1/namespaces/a/pods/p/status",
            "/api/v1/namespaces/a/secrets",
            "/api/v1/namespaces/a/secrets/t",
            "/api/v1/namespaces/a/secrets/s%2f..%2ft",
            "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name!%3Ds",
            "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Dt",
            "/api/v1/namespaces/a/secrets?labelSelector=metadata.name%3Ds",
            "/api/v1/namespaces/a/secrets/t?fieldSelector=metadata.name%3Ds",
            "/api/v1/watch/namespaces/a/pods",
            "/api/v1/namespaces/a/pods?watch=1",
            "/api/v1/namespaces/a/pods/%ff",
        ] {
            assert!(!may(&rbac, &Method::GET, uri).await, "{uri}");
        }
        let secrets = "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Ds";
        for method in [Method::DELETE, Method::POST, Method::OPTIONS] {
            assert!(!may(&rbac, &method, secrets).await, "{method}");
        }
    }
}
