//! What all controllers share: the list they stand in, what they are given, how they are put together and start.

mod builder;
mod control;
mod error;
mod fan_out;
mod options;
mod run;
mod slow_start;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use nave_client::workqueue::{Key, WorkqueueMetrics, default_rate_limiter};
use nave_client::{SharedInformerFactory, Workqueue};
use tokio_util::sync::CancellationToken;

pub use builder::ControllerBuilder;
pub use control::{Made, ObjectControl};
pub use error::SyncError;
use fan_out::FanOuts;
pub use nave_client::record::{EventKind, EventRecorder, reference_of};
pub use options::{AutoscalerOptions, Options};
pub use run::{Clients, Reconciler, Running, Settings, start, work};
pub use slow_start::slow_start;

/// A controller, before it runs.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// kube-controller-manager's name for it, as `--controllers` takes it.
    pub name: &'static str,
    /// The short name `--controllers` takes too.
    pub alias: &'static str,
    /// The service account in kube-system it acts as; empty for the controller manager itself.
    pub service_account: &'static str,
    /// True if `*` runs it.
    pub on_by_default: bool,
    /// How many keys it works on at once.
    pub workers: Workers,
    /// Registers its informers and handlers, and returns what to run once informers are started. What it returns ends
    /// when the context's `stop` is cancelled, and waits for the informers' first lists by itself.
    pub start: fn(&Context) -> BoxFuture<'static, ()>,
}

/// How many keys a controller works on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// kube-controller-manager's flag that says so, where it has one.
    pub flag: Option<&'static str>,
    /// As many where nothing else is said.
    pub default: usize,
}

impl Workers {
    /// As many as a flag says.
    pub const fn by_flag(flag: &'static str, default: usize) -> Self {
        Self { flag: Some(flag), default }
    }

    /// Always so many.
    pub const fn fixed(count: usize) -> Self {
        Self { flag: None, default: count }
    }
}

/// Makes the tokens of service accounts that are kept in secrets.
pub trait TokenGenerator: Send + Sync {
    /// A token without an end for an account, to be kept in a secret.
    ///
    /// # Errors
    /// It cannot be signed.
    fn token<'a>(
        &'a self,
        account: &'a ServiceAccount,
        secret: &'a Secret,
    ) -> BoxFuture<'a, Result<String, String>>;
}

/// Signs certificates for those who ask the API for one.
pub trait CertificateSigner: Send + Sync {
    /// The certificate, in PEM, for a request in PEM, from the authority of a signer such as
    /// `kubernetes.io/kube-apiserver-client`; nothing where that signer has none.
    ///
    /// # Errors
    /// The request cannot be signed.
    fn sign(
        &self,
        signer: &str,
        request: &[u8],
        usages: &[String],
        expiration_seconds: Option<i32>,
    ) -> Option<Result<Vec<u8>, String>>;
}

/// What a controller is given.
#[derive(Clone)]
pub struct Context {
    /// Acts as the controller's service account.
    pub client: kube::Client,
    /// One informer a type for all controllers. [`start`] starts those that controllers have asked for.
    pub informers: SharedInformerFactory,
    /// Writes events in the controller's name.
    pub events: EventRecorder,
    /// The certificate authority of the server, in PEM, where it is known.
    pub root_ca: Option<Arc<str>>,
    /// Makes tokens for secrets, where there is a key to sign with.
    pub tokens: Option<Arc<dyn TokenGenerator>>,
    /// Signs certificates, where there is an authority to sign with.
    pub signer: Option<Arc<dyn CertificateSigner>>,
    /// How many keys it works on at once.
    pub workers: usize,
    /// Options of single controllers.
    pub options: Options,
    /// Where queues are measured.
    pub metrics: Option<WorkqueueMetrics>,
    /// The handlers of all controllers.
    fan_outs: FanOuts,
    /// Told when the controller is to end.
    pub stop: CancellationToken,
}

impl Context {
    /// A queue that is measured under upstream's name for it.
    pub fn queue<T: Key>(&self, name: &str) -> Workqueue<T> {
        Workqueue::with_rate_limiter(
            default_rate_limiter(),
            self.metrics.as_ref().map(|metrics| (metrics, name)),
        )
    }

    /// Begins to put a controller together that works on a queue of objects; the queue's name is upstream's.
    pub fn controller(&self, queue: &str) -> ControllerBuilder {
        ControllerBuilder::new(self, queue)
    }

    /// Acts on the objects of workloads.
    pub fn object_control(&self) -> ObjectControl {
        ObjectControl::new(self.client.clone(), self.events.clone())
    }
}
