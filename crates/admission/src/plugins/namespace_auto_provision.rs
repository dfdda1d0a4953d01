//! NamespaceAutoProvision creates a missing namespace when an object is created in it (upstream:
//! `plugin/pkg/admission/namespace/autoprovision`).

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{Object, Status, Value};
use serde_json::json;

use super::Parts;
use crate::{Attributes, Lister, Mutate, NamespaceCreator, Plugin};

/// NamespaceAutoProvision.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::mutating(NamespaceAutoProvision {
        namespaces: Arc::clone(&parts.cluster.namespaces),
        creator: Arc::clone(&parts.cluster.writers.namespace_creator),
    })
}

struct NamespaceAutoProvision {
    namespaces: Arc<dyn Lister>,
    creator: Arc<dyn NamespaceCreator>,
}

#[async_trait]
impl Mutate for NamespaceAutoProvision {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_create()
            && !attributes.dry_run()
            && !attributes.namespace.is_empty()
            && !attributes.is_resource("", "namespaces")
    }

    async fn admit(&self, attributes: &Attributes<'_>, _: Option<&mut Object>) -> Result<(), Status> {
        let name = attributes.namespace;
        if self.namespaces.get("", name)?.is_some() {
            return Ok(());
        }
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let Value::Object(namespace) = namespace else { return Ok(()) };
        match self.creator.create(namespace.into()).await {
            // Another request has created the namespace.
            Err(status) if status.code == 409 => Ok(()),
            outcome => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Memory, Request, registry};

    #[tokio::test]
    async fn creates_missing_namespaces_except_in_dry_runs() {
        let namespaces = Arc::new(Memory::default());
        let plugin = NamespaceAutoProvision {
            namespaces: Arc::clone(&namespaces) as _,
            creator: Arc::clone(&namespaces) as _,
        };
        let create = async |dry_run| {
            let mut request =
                Request::new(registry(), "", "secrets", json!({"metadata": {"name": "a"}}), Value::Null);
            request.options.dry_run = dry_run;
            request.mutate(&plugin).await
        };
        create(true).await.unwrap();
        assert!(namespaces.stored("", "ns").is_none());
        create(false).await.unwrap();
        assert!(namespaces.stored("", "ns").is_some());
        create(false).await.unwrap();
    }
}
