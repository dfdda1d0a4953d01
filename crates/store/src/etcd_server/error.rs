//! etcd's errors (etcd: `api/v3rpc/rpctypes/error.go`). Clients compare the messages.

use crate::StoreError;
use crate::grpc::{Code, Status};

/// A refusal with etcd's code and message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EtcdError {
    EmptyKey,
    KeyNotFound,
    ValueProvided,
    LeaseProvided,
    TooManyOperations,
    DuplicateKey,
    InvalidSortOption,
    Compacted,
    FutureRevision,
    NoSpace,
    LeaseNotFound,
    LeaseExists,
    LeaseTtlTooLarge,
    RequestTooLarge,
    TooManyRequests,
    Stopped,
    Corrupt,
    AuthNotEnabled,
    /// Not one of etcd's: a key is not UTF-8.
    InvalidKey,
}

impl EtcdError {
    pub(super) const fn message(self) -> &'static str {
        match self {
            Self::EmptyKey => "etcdserver: key is not provided",
            Self::KeyNotFound => "etcdserver: key not found",
            Self::ValueProvided => "etcdserver: value is provided",
            Self::LeaseProvided => "etcdserver: lease is provided",
            Self::TooManyOperations => "etcdserver: too many operations in txn request",
            Self::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Self::InvalidSortOption => "etcdserver: invalid sort option",
            Self::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Self::FutureRevision => "etcdserver: mvcc: required revision is a future revision",
            Self::NoSpace => "etcdserver: mvcc: database space exceeded",
            Self::LeaseNotFound => "etcdserver: requested lease not found",
            Self::LeaseExists => "etcdserver: lease already exists",
            Self::LeaseTtlTooLarge => "etcdserver: too large lease TTL",
            Self::RequestTooLarge => "etcdserver: request is too large",
            Self::TooManyRequests => "etcdserver: too many requests",
            Self::Stopped => "etcdserver: server stopped",
            Self::Corrupt => "etcdserver: corrupt cluster",
            Self::AuthNotEnabled => "etcdserver: authentication is not enabled",
            Self::InvalidKey => "etcdserver: keys must be UTF-8",
        }
    }

    const fn code(self) -> Code {
        match self {
            Self::EmptyKey
            | Self::KeyNotFound
            | Self::ValueProvided
            | Self::LeaseProvided
            | Self::TooManyOperations
            | Self::DuplicateKey
            | Self::InvalidSortOption
            | Self::RequestTooLarge
            | Self::InvalidKey => Code::InvalidArgument,
            Self::Compacted | Self::FutureRevision | Self::LeaseTtlTooLarge => Code::OutOfRange,
            Self::NoSpace | Self::TooManyRequests => Code::ResourceExhausted,
            Self::LeaseNotFound => Code::NotFound,
            Self::LeaseExists | Self::AuthNotEnabled => Code::FailedPrecondition,
            Self::Stopped => Code::Unavailable,
            Self::Corrupt => Code::DataLoss,
        }
    }
}

impl From<EtcdError> for Status {
    fn from(error: EtcdError) -> Self {
        Self { code: error.code(), message: error.message().to_owned() }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        let known = match &error {
            StoreError::Compacted { .. } => EtcdError::Compacted,
            StoreError::FutureRevision { .. } => EtcdError::FutureRevision,
            StoreError::TooLarge { .. } => EtcdError::RequestTooLarge,
            StoreError::NoSpace(_) => EtcdError::NoSpace,
            StoreError::Corrupt(_) => EtcdError::Corrupt,
            StoreError::Closed => EtcdError::Stopped,
            _ => return Self { code: Code::Unavailable, message: format!("etcdserver: {error}") },
        };
        known.into()
    }
}
