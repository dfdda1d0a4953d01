//! What jobs and cron jobs must be (upstream: `pkg/apis/batch/validation`).

use nave_machinery::{FieldError, Value, meta, names};

use crate::groups::core::pod_spec::validation::template;
use crate::validate::{At, Errors, immutable, not_negative, one_of, required_text};

/// The longest name of a cron job: its jobs' names have eleven characters more.
const CRON_JOB_NAME_MAX: usize = names::LABEL_MAX - 11;

pub(super) fn job(job: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(job);
    let spec = root.field("spec");
    if !spec.field("selector").is_set() {
        errors.push(spec.field("selector").required(""));
    }
    job_spec(spec, &mut errors);
    errors
}

pub(super) fn job_update(new: &Value, old: &Value) -> Errors {
    let mut errors = job(new);
    let (root, old) = (At::root(new), At::root(old));
    let (spec, old_spec) = (root.field("spec"), old.field("spec"));
    for field in ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "successPolicy"] {
        immutable(spec.field(field), old_spec.field(field), &mut errors);
    }
    if spec.field("completionMode").text() != "Indexed" {
        immutable(spec.field("completions"), old_spec.field("completions"), &mut errors);
    }
    // What has not started yet can still be placed elsewhere.
    if !old_spec.field("suspend").flag() {
        immutable(spec.field("template"), old_spec.field("template"), &mut errors);
    }
    errors
}

pub(super) fn cron_job(job: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(job);
    let spec = root.field("spec");
    if meta::name(job).len() > CRON_JOB_NAME_MAX {
        let metadata = root.field("metadata");
        let why = format!("must be no more than {CRON_JOB_NAME_MAX} characters");
        errors.push(metadata.field("name").invalid(why));
    }
    let schedule = spec.field("schedule");
    if required_text(schedule, &mut errors) && !is_schedule(schedule.text()) {
        errors.push(
            schedule
                .invalid("expected exactly 5 fields, or one of @yearly, @monthly, @weekly, @daily, @hourly"),
        );
    }
    one_of(spec.field("concurrencyPolicy"), &["Allow", "Forbid", "Replace"], &mut errors);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(spec.field(field), &mut errors);
    }
    let template = spec.field("jobTemplate");
    let inner = template.field("spec");
    if inner.field("manualSelector").flag() {
        let at = inner.field("manualSelector");
        errors.push(FieldError::not_supported(&at.path(), true, &["nil", "false"]));
    }
    job_spec(inner, &mut errors);
    errors
}

/// The form of a schedule; the ranges of its fields are the controller's to judge.
fn is_schedule(text: &str) -> bool {
    let text = text.trim();
    if let Some(word) = text.strip_prefix('@') {
        return matches!(
            word,
            "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly"
        ) || word.starts_with("every ");
    }
    let legal = |field: &str| {
        field.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'*' | b'/' | b'-' | b',' | b'?'))
    };
    let fields: Vec<&str> = text.split_whitespace().collect();
    fields.len() == 5 && fields.into_iter().all(legal)
}

fn job_spec(spec: At, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        not_negative(spec.field(field), errors);
    }
    let mode = spec.field("completionMode");
    if mode.is_set() {
        one_of(mode, &["NonIndexed", "Indexed"], errors);
    }
    if mode.text() == "Indexed" && !spec.field("completions").is_set() {
        errors.push(spec.field("completions").required("when completion mode is Indexed"));
    }
    let pods = spec.field("template");
    template(pods, errors);
    let pod = pods.field("spec");
    let policy = pod.field("restartPolicy");
    if policy.text() == "Always" {
        errors.push(FieldError::not_supported(&policy.path(), "Always", &["OnFailure", "Never"]));
    }
}
