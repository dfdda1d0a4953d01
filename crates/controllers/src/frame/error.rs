use nave_client::{DecodeError, redacted};

/// Why a sync did not bring things where they belong; it is tried again, later each time.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The API refused, or could not be reached.
    #[error("{}", said(.0))]
    Api(#[source] kube::Error),
    /// An object in the cache is not what its type says.
    #[error("cannot decode: {0}")]
    Decode(#[from] DecodeError),
    /// An object holds what the API should have refused, such as a selector that is none.
    #[error("{0}")]
    Invalid(String),
    /// What was read is older than what this controller has done; a later sync will see more.
    #[error("the cache is behind: {0}")]
    Stale(&'static str),
}

impl From<kube::Error> for SyncError {
    fn from(error: kube::Error) -> Self {
        Self::Api(redacted(error))
    }
}

impl From<serde_json::Error> for SyncError {
    fn from(error: serde_json::Error) -> Self {
        Self::Decode(error.into())
    }
}

impl SyncError {
    /// Returns whether the API said that the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 404)
    }

    /// Returns whether the API said that the object has changed since it was read.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_conflict())
    }

    /// Returns whether the API said that an object of this name exists.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_already_exists())
    }

    /// Returns whether the API takes no new objects because their namespace is being deleted.
    pub fn is_namespace_terminating(&self) -> bool {
        let Self::Api(kube::Error::Api(status)) = self else { return false };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    }
}

/// What the API said, in its words alone: this is put into conditions and events.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
