//! The scale of an autoscaler's target.

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{Api, DynamicObject, PostParams};

use crate::discovery::DiscoveryCache;
use crate::frame::SyncError;

/// The maximum number of attempts to scale a target in case of conflicts.
const TRIES: usize = 5;

/// Finds and scales targets.
pub(super) struct Targets {
    client: kube::Client,
    discovery: DiscoveryCache,
}

/// A target and its scale.
pub(super) struct Target {
    api: Api<DynamicObject>,
    name: String,
    scale: Scale,
}

impl Target {
    /// The scale as it was read.
    pub(super) fn scale(&self) -> &Scale {
        &self.scale
    }

    /// The desired number of replicas.
    pub(super) fn replicas(&self) -> i32 {
        self.scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default()
    }
}

impl Targets {
    pub(super) fn new(client: kube::Client) -> Self {
        Self { discovery: DiscoveryCache::new(client.clone()), client }
    }

    /// Reads the scale of an autoscaler's target.
    ///
    /// # Errors
    /// The kind is not served or has no scale, the object does not exist, or the API server returned an error.
    pub(super) async fn get(&self, autoscaler: &HorizontalPodAutoscaler) -> Result<Target, SyncError> {
        let namespace = autoscaler.metadata.namespace.as_deref().unwrap_or_default();
        let reference = autoscaler.spec.scale_target_ref.clone();
        let api_version = reference.api_version.unwrap_or_default();
        if api_version.matches('/').count() > 1 {
            return Err(SyncError::Invalid(format!("unexpected GroupVersion string: {api_version}")));
        }
        let discovered = self.discovery.get().await?;
        let resource = discovered.kind(&api_version, &reference.kind).ok_or_else(|| {
            let group = api_version.split_once('/').map_or("", |(group, _)| group);
            SyncError::Invalid(format!("no matches for kind {:?} in group {group:?}", reference.kind))
        })?;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource.api_resource());
        let scale = if resource.namespaced && resource.subresources.iter().any(|below| below == "scale") {
            api.get_scale(&reference.name).await?
        } else {
            let why = "the server could not find the requested resource";
            return Err(SyncError::Invalid(why.to_owned()));
        };
        Ok(Target { api, name: reference.name, scale })
    }

    /// Scales a target.
    ///
    /// # Errors
    /// The API server's error.
    pub(super) async fn set(&self, mut target: Target, replicas: i32) -> Result<(), SyncError> {
        let mut tries = 0;
        loop {
            target.scale.spec.get_or_insert_default().replicas = Some(replicas);
            let written = target.api.replace_scale(&target.name, &PostParams::default(), &target.scale).await;
            tries += 1;
            match written.map_err(SyncError::from) {
                Err(error) if error.is_conflict() && tries < TRIES => {
                    target.scale = target.api.get_scale(&target.name).await?;
                }
                outcome => return outcome.map(drop),
            }
        }
    }
}
