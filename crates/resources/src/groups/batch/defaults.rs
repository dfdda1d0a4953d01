//! Defaults of jobs and cron jobs (upstream: `pkg/apis/batch/v1/defaults.go`).

use nave_machinery::{Map, Value};

use crate::defaults::{each, object, object_at, set, set_absent};
use crate::groups::core::pod_spec::defaults as pod_spec;

pub(super) fn job(job: &mut Value) {
    pod_spec::template(job);
    let Some(spec) = job.as_object_mut().and_then(|job| object(job, "spec")) else { return };
    // Without parallelism, the default is one completion.
    if !spec.contains_key("parallelism") {
        set(spec, "completions", 1);
    }
    set(spec, "parallelism", 1);
    let per_index = spec.contains_key("backoffLimitPerIndex");
    set(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
    set_absent(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    set(spec, "manualSelector", false);
    let replacement = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    set(spec, "podReplacementPolicy", replacement);
    failure_policy(spec);
    labels_of_template(job);
}

/// Sets the default status of pod conditions in rules: `True`.
fn failure_policy(job_spec: &mut Map) {
    let Some(policy) = object_at(job_spec, &["podFailurePolicy"]) else { return };
    for rule in each(policy, "rules") {
        for condition in each(rule, "onPodConditions") {
            set(condition, "status", "True");
        }
    }
}

/// Copies the template's labels to a job without labels.
pub(super) fn labels_of_template(job: &mut Value) {
    if job.pointer("/metadata/labels").and_then(Value::as_object).is_some_and(|labels| !labels.is_empty()) {
        return;
    }
    let Some(labels) = job.pointer("/spec/template/metadata/labels").filter(|it| it.is_object()).cloned()
    else {
        return;
    };
    if let Some(metadata) = job.as_object_mut().and_then(|job| object(job, "metadata")) {
        metadata.insert("labels".to_owned(), labels);
    }
}

pub(super) fn cron_job(job: &mut Value) {
    let Some(spec) = job.as_object_mut().and_then(|job| object(job, "spec")) else { return };
    set(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", false);
    set(spec, "successfulJobsHistoryLimit", 3);
    set(spec, "failedJobsHistoryLimit", 1);
    let Some(job_spec) = object_at(spec, &["jobTemplate", "spec"]) else { return };
    failure_policy(job_spec);
    if let Some(spec) = object_at(job_spec, &["template", "spec"]) {
        pod_spec::pod_spec(spec);
    }
}
