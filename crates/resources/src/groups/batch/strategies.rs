//! The strategies of jobs and cron jobs.

use nave_machinery::options::DeleteOptions;
use nave_machinery::{Map, Value, meta};
use serde_json::json;

use super::{cron, defaults, status, update, validation};
use crate::defaults::object;
use crate::groups::core::pod_spec::{disabled, warnings};
use crate::read;
use crate::strategy::Strategy;
use crate::validate::{At, Errors};

/// The labels by which a job selects its pods, with the old and the new key.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

/// If a job exceeds both numbers, its indexes may not all be tracked.
const COMPLETIONS_TRACKED: i64 = 100_000;
const PARALLELISM_TRACKED: i64 = 10_000;
const INDEXED_TOO_LARGE: &str = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail";
const ZONE_IN_SCHEDULE: &str = "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details";

const PRESERVES_PODS: &str = "child pods are preserved by default when jobs are deleted; \
    set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

pub(super) struct JobStrategy;

impl Strategy for JobStrategy {
    fn default(&self, job: &mut Value, _version: &str) {
        defaults::job(job);
    }

    fn prepare_for_create(&self, job: &mut Value) {
        if !read::flag(job, "spec.manualSelector") {
            generate_selector(job);
        }
        disabled::drop_fields(job, None, disabled::IN_WORKLOAD);
    }

    fn prepare_for_update(&self, job: &mut Value, old: &Value) {
        disabled::drop_fields(job, Some(old), disabled::IN_WORKLOAD);
    }

    fn validate(&self, job: &Value) -> Errors {
        validation::job(job, true)
    }

    fn validate_update(&self, job: &Value, old: &Value) -> Errors {
        update::job(job, old)
    }

    fn validate_status_update(&self, job: &Value, old: &Value) -> Errors {
        status::validate(job, old)
    }

    fn canonicalize(&self, job: &mut Value) {
        defaults::labels_of_template(job);
    }

    fn deletion_warnings(&self, options: &DeleteOptions) -> Vec<String> {
        let is_explicit = options.propagation_policy.is_some() || options.orphan_dependents.is_some();
        if is_explicit { Vec::new() } else { vec![PRESERVES_PODS.to_owned()] }
    }

    fn warnings(&self, job: &Value, old: Option<&Value>) -> Vec<String> {
        let mut found = warnings::named_workload(job, old, "template");
        add_indexed(At::root(job).field("spec"), job, old, &mut found);
        found
    }
}

/// Generates a unique selector and the matching labels of the pods.
fn generate_selector(job: &mut Value) {
    let (uid, name) = (meta::uid(job).to_owned(), meta::name(job).to_owned());
    // Upstream's defaulting lets the job share the labels of its template, which then change together.
    let shared =
        job.pointer("/metadata/labels").filter(|labels| labels.as_object().is_some_and(|it| !it.is_empty()));
    let shares_labels = shared.is_some() && shared == job.pointer("/spec/template/metadata/labels");
    let add_labels = |metadata: &mut Map| {
        let Some(labels) = object(metadata, "labels") else { return };
        for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
            for key in keys {
                labels.entry(key).or_insert_with(|| json!(value));
            }
        }
    };
    let Some(job) = job.as_object_mut() else { return };
    if shares_labels && let Some(metadata) = object(job, "metadata") {
        add_labels(metadata);
    }
    let Some(spec) = object(job, "spec") else { return };
    if let Some(metadata) = object(spec, "template").and_then(|template| object(template, "metadata")) {
        add_labels(metadata);
    }
    if let Some(labels) = object(spec, "selector").and_then(|selector| object(selector, "matchLabels")) {
        labels.entry(UID_LABELS[1]).or_insert_with(|| json!(uid));
    }
}

/// Warns about an indexed job that is too large to be tracked.
fn add_indexed(spec: At, job: &Value, old: Option<&Value>, found: &mut Vec<String>) {
    let count = |field: &'static str| spec.field(field).int().unwrap_or_default();
    let is_changed = old.is_none_or(|old| meta::field(old, "generation") != meta::field(job, "generation"));
    if is_changed
        && spec.field("completionMode").text() == "Indexed"
        && count("completions") > COMPLETIONS_TRACKED
        && count("parallelism") > PARALLELISM_TRACKED
    {
        found.push(format!("{}: {INDEXED_TOO_LARGE}", spec.path()));
    }
}

pub(super) struct CronJobStrategy;

impl Strategy for CronJobStrategy {
    fn default(&self, job: &mut Value, _version: &str) {
        defaults::cron_job(job);
    }

    fn prepare_for_create(&self, job: &mut Value) {
        disabled::drop_fields(job, None, disabled::IN_CRON_JOB);
    }

    fn prepare_for_update(&self, job: &mut Value, old: &Value) {
        disabled::drop_fields(job, Some(old), disabled::IN_CRON_JOB);
    }

    fn validate(&self, job: &Value) -> Errors {
        cron::create(job)
    }

    fn validate_update(&self, job: &Value, old: &Value) -> Errors {
        cron::update(job, old)
    }

    fn warnings(&self, job: &Value, old: Option<&Value>) -> Vec<String> {
        let mut found = warnings::named_workload(job, old, "jobTemplate");
        let root = At::root(job);
        let spec = root.field("spec");
        let template = spec.field("jobTemplate");
        add_indexed(template.field("spec"), job, old, &mut found);
        if old.is_some() && spec.field("schedule").text().contains("TZ") {
            found.push(ZONE_IN_SCHEDULE.to_owned());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nave_machinery::options::DeletionPropagation;

    #[test]
    fn warns_about_deletions_without_policy() {
        let warnings = |orphan_dependents, propagation_policy| {
            let options = DeleteOptions { orphan_dependents, propagation_policy, ..DeleteOptions::default() };
            JobStrategy.deletion_warnings(&options).len()
        };
        assert_eq!(warnings(None, None), 1);
        assert_eq!(warnings(Some(false), None), 0);
        assert_eq!(warnings(None, Some(DeletionPropagation::Orphan)), 0);
    }

    /// Labels that a job takes from its template also get the generated labels.
    #[test]
    fn adds_labels_to_jobs_and_templates() {
        let generated = [
            "batch.kubernetes.io/controller-uid",
            "batch.kubernetes.io/job-name",
            "controller-uid",
            "job-name",
        ];
        for (own, of_template, shared) in [
            (json!({}), json!({"a": "b"}), true),
            (json!({"x": "y"}), json!({"a": "b"}), false),
            (json!({}), json!({}), false),
        ] {
            let mut job = json!({
                "metadata": {"name": "j", "uid": "u", "labels": own},
                "spec": {"selector": {}, "template": {"metadata": {"labels": of_template}}},
            });
            JobStrategy.default(&mut job, "v1");
            JobStrategy.prepare_for_create(&mut job);
            let has_generated = |labels: &Value| generated.iter().all(|key| labels.get(key).is_some());
            assert!(has_generated(&job["spec"]["template"]["metadata"]["labels"]), "{job}");
            assert_eq!(has_generated(&job["metadata"]["labels"]), shared, "{job}");
        }
    }

    #[test]
    fn warns_about_large_jobs_and_time_zones_in_schedules() {
        let spec = json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001, "template": {}});
        let job = json!({"metadata": {"name": "a", "generation": 1}, "spec": spec});
        assert_eq!(JobStrategy.warnings(&job, None), [format!("spec: {INDEXED_TOO_LARGE}")]);
        assert_eq!(JobStrategy.warnings(&job, Some(&job)), [""; 0]);
        let cron = json!({"metadata": {"name": "a", "generation": 1}, "spec": {"schedule": "TZ=UTC * * * * *", "jobTemplate": {"spec": spec}}});
        let warnings = CronJobStrategy.warnings(&cron, None);
        assert!(warnings.len() == 1 && warnings[0].starts_with("spec.jobTemplate.spec: "), "{warnings:?}");
        assert_eq!(CronJobStrategy.warnings(&cron, Some(&cron)), [ZONE_IN_SCHEDULE]);
    }
}
