//! Patches: an object and a change of it, both as values.
//!
//! | module | the patch is | lists |
//! | --- | --- | --- |
//! | [`json_patch`] | a list of operations at paths (RFC 6902) | by index |
//! | [`merge`] | the fields that change (RFC 7386) | replaced whole |
//! | [`strategic`] | the fields that change, with directives | merged by the keys that the type declares |
//! | [`managed_fields`] | an applied configuration (server-side apply) | by the topology that the type declares |
//!
//! Invariants: no I/O; no input panics; after an error the object is half patched and must be dropped. A patched object
//! is within [`limits`], and so is each state on the way. Merges are linear in the sizes of object and patch; the work of
//! a JSON patch is bounded by [`json_patch::MAX_OPERATIONS`] and [`json_patch::MAX_STEPS`].
//!
//! ```
//! let mut object = serde_json::json!({"data": {"a": "1", "b": "2"}});
//! nave_patch::merge::apply(&mut object, &serde_json::json!({"data": {"a": null, "c": "3"}}))?;
//! assert_eq!(object, serde_json::json!({"data": {"b": "2", "c": "3"}}));
//! # Ok::<(), nave_patch::PatchError>(())
//! ```

pub mod json_patch;
pub mod managed_fields;
pub mod merge;
pub mod strategic;

use nave_machinery::limits::{self, LimitError};
use nave_machinery::{Reason, Status, Value};

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is not well-formed.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well-formed, but not for this object: a test failed, or a path leads nowhere.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Unfit(String),
    /// The patch asks for what a merge cannot do. Upstream answers such errors with 500.
    #[error("{0}")]
    Failed(String),
    /// The patched object would be too deep or too large.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// More operations than a patch may have.
    #[error("The allowed maximum operations in a JSON patch is {max}, got {0}", max = json_patch::MAX_OPERATIONS)]
    TooManyOperations(usize),
}

impl PatchError {
    /// What the client is told.
    pub fn into_status(self) -> Status {
        match &self {
            Self::Malformed(text) => Status::bad_request(text.as_str()),
            Self::Unfit(_) => Status::failure(422, Reason::Invalid, self.to_string()),
            Self::Failed(_) => Status::failure(500, Reason::Unknown, self.to_string()),
            Self::Limit(limit) => limit.into_status(),
            Self::TooManyOperations(_) => Status::too_large(self.to_string()),
        }
    }
}

/// The end of every patch: what it has built is within the limits of an object.
fn check_patched(object: &Value) -> Result<(), PatchError> {
    Ok(limits::check(object)?)
}
