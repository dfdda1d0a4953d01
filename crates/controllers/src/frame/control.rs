use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions, PropagationPolicy};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{EventKind, Recorder, SyncError};

/// Makes and deletes the objects of a controller's workloads, and says so in events of the workload.
#[derive(Clone)]
pub struct ObjectControl {
    client: kube::Client,
    events: Recorder,
}

impl ObjectControl {
    /// Acts through a client.
    pub fn new(client: kube::Client, events: Recorder) -> Self {
        Self { client, events }
    }

    /// Makes an object for `owner`.
    ///
    /// # Errors
    /// The API's refusal.
    pub async fn create<K>(
        &self,
        owner: &ObjectReference,
        namespace: &str,
        object: &K,
    ) -> Result<K, SyncError>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let kind = K::kind(&()).to_lowercase();
        match api.create(&PostParams::default(), object).await.map_err(SyncError::from) {
            Ok(created) => {
                let name = created.meta().name.as_deref().unwrap_or_default();
                self.events.record(
                    owner,
                    EventKind::Normal,
                    "SuccessfulCreate",
                    &format!("Created {kind}: {name}"),
                );
                Ok(created)
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    let message = format!("Error creating: {error}");
                    self.events.record(owner, EventKind::Warning, "FailedCreate", &message);
                }
                Err(error)
            }
        }
    }

    /// Deletes an object for `owner`; one that is gone, or another of its name, is left alone.
    ///
    /// # Errors
    /// The API's refusal.
    pub async fn delete<K>(
        &self,
        owner: &ObjectReference,
        object: &K,
        propagation: PropagationPolicy,
    ) -> Result<(), SyncError>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned,
    {
        let meta = object.meta();
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref().unwrap_or_default());
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace.unwrap_or_default());
        let kind = K::kind(&()).to_lowercase();
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: meta.uid.clone(), resource_version: None }),
            propagation_policy: Some(propagation),
            ..DeleteParams::default()
        };
        match api.delete(name, &parameters).await.map_err(SyncError::from) {
            Ok(_) => {
                self.events.record(
                    owner,
                    EventKind::Normal,
                    "SuccessfulDelete",
                    &format!("Deleted {kind}: {name}"),
                );
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                self.events.record(
                    owner,
                    EventKind::Warning,
                    "FailedDelete",
                    &format!("Error deleting: {error}"),
                );
                Err(error)
            }
        }
    }
}
