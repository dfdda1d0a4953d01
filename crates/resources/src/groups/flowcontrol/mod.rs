//! `flowcontrol.apiserver.k8s.io`: which requests are served first.

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
            .of("flowcontrol.v1.PriorityLevelConfigurationReference", "name"),
        number("MatchingPrecedence", "spec.matchingPrecedence")
            .of_kind("string")
            .of(spec, "matchingPrecedence"),
        field("DistinguisherMethod", "spec.distinguisherMethod.type", "<none>")
            .of(spec, "distinguisherMethod"),
        age(),
        text("MissingPL", |schema| {
            read::condition(schema, "Dangling")
                .map_or("?", |condition| read::text(condition, "status"))
                .to_owned()
        })
        .about("Whether the priority level that the schema names does not exist"),
    ]
}

fn level_columns() -> Vec<Column> {
    let limited = "flowcontrol.v1.LimitedPriorityLevelConfiguration";
    let queuing = "flowcontrol.v1.QueuingConfiguration";
    vec![
        name(),
        field("Type", "spec.type", "").of("flowcontrol.v1.PriorityLevelConfigurationSpec", "type"),
        setting("NominalConcurrencyShares", "spec.limited.nominalConcurrencyShares")
            .of(limited, "nominalConcurrencyShares"),
        setting("Queues", "spec.limited.limitResponse.queuing.queues").of(queuing, "queues"),
        setting("HandSize", "spec.limited.limitResponse.queuing.handSize").of(queuing, "handSize"),
        setting("QueueLengthLimit", "spec.limited.limitResponse.queuing.queueLengthLimit")
            .of(queuing, "queueLengthLimit"),
        age(),
    ]
}

/// A column of a number that a level may not have.
fn setting(title: &'static str, path: &'static str) -> Column {
    Column::new(title, move |level: &Value, _| match read::at(level, path) {
        Some(number @ Value::Number(_)) => number.clone(),
        _ => json!("<none>"),
    })
}
