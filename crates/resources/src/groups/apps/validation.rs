//! Validation of deployments, replica sets and daemon sets (upstream: `pkg/apis/apps/validation`).

use nave_machinery::selector::LabelSelector;
use nave_machinery::{FieldError, Value};

use crate::groups::core::pod_spec::validation as pod_spec;
use crate::validate::{At, Errors, immutable, label_selector, not_negative};

pub(super) fn deployment(deployment: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(deployment);
    let spec = root.field("spec");
    not_negative(spec.field("replicas"), &mut errors);
    replicated(spec, &mut errors);
    deployment_strategy(spec.field("strategy"), &mut errors);
    not_negative(spec.field("minReadySeconds"), &mut errors);
    not_negative(spec.field("revisionHistoryLimit"), &mut errors);
    let deadline = spec.field("progressDeadlineSeconds");
    not_negative(deadline, &mut errors);
    if deadline
        .int()
        .is_some_and(|seconds| seconds <= spec.field("minReadySeconds").int().unwrap_or_default())
    {
        errors.push(deadline.invalid("must be greater than minReadySeconds"));
    }
    errors
}

pub(super) fn replica_set(replica_set: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(replica_set);
    let spec = root.field("spec");
    not_negative(spec.field("replicas"), &mut errors);
    not_negative(spec.field("minReadySeconds"), &mut errors);
    replicated(spec, &mut errors);
    errors
}

/// Checks the selector and the template.
fn replicated(spec: At, errors: &mut Errors) {
    selector(spec.field("selector"), "deployment", errors);
    let template = spec.field("template");
    if is_selected(spec, "invalid label selector", errors) {
        pod_spec::template(template, errors);
        pod_spec::runs_on(template, "ReplicaSet", errors);
    }
}

pub(super) fn daemon_set(daemon_set: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(daemon_set);
    let spec = root.field("spec");
    let template = spec.field("template");
    let selector = spec.field("selector");
    label_selector(selector, &mut errors);
    // An invalid selector is not reported twice.
    let mut mismatches = Errors::new();
    if is_selected(spec, "", &mut mismatches) {
        errors.extend(mismatches);
    }
    not_empty(selector, "daemonset", &mut errors);
    pod_spec::template(template, &mut errors);
    pod_spec::runs_on(template, "DaemonSet", &mut errors);
    not_negative(spec.field("minReadySeconds"), &mut errors);
    let strategy = spec.field("updateStrategy");
    match strategy.field("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => rolling_daemons(strategy.field("rollingUpdate"), &mut errors),
        _ => errors.push(
            strategy.with(strategy.field("type").value()).not_supported(&["RollingUpdate", "OnDelete"]),
        ),
    }
    not_negative(spec.field("revisionHistoryLimit"), &mut errors);
    errors
}

/// Validates an update of a workload with an immutable selector.
pub(super) fn updated(check: fn(&Value) -> Errors, new: &Value, old: &Value) -> Errors {
    let mut errors = check(new);
    let (root, old) = (At::root(new), At::root(old));
    let (spec, old_spec) = (root.field("spec"), old.field("spec"));
    immutable(spec.field("selector"), old_spec.field("selector"), &mut errors);
    errors
}

/// Checks that the selector is present, valid and not empty.
pub(super) fn selector(selector: At, kind: &str, errors: &mut Errors) {
    if !selector.is_set() {
        errors.push(selector.required(""));
        return;
    }
    label_selector(selector, errors);
    not_empty(selector, kind, errors);
}

fn not_empty(selector: At, kind: &str, errors: &mut Errors) {
    if selector.is_set()
        && selector.field("matchLabels").len() + selector.field("matchExpressions").len() == 0
    {
        errors.push(selector.invalid(format!("empty selector is invalid for {kind}")));
    }
}

/// Checks that the selector matches the template's labels. Returns whether the selector is valid.
pub(super) fn is_selected(spec: At, why_not: &str, errors: &mut Errors) -> bool {
    let (selector, template) = (spec.field("selector"), spec.field("template"));
    let metadata = template.field("metadata");
    let selects = match selector.value().filter(|_| selector.is_set()).map(LabelSelector::from_value) {
        None => false,
        Some(Ok(selector)) => {
            selector.matches(|key: &str| metadata.value()?.get("labels")?.get(key)?.as_str())
        }
        Some(Err(_)) => {
            errors.push(selector.invalid(why_not));
            return false;
        }
    };
    if !selects {
        let labels = metadata.field("labels");
        let shown = labels.value().cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(
            &labels.path(),
            shown,
            "`selector` does not match template `labels`",
        ));
    }
    true
}

fn deployment_strategy(strategy: At, errors: &mut Errors) {
    let rolling = strategy.field("rollingUpdate");
    match strategy.field("type").text() {
        "Recreate" => {
            if rolling.is_set() {
                errors.push(rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"));
            }
        }
        "RollingUpdate" if !rolling.is_set() => {
            errors.push(rolling.required("this should be defaulted and never be nil"));
        }
        "RollingUpdate" => rolling_replicas(rolling, errors),
        _ => errors.push(
            strategy.with(strategy.field("type").value()).not_supported(&["Recreate", "RollingUpdate"]),
        ),
    }
}

fn rolling_replicas(rolling: At, errors: &mut Errors) {
    let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    share(unavailable, errors);
    share(surge, errors);
    if share_value(unavailable) == 0 && share_value(surge) == 0 {
        let shown = unavailable.value().cloned().unwrap_or(Value::Null);
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(&unavailable.path(), shown, detail));
    }
    at_most_100_percent(unavailable, errors);
}

fn rolling_daemons(rolling: At, errors: &mut Errors) {
    if !rolling.is_set() {
        errors.push(rolling.required(""));
        return;
    }
    let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    for field in [unavailable, surge] {
        share(field, errors);
    }
    for field in [unavailable, surge] {
        at_most_100_percent(field, errors);
    }
    match (share_value(unavailable), share_value(surge)) {
        (0, 0) => errors.push(unavailable.required("cannot be 0 when maxSurge is 0")),
        (0, _) | (_, 0) => {}
        _ => errors.push(surge.invalid("may not be set when maxUnavailable is non-zero")),
    }
}

pub(super) fn at_most_100_percent(at: At, errors: &mut Errors) {
    if percent(at).is_some_and(|percent| percent > 100) {
        errors.push(at.invalid("must not be greater than 100%"));
    }
}

/// Returns the number of pods or the percentage; 0 for other values.
pub(super) fn share_value(at: At) -> i64 {
    at.int().or_else(|| percent(at)).unwrap_or_default()
}

fn percent(at: At) -> Option<i64> {
    let digits = at.text().strip_suffix('%').filter(|it| !it.is_empty());
    digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// Checks a number of pods or a percentage.
pub(crate) fn share(at: At, errors: &mut Errors) {
    if !matches!(at.value(), Some(Value::String(_))) {
        not_negative(at, errors);
    } else if percent(at).is_none() {
        errors.push(at.invalid("a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"));
    }
}
