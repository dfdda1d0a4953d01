//! Nodes.

use std::collections::HashSet;

use nave_machinery::{Value, names};

use crate::defaults::at;
use crate::read;
use crate::strategy::Strategy;
use crate::table::{Column, age, field, name, text};
use crate::validate::{At, Errors, checked, one_of, required_checked, required_text};

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

    fn validate(&self, node: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(node);
        let spec = root.field("spec");
        taints(spec.field("taints"), &mut errors);
        errors
    }

    fn validate_update(&self, node: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(node);
        let (root, old) = (At::root(node), At::root(old));
        let (spec, old) = (root.field("spec"), old.field("spec"));
        for field in ["podCIDR", "podCIDRs", "providerID"] {
            let (now, before) = (spec.field(field), old.field(field));
            if before.len() + before.text().len() > 0 && now.value() != before.value() {
                let why = format!("node updates may not change {field} except from \"\" to valid");
                errors.push(now.forbidden(why));
            }
        }
        errors
    }
}

/// Taints are known by key and effect.
fn taints(taints: At, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for taint in taints.items() {
        let (key, effect) = (taint.field("key"), taint.field("effect"));
        required_checked(key, names::is_qualified_name, errors);
        checked(taint.field("value"), names::is_valid_label_value, errors);
        if required_text(effect, errors) {
            one_of(effect, &["NoExecute", "NoSchedule", "PreferNoSchedule"], errors);
        }
        if !seen.insert((key.text(), effect.text())) {
            errors.push(taint.duplicate());
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn taints_are_told_apart_and_addresses_stay() {
        let node = |cidr: &str| {
            json!({"spec": {"podCIDR": cidr, "taints": [
                {"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}
            ]}})
        };
        let shown = |errors: Errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(NodeStrategy.validate_update(&node("10.0.0.0/24"), &node(""))), [""; 0]);
        assert_eq!(
            shown(NodeStrategy.validate_update(&node("10.0.1.0/24"), &node("10.0.0.0/24"))),
            [r#"spec.podCIDR: Forbidden: node updates may not change podCIDR except from "" to valid"#]
        );
        let twice =
            json!({"spec": {"taints": [{"key": "a b", "effect": "X"}, {"key": "a b", "effect": "X"}]}});
        assert_eq!(NodeStrategy.validate(&twice).len(), 5);
    }
}
