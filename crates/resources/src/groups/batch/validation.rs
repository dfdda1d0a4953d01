//! What jobs and cron jobs must be (upstream: `pkg/apis/batch/validation`).

use nave_machinery::schedule::{self, Schedule};
use nave_machinery::selector::LabelSelector;
use nave_machinery::{FieldError, Value, meta};

use crate::groups::core::pod_spec::validation as pod_spec;
use crate::validate::{
    At, Errors, IMMUTABLE, immutable, label_selector, not_negative, one_of, required_text,
};

/// The longest name of a cron job, whose jobs' names have eleven characters more.
const CRON_NAME_MAX: usize = 52;
const REPLACEMENTS: [&str; 2] = ["Failed", "TerminatingOrFailed"];

pub(super) fn job(job: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(job);
    let spec = root.field("spec");
    generated_selector(job, spec, &mut errors);
    job_spec(spec, &mut errors);
    let selector = spec.field("selector");
    if !selector.is_set() {
        errors.push(selector.required(""));
        return errors;
    }
    label_selector(selector, &mut errors);
    let template = spec.field("template");
    let metadata = template.field("metadata");
    let label = |key: &str| metadata.value()?.get("labels")?.get(key)?.as_str();
    let matches =
        selector.value().and_then(|it| LabelSelector::from_value(it).ok()).is_none_or(|it| it.matches(label));
    if !matches {
        let labels = metadata.field("labels");
        let shown = labels.value().cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(
            &labels.path(),
            shown,
            "`selector` does not match template `labels`",
        ));
    }
    errors
}

/// A generated selector and its labels must be the job's own.
fn generated_selector(job: &Value, spec: At, errors: &mut Errors) {
    if spec.field("manualSelector").flag() {
        return;
    }
    let template = spec.field("template");
    let metadata = template.field("metadata");
    let labels = metadata.field("labels");
    let expected = [
        ("batch.kubernetes.io/controller-uid", meta::uid(job)),
        ("batch.kubernetes.io/job-name", meta::name(job)),
    ];
    for (key, value) in expected {
        let at = labels.key(key);
        if at.text() != value {
            errors.push(if at.is_set() {
                at.invalid(format!("must be '{value}'"))
            } else {
                at.required(format!("must be '{value}'"))
            });
        }
    }
}

pub(super) fn job_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (root, old_root) = (At::root(new), At::root(old));
    let (spec, old_spec) = (root.field("spec"), old_root.field("spec"));
    job_spec(spec, &mut errors);
    // How many completions are wanted may change where each has its index, together with the parallelism.
    let elastic = spec.field("completionMode").text() == "Indexed"
        && spec.field("completions").int() == spec.field("parallelism").int();
    if !elastic {
        immutable(spec.field("completions"), old_spec.field("completions"), &mut errors);
    }
    for field in [
        "selector",
        "template",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        let (at, old_at) = (spec.field(field), old_spec.field(field));
        let suspended = field == "template" && old_spec.field("suspend").flag();
        if suspended && same_but_scheduling(at.value(), old_at.value()) {
            continue;
        }
        if at.value() != old_at.value() {
            errors.push(FieldError::invalid(
                &at.path(),
                at.value().cloned().unwrap_or(Value::Null),
                IMMUTABLE,
            ));
        }
    }
    errors
}

/// Whether two templates of a suspended job, whose pods wait to be placed, differ only in where they may go.
fn same_but_scheduling(new: Option<&Value>, old: Option<&Value>) -> bool {
    const PLACEMENT: [&str; 4] = ["affinity", "nodeSelector", "schedulingGates", "tolerations"];
    let fields = |template: Option<&'_ Value>| -> Vec<(String, Value)> {
        let spec = template.and_then(|it| it.get("spec")?.as_object()).into_iter().flatten();
        let kept = spec.filter(|(name, _)| !PLACEMENT.contains(&name.as_str()));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    fields(new) == fields(old)
}

/// What holds for the jobs that are and those that a cron job is going to make.
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
        one_of(mode, &["Indexed", "NonIndexed"], errors);
        if mode.text() == "Indexed" && !spec.field("completions").is_set() {
            let detail = "when completion mode is Indexed";
            errors.push(spec.field("completions").required(detail));
        }
    }
    if spec.field("podReplacementPolicy").is_set() {
        one_of(spec.field("podReplacementPolicy"), &REPLACEMENTS, errors);
    }
    let template = spec.field("template");
    pod_spec::template(template, errors);
    let pod = template.field("spec");
    let policy = pod.field("restartPolicy");
    if policy.text() == "Always" {
        errors.push(FieldError::required(&policy.path(), "valid values: \"OnFailure\", \"Never\""));
    } else if !matches!(policy.text(), "OnFailure" | "Never") {
        errors.push(policy.not_supported(&["OnFailure", "Never"]));
    } else if spec.field("podFailurePolicy").is_set() && policy.text() != "Never" {
        errors.push(policy.invalid("only \"Never\" is supported when podFailurePolicy is specified"));
    }
}

pub(super) fn cron_job(job: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(job);
    let (spec, metadata) = (root.field("spec"), root.field("metadata"));
    let time_zone = spec.field("timeZone");
    if required_text(spec.field("schedule"), &mut errors) {
        let schedule_at = spec.field("schedule");
        if let Err(why) = Schedule::parse(schedule_at.text()) {
            errors.push(schedule_at.invalid(why));
        }
        if schedule_at.text().contains("TZ=") {
            errors.push(
                schedule_at.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead"),
            );
        }
    }
    if time_zone.is_set() && time_zone.text().is_empty() {
        errors.push(time_zone.invalid("timeZone must be nil or non-empty string"));
    } else if time_zone.text().eq_ignore_ascii_case("local") {
        errors.push(
            time_zone.invalid(
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            ),
        );
    } else if time_zone.is_set()
        && let Err(why) = schedule::time_zone(time_zone.text())
    {
        errors.push(time_zone.invalid(why));
    }
    not_negative(spec.field("startingDeadlineSeconds"), &mut errors);
    let policy = spec.field("concurrencyPolicy");
    if required_text(policy, &mut errors) {
        one_of(policy, &["Allow", "Forbid", "Replace"], &mut errors);
    }
    let template = spec.field("jobTemplate");
    let job_spec_at = template.field("spec");
    job_spec(job_spec_at, &mut errors);
    if job_spec_at.field("selector").is_set() {
        errors.push(job_spec_at.field("selector").invalid("`selector` will be auto-generated"));
    }
    if job_spec_at.field("manualSelector").flag() {
        errors.push(job_spec_at.field("manualSelector").not_supported(&["nil", "false"]));
    }
    not_negative(spec.field("successfulJobsHistoryLimit"), &mut errors);
    not_negative(spec.field("failedJobsHistoryLimit"), &mut errors);
    if metadata.field("name").text().len() > CRON_NAME_MAX {
        errors.push(metadata.field("name").invalid("must be no more than 52 characters"));
    }
    errors
}
