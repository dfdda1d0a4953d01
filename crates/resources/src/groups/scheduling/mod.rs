//! `scheduling.k8s.io`: priority classes.

mod strategy;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::table::{Column, age, field, flag, name, number};

pub(crate) fn group() -> GroupBuilder {
    let classes = resource("PriorityClass", "priorityclasses")
        .cluster()
        .short(&["pc"])
        // The value is immutable, so the generation is always 1, as in upstream.
        .generation(&["value"])
        .columns(columns())
        .strategy(strategy::PriorityClassStrategy);
    declare("scheduling.k8s.io", "io.k8s.api.scheduling", vec![classes])
}

fn columns() -> Vec<Column> {
    let class = "scheduling.v1.PriorityClass";
    vec![
        name(),
        number("Value", "value").described_by(class, "value"),
        flag("Global-Default", "globalDefault", false).described_by(class, "globalDefault"),
        age(),
        field("PreemptionPolicy", "preemptionPolicy", "").described_by(class, "preemptionPolicy"),
    ]
}
