//! What all controllers share: the list they stand in, what they are given, how they start.

mod control;
mod error;
mod events;
mod run;
mod slow_start;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use nave_client::SharedInformerFactory;
use tokio_util::sync::CancellationToken;

pub use control::ObjectControl;
pub use error::SyncError;
pub use events::{EventKind, Recorder, reference_of};
pub use run::{Clients, Running, start, work};
pub use slow_start::slow_start;

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
    /// Registers its informers and handlers, and returns what to run once informers are started. What it returns ends
    /// when the context's `stop` is cancelled, and waits for the informers' first lists by itself.
    pub start: fn(&Context) -> BoxFuture<'static, ()>,
}

/// What a controller is given.
#[derive(Clone)]
pub struct Context {
    /// Acts as the controller's service account.
    pub client: kube::Client,
    /// One informer a type for all controllers. [`start`] starts those that controllers have asked for.
    pub informers: SharedInformerFactory,
    /// Writes events in the controller's name.
    pub events: Recorder,
    /// The certificate authority of the server, in PEM, where it is known.
    pub root_ca: Option<Arc<str>>,
    /// Told when the controller is to end.
    pub stop: CancellationToken,
}
