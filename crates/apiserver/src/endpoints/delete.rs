//! The verbs delete and deletecollection: graceful deletion, finalizers, preconditions (upstream:
//! `registry.Store.Delete`).

use futures_util::future::join_all;
use nave_machinery::options::DeleteOptions;
use nave_machinery::{Reason, Status, Value, meta};
use nave_resources::list_prefix;

use super::response::ObjectResponse;
use super::versions::{self, ServedObject};
use super::view::View;
use super::write::{Target, Write};
use crate::lifecycle::{self, Deletion};
use crate::storage::ResourceStorage;

/// Deletes an object, or marks it for deletion. An undecodable stored object is deleted immediately.
///
/// # Errors
/// 404, 403 for an object that cannot be deleted, or 409 if a precondition fails.
pub async fn delete(target: &Target<'_>, options: &DeleteOptions) -> Result<ObjectResponse, Status> {
    let def = &target.endpoint.def;
    if let Some(why) = def.strategy.refuses_deletion(target.name) {
        return Err(Status::forbidden(&def.group_resource(), target.name, why));
    }
    target.warn(def.strategy.deletion_warnings(options));
    delete_one(target, Write::delete(target, options), options).await
}

async fn delete_one(
    target: &Target<'_>,
    write: Write<'_>,
    options: &DeleteOptions,
) -> Result<ObjectResponse, Status> {
    let written = write.run(target.name).await;
    match written {
        Ok(written) => {
            let deletion = written.deletion;
            answer(target, written.into_object(), deletion).await
        }
        Err(status) if status.reason == Some(Reason::StoreReadError) => {
            let (storage, key) = (target.storage()?, target.key(target.name)?);
            delete_undecodable(target, storage, &key, options).await
        }
        Err(status) => Err(status),
    }
}

async fn delete_undecodable(
    target: &Target<'_>,
    storage: &ResourceStorage,
    key: &str,
    options: &DeleteOptions,
) -> Result<ObjectResponse, Status> {
    let def = &target.endpoint.def;
    let may_delete = |revision: u64, uid: Option<&str>| {
        lifecycle::check_preconditions(
            def,
            uid.unwrap_or_default(),
            &revision.to_string(),
            options,
            target.name,
        )?;
        Ok(!options.dry_run)
    };
    storage.delete_undecodable(key, target.name, may_delete).await?;
    Ok(ObjectResponse::status(&Status::deleted(&def.group_resource(), target.name, "")))
}

/// Deletes the undecodable stored objects of a namespace, which lists do not contain.
///
/// # Errors
/// The first failed deletion, ignoring objects that no longer exist.
pub async fn delete_collection_of_undecodable(
    target: &Target<'_>,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let def = &target.endpoint.def;
    let namespace = (def.namespaced && !target.namespace.is_empty()).then_some(target.namespace);
    let prefix = list_prefix(def, namespace).map_err(|error| Status::bad_request(error.to_string()))?;
    let storage = target.storage()?;
    for key in storage.cacher().undecodable(&prefix) {
        let mut parts = key.rsplit('/');
        let name = parts.next().unwrap_or_default();
        let namespace = if def.namespaced { parts.next().unwrap_or_default() } else { "" };
        let one = Target { view: View::Object, name, namespace, ..*target };
        match delete_one(&one, Write::delete(&one, options).of_collection(), options).await {
            Err(status) if status.code != 404 => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

/// Deletes the objects that a list selected, `workers` at a time; returns the deleted objects.
///
/// # Errors
/// The first failed deletion, ignoring objects that no longer exist.
pub async fn delete_collection(
    target: &Target<'_>,
    selected: Vec<ServedObject>,
    options: &DeleteOptions,
    workers: usize,
) -> Result<Vec<ServedObject>, Status> {
    let mut deleted = Vec::with_capacity(selected.len());
    let mut selected = selected.into_iter().peekable();
    while selected.peek().is_some() {
        let some: Vec<ServedObject> = selected.by_ref().take(workers.max(1)).collect();
        // The futures of writes are large, so they are boxed.
        let deletions = some.iter().map(|object| Box::pin(delete_of_collection(target, object, options)));
        let outcomes = join_all(deletions).await;
        for (object, outcome) in some.into_iter().zip(outcomes) {
            if outcome? {
                deleted.push(object);
            }
        }
    }
    Ok(deleted)
}

/// Deletes an object of a collection; returns false if it no longer exists.
async fn delete_of_collection(
    target: &Target<'_>,
    object: &ServedObject,
    options: &DeleteOptions,
) -> Result<bool, Status> {
    let (namespace, name) = (object.cached.namespace(), object.cached.name());
    let one = Target { view: View::Object, namespace, name, ..*target };
    match delete_one(&one, Write::delete(&one, options).of_collection(), options).await {
        Ok(_) => Ok(true),
        Err(status) if status.code == 404 => Ok(false),
        Err(status) => Err(status),
    }
}

/// Builds the response: the object if it still exists, otherwise a `Status`. Some kinds always return the object.
async fn answer(target: &Target<'_>, object: Value, outcome: Deletion) -> Result<ObjectResponse, Status> {
    let def = &target.endpoint.def;
    if outcome == Deletion::Marked || def.rules.returns_deleted {
        let object = versions::read(target.endpoint, object).await?;
        let object = target.view.to_served(target.endpoint, object)?;
        return Ok(ObjectResponse::object(target.endpoint, 200, object));
    }
    Ok(ObjectResponse::status(&Status::deleted(
        &def.group_resource(),
        meta::name(&object),
        meta::uid(&object),
    )))
}
