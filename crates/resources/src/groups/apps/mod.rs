//! `apps`: workloads that run on.

mod columns;

use crate::builder::{Builder, GroupBuilder, group as declare, resource};
use crate::scale::ScalePaths;

pub(crate) fn group() -> GroupBuilder {
    let resources = vec![
        resource("ControllerRevision", "controllerrevisions").columns(columns::controller_revision()),
        workload("DaemonSet", "daemonsets").short(&["ds"]).columns(columns::daemon_set()),
        workload("Deployment", "deployments")
            .short(&["deploy"])
            .scale(ScalePaths::workload())
            .columns(columns::deployment()),
        workload("ReplicaSet", "replicasets")
            .short(&["rs"])
            .scale(ScalePaths::workload())
            .field_at("status.replicas", "status.replicas", "0")
            .columns(columns::replica_set()),
        workload("StatefulSet", "statefulsets")
            .short(&["sts"])
            .scale(ScalePaths::workload())
            .columns(columns::stateful_set()),
    ];
    declare("apps", "io.k8s.api.apps", resources)
}

fn workload(kind: &'static str, plural: &'static str) -> Builder {
    resource(kind, plural).categories(&["all"]).status().generation(&["spec"])
}
