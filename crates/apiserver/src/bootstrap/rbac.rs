//! Creates missing bootstrap roles and bindings, and adds missing rules and subjects (upstream: `PostStartHook` of
//! `pkg/registry/rbac/rest`).

use futures_util::future::try_join_all;
use nave_authz::bootstrap::{self, Reconciled, reconcile};
use nave_authz::rbac;
use nave_machinery::options::{DeleteOptions, Preconditions, UpdateOptions};
use nave_machinery::{GroupVersionResource, Object, Status, Value, meta};

use crate::endpoints::Resources;
use crate::endpoints::view::View;
use crate::internal::InternalWriter;

/// Creates and completes all roles and bindings concurrently, so that the store can commit them together.
///
/// # Errors
/// An object cannot be stored.
pub(super) async fn run(resources: &Resources) -> Result<(), Status> {
    let policy = bootstrap::policy().map_err(Status::internal)?;
    let ensured = policy.into_iter().map(|wanted| ensure(resources, wanted));
    try_join_all(ensured).await.map(drop)
}

async fn ensure(resources: &Resources, wanted: bootstrap::Bootstrap) -> Result<(), Status> {
    let gvr = GroupVersionResource::new(rbac::GROUP, "v1", wanted.resource);
    let catalog = resources.catalog();
    let Some(endpoint) = catalog.endpoint(&gvr) else { return Ok(()) };
    let storage = endpoint.storage()?;
    let writer = InternalWriter::new(endpoint, resources.admission());
    if let Some(cached) = storage.find(&wanted.namespace, &wanted.name) {
        let existing = storage.codec().parse_cached(&cached)?;
        match mend(&writer, &existing, &wanted).await {
            // The object was deleted; create it again.
            Err(status) if status.code == 404 => {}
            outcome => {
                if outcome? {
                    return Ok(());
                }
            }
        }
    }
    match writer.create(&wanted.namespace, wanted.object).await {
        // Another server that shares the store has created the object.
        Err(status) if status.code == 409 => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Adds missing rules or subjects to a stored object; returns false if the object was deleted in the meantime.
async fn mend(
    writer: &InternalWriter<'_>,
    existing: &Value,
    wanted: &bootstrap::Bootstrap,
) -> Result<bool, Status> {
    let at = (wanted.namespace.as_str(), wanted.name.as_str());
    match reconcile(existing, &wanted.object) {
        Reconciled::Right => {}
        Reconciled::Update(_) => {
            let complete = |stored: &Object| {
                Ok(match reconcile(stored.as_value(), &wanted.object) {
                    Reconciled::Update(object) => object,
                    Reconciled::Right | Reconciled::Recreate => stored.as_value().clone(),
                })
            };
            writer.update(View::Object, at, &UpdateOptions::default(), &complete).await?;
        }
        Reconciled::Recreate => {
            let uid = Some(meta::uid(existing).to_owned());
            let preconditions = Preconditions { uid, resource_version: None };
            writer.delete(at, &DeleteOptions { preconditions, ..DeleteOptions::default() }).await?;
            return Ok(false);
        }
    }
    Ok(true)
}
