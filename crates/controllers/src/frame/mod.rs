//! What all controllers share: the list they stand in, what they are given, how they start.

mod error;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub use error::SyncError;

/// A controller, before it runs.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// kube-controller-manager's name for it, as `--controllers` takes it.
    pub name: &'static str,
    /// The short name `--controllers` takes too.
    pub alias: &'static str,
    /// The service account in kube-system it acts as.
    pub service_account: &'static str,
    /// Whether `*` runs it.
    pub on_by_default: bool,
    /// Registers its informers and handlers, and returns what to run once informers are started.
    pub start: fn(&Context) -> BoxFuture<'static, ()>,
}

/// What a controller is given.
#[derive(Clone)]
pub struct Context {
    /// Acts as the controller's service account.
    pub client: kube::Client,
    /// Told when the controller is to end.
    pub stop: CancellationToken,
}
