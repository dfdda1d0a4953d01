//! Validation of the pod failure policy and the success policy of jobs.

use std::collections::HashSet;

use nave_machinery::{FieldError, names};

use super::indexes;
use crate::validate::{At, Errors, checked, not_negative};

const RULES_MAX: usize = 20;
const PATTERNS_MAX: usize = 20;
const VALUES_MAX: usize = 255;
const INDEXES_MAX: usize = 64 * 1024;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

/// Checks the pod failure policy of a job spec.
pub(super) fn failure(spec: At, errors: &mut Errors) {
    let policy = spec.field("podFailurePolicy");
    let rules = policy.field("rules");
    if rules.len() > RULES_MAX {
        errors.push(rules.too_many(RULES_MAX));
    }
    let template = spec.field("template");
    let pod = template.field("spec");
    let mut containers = HashSet::new();
    for kind in ["containers", "initContainers"] {
        containers.extend(pod.field(kind).items().map(|container| container.field("name").text()));
    }
    for rule in rules.items() {
        failure_rule(spec, rule, &containers, errors);
    }
}

fn failure_rule(spec: At, rule: At, containers: &HashSet<&str>, errors: &mut Errors) {
    let (action, codes, conditions) =
        (rule.field("action"), rule.field("onExitCodes"), rule.field("onPodConditions"));
    required_one_of(action, &ACTIONS, errors);
    if action.text() == "FailIndex" && !spec.field("backoffLimitPerIndex").is_set() {
        errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
    }
    if codes.is_set() {
        exit_codes(codes, containers, errors);
    }
    if conditions.len() > PATTERNS_MAX {
        errors.push(conditions.too_many(PATTERNS_MAX));
    }
    for pattern in conditions.items() {
        checked(pattern.field("type"), names::is_qualified_name, errors);
        required_one_of(pattern.field("status"), &["False", "True", "Unknown"], errors);
    }
    let why = match (codes.is_set(), conditions.len() > 0) {
        (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(FieldError::invalid(&rule.path(), serde_json::Value::Null, why));
}

fn required_one_of(at: At, supported: &[&str], errors: &mut Errors) {
    if at.text().is_empty() {
        // Upstream formats the list as Go does.
        let quoted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        errors.push(at.required(format!("valid values: [{}]", quoted.join(" "))));
    } else if !supported.contains(&at.text()) {
        errors.push(at.not_supported(supported));
    }
}

fn exit_codes(codes: At, containers: &HashSet<&str>, errors: &mut Errors) {
    let (operator, container, values) =
        (codes.field("operator"), codes.field("containerName"), codes.field("values"));
    required_one_of(operator, &["In", "NotIn"], errors);
    if container.is_set() && !containers.contains(container.text()) {
        let why = "must be one of the container or initContainer names in the pod template";
        errors.push(container.invalid_text(why));
    }
    let shown = || values.value().cloned().unwrap_or_default();
    if values.len() == 0 {
        errors.push(FieldError::invalid(&values.path(), shown(), "at least one value is required"));
    } else if values.len() > VALUES_MAX {
        errors.push(values.too_many(VALUES_MAX));
    }
    let mut seen = HashSet::new();
    let (mut last, mut is_ordered) = (i64::MIN, true);
    for value in values.items() {
        let number = value.int().unwrap_or_default();
        if operator.text() == "In" && number == 0 {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        if !seen.insert(number) {
            errors.push(value.duplicate());
        }
        is_ordered &= last <= number;
        last = number;
    }
    if !is_ordered {
        errors.push(FieldError::invalid(&values.path(), shown(), "must be ordered"));
    }
}

/// Checks the success policy of an indexed job's spec.
pub(super) fn success(spec: At, errors: &mut Errors) {
    let policy = spec.field("successPolicy");
    let rules = policy.field("rules");
    if rules.len() == 0 {
        let why = "at least one rules must be specified when the successPolicy is specified";
        errors.push(rules.required(why));
    }
    if rules.len() > RULES_MAX {
        errors.push(rules.too_many(RULES_MAX));
    }
    let completions = spec.field("completions").int().unwrap_or_default();
    rules.items().for_each(|rule| success_rule(rule, completions, errors));
}

fn success_rule(rule: At, completions: i64, errors: &mut Errors) {
    let (count, listed) = (rule.field("succeededCount"), rule.field("succeededIndexes"));
    if !count.is_set() && !listed.is_set() {
        let why = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(rule.required(why));
    }
    let mut total = 0;
    if listed.is_set() {
        if listed.text().len() > INDEXES_MAX {
            errors.push(FieldError::too_long(&listed.path(), INDEXES_MAX));
        }
        match indexes::count(listed.text(), completions) {
            Ok(count) => total = count,
            Err(why) => errors.push(listed.invalid(format!("error parsing succeededIndexes: {why}"))),
        }
    }
    not_negative(count, errors);
    let Some(number) = count.int() else { return };
    let at_most = |most: i64, what: &str| {
        count.invalid(format!("must be less than or equal to {most} (the number of {what})"))
    };
    if number > completions {
        errors.push(at_most(completions, "specified completions"));
    }
    if listed.is_set() && number > total {
        errors.push(at_most(total, "indexes in the specified succeededIndexes field"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::testing::fields;

    #[test]
    fn rejects_invalid_failure_rules() {
        let path = |field: &str| format!("spec.podFailurePolicy.rules[0]{field}");
        for (rule, expected) in [
            (json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2]}}), vec![]),
            (json!({"action": "Ignore", "onPodConditions": [{"type": "a", "status": "True"}]}), vec![]),
            (json!({}), vec![path(".action"), path("")]),
            (
                json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [2, 0, 0], "containerName": "x"}}),
                vec![
                    path(".action"),
                    path(".onExitCodes.containerName"),
                    path(".onExitCodes.values[1]"),
                    path(".onExitCodes.values[2]"),
                    path(".onExitCodes.values[2]"),
                    path(".onExitCodes.values"),
                ],
            ),
            (
                json!({"action": "x", "onPodConditions": [{"type": "a b"}]}),
                vec![path(".action"), path(".onPodConditions[0].type"), path(".onPodConditions[0].status")],
            ),
        ] {
            let spec = json!({"podFailurePolicy": {"rules": [rule]}});
            assert_eq!(fields(failure, spec), expected, "{rule}");
        }
    }

    #[test]
    fn success_rules_refer_to_existing_indexes() {
        let path = |field: &str| format!("spec.successPolicy.rules[0]{field}");
        for (rule, expected) in [
            (json!({"succeededCount": 2, "succeededIndexes": "0-2"}), vec![]),
            (json!({}), vec![path("")]),
            (json!({"succeededCount": 9}), vec![path(".succeededCount")]),
            (json!({"succeededCount": 3, "succeededIndexes": "0,1"}), vec![path(".succeededCount")]),
            (json!({"succeededIndexes": "0,x"}), vec![path(".succeededIndexes")]),
        ] {
            let spec = json!({"completions": 5, "successPolicy": {"rules": [rule]}});
            assert_eq!(fields(success, spec), expected, "{rule}");
        }
        assert_eq!(fields(success, json!({"successPolicy": {}})), ["spec.successPolicy.rules"]);
    }
}
