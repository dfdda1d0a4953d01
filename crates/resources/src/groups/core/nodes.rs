//! Nodes.

use std::collections::HashSet;

use nave_machinery::{Value, names};

use crate::defaults::object_at;
use crate::ip;
use crate::read;
use crate::resource_names;
use crate::strategy::Strategy;
use crate::table::{Column, age, field, name, text};
use crate::validate::{At, Errors, checked, one_of, required_text};

const FEATURE_MAX: usize = 253;
/// The number of errors above which the second check is skipped.
const MAX_ERRORS_FOR_SECOND_CHECK: usize = 64;

/// The strategy of nodes.
pub(super) struct NodeStrategy;

impl Strategy for NodeStrategy {
    fn default(&self, node: &mut Value, _version: &str) {
        default_pod_cidrs(node);
        let Some(status) = node.as_object_mut().and_then(|node| object_at(node, &["status"])) else { return };
        if !status.contains_key("allocatable")
            && let Some(capacity) = status.get("capacity").cloned()
        {
            status.insert("allocatable".to_owned(), capacity);
        }
    }

    fn prepare_for_create(&self, node: &mut Value) {
        drop_config(node, None);
    }

    fn prepare_for_update(&self, node: &mut Value, old: &Value) {
        drop_config(node, Some(old));
    }

    fn prepare_for_status_update(&self, node: &mut Value, old: &Value) {
        drop_config(node, Some(old));
    }

    fn validate(&self, node: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(node);
        let (metadata, spec) = (root.field("metadata"), root.field("spec"));
        taints(metadata.field("taints").with(spec.field("taints").value()), &mut errors);
        status(root.field("status"), &mut errors);
        pod_cidrs(spec.field("podCIDRs"), &mut errors);
        errors
    }

    /// Like upstream, runs the checks of a create and of an update, so some errors appear twice.
    fn validate_update(&self, node: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(node);
        if errors.len() <= MAX_ERRORS_FOR_SECOND_CHECK {
            errors.extend(validate_changes(node, old));
        }
        errors
    }

    fn validate_status_update(&self, node: &Value, old: &Value) -> Errors {
        validate_changes(node, old)
    }

    fn warnings(&self, node: &Value, _old: Option<&Value>) -> Vec<String> {
        let root = At::root(node);
        let spec = root.field("spec");
        let mut warnings = Vec::new();
        if spec.field("configSource").is_set() {
            warnings.push("spec.configSource: the feature is removed".to_owned());
        }
        if !spec.field("externalID").text().is_empty() {
            let warning = "spec.externalID: this field is deprecated, and is unused by Kubernetes";
            warnings.push(warning.to_owned());
        }
        warnings.extend(spec.field("podCIDRs").items().filter_map(ip::cidr_warning));
        warnings
    }
}

/// Drops the removed field for kubelet configuration unless the stored node has it.
fn drop_config(node: &mut Value, old: Option<&Value>) {
    for (part, field) in [("spec", "configSource"), ("status", "config")] {
        let is_stored = old.and_then(|old| old.get(part)?.get(field)).is_some();
        if let Some(part) = node.get_mut(part).and_then(Value::as_object_mut).filter(|_| !is_stored) {
            part.remove(field);
        }
    }
}

fn validate_changes(node: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (root, old) = (At::root(node), At::root(old));
    let (metadata, spec, old_spec) = (root.field("metadata"), root.field("spec"), old.field("spec"));
    let state = root.field("status");
    status(state, &mut errors);
    let mut seen = HashSet::new();
    for address in state.field("addresses").items() {
        if !seen.insert((address.field("type").text(), address.field("address").text())) {
            errors.push(address.duplicate());
        }
    }
    let (ranges, before) = (spec.field("podCIDRs"), old_spec.field("podCIDRs"));
    let fixed = "node updates may not change podCIDR except from \"\" to valid";
    if before.len() > 0 && ranges.len() != before.len() {
        errors.push(ranges.forbidden(fixed));
    } else if before.len() > 0 {
        let differ = ranges.items().zip(before.items()).filter(|(now, before)| now.text() != before.text());
        errors.extend(differ.map(|_| ranges.forbidden(fixed)));
    }
    let (id, before) = (spec.field("providerID"), old_spec.field("providerID").text());
    if !before.is_empty() && id.text() != before {
        errors.push(id.forbidden("node updates may not change providerID except from \"\" to valid"));
    }
    taints(metadata.field("taints").with(spec.field("taints").value()), &mut errors);
    if spec.field("externalID").text() != old_spec.field("externalID").text() {
        errors.push(spec.field("externalID").forbidden("may not be updated"));
    }
    errors
}

/// Checks that taints are unique by key and effect. Upstream reports them under `metadata`.
fn taints(taints: At, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for taint in taints.items() {
        let (key, value, effect) = (taint.field("key"), taint.field("value"), taint.field("effect"));
        checked(key, names::is_qualified_name, errors);
        let found = names::is_valid_label_value(value.text());
        if !found.is_empty() {
            errors.push(value.invalid(found.join(";")));
        }
        if required_text(effect, errors) {
            one_of(effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
        }
        if !seen.insert((key.text(), effect.text())) {
            errors.push(taint.duplicate());
        }
    }
}

/// Checks quantities, and that declared features are sorted.
fn status(status: At, errors: &mut Errors) {
    for list in ["capacity", "allocatable"] {
        let list = status.field(list);
        for (name, value) in list.entries() {
            // In upstream's path, the resource is a field (`capacity.<name>`), not a key.
            let before = errors.len();
            resource_names::amount(name, value, errors);
            let path = list.path().child(name);
            errors.iter_mut().skip(before).for_each(|error| error.field = path.clone());
        }
    }
    let mut last: Option<&str> = None;
    for feature in status.field("declaredFeatures").items() {
        let name = feature.text();
        if !is_feature(name) {
            errors.push(feature.invalid_text(invalid_feature(name)));
        }
        match last.map(|last| last.cmp(name)) {
            Some(std::cmp::Ordering::Equal) => errors.push(feature.duplicate()),
            Some(std::cmp::Ordering::Greater) => {
                errors.push(feature.invalid_text("list must be sorted alphabetically"));
            }
            _ => {}
        }
        last = Some(name);
    }
}

fn invalid_feature(name: &str) -> String {
    let why = if name.len() > FEATURE_MAX {
        format!("must be no more than {FEATURE_MAX} characters")
    } else {
        "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes".to_owned()
    };
    format!("invalid feature name {name:?}: {why}")
}

fn is_feature(name: &str) -> bool {
    let is_segment = |segment: &str| {
        segment.starts_with(|c: char| c.is_ascii_alphabetic())
            && segment.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    name.len() <= FEATURE_MAX
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.split('/').all(is_segment)
}

/// Synchronizes `podCIDR` with the first item of `podCIDRs`. If they differ, `podCIDR` replaces the list.
fn default_pod_cidrs(node: &mut Value) {
    let Some(spec) = node.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let first = spec.get("podCIDRs").and_then(|ranges| ranges.get(0)).cloned();
    let one =
        spec.get("podCIDR").filter(|range| range.as_str().is_some_and(|range| !range.is_empty())).cloned();
    match (first, one) {
        (first, Some(range)) if first.as_ref() != Some(&range) => {
            spec.insert("podCIDRs".to_owned(), Value::Array(vec![range]));
        }
        (Some(range), None) => {
            spec.insert("podCIDR".to_owned(), range);
        }
        _ => {}
    }
}

/// Checks the pod CIDRs of a node: at most one per family.
fn pod_cidrs(list: At, errors: &mut Errors) {
    for range in list.items().filter(|range| !ip::is_cidr(range.text())) {
        let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(range.invalid_text(why));
    }
    let ipv6 = list.items().filter(|range| range.text().contains(':')).count();
    if list.len() > 2 || (list.len() == 2 && ipv6 != 1) {
        errors.push(list.invalid("may specify no more than one CIDR for each IP family"));
    }
}

pub(super) fn columns() -> Vec<Column> {
    let info =
        |title, path, own| field(title, path, "<unknown>").wide().described_by("core.v1.NodeSystemInfo", own);
    vec![
        name(),
        text("Status", state).about("The readiness of the node, and whether it accepts new pods"),
        text("Roles", roles).about("The roles in the node's labels"),
        age(),
        field("Version", "status.nodeInfo.kubeletVersion", "")
            .described_by("core.v1.NodeSystemInfo", "kubeletVersion"),
        text("Internal-IP", |node| address(node, "InternalIP"))
            .wide()
            .described_by("core.v1.NodeStatus", "addresses"),
        text("External-IP", |node| address(node, "ExternalIP"))
            .wide()
            .described_by("core.v1.NodeStatus", "addresses"),
        info("OS-Image", "status.nodeInfo.osImage", "osImage"),
        info("Kernel-Version", "status.nodeInfo.kernelVersion", "kernelVersion"),
        info("Container-Runtime", "status.nodeInfo.containerRuntimeVersion", "containerRuntimeVersion"),
    ]
}

fn state(node: &Value) -> String {
    let ready = match read::condition(node, "Ready") {
        None => "Unknown",
        Some(condition) if read::text(condition, "status") == "True" => "Ready",
        Some(_) => "NotReady",
    };
    let cordoned = if read::flag(node, "spec.unschedulable") { ",SchedulingDisabled" } else { "" };
    format!("{ready}{cordoned}")
}

/// Returns the roles in the labels `node-role.kubernetes.io/<role>` and `kubernetes.io/role=<role>`.
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

    fn fields(errors: &Errors) -> Vec<String> {
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn pod_cidr_is_the_first_of_pod_cidrs() {
        let (one, list) = (json!({"podCIDR": "10.0.0.0/24"}), json!({"podCIDRs": ["10.0.0.0/24"]}));
        let both = json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]});
        let other = json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.1.0/24", "fd00::/64"]});
        let cases =
            [(one, &both), (list, &both), (other, &both), (both.clone(), &both), (json!({}), &json!({}))];
        for (spec, expected) in cases {
            let mut node = json!({"spec": spec});
            NodeStrategy.default(&mut node, "v1");
            assert_eq!(node["spec"], *expected);
        }
    }

    #[test]
    fn rejects_invalid_nodes() {
        for (node, expected) in [
            (
                json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}]}}),
                &[][..],
            ),
            (
                json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]}}),
                &["metadata.taints[1]"],
            ),
            (
                json!({"spec": {"taints": [{"key": "a b", "value": "_", "effect": "X"}]}}),
                &["metadata.taints[0].key", "metadata.taints[0].value", "metadata.taints[0].effect"],
            ),
            (json!({"spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}}), &["spec.podCIDRs"]),
            (json!({"spec": {"podCIDRs": ["10.0.0.1/24"]}}), &["spec.podCIDRs[0]"]),
            (json!({"status": {"capacity": {"pods": "1500m"}}}), &["status.capacity.pods"]),
            (
                json!({"status": {"declaredFeatures": ["B", "A", "a"]}}),
                &["status.declaredFeatures[1]", "status.declaredFeatures[2]"],
            ),
        ] {
            assert_eq!(fields(&NodeStrategy.validate(&node)), expected, "{node}");
        }
    }

    #[test]
    fn explains_invalid_features() {
        assert!(invalid_feature("a").contains("must start with an UpperCamelCase segment"));
        let long = "A".repeat(FEATURE_MAX + 1);
        assert!(
            !is_feature(&long) && invalid_feature(&long).ends_with("must be no more than 253 characters")
        );
    }

    #[test]
    fn pod_cidrs_and_provider_id_are_immutable() {
        let node = |spec: Value| json!({"spec": spec});
        for (new, old, expected) in [
            (json!({"podCIDRs": ["10.0.0.0/24"]}), json!({}), &[][..]),
            (json!({"podCIDRs": ["10.0.1.0/24"]}), json!({"podCIDRs": ["10.0.0.0/24"]}), &["spec.podCIDRs"]),
            (json!({}), json!({"podCIDRs": ["10.0.0.0/24"]}), &["spec.podCIDRs"]),
            (json!({"providerID": "b"}), json!({"providerID": "a"}), &["spec.providerID"]),
            (json!({"unschedulable": true}), json!({}), &[]),
        ] {
            let errors = NodeStrategy.validate_update(&node(new.clone()), &node(old));
            assert_eq!(fields(&errors), expected, "{new}");
        }
        let twice = json!({"spec": {"taints": [{"key": "a", "effect": "X"}]}});
        assert_eq!(NodeStrategy.validate_update(&twice, &json!({})).len(), 2);
        let addresses =
            json!({"status": {"addresses": [{"type": "A", "address": "b"}, {"type": "A", "address": "b"}]}});
        assert_eq!(
            fields(&NodeStrategy.validate_status_update(&addresses, &json!({}))),
            ["status.addresses[1]"]
        );
    }

    #[test]
    fn drops_and_warns_about_kubelet_configuration() {
        let mut node = json!({"spec": {"configSource": {}, "externalID": "x"}, "status": {"config": {}}});
        assert_eq!(NodeStrategy.warnings(&node, None).len(), 2);
        NodeStrategy.prepare_for_create(&mut node);
        assert_eq!(node, json!({"spec": {"externalID": "x"}, "status": {}}));
    }
}
