//! Prevents users from reading objects through policies that they cannot read themselves (upstream:
//! `pkg/registry/admissionregistration/*/authz.go`).
//!
//! | write | admitted for |
//! | --- | --- |
//! | a policy with a new `paramKind` | users who can `get` all objects of the kind |
//! | a binding with a new `paramRef` | users who can `get` the object, or `list` the objects that it selects |
//!
//! `system:masters` may write both. This check is not a plugin, so flags cannot disable it.

use std::sync::Arc;

use async_trait::async_trait;
use nave_authz::{Chain, Decision, SYSTEM_MASTERS};
use nave_machinery::{FieldError, FieldPath, GroupVersion, GroupVersionKind, Object, Status, Value};

use super::store::GROUP;
use super::validator::text;
use crate::attributes::Attributes;
use crate::chain::Validate;
use crate::cluster::{KindResolver, Lister};
use crate::plugins::Parts;

/// Creates the check.
pub(crate) fn check(parts: &Parts) -> Arc<dyn Validate> {
    Arc::new(ParamRights {
        authorizer: parts.authorizer.clone(),
        kinds: Arc::clone(&parts.cluster.kinds),
        validating: Arc::clone(&parts.cluster.validating_admission_policies),
        mutating: Arc::clone(&parts.cluster.mutating_admission_policies),
    })
}

struct ParamRights {
    authorizer: Chain,
    kinds: Arc<dyn KindResolver>,
    validating: Arc<dyn Lister>,
    mutating: Arc<dyn Lister>,
}

/// The resources that a user must be able to read. `*` stands for all.
struct Scope {
    group: String,
    version: String,
    resource: String,
}

#[async_trait]
impl Validate for ParamRights {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_write()
            && attributes.def.group == GROUP
            && attributes.is_object()
            && (is_policy(attributes) || is_binding(attributes))
            && !attributes.user.groups.iter().any(|group| group == SYSTEM_MASTERS)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        // The write path refuses an invalid object with better errors.
        if !attributes.def.strategy.validate(object.as_value()).is_empty() {
            return Ok(());
        }
        let old = attributes.old.filter(|_| attributes.is_update());
        if is_policy(attributes) {
            self.check_policy(attributes, object, old).await
        } else {
            self.check_binding(attributes, object, old).await
        }
    }
}

fn is_policy(attributes: &Attributes<'_>) -> bool {
    matches!(&*attributes.def.resource, "validatingadmissionpolicies" | "mutatingadmissionpolicies")
}

fn is_binding(attributes: &Attributes<'_>) -> bool {
    matches!(
        &*attributes.def.resource,
        "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings"
    )
}

fn spec<'o>(object: &'o Object, field: &str) -> Option<&'o Value> {
    object.value_at(&["spec", field]).filter(|value| !value.is_null())
}

impl ParamRights {
    async fn check_policy(
        &self,
        attributes: &Attributes<'_>,
        policy: &Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let Some(kind) = spec(policy, "paramKind") else { return Ok(()) };
        if old.is_some_and(|old| spec(old, "paramKind") == Some(kind)) {
            return Ok(());
        }
        if self.allows(attributes, "get", &self.scope(kind), "*", "*").await {
            return Ok(());
        }
        let (user, kind, version) = (&attributes.user.name, text(kind, "kind"), text(kind, "apiVersion"));
        let why = format!(
            "user {user:?} must have \"get\" permission on all objects of the referenced paramKind (kind={kind}, \
             apiVersion={version})"
        );
        Err(refusal(attributes, policy, "paramKind", &why))
    }

    async fn check_binding(
        &self,
        attributes: &Attributes<'_>,
        binding: &Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let Some(reference) = spec(binding, "paramRef") else { return Ok(()) };
        let is_same = |old: &Object| {
            ["paramRef", "policyName"].into_iter().all(|field| spec(old, field) == spec(binding, field))
        };
        if old.is_some_and(is_same) {
            return Ok(());
        }
        let is_mutating = &*attributes.def.resource == "mutatingadmissionpolicybindings";
        let policies = if is_mutating { &self.mutating } else { &self.validating };
        let name = binding.str_at(&["spec", "policyName"]).unwrap_or_default();
        // A live read, as the policy may have just been created or changed.
        let policy = policies.get_live("", name).await?;
        let kind = policy.as_ref().and_then(|policy| spec(policy, "paramKind"));
        let scope = kind.map_or_else(Scope::all, |kind| self.scope(kind));
        let verb = if text(reference, "name").is_empty() { "list" } else { "get" };
        let (namespace, object) = (text(reference, "namespace"), text(reference, "name"));
        if self.allows(attributes, verb, &scope, namespace, object).await {
            return Ok(());
        }
        let user = &attributes.user.name;
        let why = match kind {
            Some(_) => {
                format!(
                    "user {user:?} does not have {verb:?} permission on the object referenced by paramRef"
                )
            }
            None => format!(
                "policy {name:?} does not determine the permissions, and user {user:?} does not have {verb:?} \
                 permission for all groups, versions and resources"
            ),
        };
        Err(refusal(attributes, binding, "paramRef", &why))
    }

    /// Returns the resource of a kind of parameters; all resources of the version if the kind is not served.
    fn scope(&self, kind: &Value) -> Scope {
        let Some(version) = GroupVersion::parse(text(kind, "apiVersion")) else { return Scope::all() };
        let kind = GroupVersionKind::new(&version.group, &version.version, text(kind, "kind"));
        let resource = self.kinds.resource_of(&kind).map_or_else(|| "*".to_owned(), |found| found.resource);
        Scope { group: version.group, version: version.version, resource }
    }

    async fn allows(
        &self,
        attributes: &Attributes<'_>,
        verb: &str,
        scope: &Scope,
        namespace: &str,
        name: &str,
    ) -> bool {
        let asked = nave_authz::Attributes {
            verb,
            group: &scope.group,
            version: &scope.version,
            resource: &scope.resource,
            namespace,
            name,
            ..nave_authz::Attributes::for_user(attributes.user)
        };
        self.authorizer.decide(&asked).await.decision == Decision::Allow
    }
}

impl Scope {
    fn all() -> Self {
        let all = || "*".to_owned();
        Self { group: all(), version: all(), resource: all() }
    }
}

fn refusal(attributes: &Attributes<'_>, object: &Object, field: &str, why: &str) -> Status {
    let field = FieldPath::new("spec").child(field);
    Status::invalid(&attributes.def.group_kind(), object.name(), &[FieldError::forbidden(&field, why)])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::rights::allowing;
    use crate::testing::{MemoryCluster, Request, registry};

    fn policy(kind: &str) -> Value {
        let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
        let selectors = json!({"resourceRules": [rule], "matchPolicy": "Exact", "namespaceSelector": {}, "objectSelector": {}});
        json!({"metadata": {"name": "p"}, "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": selectors,
            "paramKind": {"apiVersion": "v1", "kind": kind},
            "validations": [{"expression": "true"}],
        }})
    }

    fn binding(reference: Value) -> Value {
        json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"], "paramRef": reference}})
    }

    /// Returns the field of the refusal of a write by a user with these rights.
    async fn write(rights: &[&'static str], object: Value, old: Value) -> Option<String> {
        let cluster = MemoryCluster::default();
        cluster.validating_admission_policies.put(policy("Secret"));
        let check = check(&cluster.parts(allowing(rights)));
        let is_policy = object["spec"].get("validations").is_some();
        let resource =
            if is_policy { "validatingadmissionpolicies" } else { "validatingadmissionpolicybindings" };
        let request = Request::new(registry(), GROUP, resource, object, old).by("alice", &[]);
        let refusal = request.validate(&*check).await.err()?;
        refusal.details.map(|details| details.causes[0].field.clone())
    }

    #[tokio::test]
    async fn writers_must_be_able_to_read_the_parameters() {
        let named = |name: &str| json!({"name": name, "namespace": "ns", "parameterNotFoundAction": "Deny"});
        let selected = json!({"selector": {}, "namespace": "ns", "parameterNotFoundAction": "Deny"});
        let (kind, reference) = (Some("spec.paramKind".to_owned()), Some("spec.paramRef".to_owned()));
        let none = Value::Null;
        assert_eq!(write(&[], policy("Secret"), none.clone()).await, kind);
        assert_eq!(write(&["get secrets *"], policy("Secret"), none.clone()).await, None);
        assert_eq!(write(&["get secrets *"], policy("ConfigMap"), none.clone()).await, kind);
        // An unchanged kind needs no right.
        assert_eq!(write(&[], policy("Secret"), policy("Secret")).await, None);
        assert_eq!(write(&[], binding(named("a")), none.clone()).await, reference);
        assert_eq!(write(&["get secrets a"], binding(named("a")), none.clone()).await, None);
        assert_eq!(write(&["get secrets b"], binding(named("a")), none.clone()).await, reference);
        assert_eq!(write(&["get secrets a"], binding(selected.clone()), none.clone()).await, reference);
        assert_eq!(write(&["list secrets "], binding(selected), none).await, None);
        assert_eq!(write(&[], binding(named("a")), binding(named("a"))).await, None);
    }
}
