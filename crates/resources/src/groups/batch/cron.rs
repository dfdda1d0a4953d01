//! Validation of cron jobs (upstream: `ValidateCronJobCreate`, `ValidateCronJobUpdate`).

use nave_machinery::Value;
use nave_machinery::schedule::{self, Schedule};

use super::validation;
use crate::read;
use crate::validate::{At, Errors, not_negative, one_of, required_text};

/// The maximum length of a cron job's name. The names of its jobs are eleven characters longer.
const NAME_MAX: usize = 52;

pub(super) fn create(job: &Value) -> Errors {
    let mut errors = cron_spec(job, None);
    let root = At::root(job);
    let metadata = root.field("metadata");
    if metadata.field("name").text().len() > NAME_MAX {
        let why = format!("must be no more than {NAME_MAX} characters");
        errors.push(metadata.field("name").invalid(why));
    }
    errors
}

pub(super) fn update(job: &Value, old: &Value) -> Errors {
    cron_spec(job, Some(old))
}

fn cron_spec(job: &Value, old: Option<&Value>) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(job);
    let spec = root.field("spec");
    let zone = spec.field("timeZone");
    if required_text(spec.field("schedule"), &mut errors) {
        let had_zone = old.is_some_and(|old| read::text(old, "spec.schedule").contains("TZ"));
        schedule(spec.field("schedule"), zone, had_zone, &mut errors);
    }
    not_negative(spec.field("startingDeadlineSeconds"), &mut errors);
    // An unchanged time zone is not checked.
    if old.is_none_or(|old| read::value_at(old, "spec.timeZone") != zone.value()) {
        time_zone(zone, &mut errors);
    }
    let policy = spec.field("concurrencyPolicy");
    if required_text(policy, &mut errors) {
        one_of(policy, &["Allow", "Forbid", "Replace"], &mut errors);
    }
    validation::job_template(spec.field("jobTemplate"), &mut errors);
    not_negative(spec.field("successfulJobsHistoryLimit"), &mut errors);
    not_negative(spec.field("failedJobsHistoryLimit"), &mut errors);
    errors
}

fn schedule(at: At, zone: At, had_zone: bool, errors: &mut Errors) {
    if let Err(why) = Schedule::parse(at.text()) {
        errors.push(at.invalid(why));
    }
    if !at.text().contains("TZ") {
        return;
    }
    if !had_zone {
        errors.push(at.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
    } else if zone.is_set() {
        errors.push(at.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule"));
    }
}

fn time_zone(zone: At, errors: &mut Errors) {
    if !zone.is_set() {
        return;
    }
    let name = zone.text();
    if name.is_empty() {
        errors.push(zone.invalid("timeZone must be nil or non-empty string"));
    } else if !name.split('/').all(is_part) {
        errors.push(zone.invalid(format!("unknown time zone {name}")));
    } else {
        if name.eq_ignore_ascii_case("local") {
            let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
            errors.push(zone.invalid(why));
        }
        if !name.eq("Local")
            && let Err(why) = schedule::time_zone(name)
        {
            errors.push(zone.invalid(why));
        }
    }
}

/// Returns whether a segment of a time zone name has only valid characters.
fn is_part(part: &str) -> bool {
    !matches!(part, "." | "..")
        && !part.starts_with('-')
        && (1..=14).contains(&part.len())
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::validation::tests::{fields, job_with};
    use super::*;

    fn cron(more: Value) -> Value {
        let mut template = job_with(json!({}));
        template["spec"]["selector"] = Value::Null;
        let mut spec =
            json!({"schedule": "* * * * *", "concurrencyPolicy": "Allow", "jobTemplate": template});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": "c"}, "spec": spec})
    }

    #[test]
    fn validates_schedules_and_time_zones() {
        for (more, expected) in [
            (json!({}), &[][..]),
            (json!({"timeZone": "Etc/UTC"}), &[]),
            (json!({"timeZone": ""}), &["spec.timeZone"]),
            (json!({"timeZone": "../x"}), &["spec.timeZone"]),
            (json!({"timeZone": "Mars/Olympus"}), &["spec.timeZone"]),
            (json!({"schedule": "TZ=UTC * * * * *"}), &["spec.schedule"]),
            (
                json!({"schedule": "x", "concurrencyPolicy": "y"}),
                &["spec.schedule", "spec.concurrencyPolicy"],
            ),
        ] {
            assert_eq!(fields(&create(&cron(more.clone()))), expected, "{more}");
        }
        let mut selecting = cron(json!({}));
        selecting["spec"]["jobTemplate"]["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
        assert_eq!(fields(&create(&selecting)), ["spec.jobTemplate.spec.selector"]);
    }

    #[test]
    fn stored_schedules_and_time_zones_stay_valid() {
        let old = cron(json!({"schedule": "TZ=UTC * * * * *", "timeZone": null}));
        assert_eq!(update(&old, &old), []);
        let both = cron(json!({"schedule": "TZ=UTC * * * * *", "timeZone": "Etc/UTC"}));
        assert_eq!(fields(&update(&both, &old)), ["spec.schedule"]);
        let gone = cron(json!({"timeZone": "Mars/Olympus"}));
        assert_eq!(update(&gone, &gone), []);
    }
}
