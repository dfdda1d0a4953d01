//! `policy`: pod disruption budgets.

mod strategy;

use nave_machinery::Value;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::def::NameRule;
use crate::read;
use crate::table::{Column, age, name, number, text};

pub(crate) fn group() -> GroupBuilder {
    let budgets = resource("PodDisruptionBudget", "poddisruptionbudgets")
        .short(&["pdb"])
        .status()
        .generation(&["spec"])
        .conditional_update()
        .named(NameRule::PathSegment)
        .columns(columns())
        .strategy(strategy::BudgetStrategy);
    declare("policy", "io.k8s.api.policy", vec![budgets])
}

fn columns() -> Vec<Column> {
    vec![
        name(),
        text("Min Available", |budget| amount(budget, "spec.minAvailable"))
            .about("The number of pods that must stay available"),
        text("Max Unavailable", |budget| amount(budget, "spec.maxUnavailable"))
            .about("The number of pods that may be unavailable"),
        number("Allowed Disruptions", "status.disruptionsAllowed")
            .about("The number of disruptions that are currently allowed"),
        age(),
    ]
}

/// Returns the number or percentage at a path.
fn amount(budget: &Value, path: &str) -> String {
    match read::value_at(budget, path) {
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(percent)) => percent.clone(),
        _ => "N/A".to_owned(),
    }
}
