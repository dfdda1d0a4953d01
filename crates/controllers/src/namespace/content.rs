//! Deletes the contents of a namespace.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PropagationPolicy};
use kube::core::{DynamicObject, Request};
use nave_client::redacted;

use super::conditions::Progress;
use crate::discovery::{Discovered, Resource};
use crate::frame::api_message;
use crate::pods;

/// The estimated number of seconds until finalizers are removed.
const FINALIZER_ESTIMATE: i64 = 15;
/// The page size for counting remaining objects.
const PAGE: u32 = 1000;
/// Requests metadata only, as a delete-collection response contains the deleted objects.
const METADATA_ONLY: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// Deletes all deletable objects in a namespace, pods first, and reports the remaining objects.
pub(super) async fn delete(
    client: &kube::Client,
    discovered: &Discovered,
    namespace: &str,
    deleted_at: Timestamp,
) -> Progress {
    let mut progress = Progress { undiscovered: discovered.failed.clone(), ..Progress::default() };
    let content = Content { client, namespace, deleted_at };
    let mut resources: Vec<_> =
        discovered.preferred().filter(|resource| resource.namespaced && resource.serves("delete")).collect();
    resources.sort_by_key(|resource| (!is_pods(resource), &resource.group, &resource.plural));
    for resource in resources {
        // Keeps other objects while pods remain, as pods may use them (policies, secrets, volumes).
        if !is_pods(resource)
            && progress.remaining.keys().any(|(plural, group)| plural == "pods" && group.is_empty())
        {
            break;
        }
        if let Err(error) = content.delete(resource, &mut progress).await {
            progress.failures.push(format!("{}.{}: {error}", resource.plural, resource.group));
        }
    }
    progress
}

fn is_pods(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "pods"
}

struct Content<'a> {
    client: &'a kube::Client,
    namespace: &'a str,
    deleted_at: Timestamp,
}

impl Content<'_> {
    /// Deletes the objects of one resource and records the objects that remain.
    async fn delete(&self, resource: &Resource, progress: &mut Progress) -> Result<(), ContentError> {
        let objects: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), self.namespace, &resource.api_resource());
        let estimate = if is_pods(resource) { self.pods_estimate().await? } else { 0 };
        if resource.serves("deletecollection") {
            self.delete_collection(&objects).await?;
        } else {
            self.delete_each(&objects).await?;
        }
        if !resource.serves("list") {
            progress.estimate_seconds = progress.estimate_seconds.max(estimate);
            return Ok(());
        }
        let mut left = 0;
        let mut has_finalizers = false;
        for object in list(&objects).await? {
            left += 1;
            for finalizer in object.metadata.finalizers.into_iter().flatten() {
                has_finalizers = true;
                *progress.finalizers.entry(finalizer).or_default() += 1;
            }
        }
        if left == 0 {
            return Ok(());
        }
        progress.remaining.insert((resource.plural.clone(), resource.group.clone()), left);
        let estimate = match estimate {
            0 if has_finalizers => FINALIZER_ESTIMATE,
            0 => return Err(ContentError::Remains),
            pods => pods,
        };
        progress.estimate_seconds = progress.estimate_seconds.max(estimate);
        Ok(())
    }

    async fn delete_collection(&self, objects: &Api<DynamicObject>) -> Result<(), ContentError> {
        let mut request = Request::new(objects.resource_url())
            .delete_collection(&in_background(), &ListParams::default())?;
        request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static(METADATA_ONLY));
        self.client.request_text(request).await?;
        Ok(())
    }

    async fn delete_each(&self, objects: &Api<DynamicObject>) -> Result<(), ContentError> {
        for object in list(objects).await? {
            let name = object.metadata.name.unwrap_or_default();
            match objects.delete(&name, &in_background()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }

    /// Returns the longest grace period of the running pods, or 0 if the namespace has been terminating for longer
    /// than that.
    async fn pods_estimate(&self) -> Result<i64, ContentError> {
        let pods_api: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        let mut longest = 0;
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = pods_api.list(&page).await?;
            let running = list.items.iter().filter(|pod| !pods::is_terminal(pod));
            let graces = running.filter_map(|pod| pod.spec.as_ref()?.termination_grace_period_seconds);
            longest = graces.fold(longest, i64::max);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => break,
            }
        }
        let since = Timestamp::now().duration_since(self.deleted_at).as_secs();
        Ok(if since >= longest { 0 } else { longest })
    }
}

/// Lists the metadata of all objects.
async fn list(objects: &Api<DynamicObject>) -> Result<Vec<Metadata>, ContentError> {
    let mut all = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = objects.list_metadata(&page).await?;
        all.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

type Metadata = kube::core::PartialObjectMeta<DynamicObject>;

fn in_background() -> DeleteParams {
    DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() }
}

impl From<kube::Error> for ContentError {
    fn from(error: kube::Error) -> Self {
        Self::Api(redacted(error))
    }
}

/// The reasons why deleting the objects of a resource failed.
#[derive(Debug, thiserror::Error)]
enum ContentError {
    /// The API server returned an error or could not be reached.
    #[error("{}", api_message(.0))]
    Api(#[source] kube::Error),
    /// The request could not be built.
    #[error(transparent)]
    Request(#[from] kube::core::request::Error),
    /// The objects were deleted and have no finalizers, but still exist.
    #[error("unexpected items still remain")]
    Remains,
}
