//! Garbage collector: deletes the dependents of deleted owners (upstream: `garbagecollector`).
//!
//! ```text
//! informers of all resources, metadata only ──► graph of owners ──► objects to process
//!                                                                          │
//!             deletes, removes references and finalizers ◄── live reads ◄──┘
//! ```
//!
//! | deletion | the object | its dependents |
//! | --- | --- | --- |
//! | background | is deleted at once | each is deleted when it has no owner left |
//! | foreground | stays (finalizer `foregroundDeletion`) until the dependents that block it are deleted | are deleted, in the foreground if they have dependents |
//! | orphan | stays (finalizer `orphan`) until no dependent refers to it | lose the reference |
//!
//! | file | contents |
//! | --- | --- |
//! | [`graph`] | the ownership graph, without I/O |
//! | [`collector`] | the processing of one object |
//! | [`monitors`] | an informer for each served resource |

mod absent;
mod collector;
mod graph;
mod monitors;
mod uid;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use nave_client::{Action, Workqueue};

use self::collector::Collector;
use self::graph::Work;
use self::monitors::Monitors;
use self::uid::Uid;
use crate::frame::{
    Context, Descriptor, EventKind, EventRecorder, Reconciler, SyncError, Workers, process_queue,
};

/// The maximum time that startup waits for informers. The collector starts even if an informer cannot list, for example
/// because an aggregated server is down: a missing object can cause a redundant live read, but never a wrong deletion.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) const GARBAGE_COLLECTOR: Descriptor = Descriptor {
    name: "garbage-collector-controller",
    alias: "garbagecollector",
    service_account: "generic-garbage-collector",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-gc-syncs", 20),
    start: |context| Box::pin(start(context)),
};

fn start(context: &Context) -> impl Future<Output = ()> + use<> {
    let queue: Workqueue<Task> = context.queue("garbage_collector");
    let collector = Arc::new_cyclic(|collector| {
        let events = context.events.with_component("garbage-collector-controller");
        let work_queue = WorkQueue { queue: queue.clone(), events, collector: collector.clone() };
        Collector::new(context.client.clone(), move |work| work_queue.enqueue(work))
    });
    let mut monitors =
        Monitors::new(context.client.clone(), context.informers.clone(), Arc::clone(&collector));
    let (workers, stop) = (context.workers, context.stop.clone());
    async move {
        let ready = async {
            monitors.discover().await;
            let _ = tokio::time::timeout(SYNC_TIMEOUT, monitors.synced()).await;
        };
        stop.run_until_cancelled(ready).await;
        let work = process_queue(&queue, workers, stop.clone(), &*collector);
        tokio::join!(work, stop.run_until_cancelled(monitors.keep_up_to_date()));
    }
}

/// A unit of work in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Task {
    Attempt(Uid),
    Verify(Uid),
    Orphan(Uid),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Attempt(uid) | Self::Verify(uid) | Self::Orphan(uid)) = self;
        uid.fmt(f)
    }
}

impl Reconciler<Task> for Collector {
    async fn sync(&self, task: Task) -> Result<Action, SyncError> {
        match &task {
            Task::Attempt(uid) => self.attempt_to_delete(uid).await?,
            Task::Verify(uid) => self.verify(uid).await?,
            Task::Orphan(uid) => self.orphan_dependents(uid).await?,
        }
        Ok(Action::Done)
    }
}

/// Enqueues the work that results from changes of the graph.
struct WorkQueue {
    queue: Workqueue<Task>,
    events: EventRecorder,
    collector: std::sync::Weak<Collector>,
}

impl WorkQueue {
    fn enqueue(&self, work: Work) {
        match work {
            Work::Attempt(uid) => self.queue.add(Task::Attempt(uid)),
            Work::Verify(uid) => self.queue.add(Task::Verify(uid)),
            Work::Orphan(uid) => self.queue.add(Task::Orphan(uid)),
            Work::ForeignOwner { dependent, owner } => self.record_foreign_owner(&dependent, &owner),
        }
    }

    fn record_foreign_owner(&self, dependent: &Uid, owner: &Uid) {
        let Some(collector) = self.collector.upgrade() else { return };
        let (Some(object), Some(owning)) = (collector.item(dependent), collector.item(owner)) else { return };
        let message = format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {owner}] does not exist in namespace {:?}",
            owning.kind.api_version, owning.kind.kind, object.namespace, owning.name, object.namespace
        );
        let reference = ObjectReference {
            api_version: Some(object.kind.api_version.clone()),
            kind: Some(object.kind.kind.clone()),
            namespace: Some(object.namespace).filter(|namespace| !namespace.is_empty()),
            name: Some(object.name),
            uid: Some(dependent.to_string()),
            ..ObjectReference::default()
        };
        self.events.record(&reference, EventKind::Warning, "OwnerRefInvalidNamespace", &message);
    }
}
