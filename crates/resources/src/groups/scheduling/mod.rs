//! `scheduling.k8s.io`: which pods go first.

mod strategy;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::table::{Column, age, field, flag, name, number};

pub(crate) fn group() -> GroupBuilder {
    let classes = resource("PriorityClass", "priorityclasses")
        .cluster()
        .short(&["pc"])
        // The value never changes, so the generation stays at 1, as upstream sets it.
        .generation(&["value"])
        .columns(columns())
        .strategy(strategy::PriorityClassStrategy);
    declare("scheduling.k8s.io", "io.k8s.api.scheduling", vec![classes])
}

fn columns() -> Vec<Column> {
    let class = "scheduling.v1.PriorityClass";
    vec![
        name(),
        number("Value", "value").of(class, "value"),
        flag("Global-Default", "globalDefault", false).of(class, "globalDefault"),
        age(),
        field("PreemptionPolicy", "preemptionPolicy", "").of(class, "preemptionPolicy"),
    ]
}
