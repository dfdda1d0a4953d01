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

/// Where controllers get their clients from.
pub trait Clients: Send + Sync {
    /// A client that acts as a service account of kube-system; as the controller manager itself, where none is named.
    fn client(&self, service_account: &str) -> kube::Client;

    /// The certificate authority of the server that is reached, in PEM, where it is known.
    fn root_ca(&self) -> Option<Arc<str>>;

    /// Makes tokens for secrets, where there is a key to sign with.
    fn tokens(&self) -> Option<Arc<dyn TokenGenerator>>;

    /// Signs certificates, where there is an authority to sign with.
    fn signer(&self) -> Option<Arc<dyn CertificateSigner>>;
}

/// How controllers work, where that is for an operator to say.
#[derive(Clone)]
pub struct Settings {
    /// How many keys controllers work on at once, by the flag that says so; as many as their defaults say where it is
    /// not here.
    pub workers: HashMap<&'static str, usize>,
    /// Options of single controllers.
    pub options: Options,
    /// Where queues are measured.
    pub metrics: Option<WorkqueueMetrics>,
    /// Restarts controllers that panic outside of a sync.
    pub supervisor: Supervisor,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, options, metrics: _, supervisor: _ } = self;
        let mut it = f.debug_struct("Settings");
        it.field("workers", workers).field("options", options).finish_non_exhaustive()
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
        let said = controller.workers.flag.and_then(|flag| self.workers.get(flag));
        said.copied().unwrap_or(controller.workers.default)
    }
}

/// Controllers that run.
pub struct Running {
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Starts controllers: first all of them register what they watch, then the informers start, one a type, then they
/// work. Must be called within a Tokio runtime.
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

/// Runs a controller. After a panic it registers anew, with handlers of its own that hear of all objects, and what it
/// registered before is left to fill a queue that nothing reads: bounded by the number of objects.
async fn supervise(
    work: BoxFuture<'static, ()>,
    controller: Descriptor,
    context: Context,
    supervisor: Supervisor,
) {
    let mut work = Some(work);
    let run = || {
        work.take().unwrap_or_else(|| {
            let work = (controller.start)(&Context { fan_outs: FanOuts::default(), ..context.clone() });
            context.informers.start();
            work
        })
    };
    supervisor.supervise("controller", controller.name, run).await;
}

impl Running {
    /// Ends them, and waits until work under way is done.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// What a controller does about a key.
pub trait Reconciler<T = ObjectName>: Send + Sync + 'static {
    /// Reads what is there, and brings it closer to what is wanted.
    fn sync(&self, key: T) -> impl Future<Output = Result<Action, SyncError>> + Send;
}

/// When to look again at what the cache was too old for.
const SOON: Duration = Duration::from_millis(20);

/// Works on a queue until `stop` is cancelled, on `workers` keys at once.
pub async fn work<T: Key + fmt::Display>(
    queue: &Workqueue<T>,
    workers: usize,
    stop: CancellationToken,
    controller: &impl Reconciler<T>,
) {
    let sync = |key| async move {
        match controller.sync(key).await {
            Err(error) if error.is_conflict() || matches!(error, SyncError::Stale(_)) => {
                // Usual: the cache has not heard yet of what was done last.
                tracing::debug!(%error, "a sync will be repeated");
                Ok(Action::RequeueAfter(SOON))
            }
            outcome => outcome,
        }
    };
    run_workers(queue, workers, stop, sync).await;
}
