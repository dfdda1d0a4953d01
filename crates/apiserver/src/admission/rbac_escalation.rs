//! Nobody gives away rights that they do not have (upstream: `pkg/registry/rbac/*/policybased`).
//!
//! | write | let in |
//! | --- | --- |
//! | any | of `system:masters`, and where only owners and finalizers change |
//! | a role | who may `escalate` it, or holds all its rules; everything, if it gathers other roles |
//! | a binding | who may `bind` its role, or holds all the role's rules |

use std::sync::Arc;

use async_trait::async_trait;
use nave_authz::rbac::{self, Rbac, Rule};
use nave_authz::{Chain, SYSTEM_MASTERS};
use nave_machinery::{GroupResource, Status, Value, meta};
use nave_resources::ResourceDef;
use serde::Deserialize;

use super::{Attributes, Operation, Plugin, Rights};
use crate::storage::ResourceStorage;

/// The plugin.
pub struct RbacEscalation {
    /// Who holds what.
    pub rbac: Arc<Rbac>,
    /// Who may `escalate` and `bind`.
    pub authorization: Chain,
    /// The roles of namespaces.
    pub roles: Arc<ResourceStorage>,
    /// The roles of the cluster.
    pub cluster_roles: Arc<ResourceStorage>,
}

#[async_trait]
impl Plugin for RbacEscalation {
    /// The role that a binding names may have been created a moment ago.
    async fn prepare_for_create(&self, def: &ResourceDef, _: &str, _: &Value) -> Result<(), Status> {
        if !is_rbac(def, &["rolebindings", "clusterrolebindings"]) {
            return Ok(());
        }
        let revision = self.roles.current_revision().await?;
        self.roles.wait_until(revision).await?;
        self.cluster_roles.wait_until(revision).await
    }

    fn admit_by_rights(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Value>,
        rights: &Rights,
    ) -> Result<(), Status> {
        let Some(object) = object.map(|object| &*object) else { return Ok(()) };
        let (is_role, is_binding) = (
            is_rbac(attributes.def, &["roles", "clusterroles"]),
            is_rbac(attributes.def, &["rolebindings", "clusterrolebindings"]),
        );
        let untouched = !is_role && !is_binding;
        if untouched || attributes.user.groups.iter().any(|group| group == SYSTEM_MASTERS) {
            return Ok(());
        }
        if let Operation::Update(old) = attributes.operation
            && differs_in_ownership_alone(object, old)
        {
            return Ok(());
        }
        if is_role {
            self.check_role(attributes, object, rights)
        } else {
            self.check_binding(attributes, object, rights)
        }
    }
}

impl RbacEscalation {
    fn check_role(&self, attributes: &Attributes<'_>, role: &Value, rights: &Rights) -> Result<(), Status> {
        // A create does not name its object: the right to escalate one role is no right to make it.
        let (name, old) = match attributes.operation {
            Operation::Update(old) => (attributes.name, Some(old)),
            _ => ("", None),
        };
        if self.may(rights, attributes, "escalate", &attributes.def.resource, name)? {
            return Ok(());
        }
        let aggregates = aggregates(role) || old.is_some_and(aggregates);
        self.rbac
            .confirm_role(attributes.user, attributes.namespace, &rules(role), aggregates)
            .map_err(|why| forbidden(attributes, role, &why))
    }

    fn check_binding(
        &self,
        attributes: &Attributes<'_>,
        binding: &Value,
        rights: &Rights,
    ) -> Result<(), Status> {
        let role_ref = |field| meta::str_at(binding, &["roleRef", field]).unwrap_or_default();
        let (kind, name) = (role_ref("kind"), role_ref("name"));
        let (resource, found) = match kind {
            "ClusterRole" => ("clusterroles", self.cluster_roles.find("", name)),
            "Role" => ("roles", self.roles.find(attributes.namespace, name)),
            // Validation says what is wrong with it.
            _ => return Ok(()),
        };
        if self.may(rights, attributes, "bind", resource, name)? {
            return Ok(());
        }
        let storage = if resource == "roles" { &self.roles } else { &self.cluster_roles };
        let not_found = || Status::not_found(&GroupResource::new(rbac::GROUP, resource), name);
        let found = found.ok_or_else(not_found)?;
        let role = storage.codec().parse_cached(&found)?;
        self.rbac
            .confirm_binding(attributes.user, attributes.namespace, &rules(&role))
            .map_err(|why| forbidden(attributes, binding, &why))
    }

    fn may(
        &self,
        rights: &Rights,
        attributes: &Attributes<'_>,
        verb: &str,
        resource: &str,
        name: &str,
    ) -> Result<bool, Status> {
        let asked = nave_authz::Attributes {
            verb,
            group: rbac::GROUP,
            version: "*",
            resource,
            name,
            namespace: attributes.namespace,
            ..nave_authz::Attributes::of(attributes.user)
        };
        rights.may(&self.authorization, &asked)
    }
}

fn forbidden(attributes: &Attributes<'_>, object: &Value, why: &str) -> Status {
    Status::forbidden(&attributes.def.group_resource(), meta::name(object), why)
}

fn is_rbac(def: &ResourceDef, resources: &[&str]) -> bool {
    def.group == rbac::GROUP && resources.contains(&def.resource.as_str())
}

/// A role's rules; one that is not readable counts for everything.
fn rules(role: &Value) -> Vec<Rule> {
    let rules = role.get("rules").and_then(Value::as_array).into_iter().flatten();
    rules.map(|rule| Rule::deserialize(rule).unwrap_or_else(|_| Rule::on("*", "*", "*"))).collect()
}

fn aggregates(role: &Value) -> bool {
    let selectors = meta::at(role, &["aggregationRule", "clusterRoleSelectors"]).and_then(Value::as_array);
    selectors.is_some_and(|selectors| !selectors.is_empty())
}

/// Whether an update changes nothing but what garbage collection needs to change.
fn differs_in_ownership_alone(new: &Value, old: &Value) -> bool {
    let stripped = |object: &Value| {
        let mut object = object.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            meta::remove(&mut object, field);
        }
        object
    };
    stripped(new) == stripped(old)
}
