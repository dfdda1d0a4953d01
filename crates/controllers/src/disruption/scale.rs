//! The desired number of pods of controllers.

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

/// Caches and clients to find the scale of a controller.
pub(super) struct Scales {
    pub(super) client: kube::Client,
    pub(super) discovery: DiscoveryCache,
    pub(super) replica_sets: Lister<ReplicaSet>,
    pub(super) deployments: Lister<Deployment>,
    pub(super) stateful_sets: Lister<StatefulSet>,
    pub(super) replication_controllers: Lister<ReplicationController>,
}

/// A controller and its desired number of pods.
struct ControllerScale {
    uid: String,
    replicas: i64,
}

impl Scales {
    /// The total desired number of pods of the controllers of these pods. Ignores pods without a controller.
    ///
    /// # Errors
    /// A controller does not exist, or its scale cannot be read.
    pub(super) async fn total_of_pods(&self, pods: &[&Pod]) -> Result<i64, SyncError> {
        let mut by_controller: HashMap<String, i64> = HashMap::new();
        let mut known = std::collections::HashSet::new();
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else { continue };
            if !known.insert(owner.uid.clone()) {
                continue;
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let Some(wanted) = self.controller_scale(owner, namespace).await? else {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                return Err(SyncError::Invalid(format!("found no controllers for pod {name:?}")));
            };
            by_controller.insert(wanted.uid, wanted.replicas);
        }
        Ok(by_controller.values().sum())
    }

    async fn controller_scale(
        &self,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<Option<ControllerScale>, SyncError> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let scale_of = |replicas: Option<i32>| ControllerScale {
            uid: owner.uid.clone(),
            replicas: replicas.unwrap_or(1).into(),
        };
        match (group, owner.kind.as_str()) {
            ("apps", "ReplicaSet") => self.replica_set_scale(owner, namespace),
            ("apps", "StatefulSet") => {
                let set = self.stateful_sets.get(namespace, &owner.name);
                let Some(set) = set.filter(|set| set.uid() == owner.uid) else { return Ok(None) };
                Ok(Some(scale_of(set.decode()?.spec.and_then(|spec| spec.replicas))))
            }
            ("", "ReplicationController") => {
                let controller = self.replication_controllers.get(namespace, &owner.name);
                let Some(controller) = controller.filter(|it| it.uid() == owner.uid) else { return Ok(None) };
                Ok(Some(scale_of(controller.decode()?.spec.and_then(|spec| spec.replicas))))
            }
            _ => self.scale_subresource(owner, namespace).await,
        }
    }

    /// The scale of a replica set, or of the deployment that controls it.
    fn replica_set_scale(
        &self,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<Option<ControllerScale>, SyncError> {
        let Some(set) = self.replica_sets.get(namespace, &owner.name) else { return Ok(None) };
        if set.uid() != owner.uid {
            return Ok(None);
        }
        let deployment = set.controller_of().filter(|above| above.kind == "Deployment");
        let Some(above) = deployment else {
            let replicas = set.decode()?.spec.and_then(|spec| spec.replicas).unwrap_or(1);
            return Ok(Some(ControllerScale { uid: owner.uid.clone(), replicas: replicas.into() }));
        };
        let found = self.deployments.get(namespace, above.name).filter(|it| it.uid() == above.uid);
        let Some(deployment) = found.map(|it| it.decode()).transpose()? else { return Ok(None) };
        let replicas = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        Ok(Some(ControllerScale { uid: above.uid.to_owned(), replicas: replicas.into() }))
    }

    /// The scale of a controller of any other kind, read from its `scale` subresource.
    async fn scale_subresource(
        &self,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<Option<ControllerScale>, SyncError> {
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
        Ok(Some(ControllerScale { uid: owner.uid.clone(), replicas: replicas.into() }))
    }
}
