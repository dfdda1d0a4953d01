use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nave_client::workqueue::{Key, WorkqueueMetrics};
use nave_client::{Action, ObjectName, SharedInformerFactory, Workqueue, record, run_workers};
use nave_supervisor::Supervisor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fan_out::FanOuts;
use super::{CertificateSigner, Context, Descriptor, Options, SyncError, TokenGenerator};

/// The source of the controllers' clients and credentials.
pub trait Clients: Send + Sync {
    /// Returns a client that authenticates as a service account of kube-system, or as the controller manager if the
    /// name is empty.
    fn client(&self, service_account: &str) -> kube::Client;

    /// The server's CA certificate in PEM, if known.
    fn root_ca(&self) -> Option<Arc<str>>;

    /// Generates tokens for secrets, if there is a signing key.
    fn tokens(&self) -> Option<Arc<dyn TokenGenerator>>;

    /// Signs certificates, if there is a CA.
    fn signer(&self) -> Option<Arc<dyn CertificateSigner>>;
}

/// Settings of the controllers that an operator can change.
#[derive(Clone)]
pub struct Settings {
    /// The number of keys processed concurrently, by flag; controllers whose flag is absent use their default.
    pub workers: HashMap<&'static str, usize>,
    /// Options of individual controllers.
    pub options: Options,
    /// Registers the queues' metrics.
    pub metrics: Option<WorkqueueMetrics>,
    /// Restarts controllers that panic outside a sync.
    pub supervisor: Supervisor,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, options, metrics: _, supervisor: _ } = self;
        f.debug_struct("Settings").field("workers", workers).field("options", options).finish_non_exhaustive()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: HashMap::new(),
            options: Options::default(),
            metrics: None,
            supervisor: Supervisor::new(),
        }
    }
}

impl Settings {
    fn workers_of(&self, controller: &Descriptor) -> usize {
        let configured = controller.workers.flag.and_then(|flag| self.workers.get(flag));
        configured.copied().unwrap_or(controller.workers.default)
    }
}

/// The running controllers.
pub struct Running {
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Starts controllers: registers the informers and handlers of all controllers, then starts the informers, then the
/// workers. Must be called within a Tokio runtime.
pub fn start<'a>(
    controllers: impl IntoIterator<Item = &'a Descriptor>,
    clients: &dyn Clients,
    informers: &SharedInformerFactory,
    settings: &Settings,
    stop: CancellationToken,
) -> Running {
    let (tasks, fan_outs) = (TaskTracker::new(), FanOuts::default());
    let registered: Vec<_> = controllers
        .into_iter()
        .map(|controller| {
            let client = clients.client(controller.service_account);
            let (events, writer) = record::recorder(controller.service_account, client.clone());
            tasks.spawn(writer.run(stop.clone()));
            let context = Context {
                client,
                informers: informers.clone(),
                events,
                root_ca: clients.root_ca(),
                tokens: clients.tokens(),
                signer: clients.signer(),
                workers: settings.workers_of(controller),
                options: settings.options.clone(),
                metrics: settings.metrics.clone(),
                fan_outs: fan_outs.clone(),
                stop: stop.clone(),
            };
            ((controller.start)(&context), *controller, context)
        })
        .collect();
    informers.start();
    for (work, controller, context) in registered {
        tasks.spawn(supervise(work, controller, context, settings.supervisor.clone()));
    }
    tasks.close();
    Running { tasks, stop }
}

/// Runs a controller. After a panic, the controller registers its handlers again, and they receive every object. The
/// old handlers stay registered and fill a queue without readers; the number of objects bounds its size.
async fn supervise(
    work: BoxFuture<'static, ()>,
    controller: Descriptor,
    context: Context,
    supervisor: Supervisor,
) {
    let mut work = Some(work);
    let start_or_restart = || {
        work.take().unwrap_or_else(|| {
            let work = (controller.start)(&Context { fan_outs: FanOuts::default(), ..context.clone() });
            context.informers.start();
            work
        })
    };
    supervisor.supervise("controller", controller.name, start_or_restart).await;
}

impl Running {
    /// Stops the controllers and waits for running syncs to finish.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// Reconciles the object behind a key.
pub trait Reconciler<T = ObjectName>: Send + Sync + 'static {
    /// Brings the observed state closer to the desired state.
    fn sync(&self, key: T) -> impl Future<Output = Result<Action, SyncError>> + Send;
}

/// The delay before a sync with a stale cache is repeated.
const STALE_CACHE_DELAY: Duration = Duration::from_millis(20);

/// Processes a queue with `workers` concurrent syncs until `stop` is cancelled.
pub async fn process_queue<T: Key + fmt::Display>(
    queue: &Workqueue<T>,
    workers: usize,
    stop: CancellationToken,
    controller: &impl Reconciler<T>,
) {
    let sync = |key| async move {
        match controller.sync(key).await {
            Err(error) if error.is_conflict() || matches!(error, SyncError::Stale(_)) => {
                // Expected: the cache does not show the last write yet.
                tracing::debug!(%error, "sync will be retried");
                Ok(Action::RequeueAfter(STALE_CACHE_DELAY))
            }
            outcome => outcome,
        }
    };
    run_workers(queue, workers, stop, sync).await;
}
