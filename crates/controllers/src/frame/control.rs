use std::fmt::{Debug, Display};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{Api, DeleteParams, PostParams, Preconditions, PropagationPolicy};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{EventKind, EventRecorder, SyncError};

/// What workloads make, and what events say of that.
pub trait Made:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
    /// Before the name of one that was made.
    const CREATED: &str;
    /// Before why one could not be made.
    const NOT_CREATED: &str;
    /// Before the name of one that was deleted.
    const DELETED: &str;
    /// Before why one could not be deleted.
    const NOT_DELETED: &str;
}

impl Made for Pod {
    const CREATED: &str = "Created pod: ";
    const NOT_CREATED: &str = "Error creating: ";
    const DELETED: &str = "Deleted pod: ";
    const NOT_DELETED: &str = "Error deleting: ";
}

impl Made for Job {
    const CREATED: &str = "Created job ";
    const NOT_CREATED: &str = "Error creating job: ";
    const DELETED: &str = "Deleted job ";
    const NOT_DELETED: &str = "Error deleting job: ";
}

/// Makes and deletes the objects of a controller's workloads, and says so in events of the workload.
#[derive(Clone)]
pub struct ObjectControl {
    client: kube::Client,
    events: EventRecorder,
}

impl ObjectControl {
    /// Acts through a client.
    pub fn new(client: kube::Client, events: EventRecorder) -> Self {
        Self { client, events }
    }

    /// Makes an object for `owner`.
    ///
    /// # Errors
    /// The API's refusal.
    pub async fn create<K: Made>(
        &self,
        owner: &ObjectReference,
        namespace: &str,
        object: &K,
    ) -> Result<K, SyncError> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        match api.create(&PostParams::default(), object).await.map_err(SyncError::from) {
            Ok(created) => {
                let name = created.meta().name.as_deref().unwrap_or_default();
                self.tell(owner, EventKind::Normal, "SuccessfulCreate", K::CREATED, &name);
                Ok(created)
            }
            Err(error) => {
                // In a namespace on its way out nothing is to be made, and what exists another sync has made.
                if !error.is_namespace_terminating() && !error.is_already_exists() {
                    self.tell(owner, EventKind::Warning, "FailedCreate", K::NOT_CREATED, &error);
                }
                Err(error)
            }
        }
    }

    /// Deletes an object for `owner`; one that is gone, or another of its name, is left alone.
    ///
    /// # Errors
    /// The API's refusal.
    pub async fn delete<K: Made>(
        &self,
        owner: &ObjectReference,
        object: &K,
        propagation: PropagationPolicy,
    ) -> Result<(), SyncError> {
        let meta = object.meta();
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref().unwrap_or_default());
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace.unwrap_or_default());
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: meta.uid.clone(), resource_version: None }),
            propagation_policy: Some(propagation),
            ..DeleteParams::default()
        };
        match api.delete(name, &parameters).await.map_err(SyncError::from) {
            Ok(_) => {
                self.tell(owner, EventKind::Normal, "SuccessfulDelete", K::DELETED, &name);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                self.tell(owner, EventKind::Warning, "FailedDelete", K::NOT_DELETED, &error);
                Err(error)
            }
        }
    }

    fn tell(
        &self,
        owner: &ObjectReference,
        kind: EventKind,
        reason: &'static str,
        before: &str,
        what: &dyn Display,
    ) {
        self.events.record(owner, kind, reason, &format!("{before}{what}"));
    }
}
