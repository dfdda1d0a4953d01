//! Prevents users from granting permissions that they do not have (upstream: `pkg/registry/rbac/*/policybased`).
//!
//! | write | admitted for |
//! | --- | --- |
//! | any | `system:masters`; updates of owners and finalizers only |
//! | a role | users with `escalate` on it, or with all its rules; if it aggregates roles, with all permissions |
//! | a binding | users with `bind` on its role, or with all the role's rules |
//!
//! This check is not a plugin, so flags cannot disable it.

use std::sync::Arc;

use async_trait::async_trait;
use nave_authz::rbac::{self, Rbac, Rule};
use nave_authz::{Chain, Decision, SYSTEM_MASTERS};
use nave_machinery::{GroupResource, Object, Status};
use serde::Deserialize;

use super::{Parts, changes_ownership_only};
use crate::{Attributes, Lister, Validate};

/// Creates the check.
pub(super) fn check(parts: &Parts) -> Arc<dyn Validate> {
    Arc::new(RbacEscalation {
        rbac: Arc::clone(&parts.rbac),
        authorizer: parts.authorizer.clone(),
        roles: Arc::clone(&parts.cluster.roles),
        cluster_roles: Arc::clone(&parts.cluster.cluster_roles),
    })
}

struct RbacEscalation {
    rbac: Arc<Rbac>,
    authorizer: Chain,
    roles: Arc<dyn Lister>,
    cluster_roles: Arc<dyn Lister>,
}

fn is_role(attributes: &Attributes<'_>) -> bool {
    attributes.is_resource(rbac::GROUP, "roles") || attributes.is_resource(rbac::GROUP, "clusterroles")
}

fn is_binding(attributes: &Attributes<'_>) -> bool {
    attributes.is_resource(rbac::GROUP, "rolebindings")
        || attributes.is_resource(rbac::GROUP, "clusterrolebindings")
}

#[async_trait]
impl Validate for RbacEscalation {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_write()
            && (is_role(attributes) || is_binding(attributes))
            && !attributes.user.groups.iter().any(|group| group == SYSTEM_MASTERS)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        let old = attributes.old.filter(|_| attributes.is_update());
        if old.is_some_and(|old| changes_ownership_only(object, old)) {
            return Ok(());
        }
        if is_role(attributes) {
            self.check_role(attributes, object, old).await
        } else {
            self.check_binding(attributes, object).await
        }
    }
}

impl RbacEscalation {
    async fn check_role(
        &self,
        attributes: &Attributes<'_>,
        role: &Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        // A create request has no object name, so `escalate` on a named role does not apply.
        let name = if old.is_some() { attributes.name } else { "" };
        if self.is_allowed(attributes, "escalate", &attributes.def.resource, name).await {
            return Ok(());
        }
        let aggregates = aggregates(role) || old.is_some_and(aggregates);
        self.rbac
            .confirm_role(attributes.user, attributes.namespace, &rules(role), aggregates)
            .map_err(|why| forbidden(attributes, role, &why))
    }

    async fn check_binding(&self, attributes: &Attributes<'_>, binding: &Object) -> Result<(), Status> {
        let role_ref = |field| binding.str_at(&["roleRef", field]).unwrap_or_default();
        let (kind, name) = (role_ref("kind"), role_ref("name"));
        let (resource, roles, namespace) = match kind {
            "ClusterRole" => ("clusterroles", &self.cluster_roles, ""),
            "Role" => ("roles", &self.roles, attributes.namespace),
            // Validation refuses other kinds.
            _ => return Ok(()),
        };
        if self.is_allowed(attributes, "bind", resource, name).await {
            return Ok(());
        }
        // A live read, as the role may have just been created or changed.
        let role = roles.get_live(namespace, name).await?;
        let not_found = || Status::not_found(&GroupResource::new(rbac::GROUP, resource), name);
        let role = role.ok_or_else(not_found)?;
        self.rbac
            .confirm_binding(attributes.user, attributes.namespace, &rules(&role))
            .map_err(|why| forbidden(attributes, binding, &why))
    }

    async fn is_allowed(&self, attributes: &Attributes<'_>, verb: &str, resource: &str, name: &str) -> bool {
        let asked = nave_authz::Attributes {
            verb,
            group: rbac::GROUP,
            version: "*",
            resource,
            name,
            namespace: attributes.namespace,
            ..nave_authz::Attributes::for_user(attributes.user)
        };
        self.authorizer.decide(&asked).await.decision == Decision::Allow
    }
}

fn forbidden(attributes: &Attributes<'_>, object: &Object, why: &str) -> Status {
    Status::forbidden(&attributes.def.group_resource(), object.name(), why)
}

/// Returns the rules of a role. A rule that cannot be parsed counts as all permissions.
fn rules(role: &Object) -> Vec<Rule> {
    let rules = role.list_at(&["rules"]).iter();
    rules.map(|rule| Rule::deserialize(rule).unwrap_or_else(|_| Rule::for_resource("*", "*", "*"))).collect()
}

fn aggregates(role: &Object) -> bool {
    !role.list_at(&["aggregationRule", "clusterRoleSelectors"]).is_empty()
}

#[cfg(test)]
mod tests {
    use nave_authz::Metrics;
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;
    use crate::testing::rights::allowing;
    use crate::testing::{MemoryCluster, Request, outcome, registry};

    async fn write(
        rights: &[&'static str],
        resource: &str,
        new: Value,
        old: Value,
    ) -> Result<(), (u16, String)> {
        let cluster = MemoryCluster::default();
        cluster.roles.put_uncached(json!({"metadata": {"name": "r", "namespace": "ns"}, "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}));
        let parts = cluster.parts(allowing(rights));
        let request = Request::new(registry(), rbac::GROUP, resource, new, old).by("jane", &["dev"]);
        outcome(request.validate(check(&parts).as_ref()).await)
    }

    fn role(verb: &str) -> Value {
        json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]})
    }

    fn binding(name: &str) -> Value {
        json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": name}})
    }

    #[tokio::test]
    async fn role_requires_its_rules_or_escalate() {
        let (new, old) = (role("delete"), role("get"));
        assert!(
            write(&[], "roles", new.clone(), Value::Null)
                .await
                .unwrap_err()
                .1
                .contains("attempting to grant RBAC permissions not currently held")
        );
        assert_eq!(write(&["escalate roles "], "roles", new.clone(), Value::Null).await, Ok(()));
        assert!(
            write(&["escalate roles r"], "roles", new.clone(), Value::Null).await.is_err(),
            "a create names nothing"
        );
        assert_eq!(write(&["escalate roles r"], "roles", new.clone(), old.clone()).await, Ok(()));
        assert!(write(&[], "roles", new, old.clone()).await.is_err());
        let mut owned = old.clone();
        owned["metadata"]["finalizers"] = json!(["f"]);
        assert_eq!(write(&[], "roles", owned, old).await, Ok(()));
        let aggregating =
            json!({"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": [{}]}});
        assert!(write(&[], "clusterroles", aggregating.clone(), Value::Null).await.is_err());
        let without = json!({"metadata": {"name": "r"}});
        assert!(
            write(&[], "clusterroles", without, aggregating).await.is_err(),
            "what aggregated counts too"
        );
    }

    #[tokio::test]
    async fn binding_requires_the_roles_rules_or_bind() {
        assert!(write(&[], "rolebindings", binding("r"), Value::Null).await.is_err());
        assert_eq!(write(&["bind roles r"], "rolebindings", binding("r"), Value::Null).await, Ok(()));
        let missing = r#"roles.rbac.authorization.k8s.io "gone" not found"#;
        assert_eq!(
            write(&[], "rolebindings", binding("gone"), Value::Null).await,
            Err((404, missing.to_owned()))
        );
        let cluster = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "c"}});
        assert_eq!(
            write(&["bind clusterroles c"], "clusterrolebindings", cluster, Value::Null).await,
            Ok(())
        );
    }

    #[tokio::test]
    async fn system_masters_are_exempt() {
        let parts_free = Request::new(registry(), rbac::GROUP, "roles", role("delete"), Value::Null)
            .by("root", &[SYSTEM_MASTERS]);
        let cluster = MemoryCluster::default();
        let parts =
            cluster.parts(Chain::new(Vec::new(), Metrics::new(&prometheus::Registry::new()).unwrap()));
        assert_eq!(outcome(parts_free.validate(check(&parts).as_ref()).await), Ok(()));
    }
}
