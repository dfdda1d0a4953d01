use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use nave_client::{
    EventHandler, Object, ObjectName, SharedInformer, SharedInformerFactory, Workqueue, on_change, on_each,
};
use tokio_util::sync::CancellationToken;

use super::fan_out::FanOuts;
use super::{Context, Reconciler, work};

/// Puts a controller together: what it reads, which events have it look at which objects, and what it does then. The
/// first look is taken when all informers hold, and all handlers have been told of, what there was at the start.
///
/// ```
/// # use k8s_openapi::api::batch::v1::{CronJob, Job};
/// # use nave_controllers::frame::{Context, Reconciler};
/// # use nave_controllers::owned;
/// fn start(context: &Context, controller: impl Reconciler) -> futures_util::future::BoxFuture<'static, ()> {
///     let mut builder = context.controller("cronjob");
///     let (cron_jobs, jobs) = (builder.informer::<CronJob>(), builder.informer::<Job>());
///     builder.work_on(&cron_jobs);
///     builder.map(&jobs, |job| owned::key_of_controller(job, "batch", "CronJob"));
///     builder.run(controller)
/// }
/// ```
pub struct ControllerBuilder {
    queue: Workqueue,
    workers: usize,
    informers: SharedInformerFactory,
    fan_outs: FanOuts,
    /// What the first look waits for.
    synced: Vec<BoxFuture<'static, ()>>,
    stop: CancellationToken,
}

impl ControllerBuilder {
    pub(super) fn new(context: &Context, queue: &str) -> Self {
        Self {
            queue: context.queue(queue),
            workers: context.workers,
            informers: context.informers.clone(),
            fan_outs: context.fan_outs.clone(),
            synced: Vec::new(),
            stop: context.stop.clone(),
        }
    }

    /// The queue, for handlers.
    pub fn queue(&self) -> Workqueue {
        self.queue.clone()
    }

    /// The informer of a type, which syncs may read.
    pub fn informer<K>(&mut self) -> SharedInformer<K>
    where
        K: kube::Resource<DynamicType = ()> + 'static,
    {
        let informer = self.informers.informer::<K>();
        let waiting = informer.clone();
        self.synced.push(async move { waiting.wait_for_sync().await }.boxed());
        informer
    }

    /// Has each object looked at at each of its events: these are the objects that the controller works on.
    pub fn work_on<K: 'static>(&mut self, informer: &SharedInformer<K>) {
        self.map(informer, |object| Some(object.key()));
    }

    /// Has each object looked at at an interval, and when it comes, whatever else happens to it.
    pub fn look_again_after<K: 'static>(&mut self, informer: &SharedInformer<K>, interval: Duration) {
        let queue = self.queue();
        // A resync repeats the state that is known.
        let is_resync = |old: &Object<K>, new: &Object<K>| old.is_same_version(new);
        let handler = on_change(is_resync, move |object: &Object<K>| queue.add(object.key()));
        let registered = informer.add_event_handler_with_resync(handler, Some(interval));
        self.synced.push(async move { registered.wait_for_sync().await }.boxed());
    }

    /// Has the object looked at that `concerned` finds for an event's object, if any.
    pub fn map<K: 'static>(
        &mut self,
        informer: &SharedInformer<K>,
        concerned: impl Fn(&Object<K>) -> Option<ObjectName> + Send + Sync + 'static,
    ) {
        let queue = self.queue();
        self.watch(
            informer,
            on_each(move |object| {
                if let Some(key) = concerned(object) {
                    queue.add(key);
                }
            }),
        );
    }

    /// Has a handler told of events, which queues by itself what they concern.
    pub fn watch<K: 'static>(&mut self, informer: &SharedInformer<K>, handler: impl EventHandler<K>) {
        let registered = self.fan_outs.add(informer, handler);
        self.synced.push(async move { registered.wait_for_sync().await }.boxed());
    }

    /// What to run: works on the queue until the controller is told to end.
    pub fn run(self, controller: impl Reconciler) -> BoxFuture<'static, ()> {
        let Self { queue, workers, synced, stop, .. } = self;
        async move {
            if stop.run_until_cancelled(join_all(synced)).await.is_some() {
                work(&queue, workers, stop, &controller).await;
            }
        }
        .boxed()
    }
}
