//! What is particular to jobs and cron jobs.

use nave_machinery::{Value, meta};
use serde_json::json;

use super::{defaults, validation};
use crate::defaults::{object, set};
use crate::groups::core::pod_spec::warnings;
use crate::read;
use crate::strategy::Strategy;
use crate::validate::Errors;

/// The labels by which a job knows its pods, each under its old and its new key.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

pub(super) struct JobStrategy;

impl Strategy for JobStrategy {
    fn default(&self, job: &mut Value, _version: &str) {
        defaults::job(job);
    }

    fn prepare_for_create(&self, job: &mut Value) {
        if !read::flag(job, "spec.manualSelector") {
            generate_selector(job);
        }
        defaults::labels_of_template(job);
    }

    fn validate(&self, job: &Value) -> Errors {
        validation::job(job)
    }

    fn validate_update(&self, job: &Value, old: &Value) -> Errors {
        validation::job_update(job, old)
    }

    fn warnings(&self, job: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() { Vec::new() } else { warnings::named_workload(job, "template") }
    }
}

/// Gives a job's pods labels that no other job's have, and selects by them.
fn generate_selector(job: &mut Value) {
    let (uid, name) = (meta::uid(job).to_owned(), meta::name(job).to_owned());
    let Some(spec) = job.as_object_mut().and_then(|job| object(job, "spec")) else { return };
    let metadata = object(spec, "template").and_then(|template| object(template, "metadata"));
    if let Some(labels) = metadata.and_then(|metadata| object(metadata, "labels")) {
        for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
            for key in keys {
                labels.entry(key).or_insert_with(|| json!(value));
            }
        }
    }
    if let Some(labels) = object(spec, "selector").and_then(|selector| object(selector, "matchLabels")) {
        set(labels, UID_LABELS[1], uid);
    }
}

pub(super) struct CronJobStrategy;

impl Strategy for CronJobStrategy {
    fn default(&self, job: &mut Value, _version: &str) {
        defaults::cron_job(job);
    }

    fn validate(&self, job: &Value) -> Errors {
        validation::cron_job(job)
    }

    fn warnings(&self, job: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() { Vec::new() } else { warnings::named_workload(job, "jobTemplate") }
    }
}
