//! Errors of evaluations.

use std::sync::Arc;

/// Error of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// An error value, with cel-go's message. `&&` and `||` ignore the error if the other side decides.
    #[error("{0}")]
    Error(Arc<str>),
    /// The cost limit is exceeded. No operator ignores this error.
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
    /// The values created by the evaluation exceed the memory limit. No operator ignores this error.
    #[error("operation cancelled: memory limit exceeded")]
    Memory,
}

impl Failure {
    pub(crate) fn new(message: impl Into<Arc<str>>) -> Self {
        Self::Error(message.into())
    }

    /// Returns the error of an operation that does not support the type of a value.
    pub(crate) fn overload() -> Self {
        Self::new("no such overload")
    }

    /// Returns whether this error always ends the evaluation.
    pub(crate) fn is_fatal(&self) -> bool {
        !matches!(self, Self::Error(_))
    }
}
