//! `apps`: long-running workloads.

mod columns;
mod defaults;
mod stateful_sets;
mod status;
mod strategies;
mod validation;

use crate::builder::{Builder, GroupBuilder, group as declare, resource};
use crate::def::{KeptMetadata, NameRule};
use crate::scale::ScalePaths;

pub(crate) fn group() -> GroupBuilder {
    let resources = vec![
        resource("ControllerRevision", "controllerrevisions")
            .columns(columns::controller_revision())
            .strategy(strategies::ControllerRevisionStrategy),
        workload("DaemonSet", "daemonsets")
            .short(&["ds"])
            .columns(columns::daemon_set())
            .strategy(strategies::DaemonSetStrategy),
        workload("Deployment", "deployments")
            .generation(&["spec", "metadata.annotations"])
            .keeps_metadata(KeptMetadata::LABELS)
            .short(&["deploy"])
            .scale(ScalePaths::workload())
            .columns(columns::deployment())
            .strategy(strategies::DeploymentStrategy),
        workload("ReplicaSet", "replicasets")
            .short(&["rs"])
            .scale(ScalePaths::workload())
            .columns(columns::replica_set())
            .strategy(strategies::ReplicaSetStrategy),
        workload("StatefulSet", "statefulsets")
            .short(&["sts"])
            .named(NameRule::Label)
            .scale(ScalePaths::workload())
            .columns(columns::stateful_set())
            .strategy(strategies::StatefulSetStrategy),
    ];
    declare("apps", "io.k8s.api.apps", resources)
}

fn workload(kind: &'static str, plural: &'static str) -> Builder {
    resource(kind, plural).categories(&["all"]).status().generation(&["spec"])
}
