//! Validation of the status of jobs (upstream: `ValidateJobUpdateStatus`).

use std::collections::HashSet;

use nave_machinery::time::Timestamp;
use nave_machinery::{FieldError, Value};

use super::indexes;
use crate::read;
use crate::validate::{At, Errors, not_negative};

/// Validates an update of a job's status. Most rules apply to changed fields only.
pub(super) fn validate(job: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let check = Check { job, old, changed: Changed::between(job, old) };
    check.counts(&mut errors);
    check.conditions(&mut errors);
    check.times(&mut errors);
    check.finished(&mut errors);
    check.indexes(&mut errors);
    check.success(&mut errors);
    check.regressions(&mut errors);
    errors
}

fn is_true(job: &Value, condition: &str) -> bool {
    read::condition_is_true(job, condition)
}

fn is_finished(job: &Value) -> bool {
    is_true(job, "Complete") || is_true(job, "Failed")
}

/// The fields that an update changes.
#[expect(clippy::struct_excessive_bools, reason = "each stands for a field")]
struct Changed {
    finished: bool,
    complete: bool,
    failed: bool,
    failure_target: bool,
    success_criteria: bool,
    completed_indexes: bool,
    failed_indexes: bool,
    active: bool,
    start: bool,
    completion: bool,
    uncounted: bool,
    ready: bool,
    terminating: bool,
}

impl Changed {
    fn between(job: &Value, old: &Value) -> Self {
        let condition = |kind| is_true(job, kind) != is_true(old, kind);
        let field = |path| read::value_at(job, path) != read::value_at(old, path);
        Self {
            finished: is_finished(job) != is_finished(old),
            complete: condition("Complete"),
            failed: condition("Failed"),
            failure_target: condition("FailureTarget"),
            success_criteria: condition("SuccessCriteriaMet"),
            completed_indexes: field("status.completedIndexes"),
            failed_indexes: field("status.failedIndexes"),
            active: field("status.active"),
            start: field("status.startTime"),
            completion: field("status.completionTime"),
            uncounted: field("status.uncountedTerminatedPods"),
            ready: field("status.ready"),
            terminating: field("status.terminating"),
        }
    }
}

struct Check<'a> {
    job: &'a Value,
    old: &'a Value,
    changed: Changed,
}

impl<'a> Check<'a> {
    fn status(&self) -> At<'a, 'a> {
        At::named("status", self.job.get("status"))
    }

    fn count(&self, field: &'static str) -> i64 {
        self.status().field(field).int().unwrap_or_default()
    }

    fn has_true_condition(&self, condition: &str) -> bool {
        is_true(self.job, condition)
    }

    fn is_indexed(&self) -> bool {
        read::text(self.job, "spec.completionMode") == "Indexed"
    }

    /// If `applies`, adds an error about the list of conditions.
    fn reject_conditions(&self, applies: bool, why: &str, errors: &mut Errors) {
        if applies {
            let path = self.status().path().child("conditions");
            errors.push(FieldError::invalid(&path, Value::Null, why));
        }
    }

    fn counts(&self, errors: &mut Errors) {
        let status = self.status();
        for field in ["active", "succeeded", "failed", "ready", "terminating"] {
            not_negative(status.field(field), errors);
        }
        let uncounted = status.field("uncountedTerminatedPods");
        let mut seen = HashSet::new();
        for list in ["succeeded", "failed"] {
            for uid in uncounted.field(list).items() {
                if uid.text().is_empty() {
                    errors.push(uid.invalid_text("must not be empty"));
                } else if !seen.insert(uid.text()) {
                    errors.push(uid.duplicate());
                }
            }
        }
    }

    fn conditions(&self, errors: &mut Errors) {
        let Changed { complete, failed, failure_target, .. } = self.changed;
        let both = self.has_true_condition("Complete") && self.has_true_condition("Failed");
        self.reject_conditions(
            (complete || failed) && both,
            "cannot set Complete=True and Failed=true conditions",
            errors,
        );
        let both = self.has_true_condition("Complete") && self.has_true_condition("FailureTarget");
        let why = "cannot set Complete=True and FailureTarget=true conditions";
        self.reject_conditions((complete || failure_target) && both, why, errors);
    }

    fn times(&self, errors: &mut Errors) {
        let status = self.status();
        let (start, end) = (status.field("startTime"), status.field("completionTime"));
        let is_complete = self.has_true_condition("Complete");
        if self.changed.complete || self.changed.completion {
            if end.is_set() && !is_complete {
                let why = "cannot set completionTime when there is no Complete=True condition";
                errors.push(end.invalid(why));
            }
            if !end.is_set() && is_complete {
                errors.push(end.required("completionTime is required for Complete jobs"));
            }
        }
        let time = |at: At| Timestamp::parse(at.text());
        if (self.changed.start || self.changed.completion)
            && let (Some(start), Some(time)) = (time(start), time(end))
            && time < start
        {
            errors.push(end.invalid("must be equal to or after `startTime`"));
        }
    }

    fn finished(&self, errors: &mut Errors) {
        let changed = &self.changed;
        let status = self.status();
        let failed = (changed.failed || changed.failed_indexes) && self.has_true_condition("Failed");
        let why = "cannot set Failed=True condition without the FailureTarget=true condition";
        self.reject_conditions(failed && !self.has_true_condition("FailureTarget"), why, errors);
        let complete = (changed.complete || changed.success_criteria) && self.has_true_condition("Complete");
        let why = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        self.reject_conditions(complete && !self.has_true_condition("SuccessCriteriaMet"), why, errors);
        if !is_finished(self.job) {
            return;
        }
        if (changed.finished || changed.active) && self.count("active") > 0 {
            errors.push(status.field("active").invalid("active>0 is invalid for finished job"));
        }
        let start = status.field("startTime");
        let is_idle = read::flag(self.job, "spec.suspend")
            && read::value_at(self.job, "spec.completions").and_then(Value::as_i64) == Some(0);
        if (changed.finished || changed.start) && !is_idle && !start.is_set() {
            errors.push(start.required("startTime is required for finished job"));
        }
        let pods = status.field("uncountedTerminatedPods");
        let is_empty = pods.field("failed").len() + pods.field("succeeded").len() == 0;
        if (changed.finished || changed.uncounted) && !is_empty {
            errors.push(pods.invalid("must be empty for finished job"));
        }
    }

    fn indexes(&self, errors: &mut Errors) {
        let status = self.status();
        let (completed, failed) = (status.field("completedIndexes"), status.field("failedIndexes"));
        let completions = read::value_at(self.job, "spec.completions").and_then(Value::as_i64);
        let limit = read::value_at(self.job, "spec.backoffLimitPerIndex").and_then(Value::as_i64);
        let Changed { completed_indexes, failed_indexes, .. } = self.changed;
        let malformed = |at: At, field: &str| {
            let found = indexes::count(at.text(), completions?).err();
            found.map(|why| at.invalid_text(format!("error parsing {field}: {why}")))
        };
        if completed_indexes {
            errors.extend(malformed(completed, "completedIndexes"));
        }
        if failed_indexes && limit.is_some() && failed.is_set() {
            errors.extend(malformed(failed, "failedIndexes"));
        }
        if completed_indexes && !completed.text().is_empty() && !self.is_indexed() {
            let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
            errors.push(completed.invalid(why));
        }
        if failed_indexes && limit.is_none() && failed.is_set() {
            let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            errors.push(failed.invalid(why));
        }
        if (failed_indexes || completed_indexes)
            && let Some(completions) = completions
            && let Some(index) = indexes::overlap(completed.text(), failed.text(), completions)
        {
            let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
            errors.push(failed.invalid(why));
        }
    }

    fn success(&self, errors: &mut Errors) {
        let changed = &self.changed;
        let status = self.status();
        let (terminating, ready) = (status.field("terminating"), status.field("ready"));
        let is_changed = changed.finished || changed.terminating;
        if is_changed && is_finished(self.job) && self.count("terminating") > 0 {
            errors.push(terminating.invalid("terminating>0 is invalid for finished job"));
        }
        if (changed.ready || changed.active) && self.count("ready") > self.count("active") {
            errors.push(ready.invalid("cannot set more ready pods than active"));
        }
        let is_met = self.has_true_condition("SuccessCriteriaMet");
        let why = "cannot set SuccessCriteriaMet=True and Failed=true conditions";
        self.reject_conditions(is_met && self.has_true_condition("Failed"), why, errors);
        let why = "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions";
        self.reject_conditions(is_met && self.has_true_condition("FailureTarget"), why, errors);
        let has_policy = read::map(self.job, "spec.successPolicy").is_some();
        let why = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        self.reject_conditions(has_policy && !is_met && self.has_true_condition("Complete"), why, errors);
    }

    /// Checks that conditions stay true, counts do not decrease, and times do not change.
    fn regressions(&self, errors: &mut Errors) {
        let status = self.status();
        for kind in ["Failed", "Complete", "FailureTarget"] {
            let why = format!("cannot disable the terminal {kind}=True condition");
            self.reject_conditions(is_true(self.old, kind) && !self.has_true_condition(kind), &why, errors);
        }
        let before = |field: &str| read::int(self.old, &format!("status.{field}"));
        // The `succeeded` count of an elastic indexed job may decrease.
        let is_elastic = self.is_indexed()
            && read::value_at(self.job, "spec.completions") == read::value_at(self.job, "spec.parallelism");
        for (field, is_checked) in [("failed", true), ("succeeded", !is_elastic)] {
            if is_checked && self.count(field) < before(field) {
                let at = status.field(field);
                let why = format!("cannot decrease the {field} counter");
                errors.push(FieldError::invalid(&at.path(), self.count(field), why));
            }
        }
        let (start, end) = (status.field("startTime"), status.field("completionTime"));
        let old_end = read::value_at(self.old, "status.completionTime").filter(|it| !it.is_null());
        if end.is_set() && old_end.is_some() && old_end != end.value() {
            errors.push(end.invalid("field is immutable"));
        }
        let is_resumed = is_true(self.old, "Suspended")
            && read::condition(self.job, "Suspended").is_some_and(|it| read::text(it, "status") == "False");
        let had_start = read::value_at(self.old, "status.startTime").is_some_and(|it| !it.is_null());
        if self.changed.start && had_start && !is_resumed && !read::flag(self.job, "spec.suspend") {
            let shown = start.value().cloned().unwrap_or_default();
            let why = "field is immutable for unsuspended job once set";
            errors.push(FieldError::invalid(&start.path(), shown, why));
        }
        let was_met = is_true(self.old, "SuccessCriteriaMet");
        let is_met = self.has_true_condition("SuccessCriteriaMet");
        self.reject_conditions(
            was_met && !is_met,
            "cannot disable the SuccessCriteriaMet=True condition",
            errors,
        );
        let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        self.reject_conditions(is_true(self.old, "Complete") && !was_met && is_met, why, errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(spec: Value, old: Value, new: Value) -> Vec<String> {
        let job = |status: Value| {
            let mut status = status;
            if let Some(kinds) = status.get("is").cloned() {
                let kinds = kinds.as_array().unwrap().clone();
                let conditions: Vec<_> =
                    kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
                status["conditions"] = json!(conditions);
            }
            json!({"spec": spec, "status": status})
        };
        validate(&job(new), &job(old)).iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn finished_job_has_a_complete_status() {
        let (start, end) = ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        for (new, expected) in [
            (
                json!({"is": ["SuccessCriteriaMet", "Complete"], "startTime": start, "completionTime": end}),
                &[][..],
            ),
            (json!({"is": ["FailureTarget", "Failed"], "startTime": start}), &[]),
            (
                json!({"is": ["Complete"]}),
                &["status.completionTime", "status.conditions", "status.startTime"],
            ),
            (json!({"is": ["Failed"], "startTime": start}), &["status.conditions"]),
            (json!({"completionTime": end}), &["status.completionTime"]),
            (
                json!({"is": ["SuccessCriteriaMet", "Complete"], "startTime": end, "completionTime": start}),
                &["status.completionTime"],
            ),
            (
                json!({"is": ["FailureTarget", "Failed"], "startTime": start, "active": 1, "terminating": 1,
                    "uncountedTerminatedPods": {"failed": ["a"]}}),
                &["status.active", "status.uncountedTerminatedPods", "status.terminating"],
            ),
            (json!({"is": ["SuccessCriteriaMet", "FailureTarget"]}), &["status.conditions"]),
            (json!({"ready": 2, "active": 1}), &["status.ready"]),
            (
                json!({"uncountedTerminatedPods": {"succeeded": ["a", ""], "failed": ["a"]}}),
                &["status.uncountedTerminatedPods.succeeded[1]", "status.uncountedTerminatedPods.failed[0]"],
            ),
        ] {
            assert_eq!(fields(json!({}), json!({}), new.clone()), expected, "{new}");
        }
    }

    #[test]
    fn status_does_not_regress() {
        let time = "2026-01-01T00:00:00Z";
        for (old, new, expected) in [
            (json!({"succeeded": 2}), json!({"succeeded": 1}), &["status.succeeded"][..]),
            (json!({"failed": 2}), json!({}), &["status.failed"]),
            (json!({"is": ["FailureTarget"]}), json!({}), &["status.conditions"]),
            (json!({"startTime": time}), json!({}), &["status.startTime"]),
            (json!({}), json!({"succeeded": -1}), &["status.succeeded", "status.succeeded"]),
        ] {
            assert_eq!(fields(json!({}), old.clone(), new.clone()), expected, "{old} -> {new}");
        }
        let elastic = json!({"completionMode": "Indexed", "completions": 1, "parallelism": 1});
        assert_eq!(fields(elastic, json!({"succeeded": 2}), json!({"succeeded": 1})), [""; 0]);
    }

    #[test]
    fn indexes_are_below_completions() {
        let indexed = json!({"completionMode": "Indexed", "completions": 5, "backoffLimitPerIndex": 1});
        for (new, expected) in [
            (json!({"completedIndexes": "0,2", "failedIndexes": "1"}), &[][..]),
            (json!({"completedIndexes": "0-7"}), &["status.completedIndexes"]),
            (json!({"completedIndexes": "0-2", "failedIndexes": "1"}), &["status.failedIndexes"]),
        ] {
            assert_eq!(fields(indexed.clone(), json!({}), new.clone()), expected, "{new}");
        }
        let plain = json!({"completions": 5});
        let new = json!({"completedIndexes": "0", "failedIndexes": "1"});
        assert_eq!(fields(plain, json!({}), new), ["status.completedIndexes", "status.failedIndexes"]);
    }
}
