//! API server errors that controllers ignore.

use crate::frame::SyncError;

/// Treats a failed creation as success if the object already exists or its namespace is terminating.
pub(crate) fn ignore_already_exists<K>(outcome: Result<K, kube::Error>) -> Result<(), SyncError> {
    match outcome {
        Err(kube::Error::Api(status))
            if status.reason == "AlreadyExists" || is_namespace_terminating(&status) =>
        {
            Ok(())
        }
        outcome => Ok(outcome.map(drop)?),
    }
}

/// Treats a failed write as success if the object does not exist.
pub(crate) fn ignore_not_found<K>(outcome: Result<K, kube::Error>) -> Result<(), SyncError> {
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        outcome => Ok(outcome.map(drop)?),
    }
}

fn is_namespace_terminating(status: &kube::core::Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.any(|cause| cause.reason == "NamespaceTerminating")
}
