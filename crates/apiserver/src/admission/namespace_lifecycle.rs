//! Objects live in namespaces that are there (upstream: `admission/plugin/namespace/lifecycle`).

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{GroupResource, Status, Value};
use nave_resources::ResourceDef;

use super::{Attributes, Operation, Plugin, is};
use crate::storage::ResourceStorage;

/// Namespaces that cannot be deleted.
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Objects are created only in namespaces that exist and are not ending; some namespaces never end.
pub struct NamespaceLifecycle {
    /// Where namespaces are.
    pub namespaces: Arc<ResourceStorage>,
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    /// A namespace that the cache does not have may have been created a moment ago.
    async fn prepare_for_create(&self, def: &ResourceDef, namespace: &str, _: &Value) -> Result<(), Status> {
        if !def.namespaced || self.namespaces.find("", namespace).is_some() {
            return Ok(());
        }
        self.namespaces.wait_until(self.namespaces.current_revision().await?).await
    }

    fn admit(&self, attributes: &Attributes<'_>, _: Option<&mut Value>) -> Result<(), Status> {
        let Attributes { def, namespace, name, operation, .. } = attributes;
        match operation {
            // To tell whether the namespace exists would be telling too much.
            Operation::Create if def.group == "authorization.k8s.io" => Ok(()),
            Operation::Create if def.namespaced => self.check_active(def, namespace, name),
            Operation::Delete if is(def, "namespaces") && IMMORTAL_NAMESPACES.contains(name) => {
                Err(Status::forbidden(&def.group_resource(), name, "this namespace may not be deleted"))
            }
            _ => Ok(()),
        }
    }
}

impl NamespaceLifecycle {
    fn check_active(&self, def: &ResourceDef, namespace: &str, name: &str) -> Result<(), Status> {
        let Some(found) = self.namespaces.find("", namespace) else {
            return Err(Status::not_found(&GroupResource::new("", "namespaces"), namespace));
        };
        if self.namespaces.field(&found, "status.phase") != Some("Terminating") {
            return Ok(());
        }
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let status = Status::forbidden(&def.group_resource(), name, &why);
        let message = format!("namespace {namespace} is being terminated");
        Err(status.with_cause("NamespaceTerminating", &message, "metadata.namespace"))
    }
}
