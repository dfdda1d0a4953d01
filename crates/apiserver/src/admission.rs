//! The stage between preparation and validation of a write: plugins that may refuse or change an object.
//!
//! So far these are the plugins without which an object cannot be stored at all: [`NamespaceLifecycle`] and
//! [`ServiceAddresses`]. The order of the list is the order in which they see an object.

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{GroupResource, Status, Value, meta};
use nave_resources::ResourceDef;

use crate::allocators::ServiceAllocator;
use crate::storage::ResourceStorage;

/// Namespaces that cannot be deleted.
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// What is about to happen to an object.
pub struct Attributes<'a> {
    /// The object's resource.
    pub def: &'a ResourceDef,
    /// The object's namespace; empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// The object's name; empty where the server is to make one.
    pub name: &'a str,
    /// The operation.
    pub operation: Operation<'a>,
}

/// The operation that is about to happen.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// A new object.
    Create,
    /// A change of this object.
    Update(&'a Value),
    /// A deletion.
    Delete,
}

/// One admission plugin.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// Lets the plugin catch up with the store before an object is created in `namespace`.
    ///
    /// # Errors
    /// The store's.
    async fn prepare_for_create(&self, def: &ResourceDef, namespace: &str) -> Result<(), Status> {
        let _ = (def, namespace);
        Ok(())
    }

    /// Lets an object in, changing it where the plugin does so; `object` is `None` for a deletion.
    ///
    /// # Errors
    /// Why the object is not let in.
    fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Value>) -> Result<(), Status>;

    /// A write that was admitted has ended, and this is what is stored under the uid now.
    fn settled(&self, def: &ResourceDef, uid: &str, stored: Option<&Value>) {
        let _ = (def, uid, stored);
    }
}

/// The admission stage: its plugins in order.
#[derive(Default)]
pub struct Admission {
    plugins: Vec<Box<dyn Plugin>>,
}

impl Admission {
    /// A stage of these plugins.
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Self { plugins }
    }

    /// Lets the plugins catch up with the store before an object is created.
    ///
    /// # Errors
    /// The store's.
    pub async fn prepare_for_create(&self, def: &ResourceDef, namespace: &str) -> Result<(), Status> {
        for plugin in &self.plugins {
            plugin.prepare_for_create(def, namespace).await?;
        }
        Ok(())
    }

    /// Lets an object in.
    ///
    /// # Errors
    /// The first plugin's that refuses.
    pub fn admit(&self, attributes: &Attributes<'_>, mut object: Option<&mut Value>) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.admit(attributes, object.as_deref_mut()))
    }

    /// Tells the plugins how a write ended.
    pub fn settled(&self, def: &ResourceDef, uid: &str, stored: Option<&Value>) {
        for plugin in &self.plugins {
            plugin.settled(def, uid, stored);
        }
    }
}

/// Objects are created only in namespaces that exist and are not ending; some namespaces never end.
pub struct NamespaceLifecycle {
    /// Where namespaces are.
    pub namespaces: Arc<ResourceStorage>,
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    /// A namespace that the cache does not have may have been created a moment ago.
    async fn prepare_for_create(&self, def: &ResourceDef, namespace: &str) -> Result<(), Status> {
        if !def.namespaced || self.namespaces.find("", namespace).is_some() {
            return Ok(());
        }
        self.namespaces.wait_until(self.namespaces.current_revision().await?).await
    }

    fn admit(&self, attributes: &Attributes<'_>, _: Option<&mut Value>) -> Result<(), Status> {
        let Attributes { def, namespace, name, operation } = attributes;
        match operation {
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

/// Services get cluster IPs and node ports.
pub struct ServiceAddresses {
    /// Who hands them out.
    pub allocator: ServiceAllocator,
}

impl Plugin for ServiceAddresses {
    fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Value>) -> Result<(), Status> {
        match (attributes.operation, object) {
            (Operation::Create, Some(service)) if is(attributes.def, "services") => {
                self.allocator.assign(service, None)
            }
            (Operation::Update(old), Some(service)) if is(attributes.def, "services") => {
                self.allocator.assign(service, Some(old))
            }
            _ => Ok(()),
        }
    }

    fn settled(&self, def: &ResourceDef, uid: &str, stored: Option<&Value>) {
        if is(def, "services") {
            self.allocator.settle(uid, stored.filter(|service| !meta::uid(service).is_empty()));
        }
    }
}

/// Whether a definition is this resource of the core group.
fn is(def: &ResourceDef, resource: &str) -> bool {
    def.group.is_empty() && def.resource == resource
}
