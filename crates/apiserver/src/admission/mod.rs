//! The stage between preparation and validation of a write: plugins that may refuse or change an object.
//!
//! | plugin | what it sees to |
//! | --- | --- |
//! | [`NamespaceLifecycle`] | namespaces exist and are not ending |
//! | [`ServiceAccount`] | pods run as accounts that exist, and have their tokens |
//! | [`Priority`] | pods have the number behind their priority class |
//! | [`DefaultTolerationSeconds`] | pods stay for a while on a node that is not ready |
//! | [`StorageObjectInUseProtection`] | volumes and claims stay while they are used |
//! | [`CertificateRequester`] | requests to sign certificates say who made them |
//! | [`CertificateSubjectRestriction`] | nobody asks for a certificate of `system:masters` |
//! | [`CertificateApproval`], [`CertificateSigning`] | those approve and sign who may, by signer |
//! | [`NodeRestriction`] | kubelets write what is theirs |
//! | [`RbacEscalation`] | nobody gives away rights that they do not have |
//!
//! The order of the list is the order in which they see an object.

mod certificates;
mod default_toleration_seconds;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod rbac_escalation;
mod rights;
mod service_account;
mod storage_object_in_use;

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::user::UserInfo;
use nave_machinery::{Status, Value};
use nave_resources::ResourceDef;

pub use certificates::{
    CertificateApproval, CertificateRequester, CertificateSigning, CertificateSubjectRestriction,
};
pub use default_toleration_seconds::DefaultTolerationSeconds;
pub use namespace_lifecycle::NamespaceLifecycle;
pub use node_restriction::NodeRestriction;
pub use priority::Priority;
pub use rbac_escalation::RbacEscalation;
pub use rights::Rights;
pub use service_account::ServiceAccount;
pub use storage_object_in_use::StorageObjectInUseProtection;

/// The plugins that can be left out (`--disable-admission-plugins`), by upstream's names.
pub const OPTIONAL_PLUGINS: [&str; 7] = [
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "DefaultTolerationSeconds",
    "Priority",
    "ServiceAccount",
    "StorageObjectInUseProtection",
];

/// What is about to happen to an object.
pub struct Attributes<'a> {
    /// The object's resource.
    pub def: &'a ResourceDef,
    /// The subresource through which it happens; empty for the object itself.
    pub subresource: &'a str,
    /// The object's namespace; empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// The object's name; empty where the server is to make one.
    pub name: &'a str,
    /// The operation.
    pub operation: Operation<'a>,
    /// Who asks for it.
    pub user: &'a UserInfo,
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
    /// The name by which the plugin can be left out, one of [`OPTIONAL_PLUGINS`]; empty where it cannot.
    fn name(&self) -> &'static str {
        ""
    }

    /// Lets the plugin catch up with the store before an object is created in `namespace`.
    ///
    /// # Errors
    /// The store's.
    async fn prepare_for_create(
        &self,
        def: &ResourceDef,
        namespace: &str,
        object: &Value,
    ) -> Result<(), Status> {
        let _ = (def, namespace, object);
        Ok(())
    }

    /// Lets an object in, changing it where the plugin does so; `object` is `None` for a deletion.
    ///
    /// # Errors
    /// Why the object is not let in.
    fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Value>) -> Result<(), Status> {
        let _ = (attributes, object);
        Ok(())
    }

    /// The same for a plugin whose decision depends on the rights of the user.
    ///
    /// # Errors
    /// Why the object is not let in.
    fn admit_by_rights(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Value>,
        rights: &Rights,
    ) -> Result<(), Status> {
        let _ = rights;
        self.admit(attributes, object)
    }
}

/// The admission stage: its plugins in order.
#[derive(Default)]
pub struct Admission {
    plugins: Arc<Vec<Box<dyn Plugin>>>,
    /// What the request at hand knows of its user's rights; nothing is remembered between requests.
    rights: Option<Rights>,
}

impl Admission {
    /// A stage of these plugins.
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Self { plugins: Arc::new(plugins), rights: None }
    }

    /// The same stage for one request, which can wait for authorizers; see [`answer_rights`](Self::answer_rights).
    pub fn for_request(&self) -> Self {
        Self { plugins: Arc::clone(&self.plugins), rights: Some(Rights::default()) }
    }

    /// Waits for the authorizers where a write of this request has failed because a plugin needs to know of a right.
    /// Returns whether the write is to be tried again.
    pub async fn answer_rights(&self) -> bool {
        match &self.rights {
            Some(rights) => rights.answer().await,
            None => false,
        }
    }

    /// Lets the plugins catch up with the store before an object is created.
    ///
    /// # Errors
    /// The store's.
    pub async fn prepare_for_create(
        &self,
        def: &ResourceDef,
        namespace: &str,
        object: &Value,
    ) -> Result<(), Status> {
        for plugin in self.plugins.iter() {
            plugin.prepare_for_create(def, namespace, object).await?;
        }
        Ok(())
    }

    /// Lets an object in.
    ///
    /// # Errors
    /// The first plugin's that refuses.
    pub fn admit(&self, attributes: &Attributes<'_>, mut object: Option<&mut Value>) -> Result<(), Status> {
        let none = Rights::default();
        let rights = self.rights.as_ref().unwrap_or(&none);
        for plugin in self.plugins.iter() {
            plugin.admit_by_rights(attributes, object.as_deref_mut(), rights)?;
        }
        Ok(())
    }
}

/// Whether a definition is this resource of the core group.
fn is(def: &ResourceDef, resource: &str) -> bool {
    def.group.is_empty() && def.resource == resource
}
