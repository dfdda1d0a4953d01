use std::fmt::{Debug, Display};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{Api, DeleteParams, PostParams, Preconditions, PropagationPolicy};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{EventKind, EventRecorder, SyncError};

/// An object that workload controllers create and delete, with the texts of the events about it.
pub trait ControlledObject:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
    /// Message prefix for a created object; its name follows.
    const CREATED: &str;
    /// Message prefix for a failed creation; the error follows.
    const CREATE_FAILED: &str;
    /// Message prefix for a deleted object; its name follows.
    const DELETED: &str;
    /// Message prefix for a failed deletion; the error follows.
    const DELETE_FAILED: &str;
}

impl ControlledObject for Pod {
    const CREATED: &str = "Created pod: ";
    const CREATE_FAILED: &str = "Error creating: ";
    const DELETED: &str = "Deleted pod: ";
    const DELETE_FAILED: &str = "Error deleting: ";
}

impl ControlledObject for Job {
    const CREATED: &str = "Created job ";
    const CREATE_FAILED: &str = "Error creating job: ";
    const DELETED: &str = "Deleted job ";
    const DELETE_FAILED: &str = "Error deleting job: ";
}

/// Creates and deletes the objects of workloads, and records an event on the workload for each.
#[derive(Clone)]
pub struct ObjectControl {
    client: kube::Client,
    events: EventRecorder,
}

impl ObjectControl {
    /// Creates a control that uses this client and this event recorder.
    pub fn new(client: kube::Client, events: EventRecorder) -> Self {
        Self { client, events }
    }

    /// Creates an object for `owner`. Records no event for an error if the namespace is being deleted or an earlier
    /// sync has created the object.
    ///
    /// # Errors
    /// The API server's error.
    pub async fn create<K: ControlledObject>(
        &self,
        owner: &ObjectReference,
        namespace: &str,
        object: &K,
    ) -> Result<K, SyncError> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        match api.create(&PostParams::default(), object).await.map_err(SyncError::from) {
            Ok(created) => {
                let name = created.meta().name.as_deref().unwrap_or_default();
                self.record(owner, EventKind::Normal, "SuccessfulCreate", K::CREATED, &name);
                Ok(created)
            }
            Err(error) => {
                if !error.is_namespace_terminating() && !error.is_already_exists() {
                    self.record(owner, EventKind::Warning, "FailedCreate", K::CREATE_FAILED, &error);
                }
                Err(error)
            }
        }
    }

    /// Deletes an object for `owner`. A missing object, or another object with the same name, is not an error.
    ///
    /// # Errors
    /// The API server's error.
    pub async fn delete<K: ControlledObject>(
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
                self.record(owner, EventKind::Normal, "SuccessfulDelete", K::DELETED, &name);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                self.record(owner, EventKind::Warning, "FailedDelete", K::DELETE_FAILED, &error);
                Err(error)
            }
        }
    }

    fn record(
        &self,
        owner: &ObjectReference,
        kind: EventKind,
        reason: &'static str,
        prefix: &str,
        detail: &dyn Display,
    ) {
        self.events.record(owner, kind, reason, &format!("{prefix}{detail}"));
    }
}
