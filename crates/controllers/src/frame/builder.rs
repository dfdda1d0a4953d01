use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use nave_client::{
    EventHandler, Object, ObjectName, SharedInformer, SharedInformerFactory, Workqueue, on_change, on_delete,
    on_each,
};
use tokio_util::sync::CancellationToken;

use super::fan_out::FanOuts;
use super::{Context, Reconciler, process_queue};

/// Sets up a controller: its informers, the events that enqueue keys, and its workers. Workers start once every
/// informer has synced and every handler has seen the initial list.
///
/// ```
/// # use k8s_openapi::api::batch::v1::{CronJob, Job};
/// # use nave_controllers::frame::{Context, Reconciler};
/// # use nave_controllers::owned;
/// fn start(context: &Context, controller: impl Reconciler) -> futures_util::future::BoxFuture<'static, ()> {
///     let (mut builder, cron_jobs) = context.controller_for::<CronJob>("cronjob");
///     let jobs = builder.informer::<Job>();
///     builder.enqueue_mapped(&jobs, |job| owned::key_of_controller(job, "batch", "CronJob"));
///     builder.run(controller)
/// }
/// ```
pub struct ControllerBuilder {
    queue: Workqueue,
    workers: usize,
    informers: SharedInformerFactory,
    fan_outs: FanOuts,
    /// Complete when the handlers have seen the initial lists; workers start afterwards.
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

    /// The informer of a type; syncs may read its cache.
    pub fn informer<K>(&mut self) -> SharedInformer<K>
    where
        K: kube::Resource<DynamicType = ()> + 'static,
    {
        let informer = self.informers.informer::<K>();
        let waiting = informer.clone();
        self.synced.push(async move { waiting.wait_for_sync().await }.boxed());
        informer
    }

    /// Enqueues each object that the controller reconciles, on each of its events.
    pub fn enqueue_objects<K: 'static>(&mut self, informer: &SharedInformer<K>) {
        self.enqueue_mapped(informer, |object| Some(object.key()));
    }

    /// Enqueues each object when it is added and at every interval, even if it has not changed.
    pub fn resync_every<K: 'static>(&mut self, informer: &SharedInformer<K>, interval: Duration) {
        let queue = self.queue();
        // A resync repeats the cached version.
        let is_resync = |old: &Object<K>, new: &Object<K>| old.is_same_version(new);
        let handler = on_change(is_resync, move |object: &Object<K>| queue.add(object.key()));
        let registered = informer.add_event_handler_with_resync(handler, Some(interval));
        self.synced.push(async move { registered.wait_for_sync().await }.boxed());
    }

    /// Enqueues the keys that `keys_of` returns for the object of an event.
    pub fn enqueue_mapped<K: 'static, I: IntoIterator<Item = ObjectName>>(
        &mut self,
        informer: &SharedInformer<K>,
        keys_of: impl Fn(&Object<K>) -> I + Send + Sync + 'static,
    ) {
        let queue = self.queue();
        let enqueue = on_each(move |object| keys_of(object).into_iter().for_each(|key| queue.add(key)));
        self.add_handler(informer, enqueue);
    }

    /// Enqueues the keys that `keys_of` returns for a deleted object.
    pub fn enqueue_mapped_on_delete<K: 'static, I: IntoIterator<Item = ObjectName>>(
        &mut self,
        informer: &SharedInformer<K>,
        keys_of: impl Fn(&Object<K>) -> I + Send + Sync + 'static,
    ) {
        let queue = self.queue();
        let enqueue = on_delete(move |object| keys_of(object).into_iter().for_each(|key| queue.add(key)));
        self.add_handler(informer, enqueue);
    }

    /// Adds an event handler, which must enqueue the keys itself.
    pub fn add_handler<K: 'static>(&mut self, informer: &SharedInformer<K>, handler: impl EventHandler<K>) {
        let registered = self.fan_outs.add(informer, handler);
        self.synced.push(async move { registered.wait_for_sync().await }.boxed());
    }

    /// Returns the controller's task, which processes the queue until the context's `stop` is cancelled.
    pub fn run(self, controller: impl Reconciler) -> BoxFuture<'static, ()> {
        let Self { queue, workers, synced, stop, .. } = self;
        async move {
            if stop.run_until_cancelled(join_all(synced)).await.is_some() {
                process_queue(&queue, workers, stop, &controller).await;
            }
        }
        .boxed()
    }
}
