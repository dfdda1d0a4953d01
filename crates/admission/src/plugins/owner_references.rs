//! OwnerReferencesPermissionEnforcement (upstream: `plugin/pkg/admission/gc`): setting owners requires permission to
//! delete the object; setting `blockOwnerDeletion` requires permission to update the owner's finalizers.

use std::sync::Arc;

use async_trait::async_trait;
use nave_authz::{Chain, Decision, Verdict};
use nave_machinery::{GroupVersion, Object, Status, Value};

use super::Parts;
use super::pods::text;
use crate::{Attributes, KindResolver, Plugin, Validate};

/// OwnerReferencesPermissionEnforcement.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::validating(OwnerReferences {
        authorizer: parts.authorizer.clone(),
        kinds: Arc::clone(&parts.cluster.kinds),
    })
}

struct OwnerReferences {
    authorizer: Chain,
    kinds: Arc<dyn KindResolver>,
}

#[async_trait]
impl Validate for OwnerReferences {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        // A write of `pods/status` cannot change owners. Skipping it saves time, as kubelets write it often.
        attributes.is_write() && !(attributes.is_pods() && attributes.subresource == "status")
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        let old = attributes.old.map_or(&[][..], Object::owner_references);
        let new = object.owner_references();
        if new == old {
            return Ok(());
        }
        // A creator could as well have left the object out.
        if !attributes.is_create() {
            self.check_deletion(attributes, object).await?;
        }
        let mut blocking = new.iter().filter(|owner| blocks(owner)).filter(|owner| {
            let blocked = |known: &&Value| text(known, "uid") == text(owner, "uid") && blocks(known);
            !old.iter().any(|known| blocked(&known))
        });
        let Some(first) = blocking.next() else { return Ok(()) };
        if self.finalizes_anything(attributes).await {
            return Ok(());
        }
        for owner in std::iter::once(first).chain(blocking) {
            self.check_finalizers(attributes, object, owner).await?;
        }
        Ok(())
    }
}

impl OwnerReferences {
    async fn check_deletion(&self, attributes: &Attributes<'_>, object: &Object) -> Result<(), Status> {
        let delete = nave_authz::Attributes {
            verb: "delete",
            group: &attributes.def.group,
            version: attributes.version,
            resource: &attributes.def.resource,
            subresource: attributes.subresource,
            name: attributes.name,
            namespace: attributes.namespace,
            ..nave_authz::Attributes::for_user(attributes.user)
        };
        let verdict = self.authorizer.decide(&delete).await;
        let why = "cannot set an ownerRef on a resource you can't delete";
        check(attributes, object, why, &verdict)
    }

    /// Returns whether the user may set the finalizers of all objects. Their kinds need not be known then.
    async fn finalizes_anything(&self, attributes: &Attributes<'_>) -> bool {
        let update = nave_authz::Attributes {
            verb: "update",
            group: "*",
            version: "*",
            resource: "*",
            subresource: "finalizers",
            name: "*",
            ..nave_authz::Attributes::for_user(attributes.user)
        };
        self.authorizer.decide(&update).await.decision == Decision::Allow
    }

    async fn check_finalizers(
        &self,
        attributes: &Attributes<'_>,
        object: &Object,
        owner: &Value,
    ) -> Result<(), Status> {
        let (api_version, kind) = (text(owner, "apiVersion"), text(owner, "kind"));
        let resource = GroupVersion::parse(api_version)
            .and_then(|version| self.kinds.resource_of(&version.with_kind(kind)))
            .ok_or_else(|| {
                attributes.forbidden(object, format_args!(
                    "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {kind}: no matches for kind {kind:?} in version {api_version:?}"
                ))
            })?;
        let update = nave_authz::Attributes {
            verb: "update",
            group: &resource.group,
            version: &resource.version,
            resource: &resource.resource,
            subresource: "finalizers",
            name: text(owner, "name"),
            // An owner is in the dependent's namespace or cluster-scoped. Permissions for all namespaces also hold
            // in one namespace.
            namespace: attributes.namespace,
            ..nave_authz::Attributes::for_user(attributes.user)
        };
        let verdict = self.authorizer.decide(&update).await;
        let why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on";
        check(attributes, object, why, &verdict)
    }
}

fn check(attributes: &Attributes<'_>, object: &Object, why: &str, verdict: &Verdict) -> Result<(), Status> {
    if verdict.decision == Decision::Allow {
        return Ok(());
    }
    // Upstream prints an absent error as `<nil>`.
    let error = verdict.error.as_deref().unwrap_or("<nil>");
    Err(attributes.forbidden(object, format_args!("{why}: {}, {error}", verdict.reason)))
}

fn blocks(owner: &Value) -> bool {
    owner.get("blockOwnerDeletion").and_then(Value::as_bool).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::rights::allowing;
    use crate::testing::{MemoryCluster, Request, outcome, registry};

    async fn write(rights: &[&'static str], new: Value, old: Value) -> Result<(), String> {
        let plugin = OwnerReferences {
            authorizer: allowing(rights),
            kinds: MemoryCluster::default().cluster(registry()).kinds,
        };
        let request = Request::new(registry(), "", "secrets", new, old);
        outcome(request.validate(&plugin).await).map_err(|(code, message)| {
            assert_eq!(code, 403);
            message
        })
    }

    #[tokio::test]
    async fn setting_owners_requires_rights() {
        let object = |owners: Value| json!({"metadata": {"name": "s", "ownerReferences": owners}});
        let owner = |kind: &str, blocks: Option<bool>| json!({"apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "1", "blockOwnerDeletion": blocks});
        let (none, free, held) = (
            object(json!(null)),
            object(json!([owner("Deployment", None)])),
            object(json!([owner("Deployment", Some(true))])),
        );
        let told = |why: &str| Err(format!(r#"secrets "s" is forbidden: {why}"#));
        let delete = told("cannot set an ownerRef on a resource you can't delete: , <nil>");
        let finalizers = told(
            "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>",
        );
        let unknown = told(
            r#"cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion apps/v1 Kind Nope: no matches for kind "Nope" in version "apps/v1""#,
        );
        let (deletes, both) =
            (&["delete secrets/"][..], &["delete secrets/", "update deployments/finalizers"][..]);
        for (rights, new, old, expected) in [
            (&[][..], none.clone(), Value::Null, Ok(())),
            (&[], free.clone(), Value::Null, Ok(())),
            (&[], held.clone(), Value::Null, finalizers.clone()),
            (&["update */finalizers"], held.clone(), Value::Null, Ok(())),
            (&["update */finalizers"], object(json!([owner("Nope", Some(true))])), Value::Null, Ok(())),
            (&["update */finalizers"], held.clone(), none.clone(), delete.clone()),
            (&[], free.clone(), none.clone(), delete.clone()),
            (&[], none.clone(), free.clone(), delete),
            (&[], held.clone(), held.clone(), Ok(())),
            (deletes, free.clone(), none.clone(), Ok(())),
            (deletes, held.clone(), none.clone(), finalizers.clone()),
            (deletes, held.clone(), free.clone(), finalizers),
            (deletes, free.clone(), held.clone(), Ok(())),
            (both, held.clone(), free.clone(), Ok(())),
            (both, object(json!([owner("Nope", Some(true))])), none, unknown),
        ] {
            assert_eq!(write(rights, new.clone(), old.clone()).await, expected, "{rights:?} {new} {old}");
        }
    }
}
