//! The objects of `rbac.authorization.k8s.io`, as the index deserializes them.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::rule::Rule;

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// One of the four kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Role,
    ClusterRole,
    RoleBinding,
    ClusterRoleBinding,
}

/// A change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The object's kind.
    pub kind: Kind,
    /// The object's namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object as JSON; `None` if it was deleted. An object that cannot be deserialized counts as deleted.
    pub json: Option<Bytes>,
}

/// A namespace and a name. The namespace is empty for cluster-scoped objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

impl Key {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// A `Role` or a `ClusterRole`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Role {
    pub(super) rules: Option<Vec<Rule>>,
}

/// A `RoleBinding` or a `ClusterRoleBinding`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Binding {
    pub(super) metadata: Metadata,
    pub(super) subjects: Option<Vec<Subject>>,
    pub(super) role_ref: RoleRef,
}

/// The reference of a binding to a role.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RoleRef {
    pub(super) kind: String,
    pub(super) name: String,
}

/// A subject of a binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Subject {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
}

/// The user or group that a subject names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Who {
    User(Arc<str>),
    Group(Arc<str>),
}

impl Subject {
    /// Returns the user or group of a subject in a binding of this namespace; `None` if the subject is invalid.
    pub(super) fn who(&self, binding_namespace: &str) -> Option<Who> {
        match self.kind.as_str() {
            "User" => Some(Who::User(self.name.as_str().into())),
            "Group" => Some(Who::Group(self.name.as_str().into())),
            "ServiceAccount" => match self.namespace(binding_namespace) {
                "" => None,
                namespace => {
                    Some(Who::User(format!("system:serviceaccount:{namespace}:{}", self.name).into()))
                }
            },
            _ => None,
        }
    }

    /// Formats the subject for a reason: `User "u"`, `ServiceAccount "name/namespace"`.
    pub(super) fn describe(&self, binding_namespace: &str) -> String {
        match self.kind.as_str() {
            "ServiceAccount" => {
                format!("{} {:?}", self.kind, format!("{}/{}", self.name, self.namespace(binding_namespace)))
            }
            kind => format!("{kind} {:?}", self.name),
        }
    }

    fn namespace<'a>(&'a self, binding_namespace: &'a str) -> &'a str {
        if self.namespace.is_empty() { binding_namespace } else { &self.namespace }
    }
}

impl Binding {
    /// Formats the binding for a reason: `RoleBinding "name/namespace" of Role "r" to User "u"`.
    pub(super) fn describe(&self, subject: &Subject) -> String {
        let Metadata { namespace, name } = &self.metadata;
        let RoleRef { kind, name: role, .. } = &self.role_ref;
        let subject = subject.describe(namespace);
        if namespace.is_empty() {
            return format!("ClusterRoleBinding {name:?} of {kind} {role:?} to {subject}");
        }
        format!("RoleBinding {:?} of {kind} {role:?} to {subject}", format!("{name}/{namespace}"))
    }

    /// Returns the key of the bound role; `None` if the reference is invalid. A `Role` is in the binding's namespace.
    pub(super) fn role(&self) -> Option<Key> {
        match (self.role_ref.kind.as_str(), self.metadata.namespace.as_str()) {
            ("ClusterRole", _) => Some(Key::new("", &self.role_ref.name)),
            ("Role", namespace) if !namespace.is_empty() => Some(Key::new(namespace, &self.role_ref.name)),
            _ => None,
        }
    }
}

impl RoleRef {
    /// The error for a role that does not exist.
    pub(super) fn not_found(&self) -> String {
        match self.kind.as_str() {
            "Role" => format!("role.{GROUP} {:?} not found", self.name),
            "ClusterRole" => format!("clusterrole.{GROUP} {:?} not found", self.name),
            other => format!("unsupported role reference kind: {other:?}"),
        }
    }
}
