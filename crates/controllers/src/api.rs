//! What controllers take answers of the API for.

use crate::frame::SyncError;

/// A creation, for which it is as good if somebody else was faster, or if the namespace is on its way out.
pub(crate) fn created<K>(outcome: Result<K, kube::Error>) -> Result<(), SyncError> {
    match outcome {
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" || is_terminating(&status) => {
            Ok(())
        }
        outcome => Ok(outcome.map(drop)?),
    }
}

/// A write, for which it is as good if the object is gone.
pub(crate) fn gone_is_fine<K>(outcome: Result<K, kube::Error>) -> Result<(), SyncError> {
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        outcome => Ok(outcome.map(drop)?),
    }
}

/// Returns whether the API refused to create something in a namespace that is being deleted.
fn is_terminating(status: &kube::core::Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.any(|cause| cause.reason == "NamespaceTerminating")
}
