use nave_client::{ApplyError, DecodeError, redacted};

/// The error of a sync. The key is retried with backoff.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The API server returned an error or could not be reached.
    #[error("{}", api_message(.0))]
    Api(#[source] kube::Error),
    /// A cached object does not decode as its type.
    #[error("cannot decode: {0}")]
    Decode(#[from] DecodeError),
    /// An object has a value that the API server should have rejected, such as an invalid selector.
    #[error("{0}")]
    Invalid(String),
    /// The cache is older than this controller's own last write; the sync is repeated shortly.
    #[error("the cache is behind: {0}")]
    Stale(&'static str),
}

impl From<kube::Error> for SyncError {
    fn from(error: kube::Error) -> Self {
        Self::Api(redacted(error))
    }
}

impl From<ApplyError> for SyncError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::NoName => Self::Invalid(error.to_string()),
            ApplyError::Conflict { source, .. } | ApplyError::Api(source) => source.into(),
        }
    }
}

impl From<serde_json::Error> for SyncError {
    fn from(error: serde_json::Error) -> Self {
        Self::Decode(error.into())
    }
}

impl SyncError {
    /// Returns whether the API server returned 404.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 404)
    }

    /// Returns whether the API server returned a conflict: the object has changed since it was read.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_conflict())
    }

    /// Returns whether the API server returned `AlreadyExists`.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_already_exists())
    }

    /// Returns whether the API server rejected a creation because the namespace is being deleted.
    pub fn is_namespace_terminating(&self) -> bool {
        let Self::Api(kube::Error::Api(status)) = self else { return false };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    }
}

/// The bare message of an API error, as conditions and events show it.
pub(crate) fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
