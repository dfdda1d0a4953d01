//! Cron jobs: create a job at each time of a schedule.
//!
//! | module | contents |
//! | --- | --- |
//! | [`due`] | due times, and the time of the next sync |
//! | [`history`] | the status, the job history and new jobs |
//! | [`sync`] | the sync |

mod due;
mod history;
mod sync;

use futures_util::future::BoxFuture;
use k8s_openapi::api::batch::v1::{CronJob, Job};

use crate::frame::{Context, Descriptor, Workers};
use crate::owned;

pub(crate) const CRON_JOB: Descriptor = Descriptor {
    name: "cronjob-controller",
    alias: "cronjob",
    service_account: "cronjob-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-cron-job-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (mut builder, cron_jobs) = context.controller_for::<CronJob>("cronjob");
    let jobs = builder.informer::<Job>();
    owned::index(&jobs);
    builder.enqueue_mapped(&jobs, |job| owned::key_of_controller(job, "batch", "CronJob"));
    builder.run(sync::Controller {
        client: context.client.clone(),
        control: context.object_control(),
        events: context.events.clone(),
        cron_jobs: cron_jobs.lister(),
        jobs: jobs.lister(),
    })
}
