//! Errors of calls and their meaning.

use std::sync::Arc;

use super::address::Address;
use crate::StoreError;
use crate::grpc::{CallError, Code, Status};

/// A failed call to a member.
#[derive(Debug, thiserror::Error)]
#[error("etcd {address}: {error}")]
pub(super) struct CallFailure {
    address: Address,
    error: CallError,
}

/// The effect of a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    /// The cluster has answered; another member would answer the same.
    Answered,
    /// The request had no effect.
    NotApplied,
    /// The request may have been applied, or may still be.
    Unknown,
}

impl CallFailure {
    pub(super) fn new(address: &Address, error: CallError) -> Self {
        Self { address: address.clone(), error }
    }

    pub(super) fn disposition(&self) -> Disposition {
        let status = match &self.error {
            CallError::NotSent(_) => return Disposition::NotApplied,
            CallError::Broken(_) => return Disposition::Unknown,
            CallError::Status(status) => status,
        };
        match status.code {
            // The queue of requests is checked before a request enters it.
            Code::ResourceExhausted if status.message == TOO_MANY_REQUESTS => Disposition::NotApplied,
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::Aborted => Disposition::Unknown,
            _ => Disposition::Answered,
        }
    }

    /// Returns the meaning of the failure for a request that had no effect.
    pub(super) fn into_refusal(self) -> Refusal {
        let text: Arc<str> = self.to_string().into();
        let CallError::Status(Status { code, message }) = self.error else {
            return Refusal::Other(StoreError::Unavailable(text));
        };
        Refusal::Other(match (code, message.as_str()) {
            (_, COMPACTED) => return Refusal::Compacted,
            (_, FUTURE_REVISION) => return Refusal::FutureRevision,
            (_, TOO_LARGE) => return Refusal::TooLarge,
            (Code::ResourceExhausted, text) if text.starts_with(MESSAGE_TOO_LARGE) => {
                return Refusal::TooLarge;
            }
            (_, LEASE_NOT_FOUND) => return Refusal::LeaseNotFound,
            (_, NO_SPACE) => {
                let full = std::io::Error::new(std::io::ErrorKind::StorageFull, message);
                StoreError::NoSpace(Arc::new(full))
            }
            (Code::DataLoss, _) => StoreError::Corrupt(text),
            (Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted, _) => {
                StoreError::Unavailable(text)
            }
            _ => StoreError::Rejected(text),
        })
    }
}

/// An answer of the cluster other than success.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The requested revision is compacted.
    Compacted,
    /// The requested revision is in the future.
    FutureRevision,
    /// The request is over the cluster's limit (`--max-request-bytes`).
    TooLarge,
    /// The lease of a put does not exist.
    LeaseNotFound,
    /// The error needs no further details.
    Other(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Other(error)
    }
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Other(error) => error,
            other => Self::Rejected(format!("unexpected answer of etcd: {other:?}").into()),
        }
    }
}

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE_REVISION: &str = "etcdserver: mvcc: required revision is a future revision";
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
const TOO_MANY_REQUESTS: &str = "etcdserver: too many requests";
const TOO_LARGE: &str = "etcdserver: request is too large";
/// The start of gRPC's message, which refuses a request before etcd sees it.
const MESSAGE_TOO_LARGE: &str = "grpc: received message larger than max";
