//! The flow schemas and priority levels that the server keeps (upstream: `registry/flowcontrol/rest`).

use std::sync::Arc;

use futures_util::future::try_join_all;
use futures_util::try_join;
use nave_cacher::CachedObject;
use nave_flowcontrol::bootstrap::{self, Bootstrap};
use nave_machinery::options::{DeleteOptions, UpdateOptions};
use nave_machinery::{GroupVersionResource, Object, Status, meta};

use crate::endpoints::view::View;
use crate::endpoints::{Endpoint, Resources};
use crate::flow_control::{LEVELS, SCHEMAS};
use crate::internal::InternalWriter;

const FIELD_MANAGER: &str = "api-priority-and-fairness-config-producer-v1";

/// Creates missing objects, restores changed ones, and deletes those that an earlier version kept.
pub(super) async fn run(resources: &Resources) -> Result<(), Status> {
    let (levels, schemas) = (bootstrap::levels(), bootstrap::schemas());
    let levels = keep(resources, LEVELS, "PriorityLevelConfiguration", &levels);
    try_join!(levels, keep(resources, SCHEMAS, "FlowSchema", &schemas)).map(drop)
}

async fn keep(resources: &Resources, resource: &str, kind: &str, kept: &[Bootstrap]) -> Result<(), Status> {
    let catalog = resources.catalog();
    let gvr = GroupVersionResource::new("flowcontrol.apiserver.k8s.io", "v1", resource);
    let Some(endpoint) = catalog.endpoint(&gvr) else { return Ok(()) };
    let writer = InternalWriter::new(endpoint, resources.admission()).with_field_manager(FIELD_MANAGER);
    try_join_all(kept.iter().map(|object| ensure(endpoint, &writer, kind, object))).await?;
    let snapshot = endpoint.storage()?.cacher().snapshot();
    for cached in snapshot.range("", None) {
        let is_kept = kept.iter().any(|object| object.name == cached.name());
        if !is_kept && bootstrap::is_unwanted(decode(endpoint, cached)?.as_value()) {
            // Another server may have deleted it.
            match writer.delete(("", cached.name()), &DeleteOptions::default()).await {
                Err(status) if status.code == 404 => {}
                outcome => outcome?,
            }
        }
    }
    Ok(())
}

async fn ensure(
    endpoint: &Endpoint,
    writer: &InternalWriter<'_>,
    kind: &str,
    object: &Bootstrap,
) -> Result<(), Status> {
    let storage = endpoint.storage()?;
    let Some(cached) = storage.find("", object.name) else {
        return match writer.create("", object.object(kind)).await {
            // Another server has created it.
            Err(status) if status.code == 409 => Ok(()),
            Err(status) => Err(status),
            Ok(stored) => storage.wait_until(meta::resource_version(&stored).parse().unwrap_or(0)).await,
        };
    };
    if object.revised(decode(endpoint, &cached)?.as_value()).is_none() {
        return Ok(());
    }
    let change = |stored: &Object| {
        let stored = stored.as_value();
        Ok(object.revised(stored).unwrap_or_else(|| stored.clone()))
    };
    match writer.update(View::Object, ("", object.name), &UpdateOptions::default(), &change).await {
        // It was deleted; the next round creates it.
        Err(status) if status.code == 404 => Ok(()),
        outcome => outcome.map(drop),
    }
}

fn decode(endpoint: &Endpoint, cached: &Arc<CachedObject>) -> Result<Object, Status> {
    Object::try_from(endpoint.storage()?.codec().parse_cached(cached)?).map_err(Status::internal)
}
