//! The hooks of a kind, which the write path calls.

use nave_machinery::{FieldError, GroupVersion, Value};

use crate::convert::{self, ConversionError};

/// The hooks of a kind. Every method has a default for kinds without special rules.
///
/// Objects are in the storage version, unless stated otherwise. Before a hook, generic code has done the common
/// work: it has validated the metadata, dropped `status` on create and kept it on update if there is a `status`
/// subresource, kept everything else on a status update, and updated `generation`.
pub trait Strategy: Send + Sync {
    /// Returns whether the kind has no special rules, for the documentation of kinds.
    fn is_plain(&self) -> bool {
        false
    }

    /// Sets defaults that the schema cannot express, on an object of the request's `version`. Called after decoding
    /// and the schema's defaults, for writes and for stored objects; must be idempotent.
    fn default(&self, object: &mut Value, version: &str) {
        let _ = (object, version);
    }

    /// Converts an object between two served or stored versions, including `apiVersion`.
    fn convert(
        &self,
        object: &mut Value,
        from: &GroupVersion,
        to: &GroupVersion,
    ) -> Result<(), ConversionError> {
        convert::relabel(object, from, to)
    }

    /// Clears or sets fields before a create.
    fn prepare_for_create(&self, object: &mut Value) {
        let _ = object;
    }

    /// Clears, keeps or sets fields before an update of the object itself.
    fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        let _ = (object, old);
    }

    /// Clears, keeps or sets fields before an update of `status`. Everything but `status` and the permitted
    /// metadata is copied from `old` already.
    fn prepare_for_status_update(&self, object: &mut Value, old: &Value) {
        let _ = (object, old);
    }

    /// Reverts the fields that an update through `subresource` (a
    /// [`SubresourceKind::RestrictedUpdate`](crate::SubresourceKind)) must not change. The metadata in
    /// [`Rules::kept_metadata`](crate::Rules) is copied from `old` already. The default reverts everything but the
    /// metadata.
    fn prepare_for_subresource_update(&self, subresource: &str, object: &mut Value, old: &Value) {
        let _ = subresource;
        let metadata = object.get("metadata").cloned();
        old.clone_into(object);
        if let (Some(fields), Some(metadata)) = (object.as_object_mut(), metadata) {
            fields.insert("metadata".to_owned(), metadata);
        }
    }

    /// Validates an object to be created.
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let _ = object;
        Vec::new()
    }

    /// Validates an update of the object itself. The default validates the new object alone.
    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let _ = old;
        self.validate(object)
    }

    /// Validates an update of `status`.
    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let _ = (object, old);
        Vec::new()
    }

    /// Validates an update through `subresource`.
    fn validate_subresource_update(&self, subresource: &str, object: &Value, old: &Value) -> Vec<FieldError> {
        let _ = (subresource, object, old);
        Vec::new()
    }

    /// The warnings for the client about a create (`old` is `None`) or an update.
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let _ = (object, old);
        Vec::new()
    }

    /// Converts a valid object to its stored form (sorted lists, canonical spellings).
    fn canonicalize(&self, object: &mut Value) {
        let _ = object;
    }

    /// The grace period in seconds for a delete that requested `requested`; `None` if the kind has no graceful
    /// deletion. `Some(0)` deletes immediately.
    fn graceful_period(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let _ = (object, requested);
        None
    }

    /// The reason why the object of this name must not be deleted individually, if there is one.
    fn refuses_deletion(&self, name: &str) -> Option<&'static str> {
        let _ = name;
        None
    }

    /// The completion of a finished object, which rows of a `Table` show.
    fn completion(&self, object: &Value) -> Option<Completion> {
        let _ = object;
        None
    }

    /// Marks an object whose deletion waits for finalizers.
    fn begin_deletion(&self, object: &mut Value) {
        let _ = object;
    }

    /// Returns whether something other than `metadata.finalizers` blocks the deletion.
    fn holds_deletion(&self, object: &Value) -> bool {
        let _ = object;
        false
    }
}

/// The completion of an object that performs a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// One word, for machines.
    pub reason: &'static str,
    /// A sentence, for users.
    pub message: &'static str,
}

/// The strategy of kinds without special rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Strategy for Plain {
    fn is_plain(&self) -> bool {
        true
    }
}
