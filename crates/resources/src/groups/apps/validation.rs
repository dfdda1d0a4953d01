//! What workloads must be (upstream: `pkg/apis/apps/validation`).

use nave_machinery::selector::LabelSelector;
use nave_machinery::{FieldError, Value, meta};

use crate::groups::core::pod_spec::validation::running_template;
use crate::validate::{At, Errors, immutable, label_selector, not_negative, one_of};

pub(super) fn deployment(deployment: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(deployment);
    let spec = root.field("spec");
    not_negative(spec.field("replicas"), &mut errors);
    selector_and_template(spec, &mut errors);
    let strategy = spec.field("strategy");
    one_of(strategy.field("type"), &["Recreate", "RollingUpdate"], &mut errors);
    let rolling = strategy.field("rollingUpdate");
    if strategy.field("type").text() == "Recreate" && rolling.is_set() {
        errors.push(rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"));
    }
    rolling_update(rolling, &mut errors);
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        not_negative(spec.field(field), &mut errors);
    }
    let (deadline, ready) = (spec.field("progressDeadlineSeconds"), spec.field("minReadySeconds"));
    if deadline.int().is_some_and(|deadline| deadline <= ready.int().unwrap_or(0)) {
        errors.push(deadline.invalid("must be greater than minReadySeconds"));
    }
    errors
}

pub(super) fn replica_set(set: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(set);
    let spec = root.field("spec");
    not_negative(spec.field("replicas"), &mut errors);
    not_negative(spec.field("minReadySeconds"), &mut errors);
    selector_and_template(spec, &mut errors);
    errors
}

pub(super) fn daemon_set(set: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(set);
    let spec = root.field("spec");
    selector_and_template(spec, &mut errors);
    one_of(spec.field("updateStrategy").field("type"), &["OnDelete", "RollingUpdate"], &mut errors);
    rolling_update(spec.field("updateStrategy").field("rollingUpdate"), &mut errors);
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        not_negative(spec.field(field), &mut errors);
    }
    errors
}

pub(super) fn stateful_set(set: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(set);
    let spec = root.field("spec");
    one_of(spec.field("podManagementPolicy"), &["OrderedReady", "Parallel"], &mut errors);
    one_of(spec.field("updateStrategy").field("type"), &["OnDelete", "RollingUpdate"], &mut errors);
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        not_negative(spec.field(field), &mut errors);
    }
    selector_and_template(spec, &mut errors);
    errors
}

/// What of a stateful set may change after it was created.
const STATEFUL_SET_CHANGES: [&str; 9] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "serviceName",
    "volumeClaimTemplates",
];
const STATEFUL_SET_RULE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

pub(super) fn stateful_set_update(new: &Value, old: &Value) -> Errors {
    let mut errors = stateful_set(new);
    let root = At::root(new);
    let fixed = |set: &Value| -> Vec<(String, Value)> {
        let fields = set.get("spec").and_then(Value::as_object).into_iter().flatten();
        let is_fixed = |name: &str| {
            !STATEFUL_SET_CHANGES.contains(&name) || matches!(name, "serviceName" | "volumeClaimTemplates")
        };
        fields.filter(|(name, _)| is_fixed(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    if fixed(new) != fixed(old) {
        errors.push(root.field("spec").forbidden(STATEFUL_SET_RULE));
    }
    errors
}

/// The rules of a new object, and that the selector stays.
pub(super) fn updated(rules: fn(&Value) -> Errors, new: &Value, old: &Value) -> Errors {
    let mut errors = rules(new);
    let (root, old) = (At::root(new), At::root(old));
    immutable(root.field("spec").field("selector"), old.field("spec").field("selector"), &mut errors);
    errors
}

/// The numbers of a status.
pub(super) fn counts(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let status = root.field("status");
    for field in [
        "replicas",
        "readyReplicas",
        "availableReplicas",
        "updatedReplicas",
        "unavailableReplicas",
        "fullyLabeledReplicas",
        "currentReplicas",
        "observedGeneration",
        "collisionCount",
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
    ] {
        not_negative(status.field(field), &mut errors);
    }
    errors
}

fn rolling_update(rolling: At, errors: &mut Errors) {
    for field in ["maxUnavailable", "maxSurge"] {
        let at = rolling.field(field);
        match at.value() {
            Some(Value::Number(_)) => not_negative(at, errors),
            Some(Value::String(text)) if !is_percent(text) => {
                errors.push(at.invalid("must be an integer or percentage (e.g '5%')"));
            }
            _ => {}
        }
    }
}

fn is_percent(text: &str) -> bool {
    text.strip_suffix('%')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// A workload selects the pods that its own template makes.
fn selector_and_template(spec: At, errors: &mut Errors) {
    let (selector, template) = (spec.field("selector"), spec.field("template"));
    let empty = selector.field("matchLabels").len() + selector.field("matchExpressions").len() == 0;
    if !selector.is_set() {
        errors.push(selector.required(""));
    } else if empty {
        errors.push(selector.invalid("empty selector is invalid for deployment"));
    } else {
        label_selector(selector, errors);
    }
    if !template.is_set() {
        errors.push(template.required(""));
        return;
    }
    if let (false, Some(value), Some(pod)) = (empty, selector.value(), template.value())
        && let Ok(selector) = LabelSelector::from_value(value)
        && !selector.matches(|key| meta::label(pod, key))
    {
        let metadata = template.field("metadata");
        let labels = metadata.field("labels");
        let shown = labels.value().cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(
            &labels.path(),
            shown,
            "`selector` does not match template `labels`",
        ));
    }
    running_template(template, errors);
}
