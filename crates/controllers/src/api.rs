//! What controllers ask of informers and of the API in the same way.

use nave_client::Registration;
use tokio_util::sync::CancellationToken;

use crate::frame::SyncError;

/// Waits until handlers have been told of all that there was when they were added. If `stop` comes first there is
/// nothing left to wait for.
pub(crate) async fn synced(handlers: &[Registration], stop: &CancellationToken) {
    for handler in handlers {
        stop.run_until_cancelled(handler.wait_for_sync()).await;
    }
}

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

/// Whether the API refused to create something in a namespace that is being deleted.
fn is_terminating(status: &kube::core::Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.any(|cause| cause.reason == "NamespaceTerminating")
}
