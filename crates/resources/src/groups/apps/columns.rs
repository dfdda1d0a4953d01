//! Table columns of workloads.

use nave_machinery::Value;

use crate::read;
use crate::table::{Column, age, containers, format_labels, name, number, selector, text};

const TEMPLATE: &str = "spec.template.spec.containers";

pub(super) fn controller_revision() -> Vec<Column> {
    vec![
        name(),
        text("Controller", controller).about("The workload that the revision belongs to"),
        number("Revision", "revision")
            .of_kind("string")
            .described_by("apps.v1.ControllerRevision", "revision"),
        age(),
    ]
}

/// Returns the controller of the object as `<kind>.<group>/<name>`.
fn controller(object: &Value) -> String {
    let mut owners = read::list(object, "metadata.ownerReferences").iter();
    let Some(owner) = owners.find(|owner| read::flag(owner, "controller")) else {
        return "<none>".to_owned();
    };
    let kind = read::text(owner, "kind").to_lowercase();
    let name = read::text(owner, "name");
    match read::text(owner, "apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

pub(super) fn daemon_set() -> Vec<Column> {
    let (spec, status) = ("apps.v1.DaemonSetSpec", "apps.v1.DaemonSetStatus");
    let [names, images] = containers(TEMPLATE);
    let nodes = text("Node Selector", |set| format_labels(read::map(set, "spec.template.spec.nodeSelector")));
    vec![
        name(),
        number("Desired", "status.desiredNumberScheduled").described_by(status, "desiredNumberScheduled"),
        number("Current", "status.currentNumberScheduled").described_by(status, "currentNumberScheduled"),
        number("Ready", "status.numberReady").described_by(status, "numberReady"),
        number("Up-to-date", "status.updatedNumberScheduled").described_by(status, "updatedNumberScheduled"),
        number("Available", "status.numberAvailable").described_by(status, "numberAvailable"),
        nodes.described_by("core.v1.PodSpec", "nodeSelector"),
        age(),
        names,
        images,
        selector("spec.selector", "<none>").described_by(spec, "selector"),
    ]
}

pub(super) fn deployment() -> Vec<Column> {
    let (spec, status) = ("apps.v1.DeploymentSpec", "apps.v1.DeploymentStatus");
    let [names, images] = containers(TEMPLATE);
    let as_text = |column: Column| column.of_kind("string");
    vec![
        name(),
        text("Ready", ready).about("The number of ready and desired replicas"),
        as_text(number("Up-to-date", "status.updatedReplicas")).described_by(status, "updatedReplicas"),
        as_text(number("Available", "status.availableReplicas")).described_by(status, "availableReplicas"),
        age(),
        names,
        images,
        selector("spec.selector", "").described_by(spec, "selector"),
    ]
}

pub(super) fn replica_set() -> Vec<Column> {
    let (spec, status) = ("apps.v1.ReplicaSetSpec", "apps.v1.ReplicaSetStatus");
    let [names, images] = containers(TEMPLATE);
    vec![
        name(),
        number("Desired", "spec.replicas").described_by(spec, "replicas"),
        number("Current", "status.replicas").described_by(status, "replicas"),
        number("Ready", "status.readyReplicas").described_by(status, "readyReplicas"),
        age(),
        names,
        images,
        selector("spec.selector", "<none>").described_by(spec, "selector"),
    ]
}

pub(super) fn stateful_set() -> Vec<Column> {
    let [names, images] = containers(TEMPLATE);
    let ready = text("Ready", ready).about("The number of ready and desired replicas");
    vec![name(), ready, age(), names, images]
}

fn ready(object: &Value) -> String {
    format!("{}/{}", read::int(object, "status.readyReplicas"), read::int(object, "spec.replicas"))
}
