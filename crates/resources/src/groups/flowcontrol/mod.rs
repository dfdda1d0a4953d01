//! `flowcontrol.apiserver.k8s.io`: API priority and fairness.

mod mandatory;
mod strategies;
mod validation;

use nave_machinery::Value;
use serde_json::json;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::def::KeptMetadata;
use crate::read;
use crate::table::{Column, age, field, name, number, text};

pub(crate) fn group() -> GroupBuilder {
    let kind = |kind, plural| {
        let status_only = KeptMetadata::ALL;
        resource(kind, plural).cluster().status().keeps_metadata(status_only).generation(&["spec"])
    };
    let resources = vec![
        kind("FlowSchema", "flowschemas").columns(schema_columns()).strategy(strategies::FlowSchemaStrategy),
        kind("PriorityLevelConfiguration", "prioritylevelconfigurations")
            .columns(level_columns())
            .strategy(strategies::PriorityLevelStrategy),
    ];
    declare("flowcontrol.apiserver.k8s.io", "io.k8s.api.flowcontrol", resources)
}

fn schema_columns() -> Vec<Column> {
    let spec = "flowcontrol.v1.FlowSchemaSpec";
    vec![
        name(),
        field("PriorityLevel", "spec.priorityLevelConfiguration.name", "")
            .described_by("flowcontrol.v1.PriorityLevelConfigurationReference", "name"),
        number("MatchingPrecedence", "spec.matchingPrecedence")
            .of_kind("string")
            .described_by(spec, "matchingPrecedence"),
        field("DistinguisherMethod", "spec.distinguisherMethod.type", "<none>")
            .described_by(spec, "distinguisherMethod"),
        age(),
        text("MissingPL", |schema| {
            read::condition(schema, "Dangling")
                .map_or("?", |condition| read::text(condition, "status"))
                .to_owned()
        })
        .about("True if the priority level of the schema does not exist"),
    ]
}

fn level_columns() -> Vec<Column> {
    let limited = "flowcontrol.v1.LimitedPriorityLevelConfiguration";
    let queuing = "flowcontrol.v1.QueuingConfiguration";
    vec![
        name(),
        field("Type", "spec.type", "").described_by("flowcontrol.v1.PriorityLevelConfigurationSpec", "type"),
        setting("NominalConcurrencyShares", "spec.limited.nominalConcurrencyShares")
            .described_by(limited, "nominalConcurrencyShares"),
        setting("Queues", "spec.limited.limitResponse.queuing.queues").described_by(queuing, "queues"),
        setting("HandSize", "spec.limited.limitResponse.queuing.handSize").described_by(queuing, "handSize"),
        setting("QueueLengthLimit", "spec.limited.limitResponse.queuing.queueLengthLimit")
            .described_by(queuing, "queueLengthLimit"),
        age(),
    ]
}

/// A column with an optional number.
fn setting(title: &'static str, path: &'static str) -> Column {
    Column::new(title, move |level: &Value, _| match read::value_at(level, path) {
        Some(number @ Value::Number(_)) => number.clone(),
        _ => json!("<none>"),
    })
}
