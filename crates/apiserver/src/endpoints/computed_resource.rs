//! Resources whose objects are computed when they are read (`componentstatuses`): get and list.

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::options::ListOptions;
use nave_machinery::{Status, Value, meta};

use super::response::ObjectResponse;
use super::{Endpoint, selection};
use crate::catalog::Catalog;
use crate::request_info::ResourceRequest;

/// Computes the objects of a cluster-scoped resource.
#[async_trait]
pub trait ComputedResource: Send + Sync {
    /// Returns the objects in the order of their names, or only the object `name`.
    async fn objects(&self, catalog: &Catalog, name: Option<&str>) -> Vec<Value>;
}

/// Reads an object.
///
/// # Errors
/// 404 if no object has the name.
pub(super) async fn get(
    computed: &Arc<dyn ComputedResource>,
    catalog: &Catalog,
    endpoint: &Endpoint,
    request: &ResourceRequest,
) -> Result<ObjectResponse, Status> {
    let object = computed.objects(catalog, Some(&request.name)).await.into_iter().next();
    let object = object.ok_or_else(|| {
        let mut resource = endpoint.resource();
        // As upstream, which names the singular.
        resource.resource.clone_from(&endpoint.def.singular);
        Status::not_found(&resource, &request.name)
    })?;
    Ok(ObjectResponse::object(endpoint, 200, object))
}

/// Reads the objects that a request selects. All of them are in the first page.
///
/// # Errors
/// 400 if a selector uses a field that the resource does not support.
pub(super) async fn list(
    computed: &Arc<dyn ComputedResource>,
    catalog: &Catalog,
    endpoint: &Endpoint,
    request: &ResourceRequest,
    options: &ListOptions,
) -> Result<ObjectResponse, Status> {
    selection::filter(&endpoint.def, endpoint.version(), request, options)?;
    let mut objects = computed.objects(catalog, None).await;
    objects.retain(|object| {
        let label = |key: &str| meta::labels(object)?.get(key)?.as_str();
        let field = |path: &str| (path == "metadata.name").then(|| meta::name(object));
        options.label_selector.matches(label) && options.field_selector.matches(field)
    });
    Ok(ObjectResponse::computed(endpoint, objects))
}
