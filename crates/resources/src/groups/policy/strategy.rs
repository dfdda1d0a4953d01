//! Validation of pod disruption budgets (upstream: `pkg/apis/policy/validation`).

use nave_machinery::Value;

use crate::conditions::conditions;
use crate::strategy::Strategy;
use crate::validate::{At, Errors, absent_or_one_of, label_selector, not_negative};

/// The strategy of disruption budgets.
pub(super) struct BudgetStrategy;

impl Strategy for BudgetStrategy {
    fn validate(&self, budget: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(budget);
        let spec = root.field("spec");
        let (least, most) = (spec.field("minAvailable"), spec.field("maxUnavailable"));
        if least.is_set() && most.is_set() {
            errors.push(spec.invalid("minAvailable and maxUnavailable cannot be both set"));
        }
        amount(least, &mut errors);
        amount(most, &mut errors);
        label_selector(spec.field("selector"), &mut errors);
        absent_or_one_of(
            spec.field("unhealthyPodEvictionPolicy"),
            &["AlwaysAllow", "IfHealthyBudget"],
            &mut errors,
        );
        errors
    }

    fn validate_status_update(&self, budget: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(budget);
        let status = root.field("status");
        conditions(status.field("conditions"), &mut errors);
        for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            not_negative(status.field(field), &mut errors);
        }
        errors
    }
}

/// Checks a number of pods, or a percentage of at most 100.
fn amount(at: At, errors: &mut Errors) {
    let Some(text) = at.value().and_then(Value::as_str) else {
        not_negative(at, errors);
        return;
    };
    let digits =
        text.strip_suffix('%').filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()) && !it.is_empty());
    match digits.map(str::parse::<u64>) {
        // Upstream treats numbers that exceed 64 bits as the maximum.
        Some(Err(_) | Ok(101..)) => errors.push(at.invalid("must not be greater than 100%")),
        Some(Ok(_)) => {}
        None => errors.push(at.invalid(
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn budget_has_one_valid_amount() {
        let validate = |spec: Value| {
            let errors = BudgetStrategy.validate(&json!({"spec": spec}));
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for spec in [json!({}), json!({"minAvailable": 1}), json!({"maxUnavailable": "100%"})] {
            assert_eq!(validate(spec), [""; 0]);
        }
        let both = validate(json!({"minAvailable": 1, "maxUnavailable": 1}));
        assert!(both.len() == 1 && both[0].ends_with("minAvailable and maxUnavailable cannot be both set"));
        assert_eq!(
            validate(json!({"minAvailable": -1})),
            ["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"]
        );
        assert_eq!(
            validate(json!({"minAvailable": "101%"})),
            [r#"spec.minAvailable: Invalid value: "101%": must not be greater than 100%"#]
        );
        for text in ["few", ""] {
            assert!(
                validate(json!({"maxUnavailable": text}))[0].contains("a valid percent string"),
                "{text}"
            );
        }
        assert!(
            validate(json!({"unhealthyPodEvictionPolicy": "No"}))[0]
                .starts_with(r#"spec.unhealthyPodEvictionPolicy: Unsupported value: "No""#)
        );
    }
}
