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

use futures_util::future::BoxFuture;
use k8s_openapi::api::batch::v1::{CronJob, Job};

use crate::frame::{Context, Descriptor, Workers};
use crate::owned;

/// Cron jobs.
pub(crate) const CRON_JOB: Descriptor = Descriptor {
    name: "cronjob-controller",
    alias: "cronjob",
    service_account: "cronjob-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-cron-job-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("cronjob");
    let (cron_jobs, jobs) = (builder.informer::<CronJob>(), builder.informer::<Job>());
    owned::index(&jobs);
    builder.work_on(&cron_jobs);
    builder.map(&jobs, |job| owned::key_of_controller(job, "batch", "CronJob"));
    builder.run(sync::Controller {
        client: context.client.clone(),
        control: context.object_control(),
        events: context.events.clone(),
        cron_jobs: cron_jobs.lister(),
        jobs: jobs.lister(),
    })
}
