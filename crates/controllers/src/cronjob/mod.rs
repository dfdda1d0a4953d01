//! Cron jobs: a job at each of the times of a schedule.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`due`] | when a job is due, and when to look again |
//! | [`history`] | what the jobs there are mean for the status, and which to drop |
//! | [`sync`] | the sync that carries this out |

mod due;
mod history;
mod sync;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use nave_client::{Workqueue, on_each};

use crate::frame::{Context, Descriptor, ObjectControl, work};
use crate::owned;

/// Cron jobs.
pub(crate) const CRON_JOB: Descriptor = Descriptor {
    name: "cronjob-controller",
    alias: "cronjob",
    service_account: "cronjob-controller",
    on_by_default: true,
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (cron_jobs, jobs) = (context.informers.informer::<CronJob>(), context.informers.informer::<Job>());
    owned::index(&jobs);
    let queue = Workqueue::new();
    let handlers = [
        cron_jobs.add_event_handler(on_each({
            let queue = queue.clone();
            move |cron_job| queue.add(cron_job.key())
        })),
        jobs.add_event_handler(on_each({
            let queue = queue.clone();
            move |job| {
                if let Some(controller) = owned::controller_of_kind(job, "batch", "CronJob") {
                    queue.add(owned::key_of(job, &controller));
                }
            }
        })),
    ];
    let controller = sync::Controller {
        client: context.client.clone(),
        control: ObjectControl::new(context.client.clone(), context.events.clone()),
        events: context.events.clone(),
        cron_jobs: cron_jobs.lister(),
        jobs: jobs.lister(),
    };
    let stop = context.stop.clone();
    async move {
        let synced = join_all(handlers.iter().map(nave_client::Registration::wait_for_sync));
        if stop.run_until_cancelled(synced).await.is_some() {
            work(&queue, stop, |key| controller.sync(key)).await;
        }
    }
    .boxed()
}
