//! What workloads must be (upstream: `pkg/apis/apps/validation`).

use nave_machinery::selector::LabelSelector;
use nave_machinery::{FieldError, Value};

use crate::groups::core::{claim_spec, pod_spec::validation as pod_spec};
use crate::validate::{At, Errors, immutable, label_selector, not_negative, one_of, required_text};

const UPDATE_FIXED: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
/// The fields of a stateful set's spec that may change.
const UPDATABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn deployment(deployment: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(deployment);
    let spec = root.field("spec");
    not_negative(spec.field("replicas"), &mut errors);
    selector(spec, &mut errors);
    selected_template(spec, &mut errors);
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
    selector(spec, &mut errors);
    selected_template(spec, &mut errors);
    errors
}

pub(super) fn daemon_set(daemon_set: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(daemon_set);
    let spec = root.field("spec");
    selector(spec, &mut errors);
    selected_template(spec, &mut errors);
    not_negative(spec.field("minReadySeconds"), &mut errors);
    let strategy = spec.field("updateStrategy");
    match strategy.field("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => rolling(strategy, &mut errors),
        _ => errors.push(strategy.field("type").not_supported(&["RollingUpdate", "OnDelete"])),
    }
    not_negative(spec.field("revisionHistoryLimit"), &mut errors);
    errors
}

pub(super) fn stateful_set(stateful_set: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(stateful_set);
    let spec = root.field("spec");
    let policy = spec.field("podManagementPolicy");
    match policy.text() {
        "" => errors.push(policy.required("")),
        "OrderedReady" | "Parallel" => {}
        _ => errors.push(policy.invalid("must be 'OrderedReady' or 'Parallel'")),
    }
    let strategy = spec.field("updateStrategy");
    match strategy.field("type").text() {
        "" => errors.push(strategy.required("")),
        "OnDelete" => {
            if strategy.field("rollingUpdate").is_set() {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                errors.push(strategy.field("rollingUpdate").invalid(detail));
            }
        }
        "RollingUpdate" => {
            let rolling = strategy.field("rollingUpdate");
            not_negative(rolling.field("partition"), &mut errors);
        }
        _ => errors.push(strategy.invalid("must be 'RollingUpdate' or 'OnDelete'")),
    }
    let retention = spec.field("persistentVolumeClaimRetentionPolicy");
    for when in ["whenDeleted", "whenScaled"] {
        one_of(retention.field(when), &["Retain", "Delete"], &mut errors);
    }
    not_negative(spec.field("replicas"), &mut errors);
    not_negative(spec.field("minReadySeconds"), &mut errors);
    for claim in spec.field("volumeClaimTemplates").items() {
        claim_spec(claim.field("spec"), &mut errors);
    }
    selector(spec, &mut errors);
    selected_template(spec, &mut errors);
    errors
}

pub(super) fn stateful_set_update(new: &Value, old: &Value) -> Errors {
    let mut errors = stateful_set(new);
    let root = At::root(new);
    let (Some(fields), Some(old)) = (root.field("spec").map(), old.get("spec").and_then(Value::as_object))
    else {
        return errors;
    };
    let mut names = fields.keys().chain(old.keys()).filter(|name| !UPDATABLE.contains(&name.as_str()));
    if names.any(|name| fields.get(name) != old.get(name)) {
        errors.push(root.field("spec").forbidden(UPDATE_FIXED));
    }
    errors
}

/// An update of a workload whose selector is for life.
pub(super) fn updated(check: fn(&Value) -> Errors, new: &Value, old: &Value) -> Errors {
    let mut errors = check(new);
    let (root, old) = (At::root(new), At::root(old));
    let (spec, old_spec) = (root.field("spec"), old.field("spec"));
    immutable(spec.field("selector"), old_spec.field("selector"), &mut errors);
    errors
}

/// The numbers of a status, none of which can be negative.
pub(super) fn counts(workload: &Value) -> Errors {
    let root = At::root(workload);
    let status = root.field("status");
    let mut errors = Errors::new();
    for (name, value) in status.map().into_iter().flatten() {
        if value.as_i64().is_some_and(|number| number < 0) {
            let path = status.path().child(name);
            errors.push(FieldError::invalid(&path, value.clone(), crate::validate::NOT_NEGATIVE));
        }
    }
    errors
}

/// A selector must be there, be one, and select something in particular. One that says nothing counts as absent.
fn selector(spec: At, errors: &mut Errors) {
    let selector = spec.field("selector");
    if selects_nothing(selector) {
        errors.push(selector.required(""));
    } else {
        label_selector(selector, errors);
    }
}

fn selects_nothing(selector: At) -> bool {
    selector.field("matchLabels").len() + selector.field("matchExpressions").len() == 0
}

/// The template's pods must be selected, and run on.
fn selected_template(spec: At, errors: &mut Errors) {
    let template = spec.field("template");
    let metadata = template.field("metadata");
    let selector = spec.field("selector").value().map(LabelSelector::from_value);
    let label = |key: &str| metadata.value()?.get("labels")?.get(key)?.as_str();
    // What is no selector selects nothing; why it is none has been said.
    if selects_nothing(spec.field("selector"))
        || selector.is_some_and(|it| it.is_ok_and(|selector| !selector.matches(label)))
    {
        let labels = metadata.field("labels");
        let shown = labels.value().cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(
            &labels.path(),
            shown,
            "`selector` does not match template `labels`",
        ));
    }
    pod_spec::running_template(template, errors);
}

fn deployment_strategy(strategy: At, errors: &mut Errors) {
    match strategy.field("type").text() {
        "Recreate" => {
            let rolling = strategy.field("rollingUpdate");
            if rolling.is_set() {
                errors.push(rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"));
            }
        }
        "RollingUpdate" => rolling(strategy, errors),
        "" => drop(required_text(strategy.field("type"), errors)),
        _ => errors.push(strategy.field("type").not_supported(&["Recreate", "RollingUpdate"])),
    }
}

fn rolling(strategy: At, errors: &mut Errors) {
    let rolling = strategy.field("rollingUpdate");
    if !rolling.is_set() {
        errors.push(rolling.required("this should be defaulted and never be nil"));
        return;
    }
    let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    let (most, more) = (share(unavailable, errors), share(surge, errors));
    if most == Some(0) && more == Some(0) {
        let shown = unavailable.value().cloned().unwrap_or(Value::Null);
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(&unavailable.path(), shown, detail));
    }
    if let Some(Value::String(_)) = unavailable.value()
        && most.is_some_and(|percent| percent > 100)
    {
        errors.push(unavailable.invalid("must not be greater than 100%"));
    }
}

/// A number of pods, or a percentage of them; `None` if it is neither.
pub(crate) fn share(at: At, errors: &mut Errors) -> Option<i64> {
    let Value::String(text) = at.value()? else {
        not_negative(at, errors);
        return at.int();
    };
    let digits = text.strip_suffix('%').filter(|it| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit()));
    let percent = digits.and_then(|digits| digits.parse().ok());
    if percent.is_none() {
        errors.push(at.invalid("a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"));
    }
    percent
}
