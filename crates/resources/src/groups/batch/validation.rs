//! Validation of jobs (upstream: `pkg/apis/batch/validation`).

use nave_machinery::selector::LabelSelector;
use nave_machinery::{FieldError, FieldPath, Value, meta, names};

use super::policies;
use crate::groups::core::pod_spec::validation as pod_spec;
use crate::validate::{At, Errors, absent_or_one_of, label_selector, not_negative, one_of};

const REPLACEMENTS: [&str; 2] = ["Failed", "TerminatingOrFailed"];
const MANAGED_BY_MAX: usize = 63;
const INDEXED_MAX: i64 = 100_000;
/// The number of completions above which other numbers have lower limits.
const MANY_COMPLETIONS: i64 = 100_000;
const WITH_MANY_COMPLETIONS_MAX: i64 = 10_000;
const NEEDS_INDEXES: &str = "requires indexed completion mode";

/// Validates a job. `has_batch_labels` is false for a job created before pod labels had prefixes.
pub(super) fn job(job: &Value, has_batch_labels: bool) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(job);
    let (metadata, spec) = (root.field("metadata"), root.field("spec"));
    generated_selector(job, spec, has_batch_labels, &mut errors);
    job_spec_with_selector(spec, &mut errors);
    let completions = spec.field("completions").int().unwrap_or_default();
    if spec.field("completionMode").text() == "Indexed" && completions > 0 {
        let name = metadata.field("name");
        let last = format!("{}-{}", name.text(), completions - 1);
        if !names::is_dns1123_label(&last).is_empty() {
            let why = format!("will not able to create pod with invalid DNS label: {last}");
            errors.push(name.invalid_text(why));
        }
    }
    errors
}

/// Checks that a generated selector and its labels contain the job's UID and name.
fn generated_selector(job: &Value, spec: At, has_batch_labels: bool, errors: &mut Errors) {
    let selector = spec.field("selector");
    if spec.field("manualSelector").flag() || !selector.is_set() {
        return;
    }
    let (uid, name) = (meta::uid(job), meta::name(job));
    if uid.is_empty() {
        errors.push(FieldError::required(&FieldPath::new("metadata").child("uid"), ""));
    }
    let template = spec.field("template");
    let metadata = template.field("metadata");
    let labels = metadata.field("labels");
    let expected = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    let expected = &expected[..if has_batch_labels { 4 } else { 2 }];
    for (key, value) in expected {
        let at = labels.key(key);
        let why = format!("must be '{value}'");
        if !at.is_set() {
            errors.push(at.required(why));
        } else if at.text() != *value {
            let shown = labels.value().cloned().unwrap_or_default();
            errors.push(FieldError::invalid(&at.path(), shown, why));
        }
    }
    let label = |key: &str| expected.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
    if !matches(selector, label) {
        errors.push(selector.invalid("`selector` not auto-generated"));
    }
}

/// Returns whether a selector matches labels. Another check reports malformed selectors.
fn matches<'a>(selector: At, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    match selector.value() {
        None => false,
        Some(selector) => {
            LabelSelector::from_value(selector).map_or(true, |selector| selector.matches(label))
        }
    }
}

/// Validates the spec of a stored job, including the selector.
pub(super) fn job_spec_with_selector(spec: At, errors: &mut Errors) {
    job_spec(spec, errors);
    let selector = spec.field("selector");
    if !selector.is_set() {
        errors.push(selector.required(""));
    }
    label_selector(selector, errors);
    let template = spec.field("template");
    let metadata = template.field("metadata");
    let labels = metadata.field("labels");
    let label = |key: &str| labels.value()?.get(key)?.as_str();
    if !matches(selector, label) {
        let shown = labels.value().cloned().unwrap_or_default();
        let why = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&labels.path(), shown, why));
    }
}

/// Validates the parts shared by jobs and the job templates of cron jobs.
pub(super) fn job_spec(spec: At, errors: &mut Errors) {
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
    let (per_index, failed) = (spec.field("backoffLimitPerIndex"), spec.field("maxFailedIndexes"));
    if failed.is_set() && !per_index.is_set() {
        errors.push(per_index.required("when maxFailedIndexes is specified"));
    }
    managed_by(spec.field("managedBy"), errors);
    let mode = spec.field("completionMode");
    absent_or_one_of(mode, &["NonIndexed", "Indexed"], errors);
    match mode.text() {
        "Indexed" => indexed(spec, errors),
        "" | "NonIndexed" => {
            let indexes = [per_index, failed].into_iter().filter(At::is_set);
            errors.extend(indexes.map(|at| at.invalid(NEEDS_INDEXES)));
        }
        _ => {}
    }
    if spec.field("podFailurePolicy").is_set() {
        policies::failure(spec, errors);
    }
    let success = spec.field("successPolicy");
    if success.is_set() && mode.text() == "Indexed" {
        policies::success(spec, errors);
    } else if success.is_set() {
        errors.push(success.invalid(NEEDS_INDEXES));
    }
    let replacement = spec.field("podReplacementPolicy");
    if spec.field("podFailurePolicy").is_set() {
        absent_or_one_of(replacement, &["Failed"], errors);
    } else {
        absent_or_one_of(replacement, &REPLACEMENTS, errors);
    }
    pod_spec::template(spec.field("template"), errors);
    restart_policy(spec, errors);
}

fn managed_by(at: At, errors: &mut Errors) {
    if !at.is_set() {
        return;
    }
    if at.text().is_empty() {
        errors.push(at.required(""));
    } else if let Some((domain, path)) =
        at.text().split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    {
        let found = names::is_dns1123_subdomain(domain);
        errors.extend(found.into_iter().map(|why| FieldError::invalid(&at.path(), domain, why)));
        let is_path = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
        if !path.bytes().all(is_path) {
            errors.push(FieldError::invalid(&at.path(), path, "Invalid path"));
        }
    } else {
        errors.push(at.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"));
    }
    if at.text().len() > MANAGED_BY_MAX {
        errors.push(FieldError::too_long(&at.path(), MANAGED_BY_MAX));
    }
}

fn indexed(spec: At, errors: &mut Errors) {
    let (completions, parallelism) = (spec.field("completions"), spec.field("parallelism"));
    let (per_index, failed) = (spec.field("backoffLimitPerIndex"), spec.field("maxFailedIndexes"));
    let at_most = |at: At, max: i64, more: &str| {
        let why = format!("must be less than or equal to {max}{more}");
        at.int().filter(|number| *number > max).map(|_| at.invalid(why))
    };
    if !completions.is_set() {
        errors.push(completions.required("when completion mode is Indexed"));
    }
    errors.extend(at_most(parallelism, INDEXED_MAX, " when completion mode is Indexed"));
    if let (Some(most), Some(number)) = (completions.int(), failed.int())
        && number > most
    {
        errors.push(failed.invalid("must be less than or equal to completions"));
    }
    errors.extend(at_most(failed, INDEXED_MAX, ""));
    if completions.int().is_some_and(|number| number > MANY_COMPLETIONS) && per_index.is_set() {
        let many =
            format!(" when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
        if !failed.is_set() {
            let why = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            errors.push(failed.required(why));
        }
        errors.extend(at_most(parallelism, WITH_MANY_COMPLETIONS_MAX, &many));
        errors.extend(at_most(failed, WITH_MANY_COMPLETIONS_MAX, &many));
    }
}

fn restart_policy(spec: At, errors: &mut Errors) {
    let template = spec.field("template");
    let pod = template.field("spec");
    let policy = pod.field("restartPolicy");
    match policy.text() {
        "" | "Always" => {
            errors.push(FieldError::required(&policy.path(), "valid values: \"OnFailure\", \"Never\""));
        }
        "Never" => {}
        "OnFailure" if spec.field("podFailurePolicy").is_set() => {
            errors.push(policy.invalid("only \"Never\" is supported when podFailurePolicy is specified"));
        }
        _ => one_of(policy, &["OnFailure", "Never"], errors),
    }
}

/// Validates the job template of a cron job.
pub(super) fn job_template(template: At, errors: &mut Errors) {
    let spec = template.field("spec");
    job_spec(spec, errors);
    if spec.field("selector").is_set() {
        errors.push(spec.field("selector").invalid("`selector` will be auto-generated"));
    }
    if spec.field("manualSelector").flag() {
        errors.push(spec.field("manualSelector").not_supported(&["nil", "false"]));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A valid job with additional fields in its spec.
    pub(in super::super) fn job_with(more: Value) -> Value {
        let container = json!({"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"});
        let labels = json!({"controller-uid": "u", "job-name": "j",
            "batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j"});
        let mut spec = json!({
            "completions": 2, "parallelism": 1,
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
            "template": {"metadata": {"labels": labels}, "spec": {
                "containers": [container], "restartPolicy": "Never", "dnsPolicy": "Default",
                "terminationGracePeriodSeconds": 30,
            }},
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": "j", "uid": "u"}, "spec": spec})
    }

    pub(in super::super) fn fields(errors: &Errors) -> Vec<String> {
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn counts_of_a_job_are_consistent() {
        for (more, expected) in [
            (json!({}), &[][..]),
            (json!({"completionMode": "Indexed", "maxFailedIndexes": 1, "backoffLimitPerIndex": 1}), &[]),
            (json!({"maxFailedIndexes": 1}), &["spec.backoffLimitPerIndex", "spec.maxFailedIndexes"]),
            (json!({"completionMode": "Indexed", "completions": null}), &["spec.completions"]),
            (json!({"completionMode": "Indexed", "parallelism": 100_001}), &["spec.parallelism"]),
            (
                json!({"completionMode": "x", "podReplacementPolicy": "y"}),
                &["spec.completionMode", "spec.podReplacementPolicy"],
            ),
            (
                json!({"completionMode": "Indexed", "completions": 200_000, "backoffLimitPerIndex": 1, "parallelism": 20_000}),
                &["spec.maxFailedIndexes", "spec.parallelism"],
            ),
            (json!({"successPolicy": {}}), &["spec.successPolicy"]),
            (json!({"managedBy": "x"}), &["spec.managedBy"]),
            (json!({"managedBy": "example.com/x"}), &[]),
            (json!({"selector": null}), &["spec.selector", "spec.template.metadata.labels"]),
            (
                json!({"selector": {"matchLabels": {"a": "b"}}}),
                &["spec.selector", "spec.template.metadata.labels"],
            ),
        ] {
            assert_eq!(fields(&job(&job_with(more.clone()), true)), expected, "{more}");
        }
    }

    #[test]
    fn generated_selector_requires_the_labels_of_the_job() {
        let mut other = job_with(json!({}));
        other["spec"]["template"]["metadata"]["labels"]["job-name"] = json!("other");
        assert_eq!(fields(&job(&other, true)), ["spec.template.metadata.labels[job-name]"]);
        let mut long = job_with(json!({"completionMode": "Indexed"}));
        long["metadata"]["name"] = json!("x".repeat(63));
        assert!(fields(&job(&long, true)).contains(&"metadata.name".to_owned()));
    }

    #[test]
    fn restart_policy_must_not_be_always() {
        for (policy, expected) in [("Always", 1), ("OnFailure", 0), ("x", 2)] {
            let mut always = job_with(json!({}));
            always["spec"]["template"]["spec"]["restartPolicy"] = json!(policy);
            assert_eq!(job(&always, true).len(), expected, "{policy}");
        }
    }
}
