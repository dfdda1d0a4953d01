//! delete and deletecollection: graceful deletion, finalizers, preconditions (upstream: `registry.Store.Delete`).

use std::sync::Arc;

use nave_cacher::CachedObject;
use nave_machinery::options::DeleteOptions;
use nave_machinery::{Status, Value, meta, time};
use nave_resources::storage_key;

use super::answer::Answer;
use super::view::View;
use super::write::Target;
use crate::admission::{Attributes, Operation};
use crate::lifecycle::{self, Deletion};
use crate::storage::{Stored, Update};

/// Deletes one object, or marks it for deletion.
///
/// # Errors
/// 404, or 409 where a precondition does not hold.
pub async fn delete(target: &Target<'_>, options: &DeleteOptions) -> Result<Answer, Status> {
    let def = &target.endpoint.def;
    let storage = target.storage()?;
    let attributes = Attributes {
        def,
        subresource: "",
        namespace: target.namespace,
        name: target.name,
        operation: Operation::Delete,
        user: target.user,
    };
    target.admission.admit(&attributes, None)?;
    let namespace = def.namespaced.then_some(target.namespace);
    let key =
        storage_key(def, namespace, target.name).map_err(|error| Status::bad_request(error.to_string()))?;
    let mut outcome = Deletion::Pending;
    let change = |current: &Stored| {
        let mut object = current.object.clone();
        outcome = lifecycle::before_delete(def, &mut object, options, target.name, time::now())?;
        Ok(match outcome {
            _ if options.dry_run => Update::Keep(object),
            Deletion::Pending => Update::Keep(object),
            Deletion::Marked => Update::Put(object),
            Deletion::Now => Update::Delete(object),
        })
    };
    let updated = storage.guaranteed_update(&key, target.name, change).await?;
    if updated.deleted {
        target.admission.settled(def, meta::uid(&updated.stored.object), None);
    }
    answer(target, updated.stored.object, outcome)
}

/// Deletes the objects that a list selected, one by one; the answer is the list of what was deleted.
///
/// # Errors
/// The first deletion that fails, other than because the object is gone.
pub async fn delete_collection(
    target: &Target<'_>,
    selected: Vec<Arc<CachedObject>>,
    options: &DeleteOptions,
) -> Result<Vec<Arc<CachedObject>>, Status> {
    let mut deleted = Vec::with_capacity(selected.len());
    for object in selected {
        let one = Target {
            endpoint: target.endpoint,
            view: View::Object,
            namespace: object.namespace(),
            name: object.name(),
            user: target.user,
            admission: target.admission,
        };
        match delete(&one, options).await {
            Ok(_) => deleted.push(object),
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    Ok(deleted)
}

/// What a deletion is answered with: the object while it stays, and once it is gone a `Status`, except for the kinds
/// that answer with the object in any case.
fn answer(target: &Target<'_>, object: Value, outcome: Deletion) -> Result<Answer, Status> {
    let def = &target.endpoint.def;
    if outcome == Deletion::Marked || def.rules.returns_deleted {
        return Ok(Answer::object(target.endpoint, 200, target.view.present(target.endpoint, object)?));
    }
    Ok(Answer::status(&Status::deleted(&def.group_resource(), meta::name(&object), meta::uid(&object))))
}
