//! Table columns of jobs and cron jobs.

use nave_machinery::Value;
use nave_machinery::time::{self, Timestamp};
use serde_json::json;

use crate::read;
use crate::table::{Column, age, containers, elapsed, field, length, moment, name, selector, text};

pub(super) fn cron_job() -> Vec<Column> {
    let (spec, status) = ("batch.v1.CronJobSpec", "batch.v1.CronJobStatus");
    let [names, images] = containers("spec.jobTemplate.spec.template.spec.containers");
    let suspend = text("Suspend", |job| match read::value_at(job, "spec.suspend") {
        Some(Value::Bool(true)) => "True".to_owned(),
        Some(Value::Bool(false)) => "False".to_owned(),
        _ => "<unset>".to_owned(),
    });
    vec![
        name(),
        field("Schedule", "spec.schedule", "").described_by(spec, "schedule"),
        field("Timezone", "spec.timeZone", "<none>").described_by(spec, "timeZone"),
        suspend.of_kind("boolean").described_by(spec, "suspend"),
        length("Active", "status.active").described_by(status, "active"),
        elapsed("Last Schedule", "status.lastScheduleTime", "<none>")
            .described_by(status, "lastScheduleTime"),
        age(),
        names,
        images,
        selector("spec.jobTemplate.spec.selector", "<none>").described_by("batch.v1.JobSpec", "selector"),
    ]
}

pub(super) fn job() -> Vec<Column> {
    let [names, images] = containers("spec.template.spec.containers");
    vec![
        name(),
        text("Status", status).about("The state of the job"),
        text("Completions", completions).described_by("batch.v1.JobStatus", "succeeded"),
        Column::new("Duration", |job, now| json!(duration(job, now))).about("The running time of the job"),
        age(),
        names,
        images,
        selector("spec.selector", "<none>").described_by("batch.v1.JobSpec", "selector"),
    ]
}

fn status(job: &Value) -> String {
    let is = |condition| read::condition_is_true(job, condition);
    let status = if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if read::is_being_deleted(job) {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    status.to_owned()
}

fn completions(job: &Value) -> String {
    let succeeded = read::int(job, "status.succeeded");
    let number = |path| read::value_at(job, path).and_then(Value::as_i64);
    match (number("spec.completions"), number("spec.parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, Some(parallelism)) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let Some(start) = moment(job, "status.startTime") else { return String::new() };
    let end = moment(job, "status.completionTime").unwrap_or(now);
    time::human_duration(end.seconds_since(start))
}
