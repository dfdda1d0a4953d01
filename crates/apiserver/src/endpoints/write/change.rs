//! The changes that a write can make.

use nave_machinery::options::{DeleteOptions, FieldValidation};
use nave_machinery::{Object, Status, Value};

use super::{Apply, Patch};

/// A change of one object.
pub enum Change<'a> {
    /// Creates the object.
    Create(Value),
    /// Replaces the object, or creates it if it does not exist and `create` allows it.
    Replace {
        /// The new state.
        object: Value,
        /// The revision to replace; `None` for any.
        version: Option<u64>,
        /// Checks the right to create the object; `None` if the update cannot create it.
        create: Option<CreateRight<'a>>,
    },
    /// Patches the object.
    Patch {
        /// The patch.
        patch: Patch,
        /// The field validation of the result.
        validation: FieldValidation,
    },
    /// Merges an applied configuration into the object, or creates the object.
    Apply(Box<Apply<'a>>),
    /// Replaces the object with the result of a function of its stored state, in the storage version.
    Compute(&'a (dyn Fn(&Object) -> Result<Value, Status> + Sync)),
    /// As `Compute`, but without a field manager for the changes, as in upstream's writes below its request handlers.
    ComputeUnowned(&'a (dyn Fn(&Object) -> Result<Value, Status> + Sync)),
    /// As `Compute`, but without admission and strategy, as in upstream's bindings.
    Store(&'a (dyn Fn(&Object) -> Result<Value, Status> + Sync)),
    /// Deletes the object, or marks it for deletion.
    Delete(&'a DeleteOptions),
}

/// The authorization check for an update that creates the object, because the right to update does not include it.
pub struct CreateRight<'a> {
    /// The authorizers.
    pub authorization: &'a nave_authz::Chain,
    /// The attributes of the creation.
    pub attributes: nave_authz::Attributes<'a>,
}
