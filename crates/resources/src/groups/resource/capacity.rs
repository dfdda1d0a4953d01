//! Validation of request policies for device capacities (upstream: `pkg/apis/resource/validation`).

use std::collections::HashSet;

use nave_machinery::quantity::Quantity;

use crate::validate::{At, Errors, quantity};

const OPTIONS_MAX: usize = 10;

/// Checks the request policy of a capacity whose value is `most`.
pub(super) fn policy(policy: At, most: At, errors: &mut Errors) {
    let (values, range, default) =
        (policy.field("validValues"), policy.field("validRange"), policy.field("default"));
    match (values.len() > 0, range.is_set()) {
        (true, true) => errors.push(policy.forbidden(
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
        )),
        (true, false) | (false, true) => {
            let field = if range.is_set() { "validRange" } else { "validValues" };
            match (quantity(default), quantity(most).unwrap_or(Quantity::from_value(0))) {
                (None, _) => errors.push(default.required(format!("required when {field} is defined"))),
                (Some(default), most) if range.is_set() => self::range(range, default, most, errors),
                (Some(default), most) => options(values, default, most, errors),
            }
        }
        (false, false) => {}
    }
}

/// Checks that the valid values are ascending, unique and at most `most`, and include the default.
fn options(values: At, default: Quantity, most: Quantity, errors: &mut Errors) {
    let amounts: Vec<(At, Quantity)> = values.items().filter_map(|it| Some((it, quantity(it)?))).collect();
    for pair in amounts.windows(2) {
        if let [(_, before), (at, amount)] = pair
            && before > amount
        {
            errors.push(at.invalid("values must be sorted in ascending order"));
        }
    }
    if values.len() > OPTIONS_MAX {
        errors.push(values.too_many(OPTIONS_MAX));
    } else {
        for (at, amount) in &amounts {
            if *amount > most {
                errors.push(at.invalid(format!("option is larger than capacity value: {most}")));
            }
        }
        let mut seen = HashSet::new();
        for (at, _) in amounts.iter().filter(|(_, amount)| !seen.insert(amount.value())) {
            errors.push(at.duplicate());
        }
    }
    if values.len() > OPTIONS_MAX || !amounts.iter().any(|(_, amount)| amount.is_same_amount(default)) {
        errors.push(values.invalid("default value is not valid according to the requestPolicy"));
    }
}

fn range(range: At, default: Quantity, most: Quantity, errors: &mut Errors) {
    let (min, max, step) = (range.field("min"), range.field("max"), range.field("step"));
    let Some(lowest) = quantity(min) else {
        errors.push(min.required("required when validRange is defined"));
        return;
    };
    let mut wrong = |holds: bool, at: At, why: String| {
        if holds {
            errors.push(at.invalid(why));
        }
    };
    wrong(lowest > most, min, format!("min is larger than capacity value: {most}"));
    wrong(default < lowest, min, format!("default is less than min: {lowest}"));
    let highest = quantity(max);
    if let Some(highest) = highest {
        wrong(lowest > highest, max, format!("min is larger than max: {highest}"));
        wrong(highest > most, max, format!("max is larger than capacity value: {most}"));
        wrong(default > highest, max, format!("default is more than max: {highest}"));
    }
    if let Some(each) = quantity(step) {
        let one = lowest + each;
        wrong(one > most, step, format!("one step {one} is larger than capacity value: {most}"));
        for amount in [Some(default), highest].into_iter().flatten() {
            let rest = amount.value().saturating_sub(lowest.value()).checked_rem(each.value());
            let why = format!("value {amount} is not a multiple of a given step ({each}) from ({lowest})");
            wrong(rest != Some(0), step, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn policy_has_values_or_range() {
        for (policy, expected) in [
            (json!({}), &[][..]),
            (json!({"default": "1", "validValues": ["1", "2"]}), &[]),
            (json!({"validValues": ["1"]}), &["policy.default"]),
            (
                json!({"default": "5", "validValues": ["3", "1", "1", "11"]}),
                &[
                    "policy.validValues[1]",
                    "policy.validValues[3]",
                    "policy.validValues[2]",
                    "policy.validValues",
                ],
            ),
            (json!({"default": "1", "validValues": ["1"], "validRange": {}}), &["policy"]),
            (json!({"default": "2", "validRange": {"min": "2", "max": "10", "step": "2"}}), &[]),
            (json!({"default": "1", "validRange": {}}), &["policy.validRange.min"]),
            (
                json!({"default": "3", "validRange": {"min": "4", "max": "2", "step": "0"}}),
                &[
                    "policy.validRange.min",
                    "policy.validRange.max",
                    "policy.validRange.max",
                    "policy.validRange.step",
                    "policy.validRange.step",
                ],
            ),
        ] {
            let most = Value::from("10");
            let mut errors = Errors::new();
            self::policy(At::named("policy", Some(&policy)), At::named("value", Some(&most)), &mut errors);
            let fields: Vec<_> = errors.iter().map(|error| error.field.to_string()).collect();
            assert_eq!(fields, expected, "{policy}");
        }
    }
}
