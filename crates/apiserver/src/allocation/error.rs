//! Errors of allocations.

use nave_machinery::Status;

/// Reasons why an address cannot be allocated.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddressError {
    #[error("range is full")]
    Full,
    #[error("provided IP is already allocated")]
    Allocated,
    #[error("the provided network does not match the current range")]
    MismatchedNetwork,
    /// An error of the store.
    #[error(transparent)]
    Store(#[from] Status),
}

/// Reasons why a port cannot be allocated.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum PortError {
    #[error("range is full")]
    Full,
    #[error("provided port is already allocated")]
    Allocated,
    #[error("provided port is not in the valid range. The range of valid ports is {0}")]
    OutOfRange(String),
    #[error("cannot allocate resources of type servicenodeportallocations at this time")]
    NotReady,
    #[error("the provided range does not match the current range")]
    MismatchedRange,
    /// An error of the store.
    #[error(transparent)]
    Store(#[from] Status),
}
