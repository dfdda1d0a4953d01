//! What is particular to a kind, as hooks that generic code calls at fixed places on the road of a write.

use nave_machinery::{FieldError, GroupVersion, Value};

use crate::convert::{self, ConversionError};

/// The hooks of a kind. Every method has a default that fits a kind without particularities.
///
/// Objects are in the storage version, except where a method says otherwise. Generic code does what all kinds
/// share, before the hook runs: the object's metadata and its validation, dropping `status` on create and keeping it
/// on update where there is a `status` subresource, keeping all but `status` on a status update, `generation`.
pub trait Strategy: Send + Sync {
    /// Returns whether the kind has no rules of its own; the page of kinds says it.
    fn is_plain(&self) -> bool {
        false
    }

    /// Sets the defaults that a schema cannot say, on an object of the request's `version`. Runs on decode, after
    /// the schema's own defaults, on every write and on what is read from storage; must be idempotent.
    fn default(&self, object: &mut Value, version: &str) {
        let _ = (object, version);
    }

    /// Turns an object from one served or stored version into another, `apiVersion` included.
    fn convert(
        &self,
        object: &mut Value,
        from: &GroupVersion,
        to: &GroupVersion,
    ) -> Result<(), ConversionError> {
        convert::relabel(object, from, to)
    }

    /// Clears or sets fields before a create: what a client may not set, what the server knows.
    fn prepare_for_create(&self, object: &mut Value) {
        let _ = object;
    }

    /// Clears, keeps or sets fields before an update of the object itself.
    fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        let _ = (object, old);
    }

    /// Clears, keeps or sets fields before an update of `status`, after all but `status` and the permitted
    /// metadata has been taken from `old`.
    fn prepare_for_status_update(&self, object: &mut Value, old: &Value) {
        let _ = (object, old);
    }

    /// Keeps of an update through `subresource` (a [`SubresourceKind::RestrictedUpdate`](crate::SubresourceKind))
    /// only what may be changed there; the metadata in [`Rules::kept_metadata`](crate::Rules) is taken from `old`
    /// already. The default keeps metadata only.
    fn prepare_for_subresource_update(&self, subresource: &str, object: &mut Value, old: &Value) {
        let _ = subresource;
        let metadata = object.get("metadata").cloned();
        old.clone_into(object);
        if let (Some(fields), Some(metadata)) = (object.as_object_mut(), metadata) {
            fields.insert("metadata".to_owned(), metadata);
        }
    }

    /// What is wrong with an object to be created.
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let _ = object;
        Vec::new()
    }

    /// What is wrong with an update of the object itself. The default validates the new object by itself.
    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let _ = old;
        self.validate(object)
    }

    /// What is wrong with an update of `status`.
    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let _ = (object, old);
        Vec::new()
    }

    /// What is wrong with an update through `subresource`.
    fn validate_subresource_update(&self, subresource: &str, object: &Value, old: &Value) -> Vec<FieldError> {
        let _ = (subresource, object, old);
        Vec::new()
    }

    /// What to warn the client of, on a create (`old` is `None`) or an update.
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let _ = (object, old);
        Vec::new()
    }

    /// Brings a valid object into the form it is stored in (sorted lists, canonical spellings).
    fn canonicalize(&self, object: &mut Value) {
        let _ = object;
    }

    /// The seconds the object goes on to live after a delete that asked for `requested` seconds; `None` if the kind
    /// knows no graceful deletion. `Some(0)` deletes at once.
    fn graceful_period(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let _ = (object, requested);
        None
    }

    /// Why the object of this name may not be deleted by a request for it alone, if it may not.
    fn refuses_deletion(&self, name: &str) -> Option<&'static str> {
        let _ = name;
        None
    }

    /// How the object came to its end, where its work can end; rows of a `Table` say it.
    fn completion(&self, object: &Value) -> Option<Completion> {
        let _ = object;
        None
    }

    /// Marks an object whose deletion has begun but which stays until its finalizers are gone.
    fn begin_deletion(&self, object: &mut Value) {
        let _ = object;
    }

    /// Returns whether something other than `metadata.finalizers` holds an object that is being deleted.
    fn holds_deletion(&self, object: &Value) -> bool {
        let _ = object;
        false
    }
}

/// How an object that does a piece of work came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// One word, for machines.
    pub reason: &'static str,
    /// A sentence, for people.
    pub message: &'static str,
}

/// A kind without particularities.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Strategy for Plain {
    fn is_plain(&self) -> bool {
        true
    }
}
