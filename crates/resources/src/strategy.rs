//! The hooks of a kind, which the write path calls.

use nave_machinery::options::DeleteOptions;
use nave_machinery::{FieldErrors, GroupVersion, Value};

use crate::convert::{self, ConversionError};

/// The hooks of a kind. The default methods implement a kind without special rules.
///
/// Objects are in the storage version, unless stated otherwise. Before a hook, generic code validates the metadata
/// and updates `generation`. If the version has a `status` subresource, generic code also drops `status` on create,
/// keeps it on update, and keeps all other fields on a status update.
pub trait Strategy: Send + Sync {
    /// Returns whether the kind has no special rules. Used for the documentation of kinds.
    fn is_plain(&self) -> bool {
        false
    }

    /// Sets defaults that the schema cannot express, on an object in the request's `version`. Called after decoding
    /// and the schema's defaults, and for stored objects if [`Self::is_defaulted_on_read`]. Must be idempotent.
    fn default(&self, object: &mut Value, version: &str) {
        let _ = (object, version);
    }

    /// Returns whether stored objects lack defaults that clients see. kube-apiserver sets defaults whenever it reads an
    /// object, so it can store objects without them.
    fn is_defaulted_on_read(&self) -> bool {
        false
    }

    /// Converts an object between two served or stored versions, and sets `apiVersion`.
    fn convert(
        &self,
        object: &mut Value,
        from: &GroupVersion,
        to: &GroupVersion,
    ) -> Result<(), ConversionError> {
        convert::relabel(object, from, to)
    }

    /// Returns whether a new object without a name gets a unique one.
    fn names_objects(&self) -> bool {
        false
    }

    /// Returns the warnings for the client about a new object before it is prepared.
    fn warnings_before_create(&self, object: &Value) -> Vec<String> {
        let _ = object;
        Vec::new()
    }

    /// Clears or sets fields before a create.
    fn prepare_for_create(&self, object: &mut Value) {
        let _ = object;
    }

    /// Clears, keeps or sets fields before an update of the object itself.
    fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        let _ = (object, old);
    }

    /// Clears, keeps or sets fields before an update of `status`. Everything except `status` and the permitted
    /// metadata is already copied from `old`.
    fn prepare_for_status_update(&self, object: &mut Value, old: &Value) {
        let _ = (object, old);
    }

    /// Reverts the fields that an update through `subresource` (a
    /// [`SubresourceKind::RestrictedUpdate`](crate::SubresourceKind)) must not change. The metadata in
    /// [`Rules::kept_metadata`](crate::Rules) is already copied from `old`. The default reverts everything except the
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
    fn validate(&self, object: &Value) -> FieldErrors {
        let _ = object;
        FieldErrors::new()
    }

    /// Validates an update of the object itself. The default validates only the new object.
    fn validate_update(&self, object: &Value, old: &Value) -> FieldErrors {
        let _ = old;
        self.validate(object)
    }

    /// Validates an update of `status`.
    fn validate_status_update(&self, object: &Value, old: &Value) -> FieldErrors {
        let _ = (object, old);
        FieldErrors::new()
    }

    /// Validates an update through `subresource`.
    fn validate_subresource_update(&self, subresource: &str, object: &Value, old: &Value) -> FieldErrors {
        let _ = (subresource, object, old);
        FieldErrors::new()
    }

    /// Returns the warnings for the client about a request to delete an object.
    fn deletion_warnings(&self, options: &DeleteOptions) -> Vec<String> {
        let _ = options;
        Vec::new()
    }

    /// Returns the warnings for the client about a create (`old` is `None`) or an update.
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let _ = (object, old);
        Vec::new()
    }

    /// Converts a valid object to its stored form (sorted lists, canonical spellings).
    fn canonicalize(&self, object: &mut Value) {
        let _ = object;
    }

    /// Returns the grace period in seconds for a delete that requests `requested`; `None` if the kind has no graceful
    /// deletion. `Some(0)` deletes immediately.
    fn graceful_period(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let _ = (object, requested);
        None
    }

    /// Returns the reason why the object with this name must not be deleted individually, if any.
    fn refuses_deletion(&self, name: &str) -> Option<&'static str> {
        let _ = name;
        None
    }

    /// Returns the completion of a finished object, for `Table` rows.
    fn completion(&self, object: &Value) -> Option<Completion> {
        let _ = object;
        None
    }

    /// Returns the key by which the rows of a `Table` are sorted. Without a key, the rows are in the order of the list.
    fn row_order(&self) -> Option<fn(&Value) -> i64> {
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
    /// One word for machines.
    pub reason: &'static str,
    /// A sentence for users.
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
