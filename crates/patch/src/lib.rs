//! Patches of objects; object and patch are values.
//!
//! | module | patch | lists |
//! | --- | --- | --- |
//! | [`json_patch`] | a list of operations at paths (RFC 6902) | by index |
//! | [`merge`] | the fields that change (RFC 7386) | replaced |
//! | [`strategic`] | the fields that change, with directives | merged by the keys that the type declares |
//! | [`managed_fields`] | an applied configuration (server-side apply) | by the topology that the type declares |
//!
//! Invariants: no I/O; no input causes a panic; after an error the object is partly patched and must be dropped. A
//! patched object and all intermediate states are within [`limits`]. Merges are linear in the sizes of object and
//! patch; [`json_patch::MAX_OPERATIONS`] and [`json_patch::MAX_STEPS`] limit the work of a JSON patch.
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

/// An error that occurs when a patch is applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is malformed.
    #[error("{0}")]
    Malformed(String),
    /// The patch cannot be applied to this object: a test failed or a path does not exist.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Unfit(String),
    /// A test of a JSON patch failed.
    #[error("the server rejected our request due to an error in our request: {0}")]
    TestFailed(String),
    /// The patch requires something a merge cannot do. Upstream answers such errors with 500.
    #[error("{0}")]
    Failed(String),
    /// The patched object is too deep or too large.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The patch has too many operations.
    #[error("The allowed maximum operations in a JSON patch is {max}, got {0}", max = json_patch::MAX_OPERATIONS)]
    TooManyOperations(usize),
}

impl PatchError {
    /// Marks an error of the form of a patch as found by upstream's strict decoder.
    fn in_patch(self) -> Self {
        match self {
            Self::Malformed(text) => Self::Malformed(format!("error decoding patch: {text}")),
            other => other,
        }
    }

    /// Returns the response to the client.
    pub fn into_status(self) -> Status {
        match &self {
            Self::Malformed(text) => Status::bad_request(text.as_str()),
            Self::Unfit(_) | Self::TestFailed(_) => Status::failure(422, Reason::Invalid, self.to_string()),
            Self::Failed(_) => Status::failure(500, Reason::Unknown, self.to_string()),
            Self::Limit(limit) => limit.into_status(),
            Self::TooManyOperations(_) => Status::too_large(self.to_string()),
        }
    }
}

/// Checks that a patched object is within the limits.
fn check_patched(object: &Value) -> Result<(), PatchError> {
    Ok(limits::check(object)?)
}
