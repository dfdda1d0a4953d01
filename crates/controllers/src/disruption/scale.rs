//! How many pods their controllers want.

use std::collections::HashMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::Request;
use nave_client::Lister;

use crate::discovery::DiscoveryCache;
use crate::frame::SyncError;
use crate::owners::controller_of;

/// Where it is said how many pods a controller wants.
pub(super) struct Scales {
    pub(super) client: kube::Client,
    pub(super) discovery: DiscoveryCache,
    pub(super) replica_sets: Lister<ReplicaSet>,
    pub(super) deployments: Lister<Deployment>,
    pub(super) stateful_sets: Lister<StatefulSet>,
    pub(super) replication_controllers: Lister<ReplicationController>,
}

/// A controller, and what it wants.
struct Wanted {
    uid: String,
    replicas: i64,
}

impl Scales {
    /// How many pods the controllers of these pods want, together. Pods without a controller count for nothing.
    ///
    /// # Errors
    /// A controller that is not there, or of which it cannot be known.
    pub(super) async fn of_pods(&self, pods: &[&Pod]) -> Result<i64, SyncError> {
        let mut by_controller: HashMap<String, i64> = HashMap::new();
        let mut known = std::collections::HashSet::new();
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else { continue };
            if !known.insert(owner.uid.clone()) {
                continue;
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let Some(wanted) = self.of_controller(owner, namespace).await? else {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                return Err(SyncError::Invalid(format!("found no controllers for pod {name:?}")));
            };
            by_controller.insert(wanted.uid, wanted.replicas);
        }
        Ok(by_controller.values().sum())
    }

    async fn of_controller(
        &self,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<Option<Wanted>, SyncError> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let wanted =
            |replicas: Option<i32>| Wanted { uid: owner.uid.clone(), replicas: replicas.unwrap_or(1).into() };
        match (group, owner.kind.as_str()) {
            ("apps", "ReplicaSet") => self.of_replica_set(owner, namespace),
            ("apps", "StatefulSet") => {
                let found = self.stateful_sets.get(namespace, &owner.name);
                let found = found.filter(|set| set.uid() == owner.uid).map(|set| set.decode()).transpose()?;
                Ok(found.map(|set| wanted(set.spec.and_then(|spec| spec.replicas))))
            }
            ("", "ReplicationController") => {
                let found = self.replication_controllers.get(namespace, &owner.name);
                let found = found.filter(|it| it.uid() == owner.uid).map(|it| it.decode()).transpose()?;
                Ok(found.map(|it| wanted(it.spec.and_then(|spec| spec.replicas))))
            }
            _ => self.of_scale(owner, namespace).await,
        }
    }

    /// What a replica set wants, or the deployment it is of.
    fn of_replica_set(&self, owner: &OwnerReference, namespace: &str) -> Result<Option<Wanted>, SyncError> {
        let Some(set) = self.replica_sets.get(namespace, &owner.name) else { return Ok(None) };
        if set.uid() != owner.uid {
            return Ok(None);
        }
        let deployment = set.controller_of().filter(|above| above.kind == "Deployment");
        let Some(above) = deployment else {
            let replicas = set.decode()?.spec.and_then(|spec| spec.replicas).unwrap_or(1);
            return Ok(Some(Wanted { uid: owner.uid.clone(), replicas: replicas.into() }));
        };
        let found = self.deployments.get(namespace, above.name).filter(|it| it.uid() == above.uid);
        let Some(deployment) = found.map(|it| it.decode()).transpose()? else { return Ok(None) };
        let replicas = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        Ok(Some(Wanted { uid: above.uid.to_owned(), replicas: replicas.into() }))
    }

    /// What a controller of any other kind wants, by its `scale`.
    async fn of_scale(&self, owner: &OwnerReference, namespace: &str) -> Result<Option<Wanted>, SyncError> {
        let discovered = self.discovery.get().await?;
        let resource = discovered.kind(&owner.api_version, &owner.kind);
        let Some(resource) = resource.filter(|resource| resource.namespaced) else { return Ok(None) };
        if !resource.subresources.iter().any(|below| below == "scale") {
            let text =
                format!("{}.{} does not implement the scale subresource", resource.plural, resource.group);
            return Err(SyncError::Invalid(text));
        }
        let objects: kube::Api<kube::core::DynamicObject> =
            kube::Api::namespaced_with(self.client.clone(), namespace, &resource.api_resource());
        let request = Request::new(objects.resource_url()).get_subresource("scale", &owner.name);
        let scale: Scale = match self.client.request(request.map_err(kube::Error::BuildRequest)?).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            outcome => outcome?,
        };
        if scale.metadata.uid.as_deref() != Some(&owner.uid) {
            return Ok(None);
        }
        let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or_default();
        Ok(Some(Wanted { uid: owner.uid.clone(), replicas: replicas.into() }))
    }
}
