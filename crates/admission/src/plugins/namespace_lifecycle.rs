//! NamespaceLifecycle refuses creates in missing or terminating namespaces (upstream:
//! `apiserver/pkg/admission/plugin/namespace/lifecycle`).

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{GroupResource, Object, Status};

use super::Parts;
use super::live::Recent;
use crate::{Attributes, Lister, Mutate, Operation, Plugin};

/// Namespaces that cannot be deleted.
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// NamespaceLifecycle.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::mutating(NamespaceLifecycle {
        namespaces: Arc::clone(&parts.cluster.namespaces),
        deleted: Recent::default(),
    })
}

struct NamespaceLifecycle {
    namespaces: Arc<dyn Lister>,
    /// Recently deleted namespaces. The watch cache may still show them as active.
    deleted: Recent,
}

#[async_trait]
impl Mutate for NamespaceLifecycle {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        if attributes.is_resource("", "namespaces") {
            return attributes.operation == Operation::Delete;
        }
        // Local access reviews are exempt, so that they do not reveal whether a namespace exists.
        attributes.is_write()
            && !attributes.namespace.is_empty()
            && !attributes.is_resource("authorization.k8s.io", "localsubjectaccessreviews")
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        if attributes.operation == Operation::Delete {
            return self.admit_deletion(attributes);
        }
        let name = attributes.namespace;
        let mut namespace = self.namespaces.get("", name)?;
        let is_stale = |namespace: &Object| !is_terminating(namespace) && self.deleted.contains(name);
        if namespace.as_deref().is_none_or(is_stale) {
            namespace = self.namespaces.get_live("", name).await?;
        }
        let not_found = || Status::not_found(&GroupResource::new("", "namespaces"), name);
        let namespace = namespace.ok_or_else(not_found)?;
        if !attributes.is_create() || !is_terminating(&namespace) {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let message = format!("namespace {name} is being terminated");
        let status = attributes.forbidden(object.as_deref(), why);
        Err(status.with_cause("NamespaceTerminating", &message, "metadata.namespace"))
    }
}

impl NamespaceLifecycle {
    fn admit_deletion(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        if IMMORTAL_NAMESPACES.contains(&attributes.name) {
            return Err(attributes.forbidden(None, "this namespace may not be deleted"));
        }
        if !attributes.dry_run() {
            self.deleted.insert(attributes.name);
        }
        Ok(())
    }
}

fn is_terminating(namespace: &Object) -> bool {
    namespace.str_at(&["status", "phase"]) == Some("Terminating")
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;
    use crate::testing::{Memory, Request, outcome, registry};

    fn namespace(name: &str, phase: &str) -> Value {
        json!({"metadata": {"name": name}, "status": {"phase": phase}})
    }

    fn lifecycle(namespaces: &Arc<Memory>) -> NamespaceLifecycle {
        NamespaceLifecycle { namespaces: Arc::clone(namespaces) as _, deleted: Recent::default() }
    }

    #[tokio::test]
    async fn refuses_creates_in_missing_and_terminating_namespaces() {
        let namespaces = Arc::new(Memory::default());
        let plugin = lifecycle(&namespaces);
        let create = async |resource: &str| {
            let group = if resource == "localsubjectaccessreviews" { "authorization.k8s.io" } else { "" };
            let object = json!({"metadata": {"name": "a"}});
            outcome(Request::new(registry(), group, resource, object, Value::Null).mutate(&plugin).await)
        };
        let update = async || {
            let object = json!({"metadata": {"name": "a"}});
            outcome(Request::new(registry(), "", "secrets", object.clone(), object).mutate(&plugin).await)
        };
        let missing = Err((404, r#"namespaces "ns" not found"#.to_owned()));
        assert_eq!(create("secrets").await, missing);
        assert_eq!(update().await, missing);
        assert_eq!(create("localsubjectaccessreviews").await, Ok(()));
        assert_eq!(create("nodes").await, Ok(()));
        namespaces.put_uncached(namespace("ns", "Active"));
        assert_eq!(create("secrets").await, Ok(()), "found by a live lookup");
        namespaces.put(namespace("ns", "Terminating"));
        let refused = r#"secrets "a" is forbidden: unable to create new content in namespace ns because it is being terminated"#;
        assert_eq!(create("secrets").await, Err((403, refused.to_owned())));
        assert_eq!(update().await, Ok(()));
    }

    #[tokio::test]
    async fn refusal_has_the_terminating_cause() {
        let namespaces = Arc::new(Memory::default());
        namespaces.put(namespace("ns", "Terminating"));
        let mut request = Request::new(registry(), "", "secrets", json!({"metadata": {}}), Value::Null);
        let status = request.mutate(&lifecycle(&namespaces)).await.unwrap_err();
        let causes = status.details.unwrap().causes;
        assert_eq!(
            (causes[0].reason.as_str(), causes[0].field.as_str()),
            ("NamespaceTerminating", "metadata.namespace")
        );
    }

    #[tokio::test]
    async fn reads_recently_deleted_namespaces_live() {
        let namespaces = Arc::new(Memory::default());
        namespaces.put(namespace("ns", "Active"));
        let plugin = lifecycle(&namespaces);
        let delete = async |name: &'static str, dry_run| {
            let mut request =
                Request::new(registry(), "", "namespaces", Value::Null, namespace(name, "Active"));
            request.options.dry_run = dry_run;
            outcome(request.mutate(&plugin).await)
        };
        let refused = r#"namespaces "kube-system" is forbidden: this namespace may not be deleted"#;
        assert_eq!(delete("kube-system", false).await, Err((403, refused.to_owned())));
        let create = async || {
            let object = json!({"metadata": {"name": "a"}});
            Request::new(registry(), "", "secrets", object, Value::Null).mutate(&plugin).await.is_ok()
        };
        assert_eq!(delete("ns", true).await, Ok(()));
        namespaces.put_uncached(namespace("ns", "Terminating"));
        assert!(create().await, "no live read is needed");
        assert_eq!(delete("ns", false).await, Ok(()));
        assert!(!create().await);
    }
}
