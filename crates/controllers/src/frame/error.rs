/// Why a sync did not bring things where they belong; it is tried again, later each time.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The API refused, or could not be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// An object in the cache is not what its type says.
    #[error("cannot decode: {0}")]
    Decode(#[from] serde_json::Error),
    /// An object holds what the API should have refused, such as a selector that is none.
    #[error("{0}")]
    Invalid(String),
}

impl SyncError {
    /// Whether the API said that the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 404)
    }

    /// Whether the API said that the object has changed since it was read, or that one of this name exists.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 409)
    }
}
