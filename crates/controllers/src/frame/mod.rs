//! The framework of the controllers: descriptors, context, builder, startup and workers.

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
use nave_client::{SharedInformer, SharedInformerFactory, Workqueue};
use tokio_util::sync::CancellationToken;

pub use builder::ControllerBuilder;
pub use control::{ControlledObject, ObjectControl};
pub use error::SyncError;
pub(crate) use error::api_message;
use fan_out::FanOuts;
pub use nave_client::record::{EventKind, EventRecorder, reference_of};
pub use options::{AutoscalerOptions, Options};
pub use run::{Clients, Reconciler, Running, Settings, process_queue, start};
pub use slow_start::slow_start;

/// The static description of a controller.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// The name in kube-controller-manager, as accepted by `--controllers`.
    pub name: &'static str,
    /// The short name, which `--controllers` also accepts.
    pub alias: &'static str,
    /// The service account in kube-system that the controller uses; empty for the controller manager's own identity.
    pub service_account: &'static str,
    /// True if `--controllers=*` enables it.
    pub on_by_default: bool,
    /// The number of keys that the controller processes concurrently.
    pub workers: Workers,
    /// Registers informers and handlers, and returns the task to run once informers have started. The task waits for
    /// the informers' initial lists, and ends when the context's `stop` is cancelled.
    pub start: fn(&Context) -> BoxFuture<'static, ()>,
}

/// The number of keys that a controller processes concurrently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// The kube-controller-manager flag that sets the number, if any.
    pub flag: Option<&'static str>,
    /// The number if the flag is not set.
    pub default: usize,
}

impl Workers {
    /// A number that a flag can change.
    pub const fn by_flag(flag: &'static str, default: usize) -> Self {
        Self { flag: Some(flag), default }
    }

    /// A fixed number.
    pub const fn fixed(count: usize) -> Self {
        Self { flag: None, default: count }
    }
}

/// Generates service account tokens to be stored in secrets.
pub trait TokenGenerator: Send + Sync {
    /// Returns a token without expiration for an account, bound to a secret.
    ///
    /// # Errors
    /// Signing failed.
    fn token<'a>(
        &'a self,
        account: &'a ServiceAccount,
        secret: &'a Secret,
    ) -> BoxFuture<'a, Result<String, String>>;
}

/// Signs the certificates of certificate signing requests.
pub trait CertificateSigner: Send + Sync {
    /// Returns the PEM certificate for a PEM request, signed by the CA of a signer such as
    /// `kubernetes.io/kube-apiserver-client`; `None` if the signer has no CA.
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

/// The environment of a controller.
#[derive(Clone)]
pub struct Context {
    /// Authenticates as the controller's service account.
    pub client: kube::Client,
    /// One informer per type, shared by all controllers. [`start`] starts the informers that controllers have
    /// requested.
    pub informers: SharedInformerFactory,
    /// Records events with the controller as their source.
    pub events: EventRecorder,
    /// The server's CA certificate in PEM, if known.
    pub root_ca: Option<Arc<str>>,
    /// Generates tokens for secrets, if there is a signing key.
    pub tokens: Option<Arc<dyn TokenGenerator>>,
    /// Signs certificates, if there is a CA.
    pub signer: Option<Arc<dyn CertificateSigner>>,
    /// The number of keys to process concurrently.
    pub workers: usize,
    /// Options of individual controllers.
    pub options: Options,
    /// Registers the queues' metrics.
    pub metrics: Option<WorkqueueMetrics>,
    /// Shares one handler per informer among all controllers.
    fan_outs: FanOuts,
    /// Cancelled to stop the controller.
    pub stop: CancellationToken,
}

impl Context {
    /// Creates a queue. Its metrics use `name`, which is upstream's name of the queue.
    pub fn queue<T: Key>(&self, name: &str) -> Workqueue<T> {
        Workqueue::with_rate_limiter(
            default_rate_limiter(),
            self.metrics.as_ref().map(|metrics| (metrics, name)),
        )
    }

    /// Returns a builder for a controller with a queue of object keys. `queue` is upstream's name of the queue.
    pub fn controller(&self, queue: &str) -> ControllerBuilder {
        ControllerBuilder::new(self, queue)
    }

    /// Returns a builder for a controller that reconciles objects of type `K` after each of their events, and the
    /// informer of `K`.
    pub fn controller_for<K>(&self, queue: &str) -> (ControllerBuilder, SharedInformer<K>)
    where
        K: kube::Resource<DynamicType = ()> + 'static,
    {
        let mut builder = self.controller(queue);
        let informer = builder.informer();
        builder.enqueue_objects(&informer);
        (builder, informer)
    }

    /// Creates and deletes objects for workloads.
    pub fn object_control(&self) -> ObjectControl {
        ObjectControl::new(self.client.clone(), self.events.clone())
    }
}
