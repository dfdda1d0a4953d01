//! Errors of evaluations.

use std::sync::Arc;

/// Error of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// An error value, in cel-go's words. `&&` and `||` ignore it if their other side decides.
    #[error("{0}")]
    Error(Arc<str>),
    /// The cost limit is exceeded. Nothing absorbs it.
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
    /// The values that the evaluation created are too large. Nothing absorbs it.
    #[error("operation cancelled: memory limit exceeded")]
    Memory,
}

impl Failure {
    pub(crate) fn new(message: impl Into<Arc<str>>) -> Self {
        Self::Error(message.into())
    }

    /// A value has a type that an operation does not take.
    pub(crate) fn overload() -> Self {
        Self::new("no such overload")
    }

    /// Returns whether the evaluation ends with this error whatever encloses it.
    pub(crate) fn is_fatal(&self) -> bool {
        !matches!(self, Self::Error(_))
    }
}
