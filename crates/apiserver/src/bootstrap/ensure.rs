//! Creates or corrects objects.

use nave_machinery::options::UpdateOptions;
use nave_machinery::{GroupVersionResource, Object, Status, Value, meta};

use crate::endpoints::Resources;
use crate::endpoints::view::View;
use crate::internal::InternalWriter;

/// Creates an object unless its name exists.
pub(super) async fn create(
    resources: &Resources,
    resource: GroupVersionResource,
    namespace: &str,
    object: Value,
) -> Result<(), Status> {
    let catalog = resources.catalog();
    let Some(endpoint) = catalog.endpoint(&resource) else { return Ok(()) };
    let storage = endpoint.storage()?;
    if storage.find(namespace, meta::name(&object)).is_some() {
        return Ok(());
    }
    let writer = InternalWriter::new(endpoint, resources.admission());
    let stored = match writer.create(namespace, object).await {
        Err(status) if status.code == 409 => return Ok(()),
        outcome => outcome?,
    };
    // The next object may depend on this one, for example on a namespace.
    let revision = meta::resource_version(&stored).parse().unwrap_or(0);
    storage.wait_until(revision).await
}

/// Creates an object unless its name exists. Replaces an existing object with the result of `amend` for its latest
/// state; `None` leaves the object unchanged.
pub(super) async fn ensure(
    resources: &Resources,
    resource: GroupVersionResource,
    namespace: &str,
    wanted: Value,
    amend: &(dyn Fn(&Object) -> Option<Value> + Sync),
) -> Result<(), Status> {
    let catalog = resources.catalog();
    let Some(endpoint) = catalog.endpoint(&resource) else { return Ok(()) };
    let storage = endpoint.storage()?;
    let name = meta::name(&wanted).to_owned();
    let Some(cached) = storage.find(namespace, &name) else {
        return create(resources, resource, namespace, wanted).await;
    };
    let existing = Object::try_from(storage.codec().parse_cached(&cached)?).map_err(Status::internal)?;
    if amend(&existing).is_none() {
        return Ok(());
    }
    let change = |stored: &Object| Ok(amend(stored).unwrap_or_else(|| stored.clone().into_value()));
    let writer = InternalWriter::new(endpoint, resources.admission());
    match writer.update(View::Object, (namespace, &name), &UpdateOptions::default(), &change).await {
        // The object was deleted; the next round creates it.
        Err(status) if status.code == 404 => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Returns the object with one field replaced.
pub(super) fn with_field(stored: &Object, field: &str, value: Value) -> Value {
    let mut object = stored.clone();
    object.insert(field, value);
    object.into_value()
}

/// A resource of the core group.
pub(super) fn core(resource: &str) -> GroupVersionResource {
    GroupVersionResource::new("", "v1", resource)
}
