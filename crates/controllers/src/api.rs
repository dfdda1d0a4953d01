//! Errors of the API server that controllers ignore.

use crate::frame::SyncError;

/// The outcome of a creation, where an existing object or a terminating namespace is not an error.
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

/// The outcome of a write, where a missing object is not an error.
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
