//! `batch`: workloads that run to completion.

mod columns;
mod cron;
mod defaults;
mod indexes;
mod policies;
mod status;
mod strategies;
mod update;
mod validation;

use crate::builder::{GroupBuilder, group as declare, resource};

pub(crate) fn group() -> GroupBuilder {
    let resources = vec![
        resource("CronJob", "cronjobs")
            .short(&["cj"])
            .categories(&["all"])
            .status()
            .generation(&["spec"])
            .columns(columns::cron_job())
            .strategy(strategies::CronJobStrategy),
        resource("Job", "jobs")
            .categories(&["all"])
            .status()
            .generation(&["spec"])
            .orphans_dependents()
            .field_at("status.successful", "status.succeeded", "0")
            .columns(columns::job())
            .strategy(strategies::JobStrategy),
    ];
    declare("batch", "io.k8s.api.batch", resources)
}
