use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use nave_client::{Action, ObjectName, SharedInformerFactory, Workqueue, run_workers};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Context, Descriptor, Recorder, SyncError};

/// Where controllers get their clients from.
pub trait Clients: Send + Sync {
    /// A client that acts as a service account of kube-system.
    fn client(&self, service_account: &str) -> kube::Client;

    /// The certificate authority of the server that is reached, in PEM, where it is known.
    fn root_ca(&self) -> Option<Arc<str>>;
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
    stop: CancellationToken,
) -> Running {
    let tasks = TaskTracker::new();
    let registered: Vec<_> = controllers
        .into_iter()
        .map(|controller| {
            let client = clients.client(controller.service_account);
            let events = Recorder::start(controller.service_account, client.clone(), &tasks, stop.clone());
            let (informers, root_ca) = (informers.clone(), clients.root_ca());
            let context = Context { client, informers, events, root_ca, stop: stop.clone() };
            (controller.start)(&context)
        })
        .collect();
    informers.start();
    for controller in registered {
        tasks.spawn(controller);
    }
    tasks.close();
    Running { tasks, stop }
}

impl Running {
    /// Ends them, and waits until work under way is done.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// When to look again at what the cache was too old for.
const SOON: Duration = Duration::from_millis(20);

/// How many keys a controller works on at once.
const WORKERS: usize = 5;

/// Works on a queue of objects until `stop` is cancelled. A sync that panics is an error of its key, not the end of its
/// controller.
pub async fn work<S, F>(queue: &Workqueue<ObjectName>, stop: CancellationToken, sync: S)
where
    S: Fn(ObjectName) -> F,
    F: Future<Output = Result<Action, SyncError>>,
{
    let guarded = |key| {
        // What a sync shares with others is behind locks that a panic does not poison.
        let sync = AssertUnwindSafe(sync(key)).catch_unwind();
        async {
            match sync.await {
                Ok(Err(error)) if error.is_conflict() || matches!(error, SyncError::Stale(_)) => {
                    // Usual: the cache has not heard yet of what was done last.
                    tracing::debug!(%error, "a sync will be repeated");
                    Ok(Action::RequeueAfter(SOON))
                }
                Ok(outcome) => outcome,
                Err(_) => Err(SyncError::Panicked),
            }
        }
    };
    run_workers(queue, WORKERS, stop, guarded).await;
}
