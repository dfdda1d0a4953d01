//! Nodes.

use nave_machinery::Value;

use crate::defaults::at;
use crate::read;
use crate::strategy::Strategy;
use crate::table::{Column, age, field, name, text};

/// What is particular to nodes.
pub(super) struct NodeStrategy;

impl Strategy for NodeStrategy {
    fn default(&self, node: &mut Value, _version: &str) {
        let Some(status) = node.as_object_mut().and_then(|node| at(node, &["status"])) else { return };
        if !status.contains_key("allocatable")
            && let Some(capacity) = status.get("capacity").cloned()
        {
            status.insert("allocatable".to_owned(), capacity);
        }
    }
}

pub(super) fn columns() -> Vec<Column> {
    let info = |title, path, own| field(title, path, "<unknown>").wide().of("core.v1.NodeSystemInfo", own);
    vec![
        name(),
        text("Status", status).about("Whether the node is ready, and whether pods may be placed on it"),
        text("Roles", roles).about("The roles of the node, from its labels"),
        age(),
        field("Version", "status.nodeInfo.kubeletVersion", "").of("core.v1.NodeSystemInfo", "kubeletVersion"),
        text("Internal-IP", |node| address(node, "InternalIP")).wide().of("core.v1.NodeStatus", "addresses"),
        text("External-IP", |node| address(node, "ExternalIP")).wide().of("core.v1.NodeStatus", "addresses"),
        info("OS-Image", "status.nodeInfo.osImage", "osImage"),
        info("Kernel-Version", "status.nodeInfo.kernelVersion", "kernelVersion"),
        info("Container-Runtime", "status.nodeInfo.containerRuntimeVersion", "containerRuntimeVersion"),
    ]
}

fn status(node: &Value) -> String {
    let ready = match read::condition(node, "Ready") {
        None => "Unknown",
        Some(condition) if read::text(condition, "status") == "True" => "Ready",
        Some(_) => "NotReady",
    };
    let cordoned = if read::flag(node, "spec.unschedulable") { ",SchedulingDisabled" } else { "" };
    format!("{ready}{cordoned}")
}

/// The roles named by labels `node-role.kubernetes.io/<role>` and `kubernetes.io/role=<role>`.
fn roles(node: &Value) -> String {
    let labels = read::map(node, "metadata.labels").into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn address(node: &Value, kind: &str) -> String {
    let mut addresses = read::list(node, "status.addresses").iter();
    let found = addresses.find(|address| read::text(address, "type") == kind);
    found.map_or("<none>", |address| read::text(address, "address")).to_owned()
}
