//! The roles and bindings that a server starts with: made where they are absent, added to where they lack something
//! (upstream: `PostStartHook` of `pkg/registry/rbac/rest`).

use futures_util::future::try_join_all;
use nave_authz::bootstrap::{self, Reconciled, reconcile};
use nave_authz::rbac;
use nave_machinery::options::CreateOptions;
use nave_machinery::options::FieldValidation;
use nave_machinery::user::UserInfo;
use nave_machinery::{GroupVersionResource, Status};
use nave_resources::storage_key;

use crate::context::RequestContext;
use crate::endpoints::view::View;
use crate::endpoints::write::{self, Target};
use crate::endpoints::{Endpoint, Resources, decode};
use crate::storage::{Stored, Update};

/// Sees to it that all are there. They are written side by side, so that the store can commit them together.
///
/// # Errors
/// What kept one from being stored.
pub(super) async fn run(resources: &Resources, user: &UserInfo) -> Result<(), Status> {
    let policy = bootstrap::policy().map_err(Status::internal)?;
    let ensured = policy.into_iter().map(|wanted| ensure(resources, user, wanted));
    try_join_all(ensured).await.map(drop)
}

async fn ensure(resources: &Resources, user: &UserInfo, wanted: bootstrap::Bootstrap) -> Result<(), Status> {
    let gvr = GroupVersionResource::new(rbac::GROUP, "v1", wanted.resource);
    let Some(endpoint) = resources.endpoint(&gvr) else { return Ok(()) };
    let storage = endpoint.storage()?;
    if let Some(cached) = storage.find(&wanted.namespace, &wanted.name) {
        let existing = storage.codec().parse_cached(&cached)?;
        if reconcile(&existing, &wanted.object) == Reconciled::Right || mend(endpoint, &wanted).await? {
            return Ok(());
        }
    }
    let context = &RequestContext::internal(user.clone());
    let target = Target {
        context,
        endpoint,
        view: View::Object,
        namespace: &wanted.namespace,
        name: "",
        admission: resources.admission(),
    };
    let body = decode::Body { object: wanted.object, lax: Vec::new() };
    let object = target.typed(body, FieldValidation::Ignore)?;
    match write::create_object(&target, object, &CreateOptions::default()).await {
        // Another server over the same store was faster.
        Err(status) if status.code == 409 => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Adds to an object what it lacks. False if it is gone: because another did so, or because it is to be made anew.
async fn mend(endpoint: &Endpoint, wanted: &bootstrap::Bootstrap) -> Result<bool, Status> {
    let namespace = endpoint.def.namespaced.then_some(wanted.namespace.as_str());
    let key = storage_key(&endpoint.def, namespace, &wanted.name).map_err(Status::internal)?;
    let change = |current: &Stored| {
        Ok(match reconcile(current.object.as_value(), &wanted.object) {
            Reconciled::Right => Update::Keep(current.object.as_value().clone()),
            Reconciled::Update(object) => Update::Put(object),
            Reconciled::Recreate => Update::Delete(current.object.as_value().clone()),
        })
    };
    match endpoint.storage()?.guaranteed_update(&key, &wanted.name, change).await {
        Ok(updated) => Ok(!updated.deleted),
        Err(status) if status.code == 404 => Ok(false),
        Err(status) => Err(status),
    }
}
